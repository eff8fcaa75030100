"""Tool servers that are remote A2A agents."""
