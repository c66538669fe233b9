from collections.abc import Callable, Iterator, Mapping

import pytest

from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.faults.world import World
from tests.support.databases import warehouse as destination
from tests.support.folders import exports as inbox

__all__ = ["destination", "inbox"]


@pytest.fixture
def world(settings: Settings, destination: str | None) -> World:
    return World(settings, destination)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts cases; whatever still runs at the end of the test is killed."""
    started = list[Process]()

    def start(case: Case, *, environ: Mapping[str, str] | None = None, heed_modes: bool = False) -> Process:
        started.append(Process(case, environ=environ, heed_modes=heed_modes))
        return started[-1]

    yield start
    for process in started:
        process.close()
