"""Routes of sessions and of what is kept of users."""
