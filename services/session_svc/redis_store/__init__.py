"""The stores of sessions, turns, limits and agents on Redis."""
