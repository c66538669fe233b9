"""A tenant with a stream of every write disposition, whose rows the test knows: what faults are done to.

    orders   merge, with a cursor       stores   replace
    events   append, with a cursor      tickets  append of files

`add_day` changes the source; `count` says what the warehouse lost, doubled, made up or mixed up.
"""

import contextlib
import csv
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sqla

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import connect
from fabric_assets.errors import DestinationError
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest, StreamReport
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.provisioning import provision
from fabric_assets.security.roles.server import open_server
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import build_entitlements, get_server_login
from tests.faults.oracle import Counts, Row, add, count_rows
from tests.faults.processes import Case
from tests.support.shop import write_secret_file

TABLES: dict[str, dict[str, Any]] = {
    "orders": {"primary_key": "id", "cursor": {"field": "seq"}},
    "stores": {"primary_key": "id", "write_disposition": "replace"},
    "events": {"write_disposition": "append", "cursor": {"field": "id"}},
}
STREAMS = dict.fromkeys(TABLES, "shop") | {"tickets": "desk"}


class World:
    """Args:
    warehouse: URL of a Postgres; None for DuckDB.
    shop_url: of the database that is read; default a SQLite file.
    managed: connect to the Postgres as the tenant's own role, which `provision` makes.
    options: more keys of the source `shop`.
    """

    def __init__(
        self,
        settings: Settings,
        warehouse: str | None = None,
        *,
        name: str = "acme",
        shop_url: str | None = None,
        size: int = 100,
        managed: bool = False,
        **options: Any,
    ) -> None:
        self.settings, self.name, self.size, self.managed, self.options = settings, name, size, managed, options
        self._url = shop_url or f"sqlite:///{settings.data_dir / f'{name}.sqlite'}"
        self._engine = sqla.create_engine(self._url.replace("postgresql://", "postgresql+psycopg2://"), poolclass=sqla.pool.NullPool)
        self._inbox = settings.data_dir / f"{name}_desk"
        self._inbox.mkdir()
        self._day = self._seq = 0
        self.rows: dict[str, dict[int, Row]] = {stream: {} for stream in STREAMS}
        self.set_shop_url(self._url)
        self.set_warehouse(warehouse)
        self.run(
            "create table orders (id integer primary key, owner varchar(40), note text, seq integer)",
            "create table stores (id integer primary key, owner varchar(40), note text)",
            "create table events (id integer, owner varchar(40), note text)",
        )

    # --- the tenant

    def set_shop_url(self, url: str) -> None:
        """Where loads from now on read from, e.g. through a proxy."""
        write_secret_file(self.settings, f"{self.name}_shop", url)

    def set_warehouse(self, url: str | None) -> None:
        """Where loads from now on write to; the test itself looks past any proxy by the first one."""
        self.warehouse = url
        if url:
            write_secret_file(self.settings, f"{self.name}_warehouse", url)

    @property
    def yaml(self) -> dict[str, Any]:
        destination: dict[str, Any] = {"type": "postgres", "url": {"file": f"{self.name}_warehouse"}} if self.warehouse else {"type": "duckdb"}
        destination |= {"managed": True} if self.managed else {}
        shop = {"type": "sql_database", "url": {"file": f"{self.name}_shop"}, "retries": {"max": 0}, "streams": TABLES, **self.options}
        desk = {"type": "files", "path": self._inbox.name, "retries": {"max": 0}, "streams": {"tickets": {"glob": "*.csv", "format": "csv"}}}
        return {"version": 1, "tenant": self.name, "destination": destination, "sources": {"shop": shop, "desk": desk}}

    # --- the source

    def run(self, *statements: str) -> None:
        with self._engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def add_day(self) -> None:
        """New rows everywhere, changed orders and stores, a new file and a changed one."""
        self._day += 1
        first = self._day * self.size
        numbers = range(first, first + self.size)
        changed = list(self.rows["orders"])[:: max(len(self.rows["orders"]) // 10, 1)]
        self._put("orders", [*changed, *numbers], with_seq=True)
        self._put("events", numbers)
        self.rows["stores"] = {}
        self.run("delete from stores")
        self._put("stores", range(self._day, self._day + self.size))
        for day in sorted({self._day, max(self._day - 1, 1)}):
            self._write_file(day)

    def _put(self, table: str, numbers: Sequence[int], *, with_seq: bool = False) -> None:
        marks = ", ".join(str(number) for number in numbers)
        rows = []
        for number in numbers:
            self._seq += 1
            self.rows[table][number] = row = (number, self.name, f"{table} {number} of day {self._day}")
            rows.append(dict(zip("ion", row, strict=True)) | ({"s": self._seq} if with_seq else {}))
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"delete from {table} where id in ({marks})")
            connection.execute(sqla.text(f"insert into {table} values (:i, :o, :n{', :s' if with_seq else ''})"), rows)

    def _write_file(self, day: int) -> None:
        numbers = range(day * self.size, (day + 1) * self.size)
        self.rows["tickets"] |= {number: (number, self.name, f"ticket {number} as of day {self._day}") for number in numbers}
        with (self._inbox / f"day_{day}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "owner", "note"))
            writer.writerows(self.rows["tickets"][number] for number in numbers)

    # --- loads

    def load(self, source: str = "shop", *streams: str, full_refresh: bool = False) -> dict[str, StreamReport]:
        """Load in this process, whole; any failure is raised."""
        request = LoadRequest(TenantConfig.model_validate(self.yaml), source, streams, self.settings, full_refresh)
        return {report.stream: report for report in run_load(request)}

    def load_all(self) -> None:
        self.load("shop")
        self.load("desk")

    def build_case(self, source: str = "shop", *streams: str, **faults: Any) -> Case:
        paths = {name: str(getattr(self.settings, name)) for name in ("tenants_dir", "dbt_project_dir", "data_dir")}
        return Case(settings=paths, loads=({"tenant": self.yaml, "source": source, "streams": streams},), keys=self.settings.secret_keys, **faults)

    # --- the warehouse

    def ask(self, sql: str) -> list[Row]:
        with contextlib.closing(connect(TenantConfig.model_validate(self.yaml), self.settings, read_only=True)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return list(cursor.fetchall())

    def read(self, stream: str) -> list[Row]:
        """The stream's rows in the warehouse; none where nothing was ever loaded."""
        dataset = naming.raw_dataset(self.name, STREAMS[stream])
        try:
            if not self.ask(f"select 1 from information_schema.tables where table_schema = '{dataset}' and table_name = '{stream}'"):
                return []
        except DestinationError:
            return []
        return self.ask(f'select id, owner, note from "{dataset}"."{stream}"')

    def get_rows(self) -> dict[str, list[Row]]:
        """What the source holds now, per stream."""
        return {stream: list(rows.values()) for stream, rows in self.rows.items()}

    def count(self, *streams: str, expected: dict[str, list[Row]] | None = None) -> Counts:
        """Args:
        streams: default all.
        expected: default what the source holds now.
        """
        wanted = expected or self.get_rows()
        return add(count_rows(wanted[stream], self.read(stream), owner=self.name) for stream in streams or STREAMS)


def provision_all(worlds: Sequence[World], admin_url: str) -> None:
    """Make the roles and schemas of managed worlds, as `fabric provision` does."""
    tenants = [TenantConfig.model_validate(world.yaml) for world in worlds]
    settings = worlds[0].settings
    with open_server(get_server_login(tenants[0], settings, {"FABRIC_PROVISION_URL": admin_url})) as server:
        provision(server, [build_entitlements(tenant, None, settings) for tenant in tenants], Logins(settings))
