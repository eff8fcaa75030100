"""What the use cases of config_svc need of the world."""
