"""Loads that happen at the same time: of one source, of one warehouse, of many tenants that are all new."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fabric_assets.settings import Settings
from tests.faults.oracle import NONE, add
from tests.faults.processes import Case, Process, wait_until
from tests.faults.world import World, provision_all
from tests.support.lengths import IS_FULL
from tests.support.services import PostgresServer, start_server

Start = Callable[[Case], Process]
TENANTS = 50 if IS_FULL else 20


def run_at_once(start: Start, *cases: Case) -> list[Process]:
    """Start processes and let them go together once all are ready."""
    with ThreadPoolExecutor(len(cases)) as pool:
        processes = list(pool.map(start, [replace(case, wait=True) for case in cases]))
    for process in processes:
        process.go()
    for process in processes:
        process.wait()
    return processes


def test_two_processes_load_the_same_source_at_once(world: World, start: Start) -> None:
    world.add_day()
    both = run_at_once(start, world.build_case(), world.build_case())
    assert [process.get_outcome()["failed"] for process in both] == [{}, {}]
    assert [process.get_outcome()["loaded"]["events"] for process in both] in ([0, world.size], [world.size, 0])
    world.load("desk")
    assert world.count() == NONE


def test_two_threads_load_the_same_source_at_once(world: World, start: Start) -> None:
    world.add_day()
    case = world.build_case()
    process = start(replace(case, loads=case.loads * 2))
    assert process.wait() == 0, process.log
    assert sorted(outcome["loaded"]["events"] for outcome in process.outcomes) == [0, world.size]
    world.load("desk")
    assert world.count() == NONE


def test_the_one_that_waits_says_for_whom(world: World, start: Start) -> None:
    world.add_day()
    holder, other = start(world.build_case(hold=2.0)), start(world.build_case(wait=True))
    wait_until(lambda: holder.is_committing)
    other.go()
    assert (holder.wait(), other.wait()) == (0, 0)
    (said,) = [message for message in other.get_outcome()["messages"] if "waiting" in message]
    assert str(holder.pid) in said


def test_without_the_lease_the_state_still_lets_only_one_commit(settings: Settings, make_database: Callable[[], str], start: Start) -> None:
    world = World(settings, make_database())
    world.add_day()
    world.load_all()
    world.add_day()
    both = run_at_once(start, *[world.build_case("shop", "events", broken="no_lease", hold=1.0)] * 2)
    failures = [text for process in both for text in process.get_outcome()["failed"].values()]
    assert all("LeaseHeld" in failure for failure in failures)
    assert world.count("events") == NONE


def test_without_both_guards_rows_are_doubled(settings: Settings, make_database: Callable[[], str], start: Start) -> None:
    world = World(settings, make_database())
    world.add_day()
    world.load_all()
    world.add_day()
    run_at_once(start, *[world.build_case("shop", "events", broken="no_guard", hold=1.0)] * 2)
    assert world.count("events").doubled == world.size


def test_two_sources_of_one_tenant_are_loaded_into_one_warehouse_at_once(world: World, start: Start) -> None:
    world.add_day()
    both = run_at_once(start, world.build_case("shop"), world.build_case("desk"))
    assert [process.get_outcome()["failed"] for process in both] == [{}, {}]
    assert world.count() == NONE


def test_without_the_lease_duckdb_itself_makes_one_of_them_wait(settings: Settings, start: Start) -> None:
    world = World(settings)
    world.add_day()
    both = run_at_once(start, *(world.build_case(source, broken="no_lease", hold=1.0) for source in ("shop", "desk")))
    told = [message for process in both for message in process.get_outcome()["messages"]]
    assert any("is open in another program" in message for message in told), told


@pytest.fixture(scope="module")
def roomy_server() -> Iterator[PostgresServer]:
    with start_server(connections=400) as server:
        yield server


def test_many_new_tenants_load_for_the_first_time_at_once(settings: Settings, roomy_server: PostgresServer, start: Start) -> None:
    """Each with a role of its own, which may make tables in its own schemas and nothing else."""
    address = f"postgresql://127.0.0.1:{roomy_server.port}/postgres"
    worlds = [World(settings, address, name=f"tenant_{number}", size=10, managed=True) for number in range(TENANTS)]
    for world in worlds:
        world.add_day()
    provision_all(worlds, roomy_server.get_url())
    cases = [world.build_case(source) for source in ("shop", "desk") for world in worlds]
    halves = [replace(cases[0], loads=tuple(case.loads[0] for case in cases[number::2])) for number in range(2)]
    processes = run_at_once(start, *halves)
    failures = [(outcome["tenant"], outcome["failed"]) for process in processes for outcome in process.outcomes if outcome["failed"]]
    assert failures == []
    assert sum(len(process.outcomes) for process in processes) == 2 * TENANTS
    owners = worlds[0].ask("select distinct tableowner::text from pg_tables where schemaname like 'tenant%' order by 1")
    assert owners == sorted((f"fabric_{world.name}",) for world in worlds)
    assert add(world.count() for world in worlds) == NONE


def test_without_the_lock_around_their_tables_new_tenants_stumble(settings: Settings, roomy_server: PostgresServer, start: Start) -> None:
    def stumble(again: int) -> bool:
        worlds = [World(settings, roomy_server.get_url(), name=f"rash_{again}_{number}", size=10) for number in range(5)]
        for world in worlds:
            world.add_day()
        halves = [
            replace(worlds[0].build_case(), loads=tuple(world.build_case(source).loads[0] for world in worlds), broken="no_ddl_lock")
            for source in ("shop", "desk")
        ]
        processes = run_at_once(start, *halves)
        return any(outcome["failed"] for process in processes for outcome in process.outcomes)

    # By chance they may miss each other, but hardly ever again and again.
    assert any(stumble(again) for again in range(8))
