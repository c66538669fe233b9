"""One moment of a MySQL or MariaDB source -> all streams of a load read it, one after the other over one connection.

A transaction with a consistent snapshot shows tables of InnoDB as they were when it began. No other connection can take it over.
"""

import contextlib
from collections.abc import Collection
from typing import Any

import pymysql
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.moments import Moment, Moments

_BEGIN = ("set session transaction isolation level repeatable read", "start transaction with consistent snapshot, read only")


class MysqlMoments(Moments):
    """A moment as a transaction on one connection, over which all streams are read."""

    def __init__(self, database: Database, *, streams: Collection[str]) -> None:
        super().__init__(streams)
        self._database = database

    def _open(self, number: int) -> Moment | None:
        try:
            pooled = self._database.engine.raw_connection()
            connection: Any = pooled.driver_connection
            # The pool would roll the transaction back.
            pooled.detach()
            with connection.cursor() as cursor:
                for statement in _BEGIN:
                    cursor.execute(statement)
        except (SQLAlchemyError, pymysql.MySQLError, OSError) as error:
            raise self._database.explain(error, label=self._database.label) from None
        return Moment(number, connection=connection)

    def _is_held(self, moment: Moment) -> bool:
        return moment.connection.open

    def _end_waiting(self) -> None:
        """Do nothing: the last stream still reads over the connection."""

    def _release(self) -> None:
        if self._current is not None:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                self._current.connection.close()
        self._current = None
