"""The lock for creating and dropping roles on a server: one process at a time (ADR 0022).

Advisory locks have no owner, so a tenant's model can hold the one of `fabric provision`. A process therefore waits only for holders that may create roles.
Superusers also lock a catalog table that nobody else may lock, so they exclude one another whatever a tenant holds.
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg2.errors

from fabric_assets.errors import LeaseHeld

WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.25
# Any number, the same in every process. An advisory lock belongs to a database, so it is acquired in each one that is used, first in the login's.
_KEY = 4_610_325_110_927_364_002
# Shared by all databases of the server, and hardly ever read or written.
_TABLE = "pg_catalog.pg_shseclabel"
_TRY = f"select pg_catalog.pg_try_advisory_lock({_KEY})"
_TRY_TABLE = f"lock table {_TABLE} in share update exclusive mode nowait"
_HOLDERS = """
    select r.rolname::text, l.pid, coalesce(pg_catalog.host(a.client_addr), 'the server itself'), r.rolsuper or r.rolcreaterole
    from pg_catalog.pg_locks as l
    join pg_catalog.pg_stat_activity as a on a.pid = l.pid
    join pg_catalog.pg_roles as r on r.oid = a.usesysid
    where l.granted and l.pid <> pg_catalog.pg_backend_pid() and """
_OF_KEY = f"""l.locktype = 'advisory' and l.objsubid = 1 and (l.classid::bigint << 32 | l.objid::bigint) = {_KEY}
    and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())"""
_OF_TABLE = f"l.locktype = 'relation' and l.relation = '{_TABLE}'::pg_catalog.regclass and l.mode = 'ShareUpdateExclusiveLock'"

Report = Callable[[str], None]


class ProvisionLock:
    """A lock that is waited for up to a limit, with a report of who holds it.

    Args:
        server: its address, for messages.
        report: called once for each holder that is waited for, or ignored.
    """

    def __init__(self, server: str, report: Report | None, *, seconds: float | None = None) -> None:
        self._server, self._report, self._reported = server, report or (lambda _: None), set[str]()
        self._seconds = WAIT_SECONDS if seconds is None else seconds
        self._deadline = time.monotonic() + self._seconds

    def acquire(self, connection: Any) -> None:
        """Acquire the lock of a database, in autocommit. Ignore a holder that may not create roles.

        Raises:
            LeaseHeld: it was not free in time.
        """
        with connection.cursor() as cursor:
            while True:
                cursor.execute(_TRY)
                if cursor.fetchone()[0]:
                    return
                cursor.execute(_HOLDERS + _OF_KEY)
                for role, pid, origin, may_provision in cursor.fetchall():
                    if not may_provision:
                        self._report_once(
                            f"session {pid} of role {role} holds the lock of provisioning on {self._server}, but may make no roles: it is passed over"
                        )
                        return
                    self._wait(role, pid, origin)

    def acquire_server(self, connection: Any) -> None:
        """Acquire the lock that only superusers can acquire, until the connection's transaction ends.

        Raises:
            LeaseHeld: it was not free in time.
        """
        while True:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(_TRY_TABLE)
                return
            except psycopg2.errors.LockNotAvailable:
                connection.rollback()
            with connection.cursor() as cursor:
                cursor.execute(_HOLDERS + _OF_TABLE)
                for role, pid, origin, _ in cursor.fetchall():
                    self._wait(role, pid, origin)
            connection.rollback()

    def _wait(self, role: str, pid: int, origin: str) -> None:
        holder = f"role {role}, session {pid} from {origin}"
        if time.monotonic() >= self._deadline:
            raise LeaseHeld(
                f"another process provisions on {self._server} ({holder}); waited {self._seconds:g} s", remedy="wait for it to end, then run the command again"
            )
        self._report_once(f"waiting for another process that provisions on {self._server} ({holder})")
        time.sleep(_POLL_SECONDS)

    def _report_once(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            self._report(message)
