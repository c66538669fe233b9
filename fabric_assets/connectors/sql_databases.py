"""A `sql_database` source's url -> an engine that is asked about tables and columns, and errors in plain words.

The url is changed in two ways only: the driver that ships with us is named where the url names none, and connect and read
time-outs are set, so that a black hole on the network ends a load instead of hanging it.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sqlalchemy as sqla
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable

CONNECT_TIMEOUT_SECONDS = 15
_DRIVERS = {
    "postgres": "postgresql+psycopg2",
    "postgresql": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_LOGIN_WORDS = ("authentication failed", "access denied", "no password supplied", "no pg_hba.conf entry", "login failed")
_MISSING_WORDS = ("does not exist", "unknown database", "unable to open database", "unknown column", "no such", "syntax", "not exist", "doesn't exist")
_UNREACHABLE_WORDS = (
    "could not connect",
    "connection refused",
    "can't connect",
    "timeout",
    "timed out",
    "could not translate host",
    "lost connection",
    "server closed the connection",
    "connection to server",
    "gone away",
    "no route",
    "too many connections",
    "terminating connection",
    "statement timeout",
    "locked",
)


@dataclass(frozen=True)
class Database:
    """One source's database.

    Args:
        place: tenant and source, for messages.
        started: on the monotonic clock; the time-out counts from here.
    """

    url: URL
    schema: str | None
    place: str
    timeout_seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def dialect(self) -> str:
        """The dialect's family: mariadb is mysql's."""
        name = self.url.get_backend_name()
        return "mysql" if name == "mariadb" else name

    @cached_property
    def engine(self) -> Engine:
        try:
            engine = sqla.create_engine(self.url, connect_args=self._get_connect_args(), poolclass=sqla.pool.NullPool)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise ConfigurationError(
                f"{self.place}: no driver for a {self.url.drivername} url is installed ({error})",
                remedy="install the database's SQLAlchemy dialect beside ETL Fabric, or use sqlite, postgresql or mysql",
            ) from None

        if self.dialect == "sqlite":
            # The other drivers know a time-out; SQLite asks every so many steps whether to go on.
            event.listen(engine, "connect", lambda connection, _: connection.set_progress_handler(lambda: int(self.is_late()), 100_000))
        return engine

    def is_late(self) -> bool:
        return time.monotonic() - self.started > self.timeout_seconds

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

    def get_columns(self, table: str, *, place: str) -> list[dict[str, Any]]:
        """Reflect a table's or view's columns.

        Raises:
            SourceError: there is no such table; names the nearest.
            SourceUnavailable: no connection.
        """
        try:
            inspector = sqla.inspect(self.engine)
            try:
                columns = inspector.get_columns(table, schema=self.schema)
            except NoSuchTableError:
                columns = []
            if columns:
                return [dict(column) for column in columns]
            if self.schema and self.schema not in (schemas := inspector.get_schema_names()):
                raise build_missing_error(place, kind="schema", name=self.schema, known=schemas, remedy="correct the source's schema")
            known = {*inspector.get_table_names(schema=self.schema), *inspector.get_view_names(schema=self.schema)}
            if self.dialect == "postgresql":
                known |= set(inspector.get_materialized_view_names(schema=self.schema))
        except SQLAlchemyError as error:
            raise self.explain(error, place=place) from None
        raise build_missing_error(
            place, kind="table", name=table, known=known, remedy="correct the stream's table (default: the stream's name), or the source's schema"
        )

    def explain(self, error: Exception, *, place: str) -> FabricError:
        """Turn a driver's exception into ours: refused for good, or worth another try. Never quotes parameters or the url's password."""
        if self.is_late():
            return self._build_late_error()
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        reason = " ".join(str(cause).split())
        if self.url.password:
            reason = reason.replace(str(self.url.password), "***")
        low = reason.lower()
        if any(word in low for word in _LOGIN_WORDS):
            return SourceError(f"{place}: the database refuses the login: {reason}", remedy="check the user and password in the source's url")
        if any(word in low for word in _MISSING_WORDS):
            return SourceError(f"{place}: the database refuses: {reason}", remedy="check the source's url and schema, and the stream's where")
        if any(word in low for word in _UNREACHABLE_WORDS):
            return SourceUnavailable(
                f"{place}: the database cannot be reached: {reason}", remedy="check that it runs, and host, port and network of the source's url"
            )
        return SourceError(f"{place}: the database answers with an error: {reason}", remedy="run the stream's query in the database to see more")

    def _get_connect_args(self) -> dict[str, Any]:
        seconds = max(1, int(self.timeout_seconds))
        if self.url.drivername == "postgresql+psycopg2":
            return {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "options": f"-ctimezone=UTC -cstatement_timeout={seconds * 1000}"}
        if self.url.drivername.endswith("+pymysql"):
            return {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "read_timeout": seconds, "init_command": "set time_zone = '+00:00'"}
        if self.url.get_backend_name() == "sqlite":
            return {"timeout": min(CONNECT_TIMEOUT_SECONDS, seconds)}
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
            f"{place}: the url ({origin}) is no database URL", remedy="write it as postgresql://user:password@host:port/database, mysql://... or sqlite:///path"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:" and not url.query:
        from pathlib import Path

        if not Path(url.database).is_file():
            raise SourceError(f"{place}: the SQLite file {url.database} does not exist", remedy="correct the path in the source's url")
    return url
