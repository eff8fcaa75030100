"""Use cases of agent configs, templates and providers."""
