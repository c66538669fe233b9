"""A Dagster instance -> the folders into which it writes files, and in them what is a tenant's: its runs' and ticks' captured output, its assets' values.

Where a deployment keeps captured output is a setting of its own: by default it lies in the storage's folder, and need not.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg


def get_storage_folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.storage_directory())


def get_folders(instance: dg.DagsterInstance) -> list[Path]:
    """The storage's folder, and that of captured output where it is another one on this machine."""
    captured: Any = instance.compute_log_manager
    folders = [get_storage_folder(instance)]
    if hasattr(captured, "get_captured_local_path"):
        folders.append(Path(captured.get_captured_local_path(["any"], "err")).parent)
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def find_own_files(instance: dg.DagsterInstance, tenant: str, runs: Iterable[str]) -> Iterator[Path]:
    """What is the tenant's alone."""
    yield get_storage_folder(instance) / tenant
    for folder in get_folders(instance):
        yield from (folder / run for run in runs)
        # What schedules and sensors have logged.
        yield from (*folder.glob(f"{tenant}__*"), *folder.glob(f"*/{tenant}__*"))


def find_captured_output(instance: dg.DagsterInstance) -> Iterator[Path]:
    """What steps, schedules and sensors of all tenants have written: <run>/compute_logs/<step>.err, <repository>/<sensor>/<tick>.err.

    Whose run it is does not matter: another tenant's check of its walls names whomever it got at.
    """
    for folder in get_folders(instance):
        for suffix in ("err", "out"):
            yield from (file for file in folder.glob(f"*/*/*.{suffix}") if file.is_file() and not file.is_symlink())
