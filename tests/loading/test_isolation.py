"""No load takes a credential, a folder or a lock that is not its own."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from fabric_assets.errors import LeaseHeld
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import warehouse_lease
from tests.support.shop import SourceDatabase, Tenant

HOSTILE = {
    "CREDENTIALS": "postgresql://mallory:stolen@127.0.0.2:1/evil",
    "CREDENTIALS__HOST": "127.0.0.2",
    "CREDENTIALS__PASSWORD": "stolen",
    "DESTINATION__CREDENTIALS": "postgresql://mallory:stolen@127.0.0.2:1/evil",
    "DESTINATION__POSTGRES__CREDENTIALS": "postgresql://mallory:stolen@127.0.0.2:1/evil",
    "DESTINATION__POSTGRES__CREDENTIALS__HOST": "127.0.0.2",
    "DESTINATION__POSTGRES__CREDENTIALS__PORT": "1",
    "DESTINATION__POSTGRES__CREDENTIALS__PASSWORD": "stolen",
    "DESTINATION__POSTGRES__CREDENTIALS__DATABASE": "evil",
    "DESTINATION__DUCKDB__CREDENTIALS": "evil.duckdb",
    "DESTINATION__DUCKDB__CREDENTIALS__DATABASE": "evil.duckdb",
    "DESTINATION__REPLACE_STRATEGY": "truncate-and-insert",
    "ACME__SHOP__DATASET_NAME": "evil",
    "DATASET_NAME": "evil",
    "PIPELINE_NAME": "evil",
    "PIPELINES_DIR": "/nonexistent/evil",
    "RESTORE_FROM_DESTINATION": "false",
    "SCHEMA__NAMING": "direct",
    "RUNTIME__DLTHUB_TELEMETRY": "true",
    "NORMALIZE__LOADER_FILE_FORMAT": "jsonl",
    "LOAD__DELETE_COMPLETED_JOBS": "false",
    "PGPASSWORD": "stolen",
    "PGDATABASE": "evil",
    "PGHOST": "127.0.0.2",
}


def test_a_hostile_environment_and_a_hostile_dlt_folder_change_nothing(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    hostile = tmp_path / "hostile" / ".dlt"
    hostile.mkdir(parents=True)
    (hostile / "secrets.toml").write_text(
        '[destination.postgres.credentials]\nhost = "127.0.0.2"\npassword = "stolen"\n[destination.duckdb]\ncredentials = "evil.duckdb"\n'
    )
    (hostile / "config.toml").write_text('dataset_name = "evil"\n')
    monkeypatch.chdir(hostile.parent)
    monkeypatch.setenv("DLT_PROJECT_DIR", str(hostile.parent))

    sqlite.run("create table stores (id integer)", "insert into stores values (1)")
    report = Tenant(settings, sqlite.build_source(stores={}), warehouse=warehouse).load()["stores"]

    assert (report.dataset, report.rows_total) == ("acme_raw_shop", 1)
    assert sorted(path.name for path in hostile.parent.rglob("*")) == [".dlt", "config.toml", "secrets.toml"]


def test_a_fresh_process_in_a_hostile_place_loads_as_well(sqlite: SourceDatabase, settings: Settings, tmp_path: Path, postgres_database: str) -> None:
    sqlite.run("create table stores (id integer)", "insert into stores values (1)")
    program = f"""
        from pathlib import Path
        from fabric_assets.settings import Settings
        from tests.support.shop import Tenant
        data = Path({str(settings.data_dir)!r})
        source = {{"type": "sql_database", "url": {{"file": "shop_url"}}, "streams": {{"stores": {{}}}}}}
        print(Tenant(Settings(data, data, data), source, warehouse={postgres_database!r}).load()["stores"].table_name)
    """
    environment = {**os.environ, **HOSTILE, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{postgres_database.rsplit('/', 1)[1]}.acme_raw_shop.stores"


def test_two_tenants_of_one_source_share_nothing(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table stores (id integer)", "insert into stores values (1)")
    first = Tenant(settings, sqlite.build_source(stores={"primary_key": "id"}), warehouse=warehouse, name="first")
    second = Tenant(settings, sqlite.build_source(stores={"primary_key": "id"}), warehouse=warehouse, name="second")
    first.load()
    sqlite.run("insert into stores values (2)")
    second.load()
    assert first.read("stores", "id") == [(1,)]
    assert second.read("stores", "id") == [(1,), (2,)]


def test_no_rows_wait_where_another_load_could_meet_them(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table stores (id integer)", "insert into stores values (1)")
    tenant = Tenant(settings, sqlite.build_source(stores={"primary_key": "id"}), warehouse=warehouse)
    tenant.load()
    tenant.load()
    tenant.load(full_refresh=True)
    tables = tenant.ask("select table_schema, table_name from information_schema.tables where table_schema like '%acme%' and table_schema <> 'acme_fabric'")
    assert sorted(tables) == [("acme_raw_shop", name) for name in ("_dlt_loads", "_dlt_pipeline_state", "_dlt_version", "stores")]
    assert not list(settings.data_dir.rglob("*.parquet"))


def test_the_lease_is_waited_for_and_given_up_in_time(settings: Settings) -> None:
    held, release, messages = threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        with warehouse_lease("acme", settings):
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    with (
        pytest.raises(LeaseHeld, match=f"tenant acme: the warehouse is in use by another run .process {os.getpid()}."),
        warehouse_lease("acme", settings, timeout_seconds=0.2, report=messages.append),
    ):
        pass
    assert messages == [f"tenant acme: waiting for the run of process {os.getpid()} to release the warehouse"]
    with warehouse_lease("other", settings, timeout_seconds=0):
        release.set()
    with warehouse_lease("acme", settings, timeout_seconds=10):
        holder.join(10)


def test_a_killed_holder_leaves_no_lease(settings: Settings) -> None:
    program = (
        f"import os, signal; from pathlib import Path; from fabric_assets.settings import Settings; from fabric_assets.warehouse.lease import warehouse_lease\n"
        f"data = Path({str(settings.data_dir)!r})\nwith warehouse_lease('acme', Settings(data, data, data)): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert killed.returncode == -9
    with warehouse_lease("acme", settings, timeout_seconds=0):
        pass


def test_two_loads_of_one_tenant_at_once_wait_for_each_other(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table events (id integer)", "insert into events values (1)")
    tenant = Tenant(settings, sqlite.build_source(events={"write_disposition": "append", "cursor": {"field": "id"}}))
    program = f"""
        from pathlib import Path
        from fabric_assets.settings import Settings
        from tests.support.shop import Tenant
        data = Path({str(settings.data_dir)!r})
        source = {tenant.source!r}
        Tenant(Settings(data, data, data), source).load()
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    both = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert tenant.read("events", "id") == [(1,)]
