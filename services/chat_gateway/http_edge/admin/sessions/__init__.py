"""Routes of sessions and users."""
