"""An installed connector -> where its program lies, for a load that runs it.

FABRIC_CONNECTORS_DIR holds `environments/<id>`, one read-only environment per set of locked packages; `environments/<id>.json`, what is known of it; and
a link per connector. A run holds a shared lock on `environments/<id>.lock`, so that no installation removes what it uses.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.connectors_file import ConnectorEntry, get_entry, load_connectors
from fabric_assets.connectors.bridge.installing.programs import get_manifest, get_own_files, get_program, list_readable
from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import hold_shared
from fabric_assets.settings import Settings

_REMEDY = "run `fabric connectors install`"


@dataclass(frozen=True)
class Environment:
    """An installed connector.

    Args:
        folder: of the environment; read-only.
        python: its interpreter.
        base_prefix: of the Python that it was made with.
        executable: the connector's program, which `python` runs.
        spec: what the connector says of its settings; None if it says nothing.
        streams: the names of its streams; None if they are known only to a run.
    """

    name: str
    entry: ConnectorEntry
    folder: Path
    python: Path
    base_prefix: Path
    executable: Path
    spec: Mapping[str, Any] | None
    streams: tuple[str, ...] | None = None

    @property
    def readable(self) -> tuple[Path, ...]:
        """The folders that its program needs."""
        return list_readable(self.folder, self.base_prefix, self.executable)

    @property
    def own_files(self) -> Path:
        """The folder of the operators' own modules, which may not exist."""
        return get_own_files(self.folder)

    @property
    def manifest(self) -> Path | None:
        """The low-code manifest, if the connector is one."""
        return get_manifest(self.folder, self.entry)


def get_folder(settings: Settings) -> Path:
    """Get the folder of the environments.

    Raises:
        ConfigurationError: it lies in FABRIC_DATA_DIR, or the other way round.
    """
    assert settings.connectors_dir is not None
    folder, data = settings.connectors_dir.resolve(), settings.data_dir.resolve()
    if folder.is_relative_to(data) or data.is_relative_to(folder):
        raise ConfigurationError(
            f"FABRIC_CONNECTORS_DIR={settings.connectors_dir} and FABRIC_DATA_DIR={settings.data_dir} lie in one another:"
            " connectors must not reach the platform's own files",
            remedy="set FABRIC_CONNECTORS_DIR to a folder outside of FABRIC_DATA_DIR",
        )
    return settings.connectors_dir / "environments"


def get_link(settings: Settings, name: str) -> Path:
    """Get the link that says which environment a connector has."""
    assert settings.connectors_dir is not None
    return settings.connectors_dir / name


def get_environment(settings: Settings, name: str) -> Environment:
    """Get the environment of a connector of the list.

    Raises:
        ConfigurationError: the list does not have it, or it is not installed.
    """
    entry = get_entry(load_connectors(settings), name, settings)
    get_folder(settings)
    link = get_link(settings, name)
    try:
        folder = link.resolve(strict=True)
        record = json.loads(folder.with_name(f"{folder.name}.json").read_text())
    except (OSError, ValueError):
        raise ConfigurationError(f"the connector {name} is not installed", remedy=_REMEDY) from None
    known = record["connectors"].get(name, {})
    executable = get_program(folder, entry)
    if not executable.is_file():
        raise ConfigurationError(f"the connector {name} has no program {entry.executable}", remedy="correct `executable` in connectors.yaml")
    streams = known.get("streams")
    names = None if streams is None else tuple(streams)
    return Environment(name, entry, folder, folder / "bin" / "python", Path(record["base_prefix"]), executable, known.get("spec"), names)


@contextmanager
def hold_environment(environment: Environment) -> Iterator[None]:
    """Keep an environment from being removed during the block."""
    with hold_shared(environment.folder.with_name(f"{environment.folder.name}.lock")):
        yield
