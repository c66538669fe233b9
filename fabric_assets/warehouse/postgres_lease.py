"""A connection and a source -> the right to load the source into Postgres: a lock on a row of a table (ADR 0023).

The table is in the tenant's own schema, so no other tenant's login can take the lock. The lock lasts as long as its transaction, and ends
with the session. It has a connection of its own, which works behind a pooler in session mode.
"""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import psycopg2.errors

from fabric_assets import naming
from fabric_assets.errors import DestinationError, LeaseHeld
from fabric_assets.quoting import quote
from fabric_assets.security.postgres_session import build_settings
from fabric_assets.warehouse.session import Table

LEASES = "load_leases"
_POLL_SECONDS = 0.25
# The server notices after half a minute that a holder's machine is gone.
_SESSION = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "statement_timeout": "0",
}
_HOLDER = (
    "select coalesce(nullif(a.application_name, ''), 'another login') || ', session ' || a.pid || ' from '"
    " || coalesce(pg_catalog.host(a.client_addr), 'the server itself'), a.usesysid = (select oid from pg_catalog.pg_roles where rolname = current_user)"
    " from pg_catalog.pg_locks as l join pg_catalog.pg_stat_activity as a on a.pid = l.pid where l.granted and "
)
_OF_ROW = "l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.transactionid = (select t.xmax from {table} as t where t.source = %s)"
_OF_KEY = (
    "l.locktype = 'advisory' and l.objsubid = 1 and (l.classid::bigint << 32 | l.objid::bigint) = %s"
    " and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())"
)
_KIND = "select c.relkind::text from pg_catalog.pg_class as c where c.oid = pg_catalog.to_regclass(%s)"
_ALREADY = (psycopg2.errors.DuplicateSchema, psycopg2.errors.DuplicateTable, psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation)
Report = Callable[[str], None]


def get_lease_table(tenant: str) -> Table:
    return Table(naming.platform_dataset(tenant), LEASES)


class PostgresLease:
    """The lease of one source, held on a connection until that is closed.

    Args:
        connection: set up as the tenant's, outside of a transaction.
        old_key: the advisory lock of earlier versions; for one release it is taken too.
        report: called once if there is a wait.
    """

    def __init__(self, connection: Any, tenant: str, source: str, *, old_key: int, timeout_seconds: float, report: Report | None) -> None:
        self._connection, self._source, self._old_key = connection, source, old_key
        self._table, self._where = get_lease_table(tenant), f"tenant {tenant}, source {source}"
        self._timeout, self._deadline, self._report = timeout_seconds, time.monotonic() + timeout_seconds, report

    def acquire(self, *, makes_table: bool, missing_schema_remedy: str) -> None:
        """Acquire both locks.

        Args:
            makes_table: whether to make the table of leases if it is missing; without the table nobody holds a lease.

        Raises:
            LeaseHeld: they were not free in time.
            DestinationError: the table cannot be made, or is something else.
        """
        name = f"fabric load, process {os.getpid()} on {socket.gethostname()}"[:63]
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(build_settings(_SESSION | {"application_name": name}))
            if self._find_table(cursor, makes=makes_table, remedy=missing_schema_remedy):
                self._lock_row(cursor)
            self._lock_key(cursor)

    def _find_table(self, cursor: Any, *, makes: bool, remedy: str) -> bool:
        while True:
            cursor.execute(_KIND, (str(self._table),))
            if found := cursor.fetchone():
                if found[0] != "r":
                    raise DestinationError(f"{self._where}: {self._table} is not a table", remedy=f"drop it: the next load makes the table {LEASES} there")
                return True
            if not makes:
                return False
            cursor.execute("select 1 from pg_catalog.pg_namespace where nspname = %s", (self._table.schema,))
            has_schema = cursor.fetchone() is not None
            try:
                if not has_schema:
                    cursor.execute(f"create schema {quote(self._table.schema)}")
                cursor.execute(f"create table {self._table} (source text primary key)")
            except _ALREADY:  # another load has just made it
                continue
            except psycopg2.errors.InsufficientPrivilege as error:
                reason = f"the login may not make {self._table}: {error.diag.message_primary}"
                if not has_schema:
                    reason = f"there is no schema {self._table.schema}, and the login may not make it"
                raise DestinationError(f"{self._where}: {reason}", remedy=remedy) from None

    def _lock_row(self, cursor: Any) -> None:
        while True:
            self._connection.autocommit = False
            cursor.execute(f"select source from {self._table} where source = %s for update skip locked", (self._source,))
            if cursor.fetchone():
                return  # the transaction goes on, and holds it
            self._connection.rollback()
            self._connection.autocommit = True
            cursor.execute(f"insert into {self._table} (source) values (%s) on conflict do nothing", (self._source,))
            if not cursor.rowcount:
                cursor.execute(_HOLDER + _OF_ROW.format(table=self._table), (self._source,))
                found = cursor.fetchone()
                self._wait(found[0] if found else "one that has just ended")

    def _lock_key(self, cursor: Any) -> None:
        while True:
            cursor.execute("select pg_catalog.pg_try_advisory_lock(%s)", (self._old_key,))
            if cursor.fetchone()[0]:
                return
            cursor.execute(_HOLDER + _OF_KEY, (self._old_key,))
            for holder, is_own in cursor.fetchall():
                if not is_own:  # not a load of this tenant: any login can take an advisory lock
                    return
                self._wait(holder)

    def _wait(self, holder: str) -> None:
        if time.monotonic() >= self._deadline:
            raise LeaseHeld(
                f"{self._where}: another run is loading it ({holder}); waited {self._timeout:g} s", remedy="wait for the other run to end, then try again"
            )
        if self._report:
            self._report(f"{self._where}: waiting for another run to end ({holder})")
            self._report = None
        time.sleep(_POLL_SECONDS)
