"""What all three services need and no domain word: settings, lifecycle, server, channels, errors, logs, metrics."""

import os

# gRPC's core writes to stderr in its own format, a line for every peer that disconnects; it reads this once, when
# `grpc` is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
