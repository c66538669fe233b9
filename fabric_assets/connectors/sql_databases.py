"""A `sql_database` source's url -> a database that is asked about tables and columns, and errors in plain words.

The url is changed in two ways only: the driver that ships with us is named where the url names none, and connect and read
time-outs are set, so that a black hole on the network ends a load instead of hanging it.
"""

import re
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

from fabric_assets.connectors.outages import is_outage
from fabric_assets.connectors.sql_columns import SqlColumn, build_column
from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.connectors.tls import check_mysql_parameters, get_tls_remedy
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.security.postgres_login import complete_login, refuse_foreign_logins

# It names neither tenant nor stream; a column of such a type is refused by name, or left out by the YAML.
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
_FILES = {"sqlite": "SQLite", "duckdb": "DuckDB"}
_LOCKED = re.compile(r"database (table )?is locked|could not set lock")
_LOCK_REMEDIES = {
    "sqlite": "and keep its transactions short; in WAL mode (PRAGMA journal_mode=WAL) SQLite reads beside a writer. The load tries again as its retries say",
    "duckdb": "since DuckDB lets no program read a file beside a writer; or read a copy. The load tries again as its retries say",
}
_LOGIN_WORDS = ("authentication failed", "access denied", "no password supplied", "no pg_hba.conf entry", "login failed")
_MISSING_WORDS = (
    "does not exist",
    "unknown database",
    "unable to open database",
    "unknown column",
    "no such",
    "syntax",
    "not exist",
    "doesn't exist",
    "not found in",
)


@dataclass(frozen=True)
class Database:
    """One source's database, shared by the threads that read its streams.

    Args:
        place: tenant and source, for messages.
        connections: how many are open at a time.
        started: on the monotonic clock; the time-out counts from here.
        idle: connections of a reader's own that another stream may go on with; making one costs more than reading a small table.
    """

    url: URL
    schema: str | None
    place: str
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
                f"{self.place}: no driver for a {self.url.drivername} url is installed ({error})",
                remedy="install the database's SQLAlchemy dialect beside ETL Fabric, or use sqlite, postgresql or mysql",
            ) from None

        if self.dialect == "sqlite":
            # The other drivers know a time-out; SQLite asks every so many steps whether to go on.
            event.listen(engine, "connect", lambda connection, _: connection.set_progress_handler(lambda: int(self.is_late()), 1_000_000))
        return engine

    @property
    def login(self) -> dict[str, Any]:
        """A Postgres url as libpq's parameters, as far as it names them; several hosts stand in one parameter."""
        query = {key: value if isinstance(value, str) else ",".join(value) for key, value in self.url.query.items()}
        parts = {"host": self.url.host, "port": self.url.port, "dbname": self.url.database, "user": self.url.username, "password": self.url.password}
        return query | {key: value for key, value in parts.items() if value is not None}

    @property
    def remaining_seconds(self) -> float:
        return self.started + self.timeout_seconds - time.monotonic()

    def is_late(self) -> bool:
        return self.remaining_seconds < 0

    def check_time(self) -> None:
        """Raises:
        SourceUnavailable: the load has taken longer than the source's timeout.
        """
        if self.is_late():
            raise self._build_late_error()

    def _build_late_error(self) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self.place}: the load took longer than its timeout of {self.timeout_seconds:g} s",
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
        """Ask for the columns of tables and views: name -> column -> declared type. What does not exist is left out.

        Raises:
            SourceError, SourceUnavailable: no connection, or no such schema.
        """
        try:
            # An inspector of one connection: that of an engine would take another for each table.
            with self.engine.connect() as connection:
                inspector = sqla.inspect(connection)
                if self.schema and self.schema not in (schemas := inspector.get_schema_names()):
                    raise build_missing_error(self.place, kind="schema", name=self.schema, known=schemas, remedy="correct the source's schema")
                several = inspector.get_multi_columns(schema=self.schema, filter_names=sorted(tables), kind=ObjectKind.ANY)
                found = {name: columns for (_, name), columns in several.items() if columns}
                for name in set(tables) - set(found):
                    # Whatever the list of names leaves out: another spelling where case does not count, a synonym.
                    with suppress(NoSuchTableError):
                        found[name] = inspector.get_columns(name, schema=self.schema)
        except (SQLAlchemyError, OSError) as error:
            raise self.explain(error, place=self.place) from None
        return {name: {column["name"]: column["type"] for column in columns} for name, columns in found.items() if columns}

    def build_column(self, name: str, declared: Any, *, place: str) -> SqlColumn:
        """Plan how to read a column.

        Args:
            declared: the type that `reflect` gave it.

        Raises:
            SourceError: its type cannot be carried.
        """
        return build_column(name, declared, quoted=self.quote(name), dialect=self.dialect, place=place)

    def get_table_names(self) -> Collection[str]:
        """Names of tables and views, for a message."""
        inspector = sqla.inspect(self.engine)
        names = {*inspector.get_table_names(schema=self.schema), *inspector.get_view_names(schema=self.schema)}
        return names | set(inspector.get_materialized_view_names(schema=self.schema)) if self.dialect == "postgresql" else names

    def build_missing_table_error(self, table: str, *, place: str) -> FabricError:
        try:
            known = self.get_table_names()
        except SQLAlchemyError as error:
            return self.explain(error, place=place)
        return build_missing_error(
            place, kind="table", name=table, known=known, remedy="correct the stream's table (default: the stream's name), or the source's schema"
        )

    def close(self) -> None:
        """Close what is open; only when nothing reads any more."""
        with suppress(Empty):
            while True:
                self.idle.get_nowait().close()
        self.engine.dispose()

    def explain(self, error: Exception, *, place: str) -> FabricError:
        """Turn a driver's exception into ours: refused for good, or worth another try. Never quotes parameters."""
        if self.is_late():
            return self._build_late_error()
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        # Some drivers find no words where they can no longer allocate any.
        reason = " ".join(str(cause).split()) or f"{type(cause).__name__} without a word, as when memory has run out"
        low = reason.lower()
        if remedy := get_tls_remedy(reason):
            return SourceError(f"{place}: no trusted TLS connection to the database: {reason}", remedy=remedy)
        if known := self._explain_known(reason, place=place):
            return known
        if any(word in low for word in _LOGIN_WORDS):
            return SourceError(f"{place}: the database refuses the login: {reason}", remedy="check the user and password in the source's url")
        if any(word in low for word in _MISSING_WORDS):
            return SourceError(f"{place}: the database refuses: {reason}", remedy="check the source's url and schema, and the stream's where")
        if is_outage(cause):
            return SourceUnavailable(
                f"{place}: the database cannot be reached: {reason}", remedy="check that it runs, and host, port and network of the source's url"
            )
        return SourceError(f"{place}: the database answers with an error: {reason}", remedy="run the stream's query in the database to see more")

    def _explain_known(self, reason: str, *, place: str) -> FabricError | None:
        """What a database says about one thing only: a file's lock or damage, or a text that UTF-8 has no letters for."""
        low, file = reason.lower(), self.url.database
        if "has no equivalent in encoding" in low or "invalid byte sequence for encoding" in low:
            return SourceError(
                f"{place}: the database holds a text that does not convert to UTF-8: {reason}",
                remedy="correct it at the source, or leave its row out by the stream's where; a text that the database cannot convert is never loaded",
            )
        if self.dialect not in _FILES:
            return None
        name = _FILES[self.dialect]
        if _LOCKED.search(low):
            return SourceUnavailable(
                f"{place}: another program has locked the {name} file {file}: {reason}",
                remedy=f"let that program commit or end, {_LOCK_REMEDIES[self.dialect]}",
            )
        if "file is not a database" in low or "not a valid duckdb database" in low:
            return SourceError(f"{place}: {file} is not a {name} file, or it is encrypted: {reason}", remedy="correct the path in the source's url")
        if "malformed" in low or "corrupt" in low:
            return SourceError(
                f"{place}: the {name} file {file} is damaged: {reason}", remedy=f"restore it from a backup, or recover it with {name}'s own tools"
            )
        return None

    def _get_connect_args(self) -> dict[str, Any]:
        seconds = max(1, int(self.timeout_seconds))
        connect = min(CONNECT_TIMEOUT_SECONDS, seconds)
        if self.url.drivername == "postgresql+psycopg2":
            options = f"-ctimezone=UTC -cstatement_timeout={seconds * 1000}"
            return complete_login({**self.login, "connect_timeout": connect, "options": options, "client_encoding": CLIENT_ENCODING})
        if self.url.drivername.endswith("+pymysql"):
            # The server converts each text, whatever charset a column has; to any charset but this one it would write ? for a letter that has no place there.
            charset = {"charset": "utf8mb4", "collation": ""}
            return {"connect_timeout": connect, "read_timeout": seconds, "init_command": "set time_zone = '+00:00'", **charset}
        if self.url.get_backend_name() == "sqlite":
            # Shorter than the load's own time, which would end it before SQLite could say that the file is locked.
            return {"timeout": min(CONNECT_TIMEOUT_SECONDS, seconds / 2)}
        return {}


