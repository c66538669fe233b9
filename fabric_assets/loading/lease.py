"""The right to load: one run at a time, in one process, in several, and on several machines.

For DuckDB a lock file per tenant, since the file takes one writing process at a time. For Postgres an advisory lock per source,
held by a connection. Dagster's pools neither cover a run from the command line nor every executor. A killed run leaves no lease
behind: the kernel drops its flock, the server its session.
"""

import contextlib
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import DuckDbDestination, TenantConfig
from fabric_assets.connectors.destinations import connect
from fabric_assets.errors import LeaseHeld
from fabric_assets.offboarded import refuse_offboarded
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings

# Longest that a step waits for another one of the same tenant.
LEASE_SECONDS = 3600.0
_POLL_SECONDS = 0.05
_POSTGRES_POLL_SECONDS = 0.25
# A holder whose machine has gone is noticed by the server after half a minute.
_SESSION = (
    "set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = 30000;"
    " select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'; set application_name = '{name}'"
)
_HOLDER = """
    select coalesce(a.application_name, 'another login') || ', session ' || a.pid || ' from ' || coalesce(host(a.client_addr), 'the server itself')
    from pg_locks as l join pg_stat_activity as a using (pid)
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.database = (select oid from pg_database where datname = current_database())
    and (l.classid::bigint << 32 | l.objid::bigint) = %s
"""
Report = Callable[[str], None]


@contextmanager
def load_lease(
    tenant: TenantConfig,
    source: str,
    settings: Settings,
    *,
    timeout_seconds: float = LEASE_SECONDS,
    report: Report | None = None,
    offboarding: bool = False,
) -> Iterator[None]:
    """Hold the right to load one source of a tenant for the block; not re-entrant.

    Args:
        timeout_seconds: longest wait for whoever holds it now.
        report: told once if there is a wait.
        offboarding: see `warehouse_lease`.

    Raises:
        LeaseHeld: it was not free in time.
        DestinationUnavailable: no connection.
        ConfigurationError: the tenant was offboarded, or is being so.
    """
    if isinstance(tenant.destination, DuckDbDestination):
        with warehouse_lease(tenant.tenant, settings, timeout_seconds=timeout_seconds, report=report, offboarding=offboarding):
            yield
        return
    with contextlib.closing(connect(tenant, settings)) as connection:
        connection.autocommit = True
        _wait_for_postgres(connection, tenant.tenant, source, timeout_seconds, report)
        # Asked with the lease in hand: who offboards takes it too, once the mark stands.
        if not offboarding:
            refuse_offboarded(tenant.tenant, settings.data_dir)
        yield


def _wait_for_postgres(connection: Any, tenant: str, source: str, timeout_seconds: float, report: Report | None) -> None:
    key = int.from_bytes(hashlib.sha256(f"fabric load {tenant} {source}".encode()).digest()[:8], signed=True)
    deadline, told, place = time.monotonic() + timeout_seconds, False, f"tenant {tenant}, source {source}"
    with connection.cursor() as cursor:
        cursor.execute(_SESSION.format(name=f"fabric load, process {os.getpid()} on {socket.gethostname()}"[:63].replace("'", "")))
        while True:
            cursor.execute("select pg_try_advisory_lock(%s)", (key,))
            if cursor.fetchone()[0]:
                return
            cursor.execute(_HOLDER, (key,))
            found = cursor.fetchone()
            holder = found[0] if found else "one that has just ended"
            if time.monotonic() >= deadline:
                raise LeaseHeld(
                    f"{place}: another run is loading it ({holder}); waited {timeout_seconds:g} s", remedy="wait for the other run to end, then try again"
                )
            if report and not told:
                report(f"{place}: waiting for another run to end ({holder})")
                told = True
            time.sleep(_POSTGRES_POLL_SECONDS)


@contextmanager
def warehouse_lease(
    tenant: str, settings: Settings, *, timeout_seconds: float = 600.0, report: Report | None = None, offboarding: bool = False
) -> Iterator[None]:
    """Hold the tenant's warehouse file for the block; not re-entrant.

    Args:
        timeout_seconds: longest wait for whoever holds it now.
        report: told once if there is a wait.
        offboarding: for who takes the tenant away; everybody else is refused from then on.

    Raises:
        LeaseHeld: it was not free in time.
        ConfigurationError: the tenant was offboarded, or is being so.
    """
    if not offboarding:  # asked before, too: a lock file would be the first thing of it that is there again
        refuse_offboarded(tenant, settings.data_dir)
    path = naming.lock_file(settings.data_dir, tenant)
    make_private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait(descriptor, tenant, timeout_seconds, report)
        if not offboarding:
            refuse_offboarded(tenant, settings.data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, tenant: str, timeout_seconds: float, report: Report | None) -> None:
    deadline, told = time.monotonic() + timeout_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode() or "unknown"
        if time.monotonic() >= deadline:
            raise LeaseHeld(
                f"tenant {tenant}: the warehouse is in use by another run (process {holder}); waited {timeout_seconds:g} s",
                remedy="wait for the other run to end, then try again",
            )
        if report and not told:
            report(f"tenant {tenant}: waiting for the run of process {holder} to release the warehouse")
            told = True
        time.sleep(_POLL_SECONDS)
