"""Clients: config_svc and session_svc as the gateway sees them. Protobuf stops here."""
