"""A login -> an ADBC connection to Postgres, which reads and writes Arrow data."""

from typing import Any

from adbc_driver_postgresql import dbapi


def connect(conninfo: str, *, autocommit: bool = False) -> Any:
    """Open a DB-API connection that knows only Postgres's built-in types; queries must cast values of other types.

    By default the driver reads every column of every table in the database, to know their types too. That takes 0.1 s at 200 tables for
    each connection.

    Args:
        conninfo: in the form of libpq.

    Raises:
        dbapi.Error: no connection.
    """
    return dbapi.connect(conninfo, db_kwargs={"adbc.postgresql.type_resolver_mode": "builtin"}, autocommit=autocommit)
