"""What an entry of the list installs and runs, by its type: packages, files of the operators' own, and the program."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings

# The program that reads a dlt source. It is a file of this package, and the connector's own Python runs it.
DLT_PROGRAM = Path(__file__).resolve().parents[1] / "dlt" / "dlt_program" / "main.py"
# The versions whose private names that program uses; a test runs it with the oldest and the newest.
DLT_REQUIREMENT = "dlt>=1.30,<1.32"
# Runs a low-code manifest.
CDK_REQUIREMENT, _CDK_PROGRAM = "airbyte-cdk>=7,<8", "source-declarative-manifest"
_OWN_FILES = "own_files"


def list_requirements(entry: ConnectorEntry) -> list[str]:
    """List the packages of an entry, those that its type needs among them."""
    return [*entry.requirements, *([DLT_REQUIREMENT] if entry.type == "dlt" else [CDK_REQUIREMENT] if entry.manifest else [])]


def digest_own_files(settings: Settings, name: str, entry: ConnectorEntry) -> str:
    """Compute the digest of the files beside connectors.yaml that an entry names; empty without such.

    Raises:
        ConfigurationError: they are not there, or are links.
    """
    if (own := _get_own_path(settings, entry)) is None:
        return ""
    if not (own.is_file() if entry.manifest else own.is_dir()):
        key, kind = ("manifest", "file") if entry.manifest else ("path", "folder")
        raise ConfigurationError(f"the connector {name} names {own}, which is not a {kind}", remedy=f"correct `{key}` in connectors.yaml")
    return digest_folder(own, name)


def digest_folder(folder: Path, name: str) -> str:
    """Compute the digest of a folder's files, or of a file, by their names and contents.

    Raises:
        ConfigurationError: one of them is a link.
    """
    digest = hashlib.sha256()
    for file in _list_files(folder):
        if file.is_symlink():
            raise ConfigurationError(f"the connector {name} has the link {file}, which is not followed", remedy="put the file itself there")
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{_get_name(file, folder)}\0{content}\n".encode())
    return digest.hexdigest()


def copy_own_files(settings: Settings, entry: ConnectorEntry, environment: Path) -> None:
    """Copy an entry's own files into its environment, which is being built."""
    if (own := _get_own_path(settings, entry)) is not None:
        for file in _list_files(own):
            copy = environment / _OWN_FILES / _get_name(file, own)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _get_own_path(settings: Settings, entry: ConnectorEntry) -> Path | None:
    own = entry.path or entry.manifest
    return None if own is None else settings.connectors.parent / own


def _get_name(file: Path, own: Path) -> Path:
    return Path(file.name) if file == own else file.relative_to(own)


def get_own_files(environment: Path) -> Path:
    """Get the folder of an environment that holds the entry's own files, if it has any."""
    return environment / _OWN_FILES


def get_program(environment: Path, entry: ConnectorEntry) -> Path:
    """Get the file that the environment's Python runs."""
    if entry.type == "dlt":
        return DLT_PROGRAM
    program = entry.executable or _CDK_PROGRAM
    return environment / "bin" / program


def list_readable(environment: Path, base_prefix: Path, program: Path) -> tuple[Path, ...]:
    """List the folders that a program needs: its environment, the Python below that, and its own folder if it is one of ours."""
    return environment, base_prefix, *(() if program.is_relative_to(environment) else (program.parents[1],))


def get_manifest(environment: Path, entry: ConnectorEntry) -> Path | None:
    """Get the copy of an entry's manifest."""
    return environment / _OWN_FILES / Path(entry.manifest).name if entry.manifest else None


def _list_files(folder: Path) -> Iterator[Path]:
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        if "__pycache__" not in path.parts and (path.is_symlink() or path.is_file()):
            yield path
