"""A DuckDB file to load from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, write_secret_file


class DuckSource(SourceDatabase):
    """SQLAlchemy has no dialect of it here; each change is made over a connection of its own, as only one process may write."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.url, self._path = f"duckdb:///{path}", str(path)
        duckdb.connect(self._path).close()
        write_secret_file(settings, "shop_url", self.url)

    def run(self, *statements: str) -> None:
        with duckdb.connect(self._path) as connection:
            connection.execute("set timezone = 'UTC'")
            for statement in statements:
                connection.execute(statement)

    def fill(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        with duckdb.connect(self._path) as connection:
            connection.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", [list(row) for row in rows])
