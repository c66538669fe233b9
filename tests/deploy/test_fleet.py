"""The platform in production's form, as processes on Postgres: tenants split over two code servers, one of which dies and comes back."""

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import yaml

from fabric_assets.drivers.kinds import ADAPTERS
from tests.conftest import ROOT
from tests.deploy.fleet import Fleet
from tests.deploy.units import DEPLOY, FLEETS
from tests.support.services import PostgresServer

TENANTS = {"acme": "fleet_a", "zeta": "fleet_b"}
STORES = [("a", "Åre", "2020-01-01 00:00:00", 0.25), ("b", "Bern", "2021-01-01 00:00:00", 0.08)]

pytestmark = [pytest.mark.xdist_group("deploy"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def dagster_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Dagster's database, made by deploy/dagster.sql."""
    command = [str(postgres_server.programs / "psql"), "-X", "-q", "-d", postgres_server.get_url(), "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*command, "-f", str(DEPLOY / "dagster.sql")], env={**os.environ, "DAGSTER_PASSWORD": "secret"}, check=True, capture_output=True, text=True)
    yield f"postgresql://dagster:secret@127.0.0.1:{postgres_server.port}/dagster"
    for statement in ("drop database dagster with (force)", "drop role dagster"):
        subprocess.run([*command, "-c", statement], check=True, capture_output=True)


@pytest.fixture(scope="module")
def warehouse_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The tenants' database and their role, on the same server."""
    admin = psycopg2.connect(postgres_server.get_url())
    admin.autocommit = True
    with contextlib.closing(admin), admin.cursor() as cursor:
        cursor.execute("create role deploy_loader login")
        cursor.execute("create database deploy_warehouse owner deploy_loader")
        yield f"postgresql://deploy_loader:any@127.0.0.1:{postgres_server.port}/deploy_warehouse"
        cursor.execute("drop database deploy_warehouse with (force)")
        cursor.execute("drop role deploy_loader")


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.closing(sqlite3.connect(folder / "shop.sqlite")) as shop, shop:
        shop.execute("create table stores (id varchar(36) primary key, name varchar(200), opened_at timestamp, tax_rate numeric(6, 4))")
        shop.executemany("insert into stores values (?, ?, ?, ?)", STORES)
    (folder / "tenants").mkdir()
    for name in TENANTS:
        config = {
            "version": 1,
            "tenant": name,
            "destination": {"type": "postgres", "url": {"env": "WAREHOUSE_URL"}},
            "sources": {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"stores": {"primary_key": "id"}}}},
            "schedules": {"nightly": {"cron": "0 3 * * *"}},
        } | ({"transform": {"select": ["stg_shop__stores"]}} if name == "acme" else {})
        (folder / "tenants" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder / "tenants"


@pytest.fixture(scope="module")
def fleet(dagster_url: str, warehouse_url: str, tenants: Path, parsed: Path) -> Iterator[Fleet]:
    own = {"WAREHOUSE_URL": warehouse_url, "SHOP_URL": f"sqlite:///{tenants.parent / 'shop.sqlite'}", "FABRIC_SOURCE_DIRS": str(tenants.parent)}
    fleet = Fleet(dagster_url, tenants, {"fleet_a": own, "fleet_b": {**own, "FABRIC_TENANTS": "[n-z]*"}})
    take_over(parsed, fleet.folder / "lib" / "fleet_b")
    shutil.copytree(parsed, fleet.folder / "lib" / "fleet_a" / "dbt" / "prepared")
    try:
        fleet.start("fleet_a")
        for name in ("fleet_b", "web", "daemon"):
            fleet.start(name)
        fleet.wait_for(lambda: all(fleet.get_locations().get(name) for name in FLEETS))
        yield fleet
    finally:
        fleet.close()


def take_over(parsed: Path, data: Path) -> None:
    """Copy a parsed dbt project to a part of the fleet, as the container copies that of its image."""
    environ = {"PATH": os.environ["PATH"], "FABRIC_DATA_DIR": str(data), "PREPARED_DIR": str(parsed), "SECRETS_DIR": "/nowhere"}
    subprocess.run([str(DEPLOY / "with-secrets"), "true"], env=environ, check=True)


def count_stores(warehouse_url: str, table: str) -> int:
    with contextlib.closing(psycopg2.connect(warehouse_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s)", (table,))
        if cursor.fetchone() == (None,):
            return 0
        cursor.execute(f"select count(*) from {table}")
        return (cursor.fetchone() or (0,))[0]


def test_each_code_location_holds_its_own_tenants_only_and_their_schedules_run(fleet: Fleet) -> None:
    locations = fleet.get_locations()
    assert {name: {node["assetKey"]["path"][0] for node in locations[name]["assetNodes"]} for name in FLEETS} == {"fleet_a": {"acme"}, "fleet_b": {"zeta"}}
    schedules = {name: {schedule["name"]: schedule["scheduleState"]["status"] for schedule in locations[name]["schedules"]} for name in FLEETS}
    assert schedules == {fleet: {f"{tenant}__nightly": "RUNNING", "fabric__isolation": "RUNNING"} for tenant, fleet in TENANTS.items()}


def test_a_part_with_a_parsed_project_does_not_parse_it_again(fleet: Fleet) -> None:
    states = json.loads(fleet.run("fleet_b", "fabric", "prepare", "--json").stdout)["adapters"]
    assert states == dict.fromkeys(ADAPTERS, "unchanged")


def test_a_run_from_the_queue_loads_and_models_a_tenant(fleet: Fleet, warehouse_url: str) -> None:
    fleet.wait_for_run(fleet.launch("fleet_a", "acme", "raw/shop/stores", "staging/stg_shop__stores"))
    assert count_stores(warehouse_url, "acme_raw_shop.stores") == len(STORES)
    assert count_stores(warehouse_url, "acme_staging.stg_shop__stores") == len(STORES)


def test_while_a_code_server_is_dead_the_other_works_and_it_recovers_after_a_restart(fleet: Fleet, warehouse_url: str) -> None:
    fleet.kill("daemon")
    waiting = fleet.launch("fleet_b", "zeta", "raw/shop/stores")
    fleet.kill("fleet_b")
    fleet.start("daemon")
    fleet.wait_for_run(fleet.launch("fleet_a", "acme", "raw/shop/stores"))
    # The daemon has looked for the dead one in vain, and tries again.
    assert fleet.get_status(waiting) == "QUEUED"
    fleet.start("fleet_b")
    fleet.wait_for(lambda: fleet.get_locations().get("fleet_b"))
    fleet.wait_for(lambda: is_served(fleet, "fleet_b"))
    fleet.wait_for_run(waiting)
    assert count_stores(warehouse_url, "zeta_raw_shop.stores") == len(STORES)


def is_served(fleet: Fleet, name: str) -> bool:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), "api", "grpc-health-check", "--socket", str(fleet.get_socket(name))], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_run_of_the_command_line_is_recorded_in_the_same_instance(fleet: Fleet) -> None:
    done = fleet.run("fleet_a", "fabric", "run", "acme", "--select", "raw/shop", "--json")
    assert done.returncode == 0, done.stderr
    (tenant,) = json.loads(done.stdout)["tenants"]
    assert fleet.get_status(tenant["run_id"]) == "SUCCESS"


def test_a_part_of_the_fleet_does_not_run_another_parts_tenants(fleet: Fleet) -> None:
    done = fleet.run("fleet_a", "fabric", "run", "zeta")
    assert done.returncode == 2
    assert "zeta" in done.stderr


def test_a_new_tenant_is_served_after_a_reload_of_its_code_location_and_no_server_restarts(fleet: Fleet, tenants: Path) -> None:
    (tenants / "beta.yaml").write_text((tenants / "zeta.yaml").read_text().replace("zeta", "beta"))
    reload = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
    assert fleet.ask(reload, name="fleet_a")["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry"
    assert {node["assetKey"]["path"][0] for node in fleet.get_locations()["fleet_a"]["assetNodes"]} == {"acme", "beta"}


def test_every_daemon_is_healthy(fleet: Fleet) -> None:
    query = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"

    def get_sick() -> list[str]:
        statuses = fleet.ask(query)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]]

    fleet.wait_for(lambda: not get_sick(), 60)


