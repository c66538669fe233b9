"""Faults of the orchestrator around a load: a killed run, a terminated one, an event log that is locked or gone."""

import contextlib
import json
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import yaml

from fabric_assets import naming
from fabric_assets.errors import DestinationUnavailable
from fabric_assets.settings import Settings
from tests.faults.oracle import NONE
from tests.faults.processes import Case, Process, wait_until
from tests.faults.webserver import Webserver
from tests.faults.world import World
from tests.support.services import start_server

Start = Callable[..., Process]


@pytest.fixture
def shop(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture
def world(settings: Settings, destination: str | None, shop: str) -> World:
    """A tenant of a deployment: its YAML lies where `fabric run` finds it."""
    world = World(settings, destination, shop_url=shop)
    (settings.tenants_dir / "acme.yaml").write_text(yaml.safe_dump(world.yaml))
    world.add_day()
    return world


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    return {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir),
        "FABRIC_DATA_DIR": str(settings.data_dir),
    }


only_duckdb = pytest.mark.parametrize("destination", ["duckdb"], indirect=True)
only_postgres = pytest.mark.parametrize("destination", ["postgres"], indirect=True)
# Longer than SQLite waits for a lock by itself.
LOCKED_SECONDS = 6
RUN = Case(command=("run", "acme", "--json"))


@contextlib.contextmanager
def held(shop: str, table: str) -> Iterator[Callable[[], bool]]:
    """Lock a table of the source for the block; gives a question: does a load wait for it?"""
    connection = psycopg2.connect(shop)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"lock table {table} in access exclusive mode")

        def is_awaited() -> bool:
            cursor.execute("select count(*) from pg_locks where not granted and relation = %s::regclass", (table,))
            return cursor.fetchone()[0] > 0

        yield is_awaited
    connection.close()


def test_a_killed_run_is_made_good_by_the_next(world: World, environ: dict[str, str], start: Start) -> None:
    killed = start(replace(RUN, kill="commit.after:2"), environ=environ)
    assert killed.wait() == -signal.SIGKILL, killed.log
    # It has left Dagster a run that has started, and a pool that it holds.
    assert start(RUN, environ=environ).wait() == 0
    assert world.count() == NONE
    with dg.DagsterInstance.from_config(str(naming.dagster_home(world.settings.data_dir))) as instance:
        assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "SUCCESS"]


@pytest.mark.parametrize(("number", "tries"), [(signal.SIGTERM, 2), (signal.SIGINT, 0)], ids=["kill", "ctrl-c"])
def test_a_run_that_is_cancelled_ends_at_once_says_so_and_the_next_is_complete(
    world: World, shop: str, environ: dict[str, str], start: Start, number: signal.Signals, tries: int
) -> None:
    config = world.yaml
    config["sources"]["shop"]["retries"] = {"max": tries, "delay": "1s"}
    (world.settings.tenants_dir / "acme.yaml").write_text(yaml.safe_dump(config))
    (world.settings.tenants_dir / "zeta.yaml").write_text(yaml.safe_dump(config | {"tenant": "zeta"}))
    with held(shop, "events") as is_awaited:
        run = start(Case(command=("run", "--all", "--json")), environ=environ)
        wait_until(is_awaited)
        run.send(number)
        assert run.wait(30) == 1, run.log
    reported = {tenant["tenant"]: tenant for tenant in json.loads("".join(run.output))["tenants"]}
    assert "Cancelled. Committed streams are kept; the next run resumes." in reported["acme"]["error"]
    assert "Dagster" not in reported["acme"]["error"]
    assert (reported["zeta"]["run_id"], reported["zeta"]["error"]) == (None, "not started: the command was cancelled before")
    assert world.read("events") == []
    assert start(RUN, environ=environ).wait() == 0
    assert world.count() == NONE
    with dg.DagsterInstance.from_config(str(naming.dagster_home(world.settings.data_dir))) as instance:
        first = min(instance.get_run_records(), key=lambda record: record.storage_id).dagster_run
        assert first.status == dg.DagsterRunStatus.FAILURE
        assert instance.all_logs(first.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY) == []


