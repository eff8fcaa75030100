"""What session_svc asks config_svc."""
