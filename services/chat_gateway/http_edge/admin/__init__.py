"""Parley's own HTTP API, by resource."""
