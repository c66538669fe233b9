"""One run at a time: in one process, in several, over a lock file and over Postgres."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import connect
from fabric_assets.errors import DestinationError, DestinationUnavailable, LeaseHeld
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import load_lease
from tests.support.shop import SourceDatabase, Tenant, write_secret_file


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
        from fabric_assets.warehouse.lease import load_lease
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


def test_a_lease_passes_to_a_waiting_process_when_its_holder_is_killed(tenant: TenantConfig, settings: Settings) -> None:
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
        cursor.execute(
            "select relation::regclass::text, application_name, pg_terminate_backend(pid) from pg_locks join pg_stat_activity using (pid)"
            " where relation = 'acme_fabric.load_leases'::regclass"
        )
        (table, name, ended) = cursor.fetchone()
        assert table == "acme_fabric.load_leases"
        assert name.startswith(f"fabric load, process {os.getpid()} on ")
        assert ended
        with load_lease(tenant, "shop", settings, timeout_seconds=10):
            pass


KEY = int.from_bytes(hashlib.sha256(b"fabric load acme shop").digest()[:8], signed=True)


def test_an_earlier_version_and_this_one_never_load_together(settings: Settings, postgres_database: str) -> None:
    tenant = build_tenant(settings, postgres_database)
    with contextlib.closing(psycopg2.connect(postgres_database)) as earlier, earlier.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", (KEY,))
        with pytest.raises(LeaseHeld, match="another run is loading it"), load_lease(tenant, "shop", settings, timeout_seconds=0.5):
            pass
        cursor.execute("select pg_advisory_unlock(%s)", (KEY,))
        with load_lease(tenant, "shop", settings, timeout_seconds=5):
            cursor.execute("select pg_try_advisory_lock(%s)", (KEY,))
            assert cursor.fetchone() == (False,)


def test_the_locks_that_another_role_takes_hold_nobody_up(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    """Any login of the database can take any advisory lock: of a load, of those who make tables, of provisioning."""
    user = f"stranger_{uuid.uuid4().hex[:8]}"
    with contextlib.closing(psycopg2.connect(postgres_database)) as admin, admin.cursor() as cursor:
        cursor.execute(f"create role {user} login")
        admin.commit()
        try:
            url = postgres_database.replace("postgres:postgres@", f"{user}:x@")
            with contextlib.closing(psycopg2.connect(url)) as stranger, stranger.cursor() as held:
                held.execute("select pg_advisory_lock(%s), pg_advisory_lock(4610325110927364001), pg_advisory_lock(4610325110927364002)", (KEY,))
                sqlite.run("create table orders (id integer primary key)")
                sqlite.fill("orders", [(1,)])
                tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=postgres_database)
                begun = time.monotonic()
                assert tenant.load()["orders"].rows_total == 1
                assert time.monotonic() - begun < 30
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    held.execute("select * from acme_fabric.load_leases for update")
        finally:
            cursor.execute(f"drop role {user}")
            admin.commit()


def test_the_error_names_an_object_that_has_the_name_of_the_table_of_leases(settings: Settings, postgres_database: str) -> None:
    tenant = build_tenant(settings, postgres_database)
    with contextlib.closing(psycopg2.connect(postgres_database)) as admin, admin, admin.cursor() as cursor:
        cursor.execute("create schema acme_fabric; create view acme_fabric.load_leases as select 'shop' as source")
    with pytest.raises(DestinationError, match=r"load_leases\" is not a table\n  remedy: drop it"), load_lease(tenant, "shop", settings):
        pass


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP", "KOI8R"])
def test_a_database_that_cannot_hold_every_text_is_refused_by_name(settings: Settings, make_database: Callable[..., str], encoding: str) -> None:
    url = make_database(encoding)
    tenant = build_tenant(settings, url)
    refusal = f"the database {url.rsplit('/', 1)[1]} has the encoding {encoding}.*\n  remedy: .*encoding 'UTF8'"
    with pytest.raises(DestinationError, match=refusal), load_lease(tenant, "shop", settings):
        pass
    with contextlib.closing(connect(tenant, settings)) as connection, connection.cursor() as inside:
        inside.execute("select count(*) from pg_namespace where nspname ~ 'acme'")
        assert inside.fetchone() == (0,)


def test_a_server_that_is_not_there_is_unavailable(settings: Settings) -> None:
    tenant = build_tenant(settings, "postgresql://loader:x@127.0.0.1:1/warehouse")
    with pytest.raises(DestinationUnavailable, match="cannot be reached"), load_lease(tenant, "shop", settings):
        pass
