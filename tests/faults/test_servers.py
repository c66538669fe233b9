"""The far end dies, goes silent or loses its answer in the middle of a load."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fabric_assets.settings import Settings
from tests.faults.oracle import NONE
from tests.faults.processes import Case, Process, wait_until
from tests.faults.proxy import Proxy, reroute
from tests.faults.world import STREAMS, World
from tests.support.lengths import AT_FULL_LENGTH, choose
from tests.support.services import PostgresServer, start_pgbouncer, start_server

Start = Callable[[Case], Process]
TIMEOUT = 4
# Enough rows that a load takes many packets.
MANY = 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A Postgres that a test may crash without taking another's databases down."""
    with start_server() as server:
        yield server


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres_server.port) as proxy:
        yield proxy


def get_failure(process: Process) -> str:
    assert process.wait() == 1, process.log
    return next(iter(process.get_outcome()["failed"].values()))


def test_a_destination_that_crashes_in_the_middle_of_a_load(settings: Settings, server: PostgresServer, start: Start) -> None:
    world = World(settings, server.get_url(), size=MANY)
    world.add_day()
    with Proxy(server.port) as proxy:
        world.set_warehouse(reroute(server.get_url(), proxy))
        process = start(world.build_case(wait=True))
        proxy.after(1_000_000, lambda: server.stop("immediate"))
        process.go()
        assert "DestinationUnavailable" in get_failure(process)
    server.start()
    world.set_warehouse(server.get_url())
    assert {len(world.read(stream)) for stream in STREAMS} <= {0, MANY}
    world.load_all()
    assert world.count() == NONE


@pytest.mark.parametrize("sent", [1_000, *choose((20_000, 300_000, 1_000_000), 1)])
def test_a_pooler_that_is_restarted_in_the_middle_of_a_load(
    settings: Settings, postgres_server: PostgresServer, make_database: Callable[[], str], start: Start, sent: int
) -> None:
    """Args:
    sent: bytes of the load, before or after which the pooler ends: as it connects, in its first statements, among its rows.
    """
    direct = make_database()
    world = World(settings, direct, size=MANY)
    world.add_day()
    with contextlib.ExitStack() as pooler:
        port = pooler.enter_context(start_pgbouncer(postgres_server, "session"))
        with Proxy(port) as proxy:
            world.set_warehouse(reroute(direct, proxy))
            process = start(world.build_case(wait=True))
            proxy.after(sent, pooler.close)
            process.go()
            assert "DestinationUnavailable" in get_failure(process)
    world.set_warehouse(direct)
    assert {len(world.read(stream)) for stream in STREAMS} <= {0, MANY}
    with start_pgbouncer(postgres_server, "session") as port:
        world.set_warehouse(direct.replace(f":{postgres_server.port}/", f":{port}/"))
        world.load_all()
        world.add_day()
        world.load_all()
        assert world.count() == NONE


@pytest.mark.parametrize("stream", STREAMS)
def test_a_commit_whose_answer_is_lost(settings: Settings, make_database: Callable[[], str], proxy: Proxy, start: Start, stream: str) -> None:
    direct = make_database()
    world = World(settings, direct)
    world.add_day()
    world.load_all()
    world.add_day()
    process = lose_commit(world, direct, proxy, start, stream)
    assert process.wait() == 0, f"the commit has happened, only its answer is lost, and the ledger knows it\n{process.log}"
    assert world.count(stream) == NONE
    world.load_all()
    assert world.count() == NONE


def test_an_engine_that_commits_rows_by_themselves_doubles_them_when_the_answer_is_lost(
    settings: Settings, make_database: Callable[[], str], proxy: Proxy, start: Start
) -> None:
    direct = make_database()
    world = World(settings, direct)
    world.add_day()
    world.load_all()
    world.add_day()
    failure = get_failure(lose_commit(world, direct, proxy, start, "events", broken="autocommit"))
    assert "DestinationUnavailable" in failure, failure
    world.load_all()
    assert world.count().doubled == world.size


def lose_commit(world: World, direct: str, proxy: Proxy, start: Start, stream: str, broken: str = "") -> Process:
    world.set_warehouse(reroute(direct, proxy))
    process = start(world.build_case(STREAMS[stream], stream, wait=True, broken=broken))
    proxy.lose_commit(stream)
    process.go()
    process.wait()
    assert proxy.lost_answers == 1
    world.set_warehouse(direct)
    return process


@pytest.mark.parametrize("end", choose(["destination", "source"], 1))
def test_a_far_end_that_goes_silent_costs_one_tenant_its_timeout_and_the_others_nothing(
    settings: Settings, make_database: Callable[[], str], proxy: Proxy, start: Start, end: str
) -> None:
    world, other = build_worlds(settings, make_database, proxy, end)
    process = start_into_hole(world, proxy, start)
    began = time.monotonic()
    other.load_all()
    assert other.count() == NONE
    failure = get_failure(process)
    assert time.monotonic() - began < TIMEOUT + 60
    assert "timeout" in failure and "acme" in failure and "shop" in failure, failure
    repair(world, proxy)
    assert world.count() == NONE


@AT_FULL_LENGTH
@pytest.mark.parametrize("end", ["source", "destination"])
def test_an_engine_without_a_deadline_hangs(settings: Settings, make_database: Callable[[], str], proxy: Proxy, start: Start, end: str) -> None:
    world, _ = build_worlds(settings, make_database, proxy, end)
    process = start_into_hole(world, proxy, start, broken="no_deadline")
    time.sleep(TIMEOUT + 2)
    assert process.is_alive
    process.send(signal.SIGKILL)
    process.wait()
    repair(world, proxy)


def build_worlds(settings: Settings, make_database: Callable[[], str], proxy: Proxy, end: str) -> tuple[World, World]:
    """The tenant behind the proxy, and another one on the same server."""
    shop, warehouse = make_database(), make_database()
    world = World(settings, warehouse, shop_url=shop, size=MANY, timeout=f"{TIMEOUT}s")
    world.add_day()
    if end == "source":
        world.set_shop_url(reroute(shop, proxy))
    else:
        world.set_warehouse(reroute(warehouse, proxy))
    other = World(settings, warehouse, name="globex")
    other.add_day()
    return world, other


def start_into_hole(world: World, proxy: Proxy, start: Start, **faults: Any) -> Process:
    process = start(world.build_case(wait=True, **faults))
    proxy.after(300_000, proxy.hole)
    process.go()
    wait_until(lambda: not proxy.flows)
    return process


def repair(world: World, proxy: Proxy) -> None:
    proxy.reset()
    proxy.heal()
    world.options = {}
    world.load_all()
