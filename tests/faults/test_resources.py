"""Disk, rights, file handles or memory run out: one tenant's load fails and says why, nothing is damaged, and the next load is whole."""

import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fabric_assets import naming
from fabric_assets.errors import DestinationError
from fabric_assets.settings import Settings
from tests.faults.oracle import NONE
from tests.faults.processes import Process
from tests.faults.world import STREAMS, World
from tests.support.services import PostgresServer

Start = Callable[..., Process]
MEGABYTE = 1 << 20
# More rows than a file of 16 MB takes.
MANY = 250_000


def get_failure(process: Process) -> str:
    assert process.wait() == 1, process.log
    return "\n".join(process.get_outcome()["failed"].values())


def test_a_duckdb_file_that_may_not_grow(settings: Settings, start: Start) -> None:
    world = World(settings, size=5_000)
    world.add_day()
    world.load_all()
    before = world.get_rows()
    world.add_day()
    failure = get_failure(start(world.build_case(limits={"FSIZE": MEGABYTE // 2})))
    assert "File too large" in failure, failure
    assert all(NONE in (world.count(stream), world.count(stream, expected=before)) for stream in STREAMS)
    world.load_all()
    assert world.count() == NONE


@pytest.fixture
def full_server() -> Iterator[PostgresServer]:
    """No file of it may pass what one of its log segments takes: tables meet that limit, the log does not."""
    server, limits = PostgresServer(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 * MEGABYTE, limits[1]))
        try:
            server.start()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        yield server
    finally:
        server.remove()


def test_a_postgres_whose_disk_is_full(settings: Settings, full_server: PostgresServer) -> None:
    world = World(settings, full_server.get_url(), size=MANY)
    world.add_day()
    with pytest.raises(DestinationError, match="could not extend file"):
        world.load("shop", "orders")
    assert world.read("orders") == []
    full_server.stop()
    full_server.start()
    world.load("shop", "orders")
    assert world.count("orders") == NONE


def test_a_warehouse_file_that_may_not_be_written_fails_its_tenant_alone(settings: Settings, start: Start) -> None:
    worlds = [World(settings, name=name) for name in ("acme", "globex")]
    for world in worlds:
        world.add_day()
        world.load_all()
        world.add_day()
    file = naming.warehouse_file(settings.data_dir, "acme")
    file.chmod(0o400)
    processes = [start(world.build_case(), heed_modes=True) for world in worlds]
    failure = get_failure(processes[0])
    assert str(file) in failure and "ermission denied" in failure, failure
    assert processes[1].wait() == 0, processes[1].log
    file.chmod(0o600)
    for world in worlds:
        world.load_all()
        assert world.count() == NONE


def test_a_data_folder_that_may_not_be_written(settings: Settings, start: Start) -> None:
    world = World(settings)
    world.add_day()
    settings.data_dir.chmod(0o500)
    failure = get_failure(start(world.build_case(), heed_modes=True))
    assert str(settings.data_dir) in failure and "ermission denied" in failure, failure
    settings.data_dir.chmod(0o700)
    world.load_all()
    assert world.count() == NONE


def test_no_file_handle_left(world: World, start: Start) -> None:
    world.add_day()
    failure = get_failure(start(world.build_case(limits={"NOFILE": 3})))
    # The words are those of the driver that met the limit first.
    assert "oo many open files" in failure or "failed to open" in failure, failure
    world.load_all()
    assert world.count() == NONE


def test_no_memory_left(settings: Settings, destination: str | None, start: Start) -> None:
    world = World(settings, destination, size=50_000)
    world.add_day()
    process = start(world.build_case(limits={"AS": 40 * MEGABYTE}))
    assert process.wait() != 0
    if process.outcomes:
        # By which words depends on who met the limit first: an allocation, a thread's stack, a library that is loaded late.
        assert re.search("memory|thread|map segment|allocat", get_failure(process)), process.get_outcome()
    world.load_all()
    assert world.count() == NONE


def test_each_of_these_loads_succeeds_where_nothing_is_missing(settings: Settings, start: Start, tmp_path: Path) -> None:
    world = World(settings, size=5_000)
    world.add_day()
    process = start(world.build_case(limits={"FSIZE": 64 * MEGABYTE, "NOFILE": 200, "AS": 4000 * MEGABYTE}), heed_modes=True)
    assert process.wait() == 0, process.log
    assert world.count("orders", "stores", "events") == NONE
