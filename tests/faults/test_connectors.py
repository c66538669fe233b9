"""A process of a connector's load is killed at a random moment: the load, the supervisor, the connector, or what it has started.

No rows are lost or duplicated, no process of the connector stays, and the next load makes good what is missing.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.contract.conftest import world
from tests.contract.singer import SingerTap
from tests.contract.source import STREAMS
from tests.contract.world import World
from tests.faults.oracle import NONE
from tests.faults.processes import Case, Process, wait_until
from tests.support.lengths import choose_seeds

__all__ = ["world"]

Start = Callable[[Case], Process]
PAIRS = [("singer", "duckdb"), ("dlt", "postgres"), ("airbyte", "duckdb"), ("singer", "postgres"), ("dlt", "duckdb"), ("airbyte", "postgres")]
VICTIMS = ("load", "guard", "supervisor", "connector", "descendant")
# The connector writes slowly, so that it is killed in the middle of its rows, and leaves a process that has its own session.
LEAVING = """
import subprocess
subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"], start_new_session=True)
"""
SLOW_OUTPUT = """
class Slow:
    def __init__(self, out):
        self.out = out
    def write(self, text):
        time.sleep(0.01)
        self.out.write(text)
        self.out.flush()
    def flush(self):
        self.out.flush()
sys.stdout = Slow(sys.stdout)
"""
SLOW_RESOURCES = """
def slow(folder, name, seq=dlt.sources.incremental("seq", initial_value=0)):
    for row in json.load(open(os.path.join(folder, name + ".json"))):
        time.sleep(0.01)
        yield row
names = sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json"))
resources = [dlt.resource(slow, name=name, primary_key="id", write_disposition="merge")(folder, name) for name in names]
"""


@pytest.fixture
def slow_world(world: World) -> World:
    """A first day loaded, a second one in the source, and a connector that is slow from now on."""
    world.fill()
    world.load()
    world.change()
    cast(SingerTap, world.source).code = LEAVING + (SLOW_RESOURCES if world.source.type == "dlt" else SLOW_OUTPUT)
    return world


@pytest.mark.parametrize(("world", "seed"), [(PAIRS[seed % len(PAIRS)], seed) for seed in choose_seeds(len(VICTIMS))], indirect=["world"])
def test_killed_at_a_random_moment(slow_world: World, start: Start, seed: int) -> None:
    victim, chance = VICTIMS[seed % len(VICTIMS)], random.Random(seed)
    before = {stream: slow_world.read(stream) for stream in STREAMS}
    process = start(slow_world.build_case())
    kill(process, victim, chance.uniform(0, 1.5))
    process.wait()
    for stream in STREAMS:
        found = (slow_world.count(stream), slow_world.count(stream, before[stream]))
        assert NONE in found, f"{stream} is neither as before nor as it should be (FABRIC_TEST_SEED={seed}): {found}"
    wait_until(lambda: not list(find_connectors(slow_world)))
    heal(slow_world)


@pytest.mark.parametrize("world", PAIRS[:1], indirect=True, ids="-".join)
def test_an_engine_that_takes_the_output_of_a_killed_connector_for_whole_is_caught(slow_world: World, start: Start) -> None:
    """The control: rows whose bookmark has not come are loaded, and a stream that has not come is taken for one without rows."""
    before = {stream: slow_world.read(stream) for stream in STREAMS}
    slow_world.source.put("orders", range(200, 300), "many")
    process = start(slow_world.build_case(broken="trusted_output"))
    kill(process, "connector", 0.5)
    process.wait()
    assert any(NONE not in (slow_world.count(stream), slow_world.count(stream, before[stream])) for stream in STREAMS)


def heal(world: World) -> None:
    cast(SingerTap, world.source).code = ""
    world.load()
    assert {stream: world.count(stream) for stream in STREAMS} == dict.fromkeys(STREAMS, NONE)


def kill(process: Process, victim: str, seconds: float) -> None:
    """Kill a process of a load.

    Args:
        seconds: after the connector has begun its rows; a load that has ended by then is left alone.
    """
    found = wait_until(lambda: find_victims(process.pid))
    time.sleep(seconds)
    if process.is_alive and is_running(found[victim]):
        os.kill(found[victim], signal.SIGKILL)


def find_victims(load: int) -> dict[str, int]:
    """Find the processes of a load whose tap reads its rows; empty before that."""
    chain = [load]
    while len(chain) < len(VICTIMS):
        if not (children := list_children(chain[-1])):
            return {}
        chain.append(children[0])
    return dict(zip(VICTIMS, chain, strict=True))


def list_children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def find_connectors(world: World) -> Iterator[int]:
    """Find the processes that run a program of the world's connectors."""
    folder = str(world.settings.connectors_dir)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder in path.read_text():
                yield int(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
