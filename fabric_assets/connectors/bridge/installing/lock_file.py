"""connectors.lock, beside connectors.yaml: the exact versions and hashes of each connector's packages."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.connectors.bridge.installing.programs import list_requirements
from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import write_atomically

_VERSION = 1
_ID_CHARS = 24


@dataclass(frozen=True)
class Locked:
    """A locked connector.

    Args:
        entry: digest of what connectors.yaml says of its packages.
        python: version of Python, as 3.12.
        requirements: lines of a requirements file, with hashes.
        files: digest of the entry's own files; empty without such.
    """

    entry: str
    python: str
    requirements: tuple[str, ...]
    files: str = ""

    @property
    def id(self) -> str:
        """The name of its environment: the same packages and own files have the same name."""
        parts = [self.python, self.requirements, *([self.files] if self.files else [])]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_ID_CHARS]


def digest_entry(entry: ConnectorEntry) -> str:
    """Compute the digest of what decides the packages of an entry."""
    return hashlib.sha256(json.dumps([sorted(list_requirements(entry)), entry.python, entry.build]).encode()).hexdigest()


def read_lock(file: Path) -> dict[str, Locked]:
    """Read the lock file; one that does not exist locks nothing.

    Raises:
        ConfigurationError: the file was not written by `fabric connectors install`.
    """
    try:
        found = json.loads(file.read_text())
        if found["version"] != _VERSION:
            raise ConfigurationError(f"{file} has the version {found['version']}, which this release does not know", remedy="install it with the newer release")
        return {
            name: Locked(locked["entry"], locked["python"], tuple(locked["requirements"]), locked.get("files", ""))
            for name, locked in found["connectors"].items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{file} is not a lock file", remedy="take it from version control, or delete it and run `fabric connectors install`"
        ) from None


def write_lock(file: Path, locked: Mapping[str, Locked]) -> None:
    """Write the lock file, whole or not at all."""
    text = json.dumps({"version": _VERSION, "connectors": {name: asdict(locked[name]) for name in sorted(locked)}}, indent=2) + "\n"
    write_atomically(file, lambda stream: stream.write(text.encode()))
    file.chmod(0o644)
