"""A load of each source type is killed: what was committed is whole, state and rows together, and the next run makes good the rest."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.contract.kinds import EVERY_PAIR
from tests.contract.source import STREAMS
from tests.contract.world import World
from tests.faults.oracle import NONE
from tests.faults.processes import Case, Process
from tests.support.lengths import IS_FULL, choose_seeds

# Of a load of two streams: those of its preparation, and of the streams.
MOST_COMMITS = 12
Start = Callable[[Case], Process]


def begin(world: World) -> None:
    """A first day loaded, a bad row among it, and a second one in the source."""
    world.fill()
    world.source.add_bad_row()
    world.load()
    world.change()


@pytest.mark.parametrize("side", ["before", "after"])
def test_the_state_is_committed_with_the_rows(world: World, start: Start, side: str) -> None:
    begin(world)
    assert bool(kill(world, start, f"commit.{side}:1")) == (side == "after")
    heal(world)


@pytest.mark.parametrize("world", EVERY_PAIR if IS_FULL else [("rest_api", "postgres"), ("csv", "duckdb")], indirect=True, ids="-".join)
def test_killed_after_any_commit_of_its_session_rows_and_state_agree(world: World, start: Start) -> None:
    begin(world)
    moved = set[str]()
    for number in range(1, MOST_COMMITS):
        moved |= kill(world, start, f"{world.destination.type}_commit.after:{number}")
        if moved == set(STREAMS):
            break
        for stream in STREAMS:
            world.source.put(stream, [number], f"after commit {number}")
    assert moved == set(STREAMS)
    heal(world)


def kill(world: World, start: Start, point: str) -> set[str]:
    """Kill a load; gives the streams whose state it has committed, which are those whose rows it has."""
    before, states = {stream: world.read(stream) for stream in STREAMS}, world.read_states()
    process = start(world.build_case(kill=point))
    assert process.wait() == -signal.SIGKILL, process.log
    moved = {row[0] for row in set(world.read_states()) ^ set(states)}
    for stream in STREAMS:
        assert world.count(stream, None if stream in moved else before[stream]) == NONE
    return moved


@pytest.mark.parametrize("seed", choose_seeds(1)[:10])
def test_a_kill_at_a_random_moment_neither_loses_nor_duplicates_rows(world: World, start: Start, seed: int) -> None:
    begin(world)
    began = time.perf_counter()
    world.load()
    within = 1.5 * (time.perf_counter() - began)
    for attempt in range(2):
        before = {stream: world.read(stream) for stream in STREAMS}
        world.source.put("orders", range(160 + 7 * attempt, 175 + 7 * attempt), f"attempt {attempt}")
        world.source.put("stores", [5 + attempt, 20 + attempt], f"attempt {attempt}")
        start(world.build_case(seed=seed * 10 + attempt, within=within)).wait()
        for stream in STREAMS:
            found = (world.count(stream), world.count(stream, before[stream]))
            assert NONE in found, f"attempt {attempt}: {stream} is neither as before nor as it should be (FABRIC_TEST_SEED={seed}): {found}"
    heal(world)


def heal(world: World) -> None:
    """The next run makes good whatever is missing, and the one after it finds nothing to do."""
    world.load()
    for report in world.load().values():
        assert report.record.rows_read <= 1
    assert {stream: world.count(stream) for stream in STREAMS} == dict.fromkeys(STREAMS, NONE)
    world.check_rejects()
    dead = "select status, count(*) from acme_fabric.loads where status not in ('success', 'failed') group by 1"
    assert world.destination.ask(dead) == []
