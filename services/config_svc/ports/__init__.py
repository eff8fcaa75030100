"""The ports of config_svc's use cases."""
