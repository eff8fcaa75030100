"""Agents: the runtime objects that turns run on, and the cache that holds them."""
