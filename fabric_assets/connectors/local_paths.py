"""A folder of this machine that a tenant's YAML leads to -> whether its loads may read it.

The folder of every file is checked, with links followed, not only the declared one. A pattern may lead from a harmless folder into any below it.
"""

from functools import cached_property
from pathlib import Path

from fabric_assets import naming
from fabric_assets.config.folder import get_shared_file
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.other_folders import OtherFolders
from fabric_assets.errors import ConfigurationError

_MACHINE = tuple(map(Path, naming.MACHINE_FOLDERS))


class LocalPaths:
    """The folders of this machine that one tenant may read."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._passed = set[Path]()

    @cached_property
    def data_dir(self) -> Path:
        return self._context.settings.data_dir.resolve()

    @cached_property
    def _others(self) -> OtherFolders:
        return OtherFolders(self._context)

    def check(self, folder: Path, shown: object = "", *, below: bool = True) -> None:
        """Check that a tenant may read a folder and the files directly in it.

        Args:
            folder: resolved.
            shown: the path as the user knows it.
            below: whether the folders below it are read too.

        Raises:
            ConfigurationError: no load of this tenant may read there.
        """
        if folder not in self._passed and (fault := self._find_fault(folder, below)):
            reason, remedy = fault
            raise ConfigurationError(f"{self._context.describe()}: the path {shown or folder} {reason}", remedy=remedy)
        self._passed.add(folder)

    def _find_fault(self, folder: Path, below: bool) -> tuple[str, str] | None:
        if folder.is_relative_to(self.data_dir):
            if naming.is_platform_path(self.data_dir, folder):
                return (
                    "holds the platform's own data",
                    "name a folder or a glob that leads past it; below FABRIC_DATA_DIR any folder that is not the platform's",
                )
            tenant = self._context.tenant
            head, *rest = folder.relative_to(self.data_dir).parts or ("",)
            if head == "inbox" and rest and rest[0] != tenant and get_shared_file(self._context.settings.tenants_dir, rest[0]):
                return f"lies in the inbox of tenant {rest[0]}", f"name a folder of tenant {tenant}'s own, e.g. inbox/{tenant}/{self._context.name}"
            return self._find_owner(folder, below)
        if (published := self._context.settings.publish_dir) is not None and folder.is_relative_to(published.resolve()):
            return "holds what is published for tenants' readers", "name a folder outside of FABRIC_PUBLISH_DIR, or load the rows from where they come"
        if machine := next((root for root in _MACHINE if folder.is_relative_to(root)), None):
            return f"lies in {machine}, where this machine keeps processes, devices and secrets", "copy the files to a folder of their own, and name that"
        allowed = self._context.settings.source_dirs
        if allowed and not any(folder.is_relative_to(each.resolve()) for each in allowed):
            return "lies outside of FABRIC_DATA_DIR and of FABRIC_SOURCE_DIRS", "move the files into one of these, or ask the operator to add their folder"
        return self._find_owner(folder, below)

    def _find_owner(self, folder: Path, below: bool) -> tuple[str, str] | None:
        if found := self._others.find(folder, below=below):
            how, other = found
            return f"{how} {other}, under whatever name", f"name a folder of tenant {self._context.tenant}'s own that no other source has"
        return None
