"""A login -> an ADBC connection to Postgres, for whoever reads or writes Arrow data there."""

from typing import Any

from adbc_driver_postgresql import dbapi


def connect(conninfo: str, *, autocommit: bool = False) -> Any:
    """Open a DB-API connection that knows the types which every Postgres has. What has another one is to be cast in the query.

    Of its own accord the driver reads every column of every table in the database, to know their types as well: 0.1 s of work at 200 tables,
    for each connection.

    Args:
        conninfo: as libpq wants it.

    Raises:
        dbapi.Error: no connection.
    """
    return dbapi.connect(conninfo, db_kwargs={"adbc.postgresql.type_resolver_mode": "builtin"}, autocommit=autocommit)
