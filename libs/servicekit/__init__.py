"""Domain-free parts of all services: settings, lifecycle, server, channels, errors, logs, metrics."""

import os

# gRPC's core logs every peer that disconnects to stderr, in its own format. It reads this variable once, on the first
# import of `grpc`.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
