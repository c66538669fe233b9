"""Fixtures: the folders that a tenant's files come from."""

from pathlib import Path

import pytest

from fabric_assets.connectors.csv_import import inbox as import_inbox
from fabric_assets.settings import Settings


@pytest.fixture
def exports(settings: Settings) -> Path:
    """An empty folder, which a source of type `files` reads as `path: exports`."""
    folder = settings.data_dir / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def inbox(settings: Settings) -> Path:
    """An empty folder, which a source of type `csv_import` reads as `path: inbox/acme`."""
    folder = settings.data_dir / "inbox" / "acme"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def stable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a file that has just been written without waiting until it no longer changes."""
    monkeypatch.setattr(import_inbox, "STABLE_SECONDS", 0.0)
