"""After a load a source's reader is closed once, and the process keeps no file, connection or thread of it."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.connectors.registry import open_source, stage_source
from fabric_assets.loading import leased_load, staged_load
from fabric_assets.rows.batches import SourceReader
from tests.contract.world import World
from tests.faults.processes import wait_until


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The groups that were still read when a reader was closed: a number per reader."""
    closed = list[int]()

    def watch_reader(reader: SourceReader) -> SourceReader:
        reading = Counter[str]()

        def watch(read: Callable) -> Callable:
            def watched(memories: object) -> object:
                reading["now"] += 1
                try:
                    yield from read(memories)
                finally:
                    reading["now"] -= 1

            return watched

        def close() -> None:
            closed.append(reading["now"])
            reader.close()

        return replace(reader, groups=tuple(replace(group, read=watch(group.read)) for group in reader.groups), close=close)

    monkeypatch.setattr(leased_load, "open_source", lambda context: watch_reader(open_source(context)))
    monkeypatch.setattr(staged_load, "stage_source", lambda context, states: (watch_reader(reader) for reader in stage_source(context, states)))
    return closed


def list_open(world: World) -> list[str]:
    """Files of the test's folder that this process holds open, its connections out, and its threads of loads."""
    found = [thread.name for thread in threading.enumerate() if thread.name.startswith("tenant acme")]
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = str(handle.readlink())
        except FileNotFoundError:  # the one that lists the folder
            continue
        if target.startswith(str(world.settings.data_dir.parent)):
            found.append(target)
    return found


@pytest.mark.parametrize("is_broken", [False, True], ids=["whole", "with a stream that fails"])
def test_a_reader_is_closed_once_and_leaves_nothing_open(world: World, closed: list[int], is_broken: bool) -> None:
    world.fill()
    if is_broken:
        world.source.break_stream()
    world.try_load()
    assert closed == [0]
    wait_until(lambda: not list_open(world), 10)
    # What a load copies of a source's files lies in a folder of its own below this one.
    assert list((world.settings.data_dir / "loads").glob("acme/shop/*")) == []
