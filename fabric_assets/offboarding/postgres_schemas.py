"""A tenant's part of a Postgres server as the warehouse that is to go: its schemas, and where it is managed its roles and its database.

Which schemas are its own is told by what its YAML declares, by the ledger of what was ever loaded (a source that left the YAML long ago has left its tables),
and by what its role owns. A name proves nothing: what is merely called like the tenant's is shown to who offboards it, and left.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg2
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from fabric_assets import naming
from fabric_assets.connectors import postgres_adbc
from fabric_assets.errors import DestinationError
from fabric_assets.offboarding.mentions import Mentions
from fabric_assets.offboarding.warehouses import Column, Relation, Warehouse, quote
from fabric_assets.security.postgres_login import build_conninfo
from fabric_assets.security.roles.belongings import Belongings, drop_belongings, list_belongings
from fabric_assets.security.roles.estate import Estate, ServerLogin
from fabric_assets.security.roles.server import Server, build_parameters, open_server

_BATCH_BYTES = 8 << 20
_OPTIONS = "-ctimezone=UTC -cstatement_timeout=0 -cidle_in_transaction_session_timeout=0"
_SMALL = {
    "boolean": pa.bool_(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "real": pa.float32(), "double precision": pa.float64(),
    "bytea": pa.binary(), "time without time zone": pa.time64("us"),
}  # fmt: skip
_TEXTS = ("character varying", "text", "character", "name")
_DATES = {"date": pa.date32(), "timestamp without time zone": pa.timestamp("us"), "timestamp with time zone": pa.timestamp("us", "UTC")}
_LISTS = ("boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "character varying")
_DEPENDENTS = """
    select distinct n.nspname || '.' || c.relname
    from pg_depend as d join pg_class as t on d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid
    left join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    left join pg_constraint as k on d.classid = 'pg_constraint'::regclass and d.objid = k.oid
    join pg_class as c on c.oid = coalesce(r.ev_class, k.conrelid) join pg_namespace as n on n.oid = c.relnamespace
    where t.relnamespace in (select oid from pg_namespace where nspname = any(%(mine)s)) and n.nspname <> all(%(mine)s)
