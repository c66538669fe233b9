"""Builds whose dbt process is killed while it is in the endless hook of a model."""

import contextlib
import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg2
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import TransformError
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker

# It does nothing unless the tenant sets the variable `endless`.
ENDLESS_HOOK = (
    "{% if var('endless', false) %}{% if target.type == 'postgres' %}select pg_sleep(600){% else %}"
    "select count(*) from range(1000000000000) as a (x) where x % 7 = 8{% endif %}{% endif %}"
)
# No thread of dbt but its main one needs as much of the processor's time for the few models of such a build.
_SECONDS_OF_A_THREAD = 1.5


def kill_in_hook(settings: Settings, tenant: TenantConfig, *models: str) -> None:
    """Build the models, and kill dbt's process while it is in the endless hook of one of them."""
    assert tenant.transform
    tenant = tenant.model_copy(update={"transform": tenant.transform.model_copy(update={"vars": {"endless": True}})})
    adapter = tenant.destination.type
    worker = DbtWorker.start(settings, adapter=adapter)
    worker.wait_until_ready()
    events = worker.build(BuildRequest(tenant=tenant, models=models, tests=(), settings=settings))
    pid = worker.pid

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (_list_sleepers() if adapter == "postgres" else _measure_threads(pid) > _SECONDS_OF_A_THREAD):
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        if adapter == "postgres":
            # The server notices that its client is gone when the statement ends. This is that end, sooner.
            _list_sleepers("pg_terminate_backend(pid)")

    thread = Thread(target=kill)
    thread.start()
    with pytest.raises(TransformError, match="ended early, by signal SIGKILL"):
        list(events)
    thread.join()


def _measure_threads(pid: int) -> float:
    """The processor's time that the busiest thread but the main one has used, in seconds."""
    found = [0.0]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            if task.name != str(pid):
                ticks = (task / "stat").read_text().rsplit(")", 1)[1].split()
                found.append(int(ticks[11]) / os.sysconf("SC_CLK_TCK"))
    return max(found)


def _list_sleepers(found: str = "pid") -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(os.environ["SEEDED_URL"])) as connection, connection.cursor() as cursor:
        where = r"datname = current_database() and query ~ 'select pg_sleep\(' and state = 'active' and pid <> pg_backend_pid()"
        cursor.execute(f"select {found} from pg_stat_activity where {where}")
        return cursor.fetchall()
