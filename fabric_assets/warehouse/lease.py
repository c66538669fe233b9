"""A tenant and a source -> the lease, i.e. the right to load: one run at a time, within a process and between processes and machines.

For DuckDB it is a lock file per tenant, because one process at a time can write to the file. For Postgres it is a locked row per source,
held by a connection. Dagster's pools cover neither runs from the command line nor every executor. A killed run leaves no lease behind:
the kernel releases its lock, the server ends its session.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import Destination, get_destination
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import LeaseHeld
from fabric_assets.offboarded import refuse_offboarded
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.settings import Settings

# The longest time that a step waits for another one of the same tenant.
LEASE_SECONDS = 3600.0
_POLL_SECONDS = 0.05
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
    destination: Destination | None = None,
) -> Iterator[None]:
    """Hold the right to load one source of a tenant for the block; not re-entrant.

    Args:
        timeout_seconds: longest wait for the present holder.
        report: called once if there is a wait.
        offboarding: see `warehouse_lease`.
        destination: the tenant's, with its login already resolved; by default it is made here.

    Raises:
        LeaseHeld: it was not free in time.
        DestinationError: the database's encoding is not UTF8, or the table of leases cannot be made.
        DestinationUnavailable: no connection.
        ConfigurationError: the tenant was offboarded, or is being so.
    """
    if get_kind(tenant).has_one_writer:
        with warehouse_lease(tenant.tenant, settings, timeout_seconds=timeout_seconds, report=report, offboarding=offboarding):
            yield
        return
    from fabric_assets.drivers.postgres_destination import get_missing_schema_remedy, refuse_other_encodings
    from fabric_assets.warehouse.postgres_lease import PostgresLease

    with contextlib.closing((destination or get_destination(tenant, settings)).connect()) as connection:
        if not offboarding:
            refuse_other_encodings(connection, tenant)
        key = int.from_bytes(hashlib.sha256(f"fabric load {tenant.tenant} {source}".encode()).digest()[:8], signed=True)
        lease = PostgresLease(connection, tenant.tenant, source, old_key=key, timeout_seconds=timeout_seconds, report=report)
        lease.acquire(makes_table=not offboarding, missing_schema_remedy=get_missing_schema_remedy(tenant))
        # Checked while holding the lease: an offboarding sets its mark first and then takes the lease too.
        if not offboarding:
            refuse_offboarded(tenant.tenant, settings.data_dir)
        yield


@contextmanager
def warehouse_lease(
    tenant: str, settings: Settings, *, timeout_seconds: float = 600.0, report: Report | None = None, offboarding: bool = False
) -> Iterator[None]:
    """Hold the tenant's warehouse file for the block; not re-entrant.

    Args:
        timeout_seconds: longest wait for the present holder.
        report: called once if there is a wait.
        offboarding: for the offboarding itself; every other caller is refused while a tenant is offboarded.

    Raises:
        LeaseHeld: it was not free in time.
        ConfigurationError: the tenant was offboarded, or is being so.
    """
    if not offboarding:  # checked before, too: else a lock file of the offboarded tenant would be made again
        refuse_offboarded(tenant, settings.data_dir)
    path = naming.lock_file(settings.data_dir, tenant)
    make_private_folder(path.parent)
    with FileLock(path, on_held=_build_wait(tenant, timeout_seconds, report)) as lock:
        if not offboarding:
            refuse_offboarded(tenant, settings.data_dir)
        lock.note(str(os.getpid()))
        yield


def _build_wait(tenant: str, timeout_seconds: float, report: Report | None) -> Callable[[str], None]:
    deadline, told = time.monotonic() + timeout_seconds, False

    def wait(holder: str) -> None:
        nonlocal told
        holder = holder or "unknown"
        if time.monotonic() >= deadline:
            raise LeaseHeld(
                f"tenant {tenant}: the warehouse is in use by another run (process {holder}); waited {timeout_seconds:g} s",
                remedy="wait for the other run to end, then try again",
            )
        if report and not told:
            report(f"tenant {tenant}: waiting for the run of process {holder} to release the warehouse")
            told = True
        time.sleep(_POLL_SECONDS)

    return wait
