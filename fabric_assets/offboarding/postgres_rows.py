"""A tenant's tables on a Postgres server -> their rows, read so that the tenant's functions run only with its own login.

The tenant decides what a table's name stands for: a view, a rule, a policy or an index may call one of its functions. So its own login reads. The login that
drops the tenant reads only plain tables, and locks each one first (`plain_tables`, ADR 0022).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Self

import psycopg2
from adbc_driver_postgresql import dbapi

from fabric_assets.drivers import postgres_adbc
from fabric_assets.drivers.asking import build_ask
from fabric_assets.errors import DestinationError
from fabric_assets.offboarding.plain_tables import lock_plain
from fabric_assets.offboarding.warehouses import Relation
from fabric_assets.quoting import quote, quote_text
from fabric_assets.security.postgres_login import build_conninfo
from fabric_assets.security.postgres_session import build_settings, open_session
from fabric_assets.security.roles.entitlements import ServerLogin
from fabric_assets.security.roles.server import build_parameters

_LOCK_TIMEOUT = "10s"
_MOST_SOURCES = 10_000
_SETTINGS = {
    "role": "none",
    "statement_timeout": "0",
    "lock_timeout": _LOCK_TIMEOUT,
    "idle_in_transaction_session_timeout": "0",
    # Turns a policy that hides rows into an error, so that no export lacks rows silently.
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "1",
}
_REGAIN = """
    select c.relowner = (select oid from pg_catalog.pg_roles where rolname = current_user) and not pg_catalog.has_table_privilege(c.oid, 'SELECT')
    from pg_catalog.pg_class as c where c.oid = pg_catalog.to_regclass({name})
"""
_PID = "select pg_catalog.pg_backend_pid()"
_COLUMNS = """
    select attname::text, pg_catalog.format_type(atttypid, atttypmod) from pg_catalog.pg_attribute
    where attrelid = pg_catalog.to_regclass(%s) and attnum > 0 and not attisdropped order by attnum
