"""Alembic migrations: each one is safe while the previous version of the service still runs."""
