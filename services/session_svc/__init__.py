"""session_svc: stores sessions and runs the turn protocol."""
