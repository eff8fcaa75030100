"""The `parley` command: the whole system on this machine, and a client of its HTTP API."""
