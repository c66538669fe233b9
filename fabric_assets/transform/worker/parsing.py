"""The dbt project -> its manifest, without the own files of those tenants whose files break it: they stop nobody else.

A tenant is to blame if the shared project alone is in order, and is not with that tenant's files beside it. What dbt says only hints where to look first: some
of its messages name no file, some name two tenants', and a hostile file puts into them what it likes.
"""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dbt.contracts.graph.manifest import Manifest

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.inspection import find_problems, place_sources
from fabric_assets.transform.worker.manifest import OWN_FOLDERS
from fabric_assets.transform.worker.own_files import find_file_problems

# By the tenant in whose own files they are; None for what all share.
_Problems = dict[str | None, str]


def parse_project(project: Path, folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Parse the project and hold it to the rules.

    Args:
        folder: the run's own.

    Returns:
        the manifest, and what is wrong with each tenant that was left out.

    Raises:
        ConfigurationError: what all tenants share does not parse, or breaks a rule; with all that was found.
    """
    parser = _Parser(project, folder)
    broken = {tenant: "\n".join(problems) for tenant in parser.tenants if (problems := [*find_file_problems(project / OWN_FOLDERS / tenant)])}
    while True:
        left = [tenant for tenant in parser.tenants if tenant not in broken]
        manifest, problems = parser.parse(left)
        if manifest is not None and not problems:
            return manifest, broken
        culprits = {tenant: problems[tenant] for tenant in left if tenant in problems}
        if manifest is None:
            culprits = parser.find_culprits(left, problems[None])
        if not culprits:
            found = (parser.shared_problem if manifest is None else None) or "\n".join(problems.values())
            remedy = "mend what is named above; a var that a model reads needs a default: var('name', default)"
            raise ConfigurationError("\n".join([found, *broken.values()]), remedy=remedy)
        broken |= culprits


class _Parser:
    """Parses the project with the own files of some tenants, or of none."""

    def __init__(self, project: Path, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._copies = 0
        own = project / OWN_FOLDERS
        self.tenants = sorted(path.name for path in own.iterdir() if path.is_dir()) if own.is_dir() else []
        for name in self.tenants:
            if error := naming.get_tenant_name_error(name):
                raise ConfigurationError(
                    f"{OWN_FOLDERS}/{name}: the folder {name} is no tenant's: a tenant's name {error}", remedy="rename or remove the folder"
                )

    def parse(self, tenants: Sequence[str]) -> tuple[Manifest | None, _Problems]:
        """Parse, and see whether the rules are kept; there is no manifest where dbt makes none."""
        project = self._project if len(tenants) == len(self.tenants) else self._copy_with(tenants)
        result = call_dbt("parse", project_dir=str(project), folder=self._folder)
        if not isinstance(result.result, Manifest):
            return None, {None: clean_message(str(result.exception), hidden=self._folder)}
        place_sources(result.result)
        return result.result, find_problems(result.result, tenants=self.tenants)

    def find_culprits(self, tenants: Sequence[str], message: str) -> dict[str, str]:
        """Find the tenants that are to blame for dbt's message; none of them if what all share is."""
        if self.shared_problem:
            return {}
        named = [tenant for tenant in tenants if f"{OWN_FOLDERS}/{tenant}/" in message]
        found = self._sift(named) if named else {}
        return found or self._sift(tenants) or dict.fromkeys(named, message)

    @cached_property
    def shared_problem(self) -> str | None:
        """What is wrong with the project before any tenant's own files."""
        return self.parse([])[1].get(None)

    def _sift(self, tenants: Sequence[str]) -> dict[str, str]:
        """Halve the tenants until each one that dbt does not parse beside the shared project stands alone."""
        manifest, problems = self.parse(tenants)
        if manifest is not None:
            return {tenant: problems[tenant] for tenant in tenants if tenant in problems}
        if len(tenants) < 2:
            return dict.fromkeys(tenants, problems[None])
        middle = len(tenants) // 2
        return self._sift(tenants[:middle]) | self._sift(tenants[middle:])

    def _copy_with(self, tenants: Sequence[str]) -> Path:
        self._copies += 1
        own = str(self._project / OWN_FOLDERS)
        left_out = {*self.tenants} - {*tenants}
        copy = self._folder / f"copy_{self._copies}"
        shutil.copytree(self._project, copy, ignore=lambda folder, names: left_out & set(names) if folder == own else ())
        return copy
