"""config_svc: what agents are, kept in PostgreSQL until deleted."""
