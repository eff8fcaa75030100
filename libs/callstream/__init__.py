"""Calls of unary methods over a few long-lived streams, at a fraction of the cost of one RPC per call.

Calls made in one iteration of the event loop are sent in one message, and responses are returned as they become ready.
Such a service has an additional RPC, from a stream of requests to a stream of responses, whose messages have the fields
described in `callstream.protocol`; `callstream.client` and `callstream.server` are its two ends.
"""
