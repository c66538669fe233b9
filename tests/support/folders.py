"""Fixtures: the folders that a tenant's files come from; and folders that all of pytest's workers share."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets.connectors.csv_import import inbox as import_inbox
from fabric_assets.private_files import FileLock
from fabric_assets.settings import Settings


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker fills, while the others wait for it; to be read or copied, not changed."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    made = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir(mode=0o700)
            make(folder)
            made.touch()
    return folder


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
