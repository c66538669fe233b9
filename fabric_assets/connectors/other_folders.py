"""The folders that tenants' YAML declares -> whether one of them is another source's folder under another name: a link, a mount, another spelling.

Folders are compared by device and inode when a load reads. When tenants are loaded, only names are compared.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from fabric_assets import naming
from fabric_assets.config.collisions import get_machine_folder, locate
from fabric_assets.config.folder import TEMPLATES, get_tenant_files
from fabric_assets.config.loader import load_tenant_names
from fabric_assets.config.yaml_file import read_text
from fabric_assets.connectors.context import SourceContext
from fabric_assets.settings import Settings

_Id = tuple[int, int]
_KINDS = ("csv_import", "files")


@dataclass(frozen=True)
class Declared:
    """A folder that a source declares.

    Args:
        source: empty for the folder `inbox/<tenant>`, which is the tenant's whether it is declared or not.
    """

    tenant: str
    source: str
    path: str
    is_inbox: bool

    def __str__(self) -> str:
        kind = "inbox" if self.is_inbox else "folder"
        return f"the {kind} of tenant {self.tenant}'s source {self.source}" if self.source else f"the inbox of tenant {self.tenant}"


class OtherFolders:
    """The folders of other sources that the source of a load must not use."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._data_dir = PurePath(os.path.realpath(context.settings.data_dir))
        self._others = [(each, Path(os.path.realpath(self._data_dir / each.path))) for each in self._list_others()]

    def find(self, folder: Path, *, below: bool) -> tuple[str, Declared] | None:
        """How the folder relates to another source's folder (is, lies in, holds), and which one; None if it is free.

        Args:
            folder: resolved.
            below: whether another source's folder below it counts too.
        """
        around, own = _get_ids(folder), _get_id(folder)
        for each, other in self._others:
            if (there := _get_id(other)) is not None and there in around:
                return ("is" if there == own else "lies in"), each
            if below and each.source and own is not None and own in _get_ids(other):
                return "holds", each
        return None

    def _list_others(self) -> Iterator[Declared]:
        """Yield the folders of other sources that matter: a source must not read another's inbox, and must not move files out of another's folder.

        Folders that are only read may be shared. Folders whose names overlap are refused when tenants are loaded. Nobody loads from the machine's folders.
        """
        takes, declared = self._context.config.type == "csv_import", list_declared(self._context.settings)
        path = getattr(self._context.config, "path", None)
        mine = locate(path, self._data_dir) if path else None
        for each in declared:
            parts, is_other = locate(each.path, self._data_dir), each.tenant != self._context.tenant
            is_near = mine is not None and mine[: len(parts)] == parts[: len(mine)]
            if get_machine_folder(parts, self._data_dir):
                continue
            matters = is_other or (takes and each.source not in {"", self._context.name}) if each.is_inbox else takes and is_other and not is_near
            if matters:
                yield each


def list_declared(settings: Settings) -> tuple[Declared, ...]:
    """The folders of this machine that the sources of all tenants declare, also of tenants that another process serves."""
    files = [*settings.tenants_dir.glob("*.y*ml"), *(settings.tenants_dir / TEMPLATES).glob("*.y*ml")]
    state = tuple(sorted((str(file), *_get_state(file)) for file in files))
    return _read(settings, state) if state else ()


def _get_state(file: Path) -> tuple[int, int]:
    try:
        facts = file.stat()
    except OSError:  # a link to nothing, or a file that has just gone
        return 0, 0
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=2)
def _read(settings: Settings, _state: tuple[tuple[str, int, int], ...]) -> tuple[Declared, ...]:
    return tuple(_list(settings))


def _list(settings: Settings) -> Iterator[Declared]:
    tenants = get_tenant_files(settings.tenants_dir).paths
    for name in tenants:
        yield Declared(name, "", str(naming.inbox_dir(settings.data_dir.resolve(), name)), is_inbox=True)
    # Without a source of files, which is the usual case, no YAML is read a second time.
    if any(kind in read_text(file) for file in settings.tenants_dir.rglob("*.y*ml") for kind in _KINDS):
        for names in load_tenant_names(settings):
            for folders, is_inbox in ((names.inboxes, True), (names.folders, False)):
                for source, path in (folders or {}).items():
                    local = path.removeprefix("file://")
                    if "://" not in local:
                        yield Declared(names.tenant, source, local, is_inbox)


def _get_id(folder: Path) -> _Id | None:
    try:
        facts = folder.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _get_ids(folder: Path) -> set[_Id]:
    """The ids of a folder and of all folders that contain it."""
    return {found for each in (folder, *folder.parents) if (found := _get_id(each)) is not None}
