"""HTTP itself: the server, heads, bodies, errors."""
