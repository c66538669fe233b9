"""A login -> connections to the databases of its server, each with the lock for creating and dropping roles."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.masking import redact
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.security.postgres_session import open_session
from fabric_assets.security.roles.entitlements import ServerLogin
from fabric_assets.security.roles.provision_lock import ProvisionLock

# Another session's open transaction can block a change; without limits it would hold up all tenants.
_SETTINGS = {"statement_timeout": "0", "lock_timeout": "120s", "idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0", "role": "none"}
_CONNECT_TIMEOUT_SECONDS = 15
# What libpq says where the server answered; it gives no SQLSTATE of a connection that did not come about.
_REFUSALS = ("authentication failed", "no password supplied", "pg_hba.conf", "does not exist", "permission denied", "not permitted to log in")

# The connection that holds the server's lock: no database has this name.
_GUARD = ""

Report = Callable[[str], None]


class Server:
    """The open connections to a server's databases, in autocommit.

    Args:
        report: called where another process holds the lock.
    """

    def __init__(self, login: ServerLogin, report: Report | None = None) -> None:
        self.login, self._lock = login, ProvisionLock(login.address, report)
        self._connections: dict[str, Any] = {}
        try:
            first = self._connections[login.database] = self._connect(login.database)
            self.version: int = first.server_version
            ((self.user, self.is_superuser),) = self.ask("select current_user::text, rolsuper from pg_catalog.pg_roles where rolname = current_user")
            if self.is_superuser:
                # Before any database's lock: two processes that acquired them in different orders would wait for each other.
                guard = self._connections[_GUARD] = self._connect(login.database)
                guard.autocommit = False
                self._lock.acquire_server(guard)
            self._lock.acquire(first)
        except BaseException:
            self.close()
            raise

    def get(self, database: str) -> Any:
        """Give the connection to a database, opened and locked at its first use.

        Raises:
            DestinationError: the login is refused, or there is no such database.
            DestinationUnavailable: no connection.
        """
        if database not in self._connections:
            connection = self._connect(database)
            try:
                self._lock.acquire(connection)
            except BaseException:
                connection.close()
                raise
            self._connections[database] = connection
        return self._connections[database]

    def ask(self, sql: str, parameters: Any = None, *, database: str = "") -> list[tuple[Any, ...]]:
        with self.get(database or self.login.database).cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def run(self, statements: list[str], *, database: str = "") -> None:
        """Run statements in one round trip, which the server treats as one transaction."""
        if statements:
            with self.get(database or self.login.database).cursor() as cursor:
                cursor.execute(";\n".join(statements))

    def close_database(self, database: str) -> None:
        """Close the connection to a database: a database with connections cannot be dropped."""
        if connection := self._connections.pop(database, None):
            connection.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _connect(self, database: str) -> Any:
        login = self.login
        try:
            connection = open_session(build_parameters(login, database, program="fabric provision"), _SETTINGS, where=f"{login.origin} ({login.address})")
        except psycopg2.OperationalError as error:
            raise _translate(error, login, database) from None
        connection.autocommit = True
        return connection


def build_parameters(login: ServerLogin, database: str, *, program: str) -> dict[str, Any]:
    """Build all of libpq's parameters for a login, so that libpq looks nowhere else for them."""
    own = {"host": login.host, "port": login.port, "dbname": database, "user": login.user, "password": login.password}
    return complete_login({**own, **login.query, "connect_timeout": _CONNECT_TIMEOUT_SECONDS, "options": "", "application_name": program})


@contextmanager
def open_server(login: ServerLogin, report: Report | None = None) -> Iterator[Server]:
    """Connect, and hold the lock until the block ends.

    Raises:
        DestinationError: the login is refused.
        DestinationUnavailable: no connection, or it was lost.
    """
    server = None
    try:
        server = Server(login, report)
        yield server
    except psycopg2.Error as error:
        raise _translate(error, login, login.database) from None
    finally:
        if server is not None:
            with contextlib.suppress(psycopg2.Error):
                server.close()


def _translate(error: psycopg2.Error, login: ServerLogin, database: str) -> DestinationError | DestinationUnavailable:
    reason = redact(" ".join(str(error).split()), [login.password])
    where = f"{login.origin} ({login.user} at {login.address}, database {database})"
    if error.pgcode is None and not any(word in reason for word in _REFUSALS):
        return DestinationUnavailable(f"{where} cannot be reached: {reason}", remedy="check host, port and network, then run the command again")
    return DestinationError(f"{where}: {reason}", remedy="see docs/postgres.md for what this login must be allowed")
