"""Environments that no connector needs any more -> removed, unless a run holds them."""

import shutil
from collections.abc import Container
from pathlib import Path

from fabric_assets.connectors.bridge.installing.environments import get_folder
from fabric_assets.private_files import FileLock
from fabric_assets.settings import Settings


def remove_unused(settings: Settings, connectors: Container[str]) -> None:
    """Remove environments to which no link of a connector leads, and which no run holds.

    Args:
        connectors: the names of the list.
    """
    folder = get_folder(settings)
    links = [link for link in folder.parent.iterdir() if link.is_symlink()]
    used = {link.resolve().name for link in links if link.name in connectors}
    for record in folder.glob("*.json"):
        if record.stem not in used:
            _remove(folder / record.stem)


def _remove(environment: Path) -> None:
    file = environment.with_name(f"{environment.name}.lock")
    try:
        with FileLock(file, wait=False):
            # Without its record nobody takes a half-removed folder for an environment.
            environment.with_name(f"{environment.name}.json").unlink(missing_ok=True)
            if environment.is_dir():
                for path in [environment, *(each for each in environment.rglob("*") if each.is_dir() and not each.is_symlink())]:
                    path.chmod(0o700)
                shutil.rmtree(environment)
            file.unlink(missing_ok=True)
    except BlockingIOError:
        # A run holds it; the next installation looks again.
        return
