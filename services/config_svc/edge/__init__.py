"""The servicers of config_svc and their conversions."""
