"""One load's use of an installed connector: its environment held, a private folder, its settings with their secrets, and its runs."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets import naming
from fabric_assets.config.sources.connectors import ConnectorSource
from fabric_assets.connectors.bridge.installing.environments import Environment, get_environment, hold_environment
from fabric_assets.connectors.bridge.process.confinement import find_gap
from fabric_assets.connectors.bridge.process.connector import Command, Connector, Limits
from fabric_assets.connectors.bridge.spill import SpillFile
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.local_paths import LocalPaths
from fabric_assets.errors import ConfigurationError, SourceError
from fabric_assets.private_files import FileLock, make_private_folder

# Longest answer of a short call, such as a catalog.
_LONGEST_ANSWER = 200 * 10**6


@dataclass(frozen=True)
class Session:
    """A connector that is ready to run.

    Args:
        folder: the load's private folder, which is deleted with the session.
        settings: the connector's settings, secrets among them.
        folders: what it may read beside its own.
    """

    context: SourceContext[Any]
    environment: Environment
    folder: Path
    settings: dict[str, Any]
    folders: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.environment.name

    def open_spill_file(self) -> SpillFile:
        """Open the file of what waits to be committed."""
        return SpillFile(self.folder, self.environment.entry.limits.spill, where=self.context.describe(), connector=self.name)

    @contextmanager
    def run(self, *arguments: str | bytes) -> Iterator[Connector]:
        """Run the connector's program for the block.

        Args:
            arguments: bytes become files of that content.
        """
        limits, environment = self.environment.entry.limits, self.environment
        config: ConnectorSource = self.context.config
        command = Command(
            str(environment.python),
            ("-I", str(environment.executable), *arguments),
            readable=(*environment.readable, *self.folders),
            is_confined=not environment.entry.trusted,
            allow_private_network=config.allow_private_network,
            limits=Limits(limits.memory, limits.cpu.total_seconds(), config.timeout.total_seconds(), limits.line),
        )
        home = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            with Connector(command, name=self.name, where=self.context.describe(), folder=home) as connector:
                yield connector
        finally:
            _remove(home)

    def ask(self, *arguments: str | bytes) -> bytes:
        """Run the connector's program and return its whole output.

        Raises:
            SourceError: the output is longer than a catalog may be.
        """
        lines, size = list[bytes](), 0
        with self.run(*arguments) as connector:
            for block in connector.read_lines():
                lines += block
                size += sum(map(len, block))
                if size > _LONGEST_ANSWER:
                    raise SourceError(
                        f"{self.context.describe()}: the connector {self.name} wrote a catalog of over {_LONGEST_ANSWER // 10**6} MB",
                        remedy="report it to the connector's maintainers",
                    )
            return b"\n".join([*lines, connector.finish()])


@contextmanager
def open_session(context: SourceContext[Any]) -> Iterator[Session]:
    """Prepare a source's connector for the block. One load of a source at a time has a session; folders of killed ones are deleted.

    Raises:
        ConfigurationError: the connector is not installed, or cannot be confined here and is not trusted.
        SecretError: a secret is missing.
    """
    environment = get_environment(context.settings, context.config.connector)
    if not environment.entry.trusted and (gap := find_gap()):
        raise ConfigurationError(f"{context.describe()}: the connector {environment.name} was not started: {gap}")
    folders = resolve_folders(context)
    settings = build_settings(context, folders)
    with ExitStack() as stack:
        stack.enter_context(hold_environment(environment))
        folder = naming.files_dir(context.settings.data_dir, context.tenant, context.name)
        make_private_folder(folder.parent)
        stack.enter_context(FileLock(folder.with_name(f"{folder.name}.lock")))
        _remove(folder)
        folder.mkdir(mode=0o700)
        stack.callback(_remove, folder)
        yield Session(context, environment, folder, settings, tuple(folders.values()))


def _remove(folder: Path) -> None:
    """Remove a folder, whatever modes the connector has given to the folders in it."""
    if not folder.exists():
        return
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)


def resolve_folders(context: SourceContext[Any]) -> dict[str, Path]:
    """Resolve the folders that the YAML lets the connector read.

    Raises:
        ConfigurationError: the tenant may not read one of them.
    """
    allowed = LocalPaths(context)
    folders = {name: (context.settings.data_dir / path).resolve() for name, path in context.config.folders.items()}
    for name, folder in folders.items():
        allowed.check(folder, context.config.folders[name])
    return folders


def build_settings(context: SourceContext[Any], folders: Mapping[str, Path]) -> dict[str, Any]:
    """Build a connector's settings: the arguments of the YAML, with paths for the names of folders, and its secrets where their names lead."""
    settings = _name_folders(context.config.arguments, {f"{{{name}}}": str(folder) for name, folder in folders.items()})
    for name, ref in context.config.secrets.items():
        *path, last = name.split(".")
        inner = settings
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = context.resolve(ref)
    return settings


def _name_folders(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _name_folders(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_name_folders(inner, names) for inner in value]
    if isinstance(value, str):
        for name, folder in names.items():
            value = value.replace(name, folder)
    return value
