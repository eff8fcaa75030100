"""The domain of config_svc: agent configs, templates, their rules and their changes. Knows no wire and no database."""
