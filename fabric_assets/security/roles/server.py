"""A login -> connections to the databases of its server, each under the one lock that all who make and drop roles wait for."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.masking import redact
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.security.roles.estate import ServerLogin

# Any number, the same in every process. Advisory locks are a database's, so it is taken in each one, the first one first.
_LOCK = 4_610_325_110_927_364_002
# What blocks a change is another session's open transaction; who waits for ever would hold up all tenants.
_OPTIONS = "-ctimezone=UTC -cstatement_timeout=0 -clock_timeout=120s -cidle_in_transaction_session_timeout=0 -csearch_path=pg_catalog -crole=none"
_CONNECT_TIMEOUT_SECONDS = 15
# What libpq says where the server answered; it gives no SQLSTATE of a connection that did not come about.
_REFUSALS = ("authentication failed", "no password supplied", "pg_hba.conf", "does not exist", "permission denied", "not permitted to log in")

Report = Callable[[str], None]


class Server:
    """The open connections, in autocommit.

    Args:
        report: told once where another process holds the lock.
    """

    def __init__(self, login: ServerLogin, report: Report | None = None) -> None:
        self.login, self._report = login, report
        self._connections: dict[str, Any] = {}
        self.version: int = self.get(login.database).server_version
        ((self.user, self.is_superuser),) = self.ask("select current_user::text, rolsuper from pg_roles where rolname = current_user")

    def get(self, database: str) -> Any:
        """Give the connection to a database, opened and locked at its first use.

        Raises:
            DestinationError: the login is refused, or there is no such database.
            DestinationUnavailable: no connection.
        """
        if database not in self._connections:
            connection = self._connect(database)
            try:
                self._lock(connection)
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
        """Run statements in one round trip, which the server takes as one transaction."""
        if statements:
            with self.get(database or self.login.database).cursor() as cursor:
                cursor.execute(";\n".join(statements))

    def close_database(self, database: str) -> None:
        """Let a database go: one that has connections cannot be dropped."""
        if connection := self._connections.pop(database, None):
            connection.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _connect(self, database: str) -> Any:
        login = self.login
        try:
            connection = psycopg2.connect(**build_parameters(login, database, program="fabric provision", options=_OPTIONS))
        except psycopg2.OperationalError as error:
            raise _translate(error, login, database) from None
        connection.autocommit = True
        return connection

    def _lock(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select pg_try_advisory_lock(%s)", (_LOCK,))
            if cursor.fetchone()[0]:
                return
            if self._report:
                self._report(f"waiting for another process that provisions on {self.login.place}")
            cursor.execute("set lock_timeout = 0")
            cursor.execute("select pg_advisory_lock(%s)", (_LOCK,))
            cursor.execute("reset lock_timeout")


def build_parameters(login: ServerLogin, database: str, *, program: str, options: str) -> dict[str, Any]:
    """All that libpq is told of a login, so that it looks nowhere else."""
    own = {"host": login.host, "port": login.port, "dbname": database, "user": login.user, "password": login.password}
    return complete_login({**own, **login.query, "connect_timeout": _CONNECT_TIMEOUT_SECONDS, "options": options, "application_name": program})


@contextmanager
def open_server(login: ServerLogin, report: Report | None = None) -> Iterator[Server]:
    """Connect, and hold the lock for the block.

    Raises:
        DestinationError: the login is refused.
        DestinationUnavailable: no connection, or it was lost.
    """
    server = Server(login, report)
    try:
        yield server
    except psycopg2.Error as error:
        raise _translate(error, login, login.database) from None
    finally:
        with contextlib.suppress(psycopg2.Error):
            server.close()


def _translate(error: psycopg2.Error, login: ServerLogin, database: str) -> DestinationError | DestinationUnavailable:
    reason = redact(" ".join(str(error).split()), [login.password])
    place = f"{login.origin} ({login.user} at {login.place}, database {database})"
    if error.pgcode is None and not any(word in reason for word in _REFUSALS):
        return DestinationUnavailable(f"{place} cannot be reached: {reason}", remedy="check host, port and network, then run the command again")
    return DestinationError(f"{place}: {reason}", remedy="see docs/postgres.md for what this login must be allowed")
