"""Routes of projects, API keys and the audit log."""
