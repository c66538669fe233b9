"""A process that loads is killed at every point that matters: the next run makes good whatever is missing, without anybody's help."""

import signal
import time
from collections.abc import Callable

import psycopg2
import pytest

from fabric_assets.settings import Settings
from tests.faults.oracle import NONE, Row
from tests.faults.processes import Case, Process, wait_until
from tests.faults.world import STREAMS, World
from tests.support.lengths import choose, choose_seeds

Start = Callable[[Case], Process]
BEFORE = [(stream, point) for stream in STREAMS for point in ("shape.before:1", "commit.before:1")]
BEFORE += [("orders", "write.after:1"), ("orders", "finish.after:1")]


def kill(world: World, start: Start, stream: str, point: str, broken: str = "") -> None:
    process = start(world.build_case(STREAMS[stream], stream, kill=point, broken=broken))
    assert process.wait() == -signal.SIGKILL, process.log


def begin(world: World) -> dict[str, list[Row]]:
    """A first day loaded, a second one in the source: what the warehouse then holds."""
    world.add_day()
    world.load_all()
    assert world.count() == NONE
    before = world.get_rows()
    world.add_day()
    return before


@pytest.mark.parametrize(("stream", "point"), choose(BEFORE, 4))
def test_killed_before_the_commit_nothing_is_visible_and_the_next_run_loads_it_all(world: World, start: Start, stream: str, point: str) -> None:
    before = begin(world)
    kill(world, start, stream, point)
    assert world.count(expected=before) == NONE
    world.load_all()
    assert world.count() == NONE


@pytest.mark.parametrize("stream", choose(list(STREAMS), 2))
def test_killed_after_the_commit_everything_is_there_and_the_next_run_doubles_nothing(world: World, start: Start, stream: str) -> None:
    begin(world)
    kill(world, start, stream, "commit.after:1")
    assert world.count(stream) == NONE
    assert world.load(STREAMS[stream], stream)[stream].rows_loaded <= (0 if stream in {"events", "tickets"} else world.size)
    world.load_all()
    assert world.count() == NONE


def test_killed_in_its_very_first_load_a_tenant_begins_anew(world: World, start: Start) -> None:
    world.add_day()
    kill(world, start, "orders", "write.after:1")
    assert world.read("orders") == []
    world.load_all()
    assert world.count() == NONE


def test_killed_between_two_streams_each_is_whole_or_untouched(settings: Settings, destination: str | None, start: Start) -> None:
    world = World(settings, destination, max_connections=1)
    before = begin(world)
    process = start(world.build_case("shop", kill="commit.after:1"))
    assert process.wait() == -signal.SIGKILL, process.log
    done = [stream for stream in ("orders", "stores", "events") if world.count(stream) == NONE]
    assert len(done) == 1
    assert world.count(*(stream for stream in STREAMS if stream not in done), expected=before) == NONE
    world.load_all()
    assert world.count() == NONE


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_while_streams_share_a_transaction_they_are_all_there_or_none(world: World, start: Start, side: str) -> None:
    before = begin(world)
    # While the first one's commit is held the other two come.
    process = start(world.build_case("shop", hold=0.5, kill=f"commit.{side}:2"))
    assert process.wait() == -signal.SIGKILL, process.log
    done = [stream for stream in ("orders", "stores", "events") if world.count(stream) == NONE]
    if not world.warehouse:  # Postgres commits each by itself, at the same time
        assert len(done) == (1 if side == "before" else 3)
    assert world.count(*(stream for stream in STREAMS if stream not in done), expected=before) == NONE
    world.load_all()
    assert world.count() == NONE


@pytest.mark.parametrize("stream", choose(list(STREAMS), 2))
def test_an_engine_that_commits_rows_by_themselves_is_caught(world: World, start: Start, stream: str) -> None:
    before = begin(world)
    kill(world, start, stream, "finish.after:1", broken="autocommit")
    assert world.count(expected=before) != NONE


@pytest.mark.parametrize("stream", choose(["orders", "events", "tickets"], 1))
def test_an_engine_that_saves_how_far_it_came_before_the_rows_is_caught(world: World, start: Start, stream: str) -> None:
    before = begin(world)
    kill(world, start, stream, "commit.after:1", broken="state_first")
    assert world.count(expected=before) == NONE
    world.load_all()
    assert world.count().lost > 0


def test_what_a_killed_run_calls_running_is_called_failed_by_the_next(world: World, start: Start) -> None:
    begin(world)
    kill(world, start, "orders", "commit.before:1")
    ledger = f"select status, count(*) from {world.name}_fabric.loads where source = 'shop' and stream = 'orders' group by 1 order by 1"
    assert world.ask(ledger) == [("running", 1), ("success", 1)]
    world.load("shop", "orders")
    assert world.ask(ledger) == [("failed", 1), ("success", 2)]


@pytest.mark.parametrize("seed", choose_seeds(2))
def test_killed_at_a_random_moment(world: World, start: Start, seed: int) -> None:
    world.add_day()
    world.load_all()
    world.add_day()
    # A forked process takes about as long as this one.
    within = {source: 1.5 * measure(world, source) for source in ("shop", "desk")}
    for attempt in range(2):
        before, source = {stream: world.read(stream) for stream in STREAMS}, ("shop", "desk")[(seed + attempt) % 2]
        world.add_day()
        start(world.build_case(source, seed=seed * 10 + attempt, within=within[source])).wait()
        for stream in STREAMS:
            found = (world.count(stream), world.count(stream, expected=before))
            assert NONE in found, f"seed {seed}, attempt {attempt}: {stream} is neither as before nor as it should be (FABRIC_TEST_SEED={seed}): {found}"
    world.load_all()
    assert world.count() == NONE, f"seed {seed}: play it again with FABRIC_TEST_SEED={seed}"


def measure(world: World, source: str) -> float:
    """Load a source, and give the seconds that it took."""
    began = time.perf_counter()
    world.load(source)
    return time.perf_counter() - began


def test_stopped_while_it_waits_for_the_source_a_load_ends_at_once(
    settings: Settings, destination: str | None, make_database: Callable[[], str], start: Start
) -> None:
    shop = make_database()
    world = World(settings, destination, shop_url=shop)
    before = begin(world)
    with psycopg2.connect(shop) as holder, holder.cursor() as cursor:
        cursor.execute("lock table events in access exclusive mode")
        process, deaf = start(world.build_case()), start(Case(**{**vars(world.build_case()), "broken": "deaf"}))
        waiting = "select count(distinct pid) from pg_locks where not granted and relation = 'events'::regclass"
        wait_until(lambda: cursor.execute(waiting) or cursor.fetchone()[0] >= 1)
        wait_until(lambda: world.warehouse is None or world.count("orders", "stores") == NONE)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert time.monotonic() - began < 60
        deaf.send(signal.SIGTERM)
        time.sleep(0.5)
        assert deaf.is_alive, "the control: a process that does not heed the signal"
        deaf.close()
    holder.close()
    assert world.count("events", expected=before) == NONE
    world.load_all()
    assert world.count() == NONE
