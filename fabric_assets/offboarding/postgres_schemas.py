"""A tenant's part of a Postgres server as the warehouse to delete: its schemas, and for a managed tenant its roles and its database.

Three sources say which schemas are its own: its YAML, the ledger of all that was ever loaded, and its role's ownership. The ledger also knows sources that were
removed from the YAML long ago. A name alone proves nothing: a schema that is only named like the tenant's is reported, and not deleted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
from adbc_driver_postgresql import dbapi

from fabric_assets import naming
from fabric_assets.errors import DestinationError
from fabric_assets.offboarding.postgres_rows import PostgresRows, Unreadable
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Column, Relation, Warehouse
from fabric_assets.quoting import quote
from fabric_assets.security.roles.belongings import Belongings, drop_belongings, list_belongings
from fabric_assets.security.roles.entitlements import ServerEntitlements, ServerLogin
from fabric_assets.security.roles.server import Server, open_server

_BATCH_BYTES = 8 << 20
_SMALL = {
    "boolean": pa.bool_(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "real": pa.float32(), "double precision": pa.float64(),
    "bytea": pa.binary(), "time without time zone": pa.time64("us"),
}  # fmt: skip
_TEXTS = ("character varying", "text", "character", "name")
_DATES = {"date": pa.date32(), "timestamp without time zone": pa.timestamp("us"), "timestamp with time zone": pa.timestamp("us", "UTC")}
_LISTS = ("boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "character varying")
_DATABASE = "select datname::text from pg_catalog.pg_database where datname = %s"
_NAMED_LIKE = "select nspname::text from pg_catalog.pg_namespace where position(%s in nspname) > 0"
_LEDGER = "select pg_catalog.to_regclass(%s) is not null"
_DEPENDENTS = """
    select distinct n.nspname || '.' || c.relname
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_class as t on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = t.oid
    left join pg_catalog.pg_rewrite as r on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
    left join pg_catalog.pg_constraint as k on d.classid = 'pg_catalog.pg_constraint'::regclass and d.objid = k.oid
    join pg_catalog.pg_class as c on c.oid = coalesce(r.ev_class, k.conrelid)
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where t.relnamespace in (select oid from pg_catalog.pg_namespace where nspname = any(%(mine)s)) and n.nspname <> all(%(mine)s)
"""


class PostgresSchemas(Warehouse):
    """The schemas of a tenant on Postgres.

    Args:
        entitlements: those that the YAML declares; without YAML only the tenant's name and a database to search.
        login: one that may list and drop.
        reader: the tenant's own login, which reads the rows; None where it is lost.
    """

    def __init__(
        self, matcher: TenantNameMatcher, entitlements: ServerEntitlements, *, login: ServerLogin, reader: ServerLogin | None, is_managed: bool
    ) -> None:
        self.location = f"Postgres {login.address}, database {entitlements.own_database if entitlements.has_own_database else entitlements.database}"
        self._matcher, self._entitlements, self._login, self._is_managed = matcher, entitlements, login, is_managed
        self._reader = reader if is_managed else login
        self._unread = dict[str, str]()

    def list_relations(self) -> list[Relation]:
        found = [
            Relation(schema.name, table.name, "view" if table.is_view else "table", None, schema.database)
            for schema in self._list().schemas
            for table in schema.tables
        ]
        with self._open_rows() as rows:
            return [replace(each, rows=self._count(rows, each)) for each in found]

    def find_uncounted(self) -> list[str]:
        return list(self._unread.values())

    def _count(self, rows: PostgresRows, relation: Relation) -> int | None:
        """Count a relation's rows. Give None for a view, and for a table that cannot be counted: `find_uncounted` gives the reason."""
        if relation.kind == "view":
            return None
        if not rows.has_own_login(relation.database):
            self._unread[relation.database] = f"how many rows there are in database {relation.database}: {rows.lost} ({self.location})"
            return None
        try:
            return rows.count(relation)
        except Unreadable as error:
            self._unread[f"{relation.schema}.{relation.name}"] = f"how many rows there are: {error.message}"
            return None

    def describe(self) -> dict[str, list[str]]:
        found = self._list()
        return {"schemas": sorted({schema.name for schema in found.schemas}), "roles": [*found.roles], "databases": [*found.databases]}

    def find_left(self) -> list[str]:
        return [f"{kind.removesuffix('s')} {name} ({self.location})" for kind, names in self.describe().items() for name in names]

    def find_namesakes(self) -> list[str]:
        with open_server(self._login) as server:
            entitlements, alike = self._find_own(server)
            found = list_belongings(server, entitlements, is_managed=self._is_managed)
            left = [f"schema {name}" for name in sorted(alike - {schema.name for schema in found.schemas})]
            if self._is_managed and entitlements.own_database not in found.databases:
                left += [
                    f"database {name}"
                    for (name,) in server.ask("select datname::text from pg_catalog.pg_database where datname = %s", (entitlements.own_database,))
                ]
        return [f"{entry} ({self.location}): called like its own, but neither its YAML, its ledger nor its role says that it is" for entry in left]

    def get_columns(self, relation: Relation, *, as_text: bool) -> Sequence[Column]:
        with self._open_rows() as rows:
            columns = [_build_column(name, declared, as_text=as_text) for name, declared in rows.read_columns(relation)]
        return columns or [Column("no_columns", "null::text", "none")]

    @contextmanager
    def read(self, relation: Relation, columns: Sequence[Column]) -> Iterator[tuple[int, pa.RecordBatchReader]]:
        try:
            with self._open_rows() as rows:
                rows.regain(relation)
                with rows.open_arrow(relation) as (connection, source), connection.cursor() as cursor:
                    cursor.execute(f"select pg_catalog.count(*) from {source}")
                    (count,) = cursor.fetchone() or (0,)
                    cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
                    cursor.execute(f"select {', '.join(column.sql for column in columns)} from {source}")
                    yield count, cursor.fetch_record_batch()
        except dbapi.Error as error:
            # For example a value that the driver's binary format cannot hold.
            raise ValueError(f"{self.location}: {relation.schema}.{relation.name} cannot be read: {type(error).__name__}") from None

    def find_fault(self, relation: Relation) -> str | None:
        with self._open_rows() as rows:
            return rows.find_fault(relation)

    def delete(self) -> None:
        with open_server(self._login) as server:
            entitlements, _ = self._find_own(server)
            schemas = list_belongings(server, entitlements, is_managed=self._is_managed).schemas
            for database in sorted({schema.database for schema in schemas}):
                mine = [schema.name for schema in schemas if schema.database == database]
                if foreign := sorted(name for (name,) in server.ask(_DEPENDENTS, {"mine": mine}, database=database)):
                    raise DestinationError(
                        f"tenant {entitlements.tenant}: {', '.join(foreign)} would go with its tables, and are not its own ({self.location})",
                        remedy="drop them, or make them read something else; then call this again",
                    )
            drop_belongings(server, entitlements, is_managed=self._is_managed)

    def _open_rows(self) -> PostgresRows:
        return PostgresRows(self._matcher.tenant, own=self._reader, login=self._login, where=self.location)

    def _list(self) -> Belongings:
        with open_server(self._login) as server:
            entitlements, _ = self._find_own(server)
            return list_belongings(server, entitlements, is_managed=self._is_managed)

    def _find_own(self, server: Server) -> tuple[ServerEntitlements, set[str]]:
        """Add to the entitlements the schemas that only the ledger names. Give all schemas with a name that only the tenant's can have as well."""
        entitlements, tenant = self._entitlements, self._matcher.tenant
        own, alike = set(entitlements.schemas), set[str]()
        known = {name for (name,) in server.ask("select datname::text from pg_catalog.pg_database where datallowconn")}
        for database in {entitlements.database, entitlements.own_database} & known if self._is_managed else {entitlements.database}:
            names = {
                name
                for (name,) in server.ask("select nspname::text from pg_catalog.pg_namespace where position(%s in nspname) > 0", (tenant,), database=database)
            }
            ledger = naming.platform_dataset(tenant)
            if ledger in names and server.ask(_LEDGER, (f"{quote(ledger)}.loads",), database=database) == [(True,)]:
                sources = self._ask_ledger(database, ledger)
                own |= {ledger, *(name(tenant, source) for source in sources for name in (naming.raw_dataset, naming.load_staging_dataset))}
            if ledger in names and server.ask(_LEDGER, (f"{quote(ledger)}.snapshots",), database=database) == [(True,)]:
                # The snapshots may have left the project long ago: no run drops one.
                own |= {ledger, naming.dbt_schema(tenant, naming.SNAPSHOT_SCHEMA)}
            alike |= {name for name in names if self._matcher.is_like_own(name) and not self._matcher.is_like_anothers(name)}
        # A model's own schema, or a source of long ago, may lead to a name that is another tenant's.
        own = {name for name in own if not self._matcher.is_like_anothers(name)}
        return replace(entitlements, schemas=tuple(sorted(own))), alike

    def _ask_ledger(self, database: str, schema: str) -> list[str]:
        """List every source that was ever loaded, if the ledger can be read."""
        with self._open_rows() as rows:
            try:
                return rows.read_sources(database, schema)
            except Unreadable as error:
                self._unread[f"{database} {schema}"] = f"the schemas of sources that the YAML does not declare: {error.message}"
                return []


def _build_column(name: str, declared: str, *, as_text: bool) -> Column:
    quoted = quote(name)
    if declared in _SMALL:
        return Column(name, quoted, declared, _SMALL[declared])
    if declared.split("(", maxsplit=1)[0] in _TEXTS:
        return Column(name, f"{quoted}::text", declared, pa.string())
    if not as_text:
        if declared in _DATES:
            return Column(name, quoted, declared, _DATES[declared])
        if declared.startswith("numeric(") and not declared.endswith("]"):
            precision, scale = map(int, declared.removeprefix("numeric(").removesuffix(")").split(","))
            if precision <= 76 and 0 <= scale <= precision:
                return Column(name, f"{quoted}::text", declared, pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale))
        if declared.endswith("[]") and declared.removesuffix("[]") in _LISTS:
            return Column(name, quoted, declared)
    return Column(name, f"to_json({quoted})::text" if declared.endswith("[]") else f"{quoted}::text", declared, pa.string())
