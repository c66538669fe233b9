"""Fixtures of the drivers' tests."""

from tests.support.databases import database, sqlite, warehouse

__all__ = ["database", "sqlite", "warehouse"]
