"""A2A: what its three bindings (gRPC, JSON-RPC, REST) have in common. Loaded with the first call, not at the start.

A task is a turn, a context its session; nothing here has a store of its own.
"""
