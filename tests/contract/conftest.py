"""Fixtures of the contract suite: a world of each source type and destination kind."""

from collections.abc import Sequence

import pytest

from fabric_assets.settings import Settings
from tests.contract.kinds import DESTINATIONS, EVERY_PAIR, SOURCES
from tests.contract.world import World
from tests.faults.conftest import start
from tests.support.lengths import IS_FULL

__all__ = ["start"]


def choose_pairs() -> list[tuple[str, str]]:
    """Each source with each destination at full length; else each source once, and the destinations by turns."""
    if IS_FULL:
        return EVERY_PAIR
    kinds = list(DESTINATIONS)
    return [(source, kinds[number % len(kinds)]) for number, source in enumerate(SOURCES)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames and not any(mark.args[0] == "world" for mark in metafunc.definition.iter_markers("parametrize")):
        pairs: Sequence[tuple[str, str]] = choose_pairs()
        metafunc.parametrize("world", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


@pytest.fixture
def world(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> World:
    """A tenant whose source and destination are empty."""
    kind, destination = request.param
    source = SOURCES[kind](settings, monkeypatch.setenv, request.getfixturevalue)
    return World(source.settings, source, DESTINATIONS[destination](settings, monkeypatch.setenv, request.getfixturevalue))
