"""A replay in a process of its own, which is killed while it waits for rows of one of the platform's tables."""

import contextlib
import subprocess
import sys

import psycopg2

from tests.faults.processes import wait_until
from tests.support.shop import Tenant

_BEGIN = """
from pathlib import Path
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings
folder = Path({data!r})
tenant, settings = TenantConfig.model_validate({tenant!r}), Settings(folder, folder, folder)
"""


def kill_while_it_waits(tenant: Tenant, program: str, *, table: str) -> None:
    """Run a replay and kill it.

    Args:
        tenant: its warehouse is a Postgres.
        program: Python, with `tenant` and `settings` at hand.
        table: of the platform, whose rows are locked meanwhile: the replay deletes some of them.
    """
    assert tenant.warehouse
    config = tenant.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    begin = _BEGIN.format(data=str(tenant.settings.data_dir), tenant=config)
    with (
        contextlib.closing(psycopg2.connect(tenant.warehouse)) as holder,
        contextlib.closing(psycopg2.connect(tenant.warehouse)) as watcher,
        holder.cursor() as cursor,
        watcher.cursor() as other,
    ):
        watcher.autocommit = True
        cursor.execute(f"select 1 from {tenant.name}_fabric.{table} for update")
        process = subprocess.Popen([sys.executable, "-c", begin + program], stdout=subprocess.PIPE, text=True)
        waiting = f"select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like 'delete%{table}%'"
        try:
            wait_until(lambda: other.execute(waiting) or other.fetchall(), 60)
        finally:
            process.kill()
            process.communicate(timeout=30)
