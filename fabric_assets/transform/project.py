"""The dbt project -> one parse that serves every tenant, kept in the data folder.

A parse takes seconds, which no run should spend. So the project is parsed once for each warehouse type (their macros differ), with a placeholder for the
tenant.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from fabric_assets.drivers.kinds import ADAPTERS, DEFAULT_ADAPTER
from fabric_assets.errors import ConfigurationError, InternalError, TransformError, UnresolvedPackages
from fabric_assets.own_faults import keep_traceback
from fabric_assets.private_files import FileLock
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import get_fingerprint, get_graph_file, get_lock_file, get_prepared_dir, get_prepared_file, get_refused_file
from fabric_assets.transform.process import WorkerProcess

PARSE_TIMEOUT_SECONDS = 600
# Limits of what one tenant's own files may use in a parse.
PARSE_LIMITS = {"seconds": 20, "megabytes": 512}
_LONGEST_HEADING = 200


def is_prepared(settings: Settings, adapter: str = DEFAULT_ADAPTER) -> bool:
    """Whether the prepared project exists and is up to date with the project's files."""
    fingerprint = get_fingerprint(settings)
    return _read_fingerprint(get_prepared_file(settings, adapter)) == fingerprint and _read_graph_fingerprint(settings) == fingerprint


def prepare_project(settings: Settings, adapter: str = DEFAULT_ADAPTER) -> Path:
    """Parse the dbt project for a warehouse type, unless that was done and nothing has changed since.

    Safe for several processes at once: one parses, the others wait for it.

    Raises:
        ConfigurationError: dbt cannot parse the project, or it breaks one of the platform's rules; with dbt's message.
        UnresolvedPackages: the project's packages are not installed as its packages.yml says.
        InternalError: the platform's own code failed.
    """
    file = get_prepared_file(settings, adapter)
    if adapter not in ADAPTERS:
        raise ConfigurationError(f"there are no dbt models for the destination type {adapter}", remedy=f"use one of: {', '.join(ADAPTERS)}")
    if is_prepared(settings, adapter):
        return file
    if not (settings.dbt_project_dir / "dbt_project.yml").is_file():
        raise ConfigurationError(f"{settings.dbt_project_dir} holds no dbt_project.yml", remedy="set FABRIC_DBT_PROJECT_DIR to the dbt project's folder")
    with FileLock(get_lock_file(settings)):
        if not is_prepared(settings, adapter):
            _parse(settings, adapter, file)
    return file


def _parse(settings: Settings, adapter: str, file: Path) -> None:
    request = {
        "do": "prepare",
        "adapter": adapter,
        "project_dir": str(settings.dbt_project_dir),
        "folder": str(get_prepared_dir(settings) / "parsing"),
        "file": str(file),
        "graph_file": str(get_graph_file(settings)),
        "refused_file": str(get_refused_file(settings)),
        "limits": PARSE_LIMITS,
        "fingerprint": get_fingerprint(settings),
        "data_dir": str(settings.data_dir),
    }
    process = WorkerProcess([adapter])
    try:
        for event in process.request(request, timeout_seconds=PARSE_TIMEOUT_SECONDS):
            if event["event"] == "refused":
                raise ConfigurationError(f"the dbt project {settings.dbt_project_dir} cannot be used:\n{event['message']}", remedy=event["remedy"])
            if event["event"] == "unresolved":
                message = f"the packages of the dbt project {settings.dbt_project_dir} are not resolved: {event['message']}"
                raise UnresolvedPackages(message, remedy="run `fabric prepare`, which installs them; a run never does")
            if event["event"] == "fault":
                fault = InternalError(f"the dbt project {settings.dbt_project_dir}: {event['message']}", traceback=event["traceback"])
                keep_traceback(fault, data_dir=settings.data_dir)
                raise fault
    except TransformError as error:
        raise TransformError(f"the dbt project {settings.dbt_project_dir} could not be parsed: {error.message}", remedy=error.remedy) from None
    finally:
        process.close()


def _read_fingerprint(file: Path) -> str | None:
    """Read the fingerprint of a prepared file; None where the file is incomplete."""
    try:
        state = file.stat()
    except OSError:
        return None
    return _read_whole(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read_whole(file: Path, _changed: int, _size: int) -> str | None:
    try:
        with file.open("rb") as stream:
            fingerprint, digest = stream.readline(_LONGEST_HEADING).decode().split()
            return fingerprint if hashlib.file_digest(stream, "sha256").hexdigest() == digest else None
    except (OSError, ValueError):
        return None


def _read_graph_fingerprint(settings: Settings) -> str | None:
    try:
        return json.loads(get_graph_file(settings).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None
