"""One run at a time: in one process, in several, over a lock file and over Postgres."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.destinations import connect
from fabric_assets.errors import DestinationUnavailable, LeaseHeld
from fabric_assets.loading.lease import load_lease
from fabric_assets.settings import Settings
from tests.loading.shop import write_secret_file


@pytest.fixture
def tenant(settings: Settings, warehouse: str | None) -> TenantConfig:
    return build_tenant(settings, warehouse)


def build_tenant(settings: Settings, warehouse: str | None, name: str = "acme") -> TenantConfig:
    destination: dict[str, object] = {"type": "duckdb"}
    if warehouse:
        write_secret_file(settings, "warehouse_url", warehouse)
        destination = {"type": "postgres", "url": {"file": "warehouse_url"}}
    return TenantConfig.model_validate({"version": 1, "tenant": name, "destination": destination})


@contextlib.contextmanager
def hold_elsewhere(tenant: TenantConfig, settings: Settings, source: str = "shop") -> Iterator[subprocess.Popen[str]]:
    """Hold the lease in a process of its own, as a second machine would."""
    program = f"""
        import sys
        from pathlib import Path
        from fabric_assets.config.tenant import TenantConfig
        from fabric_assets.loading.lease import load_lease
        from fabric_assets.settings import Settings
        data = Path({str(settings.data_dir)!r})
        tenant = TenantConfig.model_validate_json({tenant.model_dump_json(exclude_unset=True)!r})
        with load_lease(tenant, {source!r}, Settings(data, data, data)):
            print("held", flush=True)
            sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate(timeout=30)


def test_a_held_lease_is_waited_for_and_given_up_in_time_and_its_holder_is_named(tenant: TenantConfig, settings: Settings) -> None:
    messages: list[str] = []
    with hold_elsewhere(tenant, settings) as holder:
        with (
            pytest.raises(LeaseHeld, match=f"process {holder.pid}.*waited 0.5 s"),
            load_lease(tenant, "shop", settings, timeout_seconds=0.5, report=messages.append),
        ):
            pass
        assert len(messages) == 1
        assert f"process {holder.pid}" in messages[0]


def test_a_lease_passes_to_whoever_waits_when_its_holder_is_killed(tenant: TenantConfig, settings: Settings) -> None:
    waiting, taken = threading.Event(), threading.Event()

    def wait() -> None:
        with load_lease(tenant, "shop", settings, timeout_seconds=60, report=lambda _: waiting.set()):
            taken.set()

    with hold_elsewhere(tenant, settings) as holder:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert waiting.wait(30)
        assert not taken.is_set()
        os.kill(holder.pid, signal.SIGKILL)
        assert taken.wait(10)
        waiter.join(10)


def test_two_loads_in_one_process_wait_for_each_other(tenant: TenantConfig, settings: Settings) -> None:
    inside, most = 0, list[int]()
    counting = threading.Lock()

    def load() -> None:
        nonlocal inside
        with load_lease(tenant, "shop", settings, timeout_seconds=60):
            with counting:
                inside += 1
                most.append(inside)
            time.sleep(0.05)
            with counting:
                inside -= 1

    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert most == [1, 1, 1, 1]


def test_other_tenants_and_in_postgres_other_sources_are_not_held_up(tenant: TenantConfig, settings: Settings) -> None:
    other = tenant.model_copy(update={"tenant": "other"})
    with load_lease(tenant, "shop", settings, timeout_seconds=0), load_lease(other, "shop", settings, timeout_seconds=0):
        if tenant.destination.type == "postgres":
            with load_lease(tenant, "crm", settings, timeout_seconds=0):
                pass
        else:
            with pytest.raises(LeaseHeld), load_lease(tenant, "crm", settings, timeout_seconds=0):
                pass
    with load_lease(tenant, "shop", settings, timeout_seconds=0):
        pass


def test_a_lease_in_postgres_shows_who_holds_it_and_ends_with_its_session(settings: Settings, postgres_database: str) -> None:
    tenant = build_tenant(settings, postgres_database)
    with load_lease(tenant, "shop", settings), contextlib.closing(connect(tenant, settings)) as admin:
        cursor = admin.cursor()
        cursor.execute("select application_name, pg_terminate_backend(pid) from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory'")
        (name, ended) = cursor.fetchone()
        assert name.startswith(f"fabric load, process {os.getpid()} on ")
        assert ended
        with load_lease(tenant, "shop", settings, timeout_seconds=10):
            pass


def test_a_server_that_is_not_there_is_unavailable(settings: Settings) -> None:
    tenant = build_tenant(settings, "postgresql://loader:x@127.0.0.1:1/warehouse")
    with pytest.raises(DestinationUnavailable, match="cannot be reached"), load_lease(tenant, "shop", settings):
        pass