"""


class PostgresSchemas(Warehouse):
    """Args:
    estate: what the YAML declares; without one, nothing but the tenant's name and a database to look into.
    login: may list and drop.
    reader: reads the tables for an export: the tenant's own login, where there is one.
    """

    def __init__(self, mentions: Mentions, estate: Estate, *, login: ServerLogin, reader: ServerLogin | None, is_managed: bool) -> None:
        self.place = f"Postgres {login.place}, database {estate.own_database if estate.has_own_database else estate.database}"
        self._mentions, self._estate, self._login, self._reader, self._is_managed = mentions, estate, login, reader or login, is_managed

    def list_relations(self) -> list[Relation]:
        return [
            Relation(schema.name, table.name, "view" if table.rows is None else "table", table.rows, schema.database)
            for schema in self._list(counts=True).schemas
            for table in schema.tables
        ]

    def describe(self) -> dict[str, list[str]]:
        found = self._list()
        return {"schemas": sorted({schema.name for schema in found.schemas}), "roles": [*found.roles], "databases": [*found.databases]}

    def find_left(self) -> list[str]:
        return [f"{kind.removesuffix('s')} {name} ({self.place})" for kind, names in self.describe().items() for name in names]

    def find_namesakes(self) -> list[str]:
        with open_server(self._login) as server:
            estate, alike = self._tell_own(server)
            found = list_belongings(server, estate, is_managed=self._is_managed, counts=False)
            left = [f"schema {name}" for name in sorted(alike - {schema.name for schema in found.schemas})]
            if self._is_managed and estate.own_database not in found.databases:
                left += [f"database {name}" for (name,) in server.ask("select datname::text from pg_database where datname = %s", (estate.own_database,))]
        return [f"{entry} ({self.place}): called like its own, but neither its YAML, its ledger nor its role says that it is" for entry in left]

    def get_columns(self, relation: Relation, *, as_text: bool) -> Sequence[Column]:
        table = f"{quote(relation.schema)}.{quote(relation.name)}"
        with closing(psycopg2.connect(self._build_dsn(relation))) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
                " order by attnum",
                (table,),
            )
            columns = [_build_column(name, declared, as_text=as_text) for name, declared in cursor.fetchall()]
        return columns or [Column("no_columns", "null::text", "none")]

    @contextmanager
    def read(self, relation: Relation, columns: Sequence[Column]) -> Iterator[tuple[int, pa.RecordBatchReader]]:
        table = f"{quote(relation.schema)}.{quote(relation.name)}"
        try:
            with closing(postgres_adbc.connect(self._build_dsn(relation))) as connection, connection.cursor() as cursor:
                cursor.execute("set transaction isolation level repeatable read, read only")
                cursor.execute(f"select count(*) from {table}")
                (rows,) = cursor.fetchone() or (0,)
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
                cursor.execute(f"select {', '.join(column.sql for column in columns)} from {table}")
                yield rows, cursor.fetch_record_batch()
        except dbapi.Error as error:
            # Among them: a value that the driver's binary format has no place for.
            raise ValueError(f"{self.place}: {relation.schema}.{relation.name} cannot be read: {type(error).__name__}") from None

    def find_fault(self, relation: Relation) -> str | None:
        with closing(psycopg2.connect(self._build_dsn(relation))) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("set transaction read only")
                cursor.execute(f"explain analyze select * from {quote(relation.schema)}.{quote(relation.name)}")
            except (psycopg2.DataError, psycopg2.NotSupportedError, psycopg2.ProgrammingError) as error:
                return type(error).__name__
        return None

    def delete(self) -> None:
        with open_server(self._login) as server:
            estate, _ = self._tell_own(server)
            schemas = list_belongings(server, estate, is_managed=self._is_managed, counts=False).schemas
            for database in sorted({schema.database for schema in schemas}):
                mine = [schema.name for schema in schemas if schema.database == database]
                if foreign := sorted(name for (name,) in server.ask(_DEPENDENTS, {"mine": mine}, database=database)):
                    raise DestinationError(
                        f"tenant {estate.tenant}: {', '.join(foreign)} would go with its tables, and are not its own ({self.place})",
                        remedy="drop them, or make them read something else; then call this again",
                    )
            drop_belongings(server, estate, is_managed=self._is_managed)

    def _list(self, *, counts: bool = False) -> Belongings:
        with open_server(self._login) as server:
            estate, _ = self._tell_own(server)
            return list_belongings(server, estate, is_managed=self._is_managed, counts=counts)

    def _tell_own(self, server: Server) -> tuple[Estate, set[str]]:
        """Add the schemas that the YAML names no more and the ledger does; and give all that have a name which only the tenant's would have."""
        estate, tenant = self._estate, self._mentions.tenant
        own, alike = set(estate.schemas), set[str]()
        known = {name for (name,) in server.ask("select datname::text from pg_database where datallowconn")}
        for database in {estate.database, estate.own_database} & known if self._is_managed else {estate.database}:
            names = {name for (name,) in server.ask("select nspname::text from pg_namespace where position(%s in nspname) > 0", (tenant,), database=database)}
            ledger = naming.platform_dataset(tenant)
            if (sources := _ask_ledger(server, database, ledger) if ledger in names else None) is not None:
                own |= {ledger, *(name(tenant, source) for source in sources for name in (naming.raw_dataset, naming.load_staging_dataset))}
            alike |= {name for name in names if self._mentions.is_like_own(name) and not self._mentions.is_like_anothers(name)}
        # A model's own schema, or a source of long ago, may make a name that is another tenant's.
        own = {name for name in own if not self._mentions.is_like_anothers(name)}
        return replace(estate, schemas=tuple(sorted(own))), alike

    def _build_dsn(self, relation: Relation) -> str:
        """A login that may read the table: the tenant's own, and for what it may not, such as schemas of a time before it had one, the one that drops them.

        Raises:
            DestinationError: none may.
        """
        for login in (self._reader, self._login):
            dsn = _build_dsn(login, relation.database)
            with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
                # In two steps: of a table in a schema that is closed to it, a login may not even ask.
                cursor.execute("select has_schema_privilege(%s, 'usage')", (relation.schema,))
                if cursor.fetchone() == (True,):
                    cursor.execute("select has_table_privilege(%s, 'select')", (f"{quote(relation.schema)}.{quote(relation.name)}",))
                    if cursor.fetchone() == (True,):
                        return dsn
        raise DestinationError(
            f"tenant {self._mentions.tenant}: no login may read {relation.schema}.{relation.name} ({self.place})",
            remedy="grant it to the login of FABRIC_PROVISION_URL, then call this again",
        )


def _build_dsn(login: ServerLogin, database: str) -> str:
    return build_conninfo(build_parameters(login, database, program="fabric offboard", options=_OPTIONS))


def _ask_ledger(server: Server, database: str, schema: str) -> list[str] | None:
    """Every source that was ever loaded; None where there is no ledger, or none that this login may read."""
    table = f"{quote(schema)}.loads"
    ((readable,),) = server.ask("select coalesce(has_table_privilege(to_regclass(%s), 'select'), false)", (table,), database=database)
    return [source for (source,) in server.ask(f"select distinct source from {table}", database=database) if source] if readable else None


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
