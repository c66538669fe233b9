"""A Dagster instance -> the folders of its files, and a tenant's files in them: captured output of runs and ticks, and assets' values.

A deployment may choose another folder for captured output; by default it is in the storage's folder.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg


def get_storage_folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.storage_directory())


def get_folders(instance: dg.DagsterInstance) -> list[Path]:
    """List the storage's folder, and that of captured output if it is another folder of this machine."""
    captured: Any = instance.compute_log_manager
    folders = [get_storage_folder(instance)]
    if hasattr(captured, "get_captured_local_path"):
        folders.append(Path(captured.get_captured_local_path(["any"], "err")).parent)
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def find_own_files(instance: dg.DagsterInstance, tenant: str, runs: Iterable[str]) -> Iterator[Path]:
    """Yield the files that belong to the tenant alone."""
    yield get_storage_folder(instance) / tenant
    for folder in get_folders(instance):
        yield from (folder / run for run in runs)
        # The logs of schedules and sensors.
        yield from (*folder.glob(f"{tenant}__*"), *folder.glob(f"*/{tenant}__*"))


def find_captured_output(instance: dg.DagsterInstance) -> Iterator[Path]:
    """Yield the captured output of all tenants' steps, schedules and sensors: <run>/compute_logs/<step>.err, <repository>/<sensor>/<tick>.err.

    The isolation check of another tenant may name this tenant, so all runs are searched.
    """
    for folder in get_folders(instance):
        for suffix in ("err", "out"):
            yield from (file for file in folder.glob(f"*/*/*.{suffix}") if file.is_file() and not file.is_symlink())
