"""A tenant's lock file -> the right to open its warehouse file: DuckDB takes one writing process at a time.

The second guard beside Dagster's pool, which neither covers a run from the command line nor every executor. The kernel
drops a flock with the process that held it, so a killed run leaves no lease behind.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fabric_assets import naming
from fabric_assets.errors import LeaseHeld
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings

# Longest that a step waits for another one of the same tenant.
LEASE_SECONDS = 3600.0
_POLL_SECONDS = 0.05


@contextmanager
def warehouse_lease(tenant: str, settings: Settings, *, timeout_seconds: float = 600.0, report: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the tenant's warehouse for the block; not re-entrant.

    Args:
        timeout_seconds: longest wait for whoever holds it now.
        report: told once if there is a wait.

    Raises:
        LeaseHeld: it was not free in time.
    """
    path = naming.lock_file(settings.data_dir, tenant)
    make_private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait(descriptor, tenant, timeout_seconds, report)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, tenant: str, timeout_seconds: float, report: Callable[[str], None] | None) -> None:
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