def test_a_tenant_cannot_connect_to_dagsters_database(fleet: Fleet, dagster_url: str, warehouse_url: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match='permission denied for database "dagster"'):
        psycopg2.connect(warehouse_url.replace("/deploy_warehouse", "/dagster"))
    with contextlib.closing(psycopg2.connect(dagster_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user")
        assert cursor.fetchone() == (False, False, False)
        cursor.execute("select count(*) from runs")
        assert (cursor.fetchone() or (0,))[0] >= 1


def test_nothing_is_written_where_the_platform_is_installed_and_sockets_are_closed_to_others(fleet: Fleet) -> None:
    listed = subprocess.run(["git", "status", "--porcelain", "--ignored", "deploy"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    written = [line for line in listed.splitlines() if line.startswith("!!") or line.endswith((".db", "/history/", "/storage/", "/schedules/", "/logs/"))]
    assert written == []
    for name in FLEETS:
        mode = fleet.get_socket(name).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) & 0o007 == 0


# --- without its database


def run_alone(tenants: Path, **environ: str) -> "subprocess.Popen[str]":
    """`fabric run` on deploy/dagster.yaml, beside the fleet."""
    environ |= {"DAGSTER_HOME": str(DEPLOY), "DAGSTER_FILES": str(tenants.parent / "files")}
    environ |= {"FABRIC_TENANTS_DIR": str(tenants), "FABRIC_DATA_DIR": str(tenants.parent / "alone"), "FABRIC_TENANTS": "zeta"}
    command = [str(Path(sys.executable).with_name("fabric")), "run", "zeta"]
    return subprocess.Popen(command, env={**os.environ, **environ}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module", autouse=True)
def lost(tenants: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a run whose database does not exist: Dagster retries for some seconds, during the other tests."""
    process = run_alone(tenants, DAGSTER_POSTGRES_URL="postgresql://dagster:not-to-be-seen@127.0.0.1:1/dagster")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, 'environment variable "DAGSTER_POSTGRES_URL" which is not set'),
        ("postgresql://dagster@127.0.0.1:not-to-be-seen/dagster", "cannot be opened (ValueError)"),
    ],
)
def test_a_wrong_address_of_dagsters_database_is_a_mistake_in_one_line(tenants: Path, url: str | None, message: str) -> None:
    said = run_alone(tenants, **({"DAGSTER_POSTGRES_URL": url} if url else {}))
    errors = said.communicate()[1]
    assert said.returncode == 2
    assert message in errors
    assert "Traceback" not in errors
    assert "not-to-be-seen" not in errors


def test_a_database_that_does_not_answer_is_named_without_its_password(lost: "subprocess.Popen[str]") -> None:
    errors = lost.communicate()[1]
    assert lost.returncode == 1
    assert "error: Dagster's database does not answer: connection to server at" in errors
    assert "Traceback" not in errors
    assert "not-to-be-seen" not in errors
