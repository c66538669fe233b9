"""The kinds of destinations."""

import contextlib
from typing import Any

import duckdb
import psycopg2

from fabric_assets import naming
from tests.contract.source import Destination

PASSWORD = "c4n4ry-of-the-warehouse"


class DuckDb(Destination):
    """The tenant's own file."""

    type = "duckdb"

    def build(self) -> dict[str, Any]:
        return {"type": "duckdb"}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        file = naming.warehouse_file(self.settings.data_dir, "acme")
        if not file.exists():
            return []
        with duckdb.connect(str(file), read_only=True) as connection:
            return connection.execute(sql).fetchall()


class Postgres(Destination):
    """A database of a server."""

    type = "postgres"

    def prepare(self) -> None:
        self.secret, self._url = PASSWORD, self.get_fixture("make_database")()
        self.environ("CONTRACT_WAREHOUSE", self._url.replace("postgres:postgres@", f"postgres:{PASSWORD}@"))

    def build(self) -> dict[str, Any]:
        return {"type": "postgres", "url": {"env": "CONTRACT_WAREHOUSE"}}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
