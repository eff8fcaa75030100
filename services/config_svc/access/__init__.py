"""Use cases of projects and API keys."""