"""
_MAY_READ = "select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass({name}), 'SELECT'), false)"
_MAY_USE = "select coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) from pg_catalog.pg_namespace as n where n.nspname = {schema}"


class Unreadable(DestinationError):
    """A relation that neither login may read; the message gives the reason."""


class PostgresRows:
    """A reader of a tenant's rows. It reads as the tenant, or as the dropping login if the tenant may not read a plain table.

    Its connections are closed at the end of a `with` block.

    Args:
        own: the tenant's own login; None where it is lost.
        login: the login that drops the tenant.
        where: the server, for messages.
    """

    def __init__(self, tenant: str, *, own: ServerLogin | None, login: ServerLogin, where: str) -> None:
        self._tenant, self._own, self._login, self._where = tenant, own, login, where
        self._connections: dict[tuple[str, bool], Any] = {}
        self.lost = "" if own else "the tenant's own login is lost: no password of it is sealed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            if connection is not None:
                connection.close()
        self._connections = {}

    def has_own_login(self, database: str) -> bool:
        """Whether the tenant's own login can connect to a database; if not, `lost` holds the reason."""
        return self._get_own(database) is not None

    def count(self, relation: Relation) -> int:
        """Count a table's rows.

        Raises:
            Unreadable: neither login may read it.
        """
        with self._read(relation) as (cursor, source):
            cursor.execute(f"select pg_catalog.count(*) from {source}")
            return cursor.fetchone()[0]

    def read_sources(self, database: str, schema: str) -> list[str]:
        """Read from the ledger which sources were ever loaded.

        Raises:
            Unreadable: neither login may read it.
        """
        with self._read(Relation(schema, "loads", database=database)) as (cursor, source):
            cursor.execute(f"select distinct source from {source} limit {_MOST_SOURCES}")
            return [str(name) for (name,) in cursor.fetchall() if name]

    def read_columns(self, relation: Relation) -> list[tuple[str, str]]:
        """Read the names and types of a relation's columns from the catalog."""
        with _begin(self._get(relation.database, is_own=False)) as cursor:
            cursor.execute(_COLUMNS, (_name(relation),))
            return cursor.fetchall()

    @contextmanager
    def open_arrow(self, relation: Relation) -> Iterator[tuple[Any, str]]:
        """Give an Arrow connection in a transaction that sees one moment, and the expression to select from.

        Raises:
            Unreadable: neither login may read it.
            dbapi.Error: the driver or the server fails.
        """
        if self._own and self._may_read(relation):
            with closing(self._connect_arrow(self._own, relation.database)) as connection:
                _run(connection, "set transaction isolation level repeatable read, read only")
                yield connection, _name(relation)
            return
        with closing(self._connect_arrow(self._login, relation.database)) as connection:
            try:
                ((pid,),) = build_ask(connection)(_PID)
                connection.rollback()
                _run(connection, "set transaction isolation level repeatable read")
                self._lock_plain(relation, lambda sql: _run(connection, sql), pid)
            except dbapi.Error as error:
                raise self._refuse(relation, error) from None
            yield connection, f"only {_name(relation)}"
            connection.rollback()

    def find_fault(self, relation: Relation) -> str | None:
        """Execute a view as the tenant. Give the kind of error, or None."""
        if not self._may_read(relation):
            return self.lost or "the tenant's own login may not read it"
        with _begin(self._get_own(relation.database)) as cursor:
            try:
                cursor.execute(f"explain analyze select * from {_name(relation)}")
            except (psycopg2.DataError, psycopg2.NotSupportedError, psycopg2.ProgrammingError) as error:
                return type(error).__name__
        return None

    def regain(self, relation: Relation) -> None:
        """Grant the tenant's login the right to read what it owns: an owner may have revoked it from itself."""
        connection = self._get_own(relation.database)
        if connection is None:
            return
        with _begin(connection) as cursor:
            cursor.execute("set transaction read write")
            cursor.execute(_REGAIN.format(name=quote_text(_name(relation))))
            if cursor.fetchone() == (True,):
                cursor.execute(f"grant select on {_name(relation)} to current_user")
                connection.commit()

    # --- who reads

    @contextmanager
    def _read(self, relation: Relation) -> Iterator[tuple[Any, str]]:
        """Give a cursor in a transaction that is rolled back, and the expression to select from."""
        try:
            if self._may_read(relation):
                with _begin(self._get_own(relation.database)) as cursor:
                    yield cursor, _name(relation)
                return
            with _begin(self._get(relation.database, is_own=False)) as cursor:
                self._lock_plain(relation, cursor.execute, _fetch(cursor, _PID)[0][0])
                yield cursor, f"only {_name(relation)}"
        except psycopg2.Error as error:
            raise self._refuse(relation, error) from None

    def _may_read(self, relation: Relation) -> bool:
        connection = self._get_own(relation.database)
        if connection is None:
            return False
        with _begin(connection) as cursor:
            # In two steps: a login may not even ask about a table in a schema that it may not use.
            name = quote_text(_name(relation))
            return _fetch(cursor, _MAY_USE.format(schema=quote_text(relation.schema))) == [(True,)] and _fetch(cursor, _MAY_READ.format(name=name)) == [(True,)]

    def _lock_plain(self, relation: Relation, run: Callable[[str], Any], pid: int) -> None:
        with closing(self._connect(self._login, relation.database)) as checks:
            checks.autocommit = True
            if not lock_plain(_name(relation), run=run, pid=pid, ask=build_ask(checks)):
                raise self._refuse(relation)

    def _refuse(self, relation: Relation, error: Exception | None = None) -> Unreadable:
        name = f"{relation.schema}.{relation.name}"
        who = self.lost or f"the tenant's own login may not read {name}"
        reason = f"{who}, and it is not a plain table" if error is None else f"{self.lost}{'; ' if self.lost else ''}{_shorten(error)}"
        return Unreadable(
            f"tenant {self._tenant}: {name} cannot be read: {reason} ({self._where})",
            remedy=f"grant select on {name} to the tenant's login; before it is offboarded, `fabric provision {self._tenant}` renews a login that is lost",
        )

    def _get_own(self, database: str) -> Any:
        """Give the connection as the tenant; None where its login is lost."""
        if self._own is None:
            return None
        try:
            return self._get(database, is_own=True)
        except psycopg2.OperationalError as error:
            self.lost = f"the tenant's own login is lost: {_shorten(error)}"
            self._connections[database, True] = None
            return None

    def _get(self, database: str, *, is_own: bool) -> Any:
        if (database, is_own) not in self._connections:
            login = self._own if is_own and self._own else self._login
            self._connections[database, is_own] = self._connect(login, database, {"default_transaction_read_only": "on"} if is_own else {})
        return self._connections[database, is_own]

    def _connect(self, login: ServerLogin, database: str, settings: Mapping[str, str] | None = None) -> Any:
        return open_session(build_parameters(login, database, program="fabric offboard"), {**_SETTINGS, **(settings or {})}, where=self._where)

    def _connect_arrow(self, login: ServerLogin, database: str) -> Any:
        parameters = build_parameters(login, database, program="fabric offboard")
        connection = postgres_adbc.connect(build_conninfo({**parameters, "client_encoding": "UTF8"}))
        try:
            _run(connection, build_settings(_SETTINGS))
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def _begin(connection: Any) -> Iterator[Any]:
    """Give a cursor in a transaction that is rolled back."""
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        if not connection.closed:
            connection.rollback()


def _fetch(cursor: Any, query: str) -> list[tuple[Any, ...]]:
    cursor.execute(query)
    return cursor.fetchall()


def _name(relation: Relation) -> str:
    return f"{quote(relation.schema)}.{quote(relation.name)}"


def _run(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(statement)
        cursor.adbc_statement.execute_update()


def _shorten(error: Exception) -> str:
    """Give the first line of an error: the others may quote a row."""
    return str(error).strip().partition("\n")[0]