@only_postgres
def test_an_event_log_that_is_locked_while_rows_are_committed(world: World, shop: str, environ: dict[str, str], start: Start) -> None:
    home = naming.dagster_home(world.settings.data_dir)
    with contextlib.ExitStack() as locks:
        with held(shop, "events") as is_awaited:
            run = start(RUN, environ=environ)
            wait_until(is_awaited)
            for file in home.rglob("*.db"):
                database = locks.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
                database.execute("begin exclusive")
        wait_until(lambda: world.count("events") == NONE)
        time.sleep(LOCKED_SECONDS)
    run.wait()
    assert start(RUN, environ=environ).wait() == 0
    assert world.count() == NONE


@only_postgres
def test_an_event_log_that_is_deleted_in_the_middle_of_a_run(world: World, shop: str, environ: dict[str, str], start: Start) -> None:
    with held(shop, "events") as is_awaited:
        run = start(RUN, environ=environ)
        wait_until(is_awaited)
        for file in naming.dagster_home(world.settings.data_dir).rglob("*.db*"):
            file.unlink()
    run.wait()
    assert start(RUN, environ=environ).wait() == 0
    assert world.count() == NONE


@only_duckdb
def test_dagsters_database_that_stops_in_the_middle_of_a_run_is_named_and_the_next_run_is_whole(
    world: World, shop: str, environ: dict[str, str], start: Start, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    with start_server() as server:
        environ = environ | {"DAGSTER_HOME": str(tmp_path / "home")}
        (tmp_path / "home" / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_url": server.get_url()}}}))
        with held(shop, "events") as is_awaited:
            run = start(RUN, environ=environ)
            wait_until(is_awaited)
            server.stop("immediate")
        assert run.wait(120) == 1, run.log
        (reported,) = json.loads("".join(run.output))["tenants"]
        assert re.match(
            r"Dagster's database does not answer: connection to server at .*\n  remedy: check that it runs, and the storage that", reported["error"]
        )
        server.start()
        again = start(RUN, environ=environ)
        assert again.wait() == 0, again.log
        assert f"run {reported['run_id']} was killed, or lost Dagster's database; it is recorded as failed" in again.log
        assert world.count() == NONE
        with dg.DagsterInstance.from_config(environ["DAGSTER_HOME"]) as instance:
            assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "SUCCESS"]


@only_duckdb
def test_dagsters_database_without_room_is_named_and_the_next_run_is_whole(world: World, environ: dict[str, str], start: Start) -> None:
    assert start(Case(command=("run", "acme", "--select", "raw/shop/events")), environ=environ).wait() == 0
    world.add_day()
    # Dagster's index is larger already: SQLite has room in memory alone, as on a full disk.
    full = start(replace(RUN, limits={"FSIZE": 4096}), environ=environ)
    assert full.wait() == 1, full.log
    assert "Dagster's database cannot be written: " in full.log + "".join(full.output)
    assert "\n  remedy: make room where it is (on its server, or below " in full.log
    assert start(RUN, environ=environ).wait() == 0
    assert world.count() == NONE


# --- terminated from the UI


def is_closed(world: World) -> bool:
    """Whether no process has the warehouse's file open any more: the run's own ends a moment after its status does."""
    try:
        world.ask("select 1")
    except DestinationUnavailable:
        return False
    return True


@pytest.fixture
def webserver(world: World, environ: dict[str, str]) -> Iterator[Webserver]:
    webserver = Webserver(environ)
    try:
        wait_until(webserver.is_up, 90)
        yield webserver
    finally:
        webserver.close()


@only_duckdb
def test_a_run_that_is_terminated_frees_its_pool_for_the_next(world: World, shop: str, webserver: Webserver) -> None:
    with held(shop, "events") as is_awaited:
        run_id = webserver.launch(["acme", "raw", "shop", stream] for stream in ("orders", "stores", "events"))
        wait_until(is_awaited, 60)
        webserver.terminate(run_id)
        wait_until(lambda: webserver.get_status(run_id) == "CANCELED", 60)
        wait_until(lambda: is_closed(world))
    assert world.read("events") == []
    again = webserver.launch(["acme", "raw", "shop", stream] for stream in ("orders", "stores", "events"))
    wait_until(lambda: webserver.get_status(again) in {"SUCCESS", "FAILURE"}, 60)
    assert webserver.get_status(again) == "SUCCESS"
    assert world.count("orders", "stores", "events") == NONE
