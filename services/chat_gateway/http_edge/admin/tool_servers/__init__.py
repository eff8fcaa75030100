"""Routes of tool servers and their revisions."""
