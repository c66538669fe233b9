"""A tenant's Postgres database -> sessions: ADBC connections, which write Arrow data by binary COPY and run the SQL around it."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from fabric_assets.drivers.outages import is_outage
from fabric_assets.drivers.postgres_destination import Postgres, describe_postgres, get_missing_schema_remedy
from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.quoting import quote, quote_all, quote_text
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.warehouse import leftovers_sql
from fabric_assets.warehouse.planted_sql import POSTGRES
from fabric_assets.warehouse.postgres_arrow import encode_json, unwrap
from fabric_assets.warehouse.postgres_connection import build_conninfo, connect
from fabric_assets.warehouse.postgres_lease import get_lease_table
from fabric_assets.warehouse.session import Columns, KeyConflict, Session, Table, WriteConflict

_NAMES = {
    BOOL: "boolean",
    BIGINT: "bigint",
    DOUBLE: "double precision",
    TEXT: "character varying",
    JSON: "jsonb",
    BINARY: "bytea",
    DATE: "date",
    TIME: "time without time zone",
    TIMESTAMP: "timestamp without time zone",
    TIMESTAMP_UTC: "timestamp with time zone",
}
_KINDS = {name: kind for kind, name in _NAMES.items()} | {
    "text": TEXT,
    "json": JSON,
    "integer": BIGINT,
    "smallint": BIGINT,
    "real": DOUBLE,
}
_MAX_COLUMNS, _MAX_NAME = 1_600, 63
_PIECE_BYTES = 128 * 1024
_SERIALIZATION_FAILURE, _DEADLOCK, _LOCKED, _UNIQUE = "40001", "40P01", "55P03", "23505"
_TOO_MANY_COLUMNS, _TOO_LONG, _NOT_ALLOWED = "54011", "54000", "42501"


@contextmanager
def open_sessions(destination: Postgres, *, program: str = "fabric") -> Iterator[Callable[[], Session]]:
    """Yield the function that opens a session."""
    tenant, conninfo = destination.tenant, build_conninfo(destination, program=program)
    leases = get_lease_table(tenant.tenant)
    yield lambda: PostgresSession(connect(tenant, conninfo), describe_postgres(tenant), leases=leases, missing_schema_remedy=get_missing_schema_remedy(tenant))


LEFTOVERS = leftovers_sql.POSTGRES


class PostgresSession(Session):
    # cmin counts a transaction's statements. Rows of one statement may be in any order.
    row, write_order, temporary_schema = "t.ctid", "t.cmin::text::bigint", "pg_temp"
    planted_sql = POSTGRES

    def __init__(self, connection: Any, where: str, *, leases: Table, missing_schema_remedy: str = "") -> None:
        super().__init__(where)
        self._connection, self._leases, self._missing_schema_remedy = connection, leases, missing_schema_remedy

    def execute(self, sql: str) -> int:
        with self._use():
            return self._run(sql)

    def query(self, sql: str) -> pa.Table:
        with self._use(), self._open_cursor() as cursor:
            cursor.execute(sql)
            return unwrap(cursor.fetch_arrow_table())

    def insert(self, table: Table, rows: pa.Table) -> int:
        is_temporary = table.schema == self.temporary_schema
        target = {"temporary": True} if is_temporary else {"db_schema_name": table.schema}
        with self._use(), self._open_cursor() as cursor:
            return cursor.adbc_ingest(table.name, _cut(encode_json(rows)), mode="append", **target)

    def create_schema(self, name: str) -> None:
        # Checked first: "if not exists" needs the right to create a schema even if it exists.
        if not self.ask(f"select exists (select 1 from pg_catalog.pg_namespace where nspname = {quote_text(name)})")[0][0]:
            try:
                self.execute(f"create schema {quote(name)}")
            except dbapi.Error as error:
                if error.sqlstate != _NOT_ALLOWED:
                    raise
                raise DestinationError(f"{self.where}: there is no schema {name}, and the login may not make it", remedy=self._missing_schema_remedy) from None

    def create(self, table: Table, columns: Columns, *, key: Sequence[str] = ()) -> None:
        _check_names(table, columns)
        if len(columns) > _MAX_COLUMNS:
            raise _build_width_error(table, len(columns))
        defined = [f"{quote(name)} {self.name_type(kind)}" for name, kind in columns.items()]
        if key:
            defined.append(f"primary key ({quote_all(key)})")
        # An earlier release made a table without columns for a list that was empty in all rows; such a table is dropped.
        columnless = f"exists (select from pg_class where oid = to_regclass({quote_text(str(table))}) and relnatts = 0)"
        made = f"create table {table} ({', '.join(defined)})"
        self.execute(f"do $fabric$ begin if {columnless} then drop table {table}; end if; {made}; end $fabric$")

    def add_columns(self, table: Table, columns: Columns) -> None:
        if not columns:
            return
        _check_names(table, columns)
        added = ", ".join(f"add column {quote(name)} {self.name_type(kind)}" for name, kind in columns.items())
        try:
            self.execute(f"alter table {table} {added}")
        except dbapi.Error as error:
            if error.sqlstate == _TOO_MANY_COLUMNS:
                raise _build_width_error(table, None) from error
            raise

    @staticmethod
    def name_type(kind: pa.DataType) -> str:
        if pa.types.is_list(kind):
            return f"{PostgresSession.name_type(kind.value_type)}[]"
        return f"numeric({kind.precision},{kind.scale})" if pa.types.is_decimal(kind) else _NAMES[kind]

    def read_columns(self, schema: str) -> dict[str, dict[str, pa.DataType]]:
        found = self.query(
            "select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)"
            " from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid"
            f" where c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = {quote_text(schema)})"
            " and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped order by c.relname, a.attnum"
        )
        tables: dict[str, dict[str, pa.DataType]] = {}
        for table, column, kind in zip(*(part.to_pylist() for part in found.columns), strict=True):
            tables.setdefault(table, {})[column] = get_type(kind)
        return tables

    def find_views(self, table: Table, columns: Collection[str]) -> Mapping[str, str]:
        # A view depends on columns by its rewrite rule; views on that view are dropped too.
        read = "pg_catalog.pg_depend as d join pg_catalog.pg_rewrite as r on d.classid = 'pg_catalog.pg_rewrite'::regclass and r.oid = d.objid"
        first = (
            f"select r.ev_class from {read} join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid"
            f" where d.refobjid = {quote_text(str(table))}::regclass and a.attname in ({', '.join(map(quote_text, columns))})"
        )
        others = f"select r.ev_class from views as v join {read} on d.refobjid = v.ev_class where r.ev_class <> v.ev_class"
        found = self.query(
            f"with recursive views as ({first} union {others}) select format('%I.%I', n.nspname, c.relname) as name, c.relkind::text as kind from views as v"
            " join pg_catalog.pg_class as c on c.oid = v.ev_class join pg_catalog.pg_namespace as n on n.oid = c.relnamespace order by 1"
        ).to_pylist()
        return {row["name"]: "materialized view" if row["kind"] == "m" else "view" for row in found}

    def lock_definitions(self) -> None:
        # Without the table nobody holds a lease. Holders of a lease are not blocked: a row's lock does not conflict with this one.
        if self.ask(f"select pg_catalog.to_regclass({quote_text(str(self._leases))}) is not null")[0][0]:
            self.execute(f"lock table {self._leases} in share update exclusive mode")

    def find_kept_key(self, table: Table) -> tuple[str, ...] | None:
        found = self.query(
            "select attname::text from pg_catalog.pg_attribute where attnum > 0 and attrelid = (select c.oid from pg_catalog.pg_class as c"
            " join pg_catalog.pg_namespace as n"
            f" on n.oid = c.relnamespace where c.relname = {quote_text(_name_key(table))} and n.nspname = {quote_text(table.schema)}) order by attnum"
        )
        return tuple(found["attname"].to_pylist()) or None

    def keep_key(self, table: Table, key: Sequence[str]) -> bool:
        made = f"create unique index {quote(_name_key(table))} on {table} ({quote_all(key)})"
        # The server itself catches the error: after one, the driver accepts only a rollback of the whole transaction.
        self.execute(f"do $fabric$ begin {made}; exception when unique_violation or program_limit_exceeded then null; end $fabric$")
        return self.find_kept_key(table) is not None

    def forget_key(self, table: Table) -> None:
        self.execute(f"drop index {Table(table.schema, _name_key(table))}")

    def find_faster_by(self, table: Table, column: str) -> None:
        self.execute(f"create index on {table} ({quote(column)})")

    def analyze(self, table: Table) -> None:
        self.execute(f"analyze {table}")

    def commit(self) -> None:
        with self._use():
            if self._deferred:
                self._run()
            self._connection.commit()

    def rollback(self) -> None:
        with self._use():
            self._deferred = []
            self._connection.rollback()

    def _run(self, *sql: str) -> int:
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_sql_query(self._join_deferred(*sql))
            return max(cursor.adbc_statement.execute_update(), 0)

    def _open_cursor(self) -> Any:
        """Open a cursor for a call that takes a single statement."""
        if self._deferred:
            self._run()
        return self._connection.cursor()

    def _translate(self, error: Exception) -> Exception | None:
        state = getattr(error, "sqlstate", None)
        if state in {_SERIALIZATION_FAILURE, _DEADLOCK, _LOCKED, _UNIQUE}:
            kind = KeyConflict if state == _UNIQUE else WriteConflict
            return kind(f"{self.where}: another transaction has changed the same rows or tables: {' '.join(str(error).split())}", remedy="try again")
        if state == _TOO_LONG and "index row" in str(error):
            return DestinationError(
                f"{self.where}: a row's primary key is longer than Postgres keeps in an index: {' '.join(str(error).split())}",
                remedy="load the stream with --full-refresh: with such a row in it the table is made without that index",
            )
        if isinstance(error, dbapi.Error) and is_outage(error):
            return DestinationUnavailable(
                f"{self.where}: the connection was lost: {' '.join(str(error).split())}", remedy="check that the database runs; the load tries again later"
            )
        return None

    def _cancel(self) -> None:
        # In a thread: a cancel request to a dead server takes as long as connecting to it.
        def cancel() -> None:
            with contextlib.suppress(Exception):
                self._connection.adbc_connection.cancel()

        threading.Thread(target=cancel, daemon=True, name="cancel").start()

    def _close(self) -> None:
        self._connection.close()


def get_type(name: str) -> pa.DataType:
    """Return a column's Arrow type; a type that no load makes counts as text."""
    if name.endswith("[]"):
        return pa.list_(get_type(name.removesuffix("[]")))
    if name.startswith("numeric("):
        precision, scale = name.removeprefix("numeric(").removesuffix(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return _KINDS.get(name.split("(", maxsplit=1)[0], TEXT)


def _name_key(table: Table) -> str:
    """Name the unique index of a table; tables of streams begin with a letter, so no table has the name."""
    return f"_fabric_key_{table.name}"


def _check_names(table: Table, columns: Columns) -> None:
    for name in (table.name, *columns):
        if len(name.encode()) > _MAX_NAME:
            raise DestinationError(
                f"{table}: the name {name} is longer than the {_MAX_NAME} bytes that Postgres keeps of it",
                remedy="leave it out, or rename it in a view at the source",
            )


def _build_width_error(table: Table, columns: int | None) -> DestinationError:
    found = f"would have {columns:,} columns" if columns else "would have too many columns"
    return DestinationError(
        f"{table} {found}, and Postgres takes at most {_MAX_COLUMNS:,} (those that were dropped count too)",
        remedy="load fewer by the stream's columns; or load anew with --full-refresh where many have been dropped",
    )


def _cut(rows: pa.Table) -> pa.Table:
    """Cut rows into parts: while the driver encodes a part, the server inserts the one before."""
    most = max(1, rows.num_rows * _PIECE_BYTES // max(rows.nbytes, 1))
    return pa.Table.from_batches(rows.to_batches(max_chunksize=most), rows.schema)
