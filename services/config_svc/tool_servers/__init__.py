"""Tool servers: what can be done with them, and what agent configs say of them."""
