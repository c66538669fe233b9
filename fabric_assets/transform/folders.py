"""A run's own folder for its profile, dbt's target and HOME. It is removed with the run.

The folder is locked as long as its process lives. The next run removes all folders that nobody has locked, and so what a killed run has left.
"""

import re
import shutil
import tempfile
import time
from pathlib import Path

from fabric_assets.private_files import FileLock, make_private_folder

_LOCK = ".lock"
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.05


class RunFolder:
    """A new folder below the tenant's dbt folder.

    Args:
        run_id: part of the name for people who look for it; the name is unique without it.
    """

    def __init__(self, parent: Path, run_id: str = "") -> None:
        make_private_folder(parent)
        with FileLock(parent / _LOCK):
            _sweep(parent)
            self.path = Path(tempfile.mkdtemp(dir=parent, prefix=f"{re.sub(r'[^A-Za-z0-9-]', '', run_id)[:40] or 'run'}-"))
            self._held = FileLock(self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder, in several attempts: another thread may still write to it."""
        for _ in range(_ATTEMPTS):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(_PAUSE_SECONDS)
        self._held.release()


def sweep_folders(parent: Path) -> None:
    """Remove the folders of dead runs."""
    if parent.is_dir():
        with FileLock(parent / _LOCK):
            _sweep(parent)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        try:
            lock = FileLock(folder / _LOCK, wait=False)
        except BlockingIOError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
