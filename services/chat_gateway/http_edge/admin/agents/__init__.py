"""Routes of agent configs and their revisions."""
