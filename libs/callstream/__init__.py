"""Calls of unary methods over a few long-lived streams, which is a fraction of the work of an RPC for each call.

What is called within one turn of the event loop goes out in one message, and answers come back as they are ready. A
service whose methods are called so has one more RPC, from a stream of requests to a stream of responses, whose
messages have the fields that `callstream.protocol` names; `callstream.client` and `callstream.server` are its ends.
"""
