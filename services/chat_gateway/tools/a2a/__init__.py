"""Tool servers that are agents elsewhere, by A2A."""
