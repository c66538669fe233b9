from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.offboarding.world import build_world, copy_world


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The world as it was; made once, and left alone."""
    return build_world(tmp_path_factory.mktemp("past"))


@pytest.fixture
def world(past: Settings, tmp_path: Path) -> Settings:
    """A world of the test's own."""
    return copy_world(past, tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts commands in processes of their own; whatever still runs at the end of the test is killed."""
    started = list[Process]()

    def start(case: Case, *, environ: Mapping[str, str]) -> Process:
        started.append(Process(case, environ=environ))
        return started[-1]

    yield start
    for process in started:
        process.close()
