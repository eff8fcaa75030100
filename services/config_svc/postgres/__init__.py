"""The stores of config_svc on PostgreSQL."""
