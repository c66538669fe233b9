"""A `sql_database` source's url -> a database that is asked about tables and columns, and errors in plain words.

The url is changed in two ways only. If it names no driver, the one that ships with ETL Fabric is added. Connect and read time-outs are set, so that a load
ends if the network drops packets.
"""

import time
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import sqlalchemy as sqla
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.engine.reflection import ObjectKind
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, NoSuchTableError, SAWarning, SQLAlchemyError

from fabric_assets.connectors.sql_database.columns import SqlColumn, UnknownType, build_column
from fabric_assets.connectors.sql_database.failures import FILES, explain_reason
from fabric_assets.drivers.outages import is_outage
from fabric_assets.drivers.tls import check_mysql_parameters
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.security.postgres_login import complete_login, refuse_foreign_logins
from fabric_assets.suggestions import build_missing_error

# The warning names neither tenant nor stream; a column of such a type is refused by name, or left out by the YAML.
warnings.filterwarnings("ignore", "Did not recognize type", SAWarning)

CONNECT_TIMEOUT_SECONDS = 15
# Of a Postgres connection: Arrow's texts are UTF-8, and libpq would else take the database's own encoding, or that of the url.
CLIENT_ENCODING = "UTF8"
_DRIVERS = {
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_SERVERS = {"postgresql", "mysql", "mariadb"}
# PyMySQL would read a login from a file of this machine, or let the server ask for any of its files.
_FOREIGN_TO_MYSQL = ("read_default_file", "read_default_group", "local_infile")


@dataclass(frozen=True)
class Database:
    """One source's database, shared by the threads that read its streams.

    Args:
        label: tenant and source, for messages.
        connections: the most that are open at a time.
        started: on the monotonic clock; the time-out counts from here.
        idle: a reader's own connections, which another stream may use; opening one costs more than reading a small table.
    """

    url: URL
    schema: str | None
    label: str
    timeout_seconds: float
    connections: int = 1
    started: float = field(default_factory=time.monotonic)
    idle: SimpleQueue[Any] = field(default_factory=SimpleQueue)

    @cached_property
    def dialect(self) -> str:
        """The dialect's family: mariadb is mysql's."""
        name = self.url.get_backend_name()
        return "mysql" if name == "mariadb" else name

    @cached_property
    def engine(self) -> Engine:
        try:
            engine = sqla.create_engine(
                self.url, connect_args=self._get_connect_args(), poolclass=sqla.pool.QueuePool, pool_size=self.connections, max_overflow=0
            )
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise ConfigurationError(
                f"{self.label}: no driver for a {self.url.drivername} url is installed ({error})",
                remedy="install the database's SQLAlchemy dialect beside ETL Fabric, or use sqlite, postgresql or mysql",
            ) from None

        if self.dialect == "mysql":
            # MariaDB's own types, which SQLAlchemy knows under a url of MariaDB alone.
            dialect: Any = engine.dialect
            dialect.ischema_names = {"inet4": sqla.String, "inet6": sqla.String, **dialect.ischema_names}
        if self.dialect == "sqlite":
            # The other drivers have a time-out; SQLite asks after each million steps whether to continue.
            event.listen(engine, "connect", lambda connection, _: connection.set_progress_handler(lambda: int(self.is_late()), 1_000_000))
        return engine

    @property
    def login(self) -> dict[str, Any]:
        """The parameters of libpq that a Postgres url names; several hosts are one parameter."""
        query = {key: value if isinstance(value, str) else ",".join(value) for key, value in self.url.query.items()}
        parts = {"host": self.url.host, "port": self.url.port, "dbname": self.url.database, "user": self.url.username, "password": self.url.password}
        return query | {key: value for key, value in parts.items() if value is not None}

    @property
    def remaining_seconds(self) -> float:
        return self.started + self.timeout_seconds - time.monotonic()

    def is_late(self) -> bool:
        return self.remaining_seconds < 0

    def check_time(self) -> None:
        """Refuse to go on once the source's time is up.

        Raises:
            SourceUnavailable: the load has taken longer than the source's timeout.
        """
        if self.is_late():
            raise self._build_late_error()

    def _build_late_error(self) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self.label}: the load took longer than its timeout of {self.timeout_seconds:g} s",
            remedy="raise the source's timeout, or load less at a time (cursor, where)",
        )

    def quote(self, name: str) -> str:
        """Quote an identifier, always, by the dialect's own rules."""
        preparer = self.engine.dialect.identifier_preparer
        quoted = preparer.quote_identifier(name)
        # Drivers that format with % get it doubled; our statements are not formatted, or doubled as a whole.
        return quoted.replace("%%", "%") if "%%" in preparer.quote_identifier("%") else quoted

    def quote_table(self, table: str) -> str:
        return f"{self.quote(self.schema)}.{self.quote(table)}" if self.schema else self.quote(table)

    def reflect(self, tables: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Look up the columns of tables and views: name -> column -> declared type. Missing tables are left out.

        Raises:
            SourceError, SourceUnavailable: no connection, or no such schema.
        """
        try:
            # An inspector of one connection; an engine's inspector would open another one for each table.
            with self.engine.connect() as connection:
                inspector = sqla.inspect(connection)
                if self.schema and self.schema not in (schemas := inspector.get_schema_names()):
                    raise build_missing_error(self.label, kind="schema", name=self.schema, known=schemas, remedy="correct the source's schema")
                several = inspector.get_multi_columns(schema=self.schema, filter_names=sorted(tables), kind=ObjectKind.ANY)
                found = {name: columns for (_, name), columns in several.items() if columns}
                for name in set(tables) - set(found):
                    # Tables that the list of names leaves out: other spellings if case does not count, and synonyms.
                    with suppress(NoSuchTableError):
                        found[name] = inspector.get_columns(name, schema=self.schema)
                types = {name: {column["name"]: column["type"] for column in columns} for name, columns in found.items() if columns}
                if self.dialect == "mysql":
                    # SQLAlchemy reads the names from a statement of the server, in which they are quoted.
                    types = {table: {name.replace("``", "`"): kind for name, kind in columns.items()} for table, columns in types.items()}
                    _name_unknown_types(connection, self.schema, types)
        except (SQLAlchemyError, OSError) as error:
            raise self.explain(error, label=self.label) from None
        return types

    def build_column(self, name: str, declared: Any, *, label: str, value_forms: int) -> SqlColumn:
        """Plan how to read a column.

        Args:
            declared: the type that `reflect` gave it.
            value_forms: the version in which the stream's values are written.

        Raises:
            SourceError: its type cannot be carried.
        """
        return build_column(name, declared, quoted=self.quote(name), dialect=self.dialect, label=label, value_forms=value_forms)

    def get_table_names(self) -> Collection[str]:
        """Names of tables and views, for a message."""
        inspector = sqla.inspect(self.engine)
        names = {*inspector.get_table_names(schema=self.schema), *inspector.get_view_names(schema=self.schema)}
        return names | set(inspector.get_materialized_view_names(schema=self.schema)) if self.dialect == "postgresql" else names

    def build_missing_table_error(self, table: str, *, label: str) -> FabricError:
        try:
            known = self.get_table_names()
        except SQLAlchemyError as error:
            return self.explain(error, label=label)
        if table in known:
            return SourceError(f"{label}: the table {table!r} has no columns that the login may see", remedy="grant the login select on the table")
        remedy = "correct the stream's table (default: the stream's name), or the source's schema"
        if not known:
            remedy += "; or grant the login the right to see the tables (Postgres: usage on the schema, select on the tables)"
        return build_missing_error(label, kind="table", name=table, known=known, remedy=remedy)

    def close(self) -> None:
        """Close all connections, once nothing reads any more."""
        with suppress(Empty):
            while True:
                self.idle.get_nowait().close()
        self.engine.dispose()

    def explain(self, error: Exception, *, label: str) -> FabricError:
        """Turn a driver's exception into one of our errors, permanent or retriable, without quoting parameters."""
        if self.is_late():
            return self._build_late_error()
        cause = _get_cause(error)
        # Some drivers have no message when memory has run out.
        reason = " ".join(str(cause).split()) or f"{type(cause).__name__} without a word, as when memory has run out"
        return explain_reason(reason, is_outage=is_outage(cause), dialect=self.dialect, file=self.url.database, label=label)

    def find_objection(self, sql: str) -> str | None:
        """The database's error for a statement without parameters; None if it accepts the statement, or cannot be reached."""
        try:
            with self.engine.connect() as connection:
                connection.execution_options(no_parameters=True).exec_driver_sql(sql)
        except (SQLAlchemyError, OSError) as error:
            cause = _get_cause(error)
            return None if is_outage(cause) else " ".join(str(cause).split())
        return None

    def _get_connect_args(self) -> dict[str, Any]:
        seconds = max(1, int(self.timeout_seconds))
        connect = min(CONNECT_TIMEOUT_SECONDS, seconds)
        if self.url.drivername == "postgresql+psycopg2":
            options = f"-ctimezone=UTC -cstatement_timeout={seconds * 1000}"
            return complete_login({**self.login, "connect_timeout": connect, "options": options, "client_encoding": CLIENT_ENCODING})
        if self.url.drivername.endswith("+pymysql"):
            # The server converts each text, whatever charset a column has. To any charset but this one it would write ? for a letter that the charset lacks.
            charset = {"charset": "utf8mb4", "collation": ""}
            return {"connect_timeout": connect, "read_timeout": seconds, "init_command": "set time_zone = '+00:00'", **charset}
        if self.url.get_backend_name() == "sqlite":
            # Shorter than the load's own time, which would end it before SQLite could say that the file is locked.
            return {"timeout": min(CONNECT_TIMEOUT_SECONDS, seconds / 2)}
        return {}


def _get_cause(error: Exception) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def parse_url(text: str, *, label: str, origin: str) -> URL:
    """Read a database URL and name the driver that ships with us.

    Args:
        origin: where the url comes from, for the message; its value is never shown.

    Raises:
        ConfigurationError: it is not valid.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{label}: the url ({origin}) is not a database URL",
            remedy="write it as postgresql://user:password@host:port/database, mysql://..., sqlite:///path or duckdb:///path",
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername.endswith("+pymysql"):
        check_mysql_parameters(url, where=label)
    if url.get_backend_name() in _SERVERS:
        _check_login(url, f"{label}: the url ({origin})")
    if (name := FILES.get(url.get_backend_name())) and url.database and url.database != ":memory:" and not url.query and not Path(url.database).is_file():
        raise SourceError(f"{label}: the {name} file {url.database} does not exist", remedy="correct the path in the source's url")
    return url


def _check_login(url: URL, label: str) -> None:
    """Refuse a login that its driver would complete from the process's own environment, or from files of this machine."""
    remedy = "write it as postgresql://user:password@host:port/database, or mysql://..."
    if not (url.host or url.query.get("host") or url.query.get("unix_socket")) or not (url.username or url.query.get("user")):
        raise ConfigurationError(f"{label} lacks a host or a user", remedy=remedy)
    if url.get_backend_name() == "postgresql":
        refuse_foreign_logins(url.query, label)
    for name in _FOREIGN_TO_MYSQL:
        if url.get_backend_name() != "postgresql" and name in url.query:
            raise ConfigurationError(f"{label} has the parameter {name}, which reaches files of this machine", remedy="leave it out")


def _name_unknown_types(connection: sqla.Connection, schema: str | None, types: Mapping[str, dict[str, Any]]) -> None:
    """Put the names of types that SQLAlchemy does not know, such as geometry, into the mapping."""
    for table, columns in types.items():
        if not any(isinstance(kind, sqla.types.NullType) for kind in columns.values()):
            continue
        asked = "select column_name, column_type from information_schema.columns where table_schema = coalesce(:schema, database()) and table_name = :table"
        for name, declared in connection.execute(sqla.text(asked), {"schema": schema, "table": table}):
            if isinstance(columns.get(name), sqla.types.NullType):
                columns[name] = UnknownType(declared)
