"""Installed connectors -> what differs from the list and the lock file."""

import base64
import hashlib
import re
from collections.abc import Iterator
from csv import reader
from pathlib import Path

from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.connectors.bridge.installing.building import get_lock_file
from fabric_assets.connectors.bridge.installing.environments import get_environment
from fabric_assets.connectors.bridge.installing.lock_file import digest_entry, read_lock
from fabric_assets.connectors.bridge.installing.programs import digest_folder, digest_own_files
from fabric_assets.connectors.bridge.process.confinement import find_gap
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings

_HASH = re.compile(r"sha256=([\w-]+)")


def find_findings(settings: Settings, name: str, entry: ConnectorEntry) -> Iterator[str]:
    """Find what is wrong with a connector, in words."""
    locked = read_lock(get_lock_file(settings)).get(name)
    if locked is None or locked.entry != digest_entry(entry):
        yield "connectors.lock does not hold it as connectors.yaml says; run `fabric connectors install`"
        return
    try:
        environment = get_environment(settings, name)
    except ConfigurationError as error:
        yield f"{error.message}; {error.remedy}"
        return
    if environment.folder.name != locked.id:
        yield "its environment is not that of connectors.lock; run `fabric connectors install`"
    try:
        if digest_own_files(settings, name, entry) != locked.files:
            yield f"the files of {entry.path or entry.manifest} are not those of connectors.lock; run `fabric connectors install`"
    except ConfigurationError as error:
        yield f"{error.message}; {error.remedy}"
    if locked.files and digest_folder(environment.own_files, name) != locked.files:
        yield f"its own files are not those that were installed; delete {environment.folder} and run `fabric connectors install`"
    if changed := next(_find_changed(environment.folder), None):
        yield f"{changed} is not the file that was installed; delete {environment.folder} and run `fabric connectors install`"
    if not entry.trusted and (gap := find_gap()):
        yield gap


def _find_changed(folder: Path) -> Iterator[str]:
    """Find files whose content is not that of their package's own list."""
    for record in sorted(folder.glob("lib/python*/site-packages/*.dist-info/RECORD")):
        packages = record.parent.parent
        with record.open(newline="") as lines:
            for path, digest, *_ in reader(lines):
                if found := _HASH.fullmatch(digest):
                    file = packages / path
                    if not file.is_file() or _digest(file) != found[1]:
                        yield path


def _digest(file: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")
