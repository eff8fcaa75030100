"""Providers: upstreams that serve models over HTTP."""
