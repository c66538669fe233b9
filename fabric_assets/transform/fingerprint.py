"""The files of the prepared dbt project, and the digest that says whether it is up to date.

The digest covers the project's files and the versions of the packages that parse them, not times. So copies of the data folder stay valid, and no edit is
missed.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from fabric_assets.drivers.kinds import ADAPTERS, DEFAULT_ADAPTER
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings

# Increased with every change of the stored format or of the rules, so that nothing is used that was parsed under weaker rules.
FORMAT = 9

# Each holds a folder for each tenant that has models, seeds or snapshots of its own.
OWN_FOLDERS = ("models/tenants", "seeds/tenants", "snapshots/tenants")
_OWN_FILES = tuple(f"{folder}/" for folder in OWN_FOLDERS)
# Where dbt installs packages by default, and the files that say which; `dbt deps` writes the last one.
PACKAGES_FOLDER = "dbt_packages"
LOCK_FILE = "package-lock.yml"
PACKAGES_FILES = ("packages.yml", "dependencies.yml", LOCK_FILE)
_SUFFIXES = frozenset({".sql", ".yml", ".yaml", ".csv", ".md", ".py", ".json"})
_IGNORED = frozenset({"target", "logs"})
_PACKAGES = ("dbt-core", "dbt-adapters", "dbt-common", *(f"dbt-{adapter}" for adapter in ADAPTERS))


def get_prepared_dir(settings: Settings) -> Path:
    return settings.data_dir / "dbt" / "prepared"


def get_graph_file(settings: Settings) -> Path:
    return get_prepared_dir(settings) / "graph.json"


def get_selections_file(settings: Settings) -> Path:
    return get_prepared_dir(settings) / "selections.json"


def get_lock_file(settings: Settings) -> Path:
    """Give the file to lock before the prepared project is changed. Its folder is created if it is missing."""
    return make_private_folder(get_prepared_dir(settings)) / ".lock"


def get_refused_file(settings: Settings) -> Path:
    return get_prepared_dir(settings) / "refused.json"


def get_prepared_file(settings: Settings, adapter: str = DEFAULT_ADAPTER) -> Path:
    return get_prepared_dir(settings) / f"{adapter}.manifest"


def get_packages_folder(project: Path) -> Path:
    """Give the folder of the installed packages."""
    return project / PACKAGES_FOLDER


def get_packages_record(project: Path) -> Path:
    """Give the file that holds the digest of PACKAGES_FILES as `fabric prepare` has installed them."""
    return get_packages_folder(project) / ".fabric"


def digest_packages_files(project: Path) -> str:
    """Digest PACKAGES_FILES."""
    return hashlib.sha256(b"".join(_digest_file(project / name, is_own=False) for name in PACKAGES_FILES)).hexdigest()


def get_fingerprint(settings: Settings) -> str:
    """Digest what a parse depends on: the project's files, and the versions of the packages that parse them."""
    return digest_project(settings.dbt_project_dir)


def digest_project(root: Path, *, left_out: Callable[[str], bool] = lambda name: False, limit: str = "") -> str:
    """Digest the project's files, and the versions of the packages that parse them.

    Args:
        left_out: whether a file, by its name within the project, does not count.
        limit: a further text that counts.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, _get_versions(), *([limit] if limit else [])]).encode())
    for file in sorted(_walk(root)):
        if left_out(name := file.relative_to(root).as_posix()):
            continue
        digest.update(os.fsencode(name) + b"\0" + _digest_file(file, is_own=name.startswith(_OWN_FILES)))
    return digest.hexdigest()


def _digest_file(file: Path, *, is_own: bool) -> bytes:
    """Digest the content of a regular file. Other files are not opened: a device never ends, and a pipe waits for a writer.

    Args:
        is_own: whether it is a tenant's own file. Links are refused there, so a link's target is digested as text.
    """
    try:
        facts = file.lstat() if is_own else file.stat()
        if stat.S_ISLNK(facts.st_mode):
            return hashlib.sha256(os.fsencode(file.readlink())).digest()
        if not stat.S_ISREG(facts.st_mode):
            return hashlib.sha256(f"{stat.S_IFMT(facts.st_mode)}".encode()).digest()
        # Read in pieces: a tenant's file may be of any size. Without O_NONBLOCK, opening a pipe that has replaced the file would wait.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        # The parse reports the error. Once the file can be read again, its digest is another one.
        return hashlib.sha256(f"{error.errno}".encode()).digest()


def _walk(project: Path) -> Iterator[Path]:
    """Walk through the project's files. A package from a folder (`local:`) is a link to it."""
    packages = get_packages_folder(project)
    links = [path for path in packages.iterdir() if path.is_symlink()] if packages.is_dir() else []
    for root, folders, files in chain.from_iterable(map(os.walk, (project, *links))):
        folders[:] = [name for name in folders if name not in _IGNORED and not name.startswith(".")]
        yield from (Path(root, name) for name in files if Path(name).suffix.lower() in _SUFFIXES)


@lru_cache(maxsize=1)
def _get_versions() -> tuple[str, ...]:
    return (f"python {sys.version_info.major}.{sys.version_info.minor}", *(f"{package} {_get_version(package)}" for package in _PACKAGES))


def _get_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
