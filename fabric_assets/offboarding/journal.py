"""The steps of an offboarding -> a file that outlives the process, so that the next call goes on where the last one ended.

Counts are written before anything is deleted: a later call finds less, but the certificate must list everything.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import make_private_folder, write_atomically

FORMAT = 1
# The step after which nothing is left but the sealed secrets.
PROVED = "proved"


class Journal:
    """The record of what one tenant's offboarding has done.

    Args:
        request: the options with which it began.
        steps: the result of each finished step.
    """

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self.file, self._content = file, content

    @property
    def begun(self) -> dict[str, Any]:
        """The time, user and machine of the beginning."""
        return self._content["begun"]

    @property
    def request(self) -> dict[str, Any]:
        return self._content["request"]

    @property
    def steps(self) -> dict[str, Any]:
        return self._content["steps"]

    def finish(self, step: str, result: Any) -> None:
        """Write durably that a step is done, and its result."""
        self._content["steps"][step] = result
        self._write()

    def close(self) -> None:
        """Remove the file: the certificate replaces it."""
        self.file.unlink(missing_ok=True)
        sync_folder(self.file.parent)

    def _write(self) -> None:
        write_durably(self.file, json.dumps(self._content, indent=1).encode())


def open_journal(tenant: str, data_dir: Path, request: dict[str, Any]) -> Journal:
    """Read the journal of an offboarding that has begun, or begin one. From then on all work for the tenant is refused.

    Raises:
        ConfigurationError: another version wrote it, in a format that this one does not read.
    """
    file = naming.offboarding_journal(data_dir, tenant)
    make_private_folder(file.parent)
    if found := read_journal(file):
        return found
    journal = Journal(file, {"format": FORMAT, "tenant": tenant, "begun": _describe_beginning(), "request": request, "steps": {}})
    journal._write()
    return journal


def read_journal(file: Path) -> Journal | None:
    """Read the journal of an offboarding that has begun; None if there is none.

    Raises:
        ConfigurationError: another version wrote it, in a format that this one does not read.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    if content.get("format") != FORMAT:
        raise ConfigurationError(f"{file} was written by another version of the platform", remedy="finish the offboarding with that version")
    return Journal(file, content)


def write_durably(file: Path, content: bytes) -> None:
    """Write a private file atomically. It is on the disk when this returns."""

    def write(stream: Any) -> None:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())

    write_atomically(file, write)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe_beginning() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        user = str(os.getuid())
    return {"at": get_now(), "platform": f"etl-fabric {version('etl-fabric')}", "host": socket.gethostname(), "user": user}
