"""config_svc: stores agent configs in PostgreSQL."""
