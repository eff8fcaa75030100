"""The schema's history, run by `python -m config_svc migrate` (Alembic). Expand first, contract a release later."""
