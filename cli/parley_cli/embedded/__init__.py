"""Real servers from wheels (PostgreSQL, Valkey, a small language model), run as children on the loopback interface."""
