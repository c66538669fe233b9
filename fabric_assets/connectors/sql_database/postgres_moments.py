"""One moment of a Postgres source -> all streams of a load read it, and know which transactions it does not show.

A transaction exports its snapshot, and each stream's own transaction uses it. The exporting transaction is held until every stream has begun to read, but not
longer than `snapshot_hold`. It keeps the server from removing old row versions.
"""

import contextlib
import threading
from collections.abc import Collection, Sequence
from typing import Any

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.moments import Moment, Moments

# If this process is stopped, the server ends the transaction.
_BEGIN = "begin isolation level repeatable read read only; set local idle_in_transaction_session_timeout = {milliseconds}; "
# Asked in the statement that takes the snapshot. Every transaction holds a lock on its virtual id, from its first moment and before it has an xid;
# but a prepared one. Sessions without a user are the server's own, such as autovacuum.
_ASK = """
select pg_catalog.pg_export_snapshot(), pg_catalog.txid_current_snapshot()::text, pg_catalog.pg_is_in_recovery(),
  pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot()) < pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) or exists (
    select 1 from pg_catalog.pg_locks as l join pg_catalog.pg_stat_activity as s on s.pid = l.pid
    where l.locktype = 'virtualxid' and l.granted and l.pid <> pg_catalog.pg_backend_pid() and s.usesysid is not null
    and s.datid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
  or exists (select 1 from pg_catalog.pg_prepared_xacts where database = pg_catalog.current_database()),
  array(
    with recursive tree (name, root, id) as (
      select name, pg_catalog.to_regclass(name)::oid, pg_catalog.to_regclass(name)::oid from pg_catalog.unnest(%s::text[]) as asked (name)
      union select tree.name, tree.root, i.inhrelid from tree join pg_catalog.pg_inherits as i on i.inhparent = tree.id)
    select name from tree join pg_catalog.pg_class as c on c.oid = tree.id group by name, root
    having case when bool_and(c.relkind in ('r', 'p', 'm') and c.relam in (0, 2)) then pg_catalog.has_column_privilege(root, 'xmin', 'select') end)
"""


class PostgresMoments(Moments):
    """A moment as a transaction whose snapshot the streams' own transactions use.

    Args:
        tables: quoted; those whose row versions may be asked for.
        hold_seconds: the longest time that a moment is held.
    """

    are_shared = True

    def __init__(self, database: Database, *, streams: Collection[str], tables: Sequence[str], hold_seconds: float) -> None:
        super().__init__(streams)
        self._database, self._tables, self._hold_seconds = database, list(tables), hold_seconds
        self._holder: Any = None
        self._timer: threading.Timer | None = None

    def _is_held(self, moment: Moment) -> bool:
        return self._holder is not None

    def _end_waiting(self) -> None:
        self._release()

    def _open(self, number: int) -> Moment | None:
        if self.impossible:
            return None
        try:
            pooled = self._database.engine.raw_connection()
            connection: Any = pooled.driver_connection
            # Detached from the pool: a held connection must not count against those of the readers.
            pooled.detach()
        except (SQLAlchemyError, OSError) as error:
            raise self._database.explain(error, label=self._database.label) from None
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(_BEGIN.format(milliseconds=max(1, int(self._hold_seconds * 1000))) + _ASK, (self._tables,))
                export, snapshot, is_standby, is_open, versioned = cursor.fetchone()
        except psycopg2.Error as error:
            connection.close()
            if isinstance(error, psycopg2.OperationalError):
                raise self._database.explain(error, label=self._database.label) from None
            # Not every server that speaks Postgres's protocol has snapshots to export.
            self.impossible = f"the server exports no snapshot: {' '.join(str(error).split())}"
            return None
        moment = Moment(number, export, snapshot=snapshot, is_open=is_open, versioned=frozenset() if is_standby else frozenset(versioned))
        self._holder = connection
        self._timer = threading.Timer(self._hold_seconds, self.lose, (moment,))
        self._timer.daemon = True
        self._timer.start()
        return moment

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._holder is not None:
            with contextlib.suppress(psycopg2.Error):
                self._holder.close()
        self._current = self._holder = self._timer = None