def parse_url(text: str, *, place: str, origin: str) -> URL:
    """Read a database URL and name the driver that ships with us.

    Args:
        origin: where the url comes from, for the message; its value is never shown.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{place}: the url ({origin}) is no database URL",
            remedy="write it as postgresql://user:password@host:port/database, mysql://..., sqlite:///path or duckdb:///path",
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername.endswith("+pymysql"):
        check_mysql_parameters(url, place=place)
    if url.get_backend_name() in _SERVERS:
        _check_login(url, f"{place}: the url ({origin})")
    if (name := _FILES.get(url.get_backend_name())) and url.database and url.database != ":memory:" and not url.query and not Path(url.database).is_file():
        raise SourceError(f"{place}: the {name} file {url.database} does not exist", remedy="correct the path in the source's url")
    return url


def _check_login(url: URL, place: str) -> None:
    """Refuse a login that its driver would complete from the process's own environment, or from files of this machine."""
    remedy = "write it as postgresql://user:password@host:port/database, or mysql://..."
    if not (url.host or url.query.get("host") or url.query.get("unix_socket")) or not (url.username or url.query.get("user")):
        raise ConfigurationError(f"{place} lacks a host or a user", remedy=remedy)
    if url.get_backend_name() == "postgresql":
        refuse_foreign_logins(url.query, place)
    for name in _FOREIGN_TO_MYSQL:
        if url.get_backend_name() != "postgresql" and name in url.query:
            raise ConfigurationError(f"{place} has the parameter {name}, which reaches files of this machine", remedy="leave it out")
