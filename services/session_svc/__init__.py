"""session_svc: what was said, until its time runs out."""
