"""The suite. `make test` runs it, `make test-fast` what needs no servers."""

import os

# Servers are stopped under calls here, on purpose and all the time; gRPC's core writes an error for each.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
