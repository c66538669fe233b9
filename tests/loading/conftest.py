"""Fixtures of the loads' tests."""

from tests.support.databases import database, mariadb, postgres, sqlite, warehouse
from tests.support.folders import exports as inbox

__all__ = ["database", "inbox", "mariadb", "postgres", "sqlite", "warehouse"]
