"""Clients of config_svc."""
