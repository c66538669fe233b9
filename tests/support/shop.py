"""A tenant under test: its YAML as a mapping, loads of it, and what its warehouse then holds."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sqla

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import connect
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest, StreamReport
from fabric_assets.settings import Settings


class Tenant:
    """A tenant with one source.

    Args:
        source: its block of the YAML.
        warehouse: URL of a Postgres; None for DuckDB.
        checks: the block of the YAML.
        messages: what the loads reported.
    """

    def __init__(self, settings: Settings, source: dict[str, Any], *, warehouse: str | None = None, name: str = "acme", source_name: str = "shop") -> None:
        self.settings, self.source, self.warehouse, self.name, self.source_name = settings, source, warehouse, name, source_name
        self.checks: dict[str, Any] = {}
        self.messages = list[str]()

    @property
    def config(self) -> TenantConfig:
        destination = build_destination(self.settings, self.name, self.warehouse)
        sources = {self.source_name: self.source} if self.source else {}
        return TenantConfig.model_validate({"version": 1, "tenant": self.name, "destination": destination, "sources": sources, "checks": self.checks})

    def load(self, *streams: str, full_refresh: bool = False) -> dict[str, StreamReport]:
        request = LoadRequest(self.config, self.source_name, streams, self.settings, full_refresh)
        return {report.stream: report for report in run_load(request, report=self.messages.append)}

    def read(self, stream: str, *columns: str, order: str = "") -> list[tuple[Any, ...]]:
        """The rows of a raw table, sorted by the columns asked for."""
        listed = ", ".join(f'"{column}"' for column in columns)
        return self.ask(f'select {listed} from "{self.name}_raw_{self.source_name}"."{stream}" order by {order or listed}')

    def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last one."""
        with contextlib.closing(connect(self.config, self.settings, read_only=True)) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def change(self, sql: str) -> None:
        """Change the warehouse behind the loads' back."""
        with contextlib.closing(connect(self.config, self.settings)) as connection:
            connection.cursor().execute(sql)
            connection.commit()


class SourceDatabase:
    """A database to load from; `url` as a tenant writes it."""

    def __init__(self, url: str, settings: Settings, *, schema: str | None = None) -> None:
        self.url, self._engine = url, sqla.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"), poolclass=sqla.pool.NullPool)
        write_secret_file(settings, "shop_url", url)

    def run(self, *statements: str) -> None:
        with self._engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def fill(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        marks = ", ".join(f":c{index}" for index in range(len(rows[0])))
        with self._engine.begin() as connection:
            connection.execute(sqla.text(f"insert into {table} values ({marks})"), [{f"c{index}": value for index, value in enumerate(row)} for row in rows])

    def build_source(self, **streams: dict[str, Any]) -> dict[str, Any]:
        return {"type": "sql_database", "url": {"file": "shop_url"}, "streams": streams}


def build_destination(settings: Settings, tenant: str, url: str | None) -> dict[str, Any]:
    """The `destination:` block of a Postgres, whose URL is put into a file; of a DuckDB file for None."""
    if url is None:
        return {"type": "duckdb"}
    write_secret_file(settings, f"{tenant}_warehouse", url)
    return {"type": "postgres", "url": {"file": f"{tenant}_warehouse"}}


def write_secret_file(settings: Settings, name: str, value: str) -> None:
    path = settings.data_dir / name
    path.write_text(value)
    path.chmod(0o600)


def build_sqlite_url(folder: Path) -> str:
    path = folder / "shop.sqlite"
    path.touch()
    return f"sqlite:///{path}"
