"""connectors.lock, beside connectors.yaml: the exact versions and hashes of each connector's packages."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fabric_assets.config.connectors_file import ConnectorEntry
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
    """

    entry: str
    python: str
    requirements: tuple[str, ...]

    @property
    def id(self) -> str:
        """The name of its environment: the same packages have the same name."""
        return hashlib.sha256(json.dumps([self.python, self.requirements]).encode()).hexdigest()[:_ID_CHARS]


def digest_entry(entry: ConnectorEntry) -> str:
    """Compute the digest of what decides the packages of an entry."""
    return hashlib.sha256(json.dumps([sorted(entry.requirements), entry.python, entry.build]).encode()).hexdigest()


def read_lock(file: Path) -> dict[str, Locked]:
    """Read the lock file; one that does not exist locks nothing.

    Raises:
        ConfigurationError: the file was not written by `fabric connectors install`.
    """
    try:
        found = json.loads(file.read_text())
        if found["version"] != _VERSION:
            raise ConfigurationError(f"{file} has the version {found['version']}, which this release does not know", remedy="install it with the newer release")
        return {name: Locked(locked["entry"], locked["python"], tuple(locked["requirements"])) for name, locked in found["connectors"].items()}
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
