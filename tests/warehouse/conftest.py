"""Fixtures of the warehouse' tests."""

from tests.support.databases import database, mariadb, postgres, sqlite, warehouse

__all__ = ["database", "mariadb", "postgres", "sqlite", "warehouse"]
