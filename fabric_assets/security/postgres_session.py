"""A login -> a psycopg2 session with the platform's settings, whatever role, database or connection pooler it goes through.

The settings are sent by statement, because pgbouncer refuses start-up options, or drops them. They override those of the role and of the database, which the
owner of a tenant's models can change. With another search_path, a tenant's own function could replace one of the server's.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote_text

_COMMON = {
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    # Row security that applies to the login is an error then: rows that it hides would be missing without a word.
    "row_security": "off",
}
# A setting that this version of Postgres does not have is left out.
_SET = (
    "select pg_catalog.set_config(s.name, s.value, false) from (values {pairs}) as s (name, value)"
    " where pg_catalog.current_setting(s.name, true) is not null{condition}"
)
_PID = "select pg_catalog.pg_backend_pid()"
_TRIES = 5


def build_settings(settings: Mapping[str, str], *, condition: str = "") -> str:
    """Write the statement that sets up a session of the platform's.

    Args:
        settings: this session's own, which are added to the common settings or replace them.
    """
    pairs = ", ".join(f"({quote_text(name)}, {quote_text(value)})" for name, value in (_COMMON | dict(settings)).items())
    return _SET.format(pairs=pairs, condition=condition)


def open_session(parameters: Mapping[str, Any], settings: Mapping[str, str], *, where: str) -> Any:
    """Connect and set the session up.

    Args:
        parameters: libpq's, complete.
        where: the server's name, for messages.

    Raises:
        DestinationError: a connection pooler gives the session another server connection after each transaction.
        psycopg2.Error: no connection, or the server refuses a setting.
    """
    import psycopg2

    def connect() -> Any:
        return psycopg2.connect(**{**parameters, "options": "", "client_encoding": "UTF8"})

    connection = connect()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # Behind a pooler the client is given a process number of the pooler's own making: then nothing is set yet.
            cursor.execute(build_settings(settings, condition=f" and pg_catalog.pg_backend_pid() = {connection.info.backend_pid}"))
            if not cursor.fetchall():
                if _shares_connection(connection, connect):
                    raise DestinationError(
                        f"{where} is behind a connection pooler in transaction mode (pgbouncer's pool_mode: transaction or statement),"
                        " which loses a session's settings and locks",
                        remedy="set pool_mode = session for this database and login, or name the server itself in the url",
                    )
                cursor.execute(build_settings(settings))
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def _shares_connection(first: Any, connect: Callable[[], Any]) -> bool:
    """Whether two clients share one server connection by turns: then a client's process on the server changes, or is the other client's."""
    import psycopg2

    with closing(connect()) as second:
        for _ in range(_TRIES):
            before = _ask_pid(first)
            try:
                between = _ask_pid(second)
            except psycopg2.OperationalError:
                _ask_pid(first)
                return True  # statement mode: the pooler cuts who begins a transaction, and goes on to answer the other
            if between == before or _ask_pid(first) != before:
                return True
            second.rollback()
    return False


def _ask_pid(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_PID)
        return cursor.fetchone()[0]
