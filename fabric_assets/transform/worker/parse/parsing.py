"""The dbt project -> its manifest, without the own files of tenants whose files break it, so that they stop nobody else.

A tenant is the cause if the shared project parses alone, but not together with that tenant's files. The messages of dbt only hint where to look first. Some
name no file, some name two tenants' files, and a hostile file can put anything into them.
"""

import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError
from fabric_assets.own_faults import report_own_fault
from fabric_assets.transform.fingerprint import OWN_FOLDERS
from fabric_assets.transform.graph import Mistake, ProjectGraph
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.freshness import measure_by_loads
from fabric_assets.transform.worker.inspection import build_graph, find_problems, place_seeds_and_snapshots, place_sources
from fabric_assets.transform.worker.manifest import MODEL_TYPES, PARTS, get_owner
from fabric_assets.transform.worker.parse.limits import Limits, Meter, Stopped, measure_dbt, run_limited
from fabric_assets.transform.worker.parse.mistakes import Found, build_stand_in, is_replaceable, locate, name_new_model, suggest_name
from fabric_assets.transform.worker.parse.own_files import find_file_problems, is_unread
from fabric_assets.transform.worker.warming import make_file_schemas

# Each one costs a parse. A project with more mistakes is refused as a whole.
_MOST_MISTAKES = 20
# Problems by the tenant in whose own files they are; None for shared files.
_Problems = dict[str | None, str]
# Limit of what a tenant's own models may add to the manifest, which each tenant's build reads.
_MOST_MEGABYTES = 16
_REMEDY = "look for loops, repeated texts and recursion in the Jinja of that file; it is parsed again when a file of the project changes"

_CORRECT = "correct what is named above; a var that a model reads needs a default: var('name', default)"
_ADMIT_VERSION = "let `require-dbt-version` in the dbt_project.yml that is named above admit the installed version, or install one that it admits"


def parse_project(project: Path, folder: Path, limits: Limits, *, refused: Mapping[str, str], data_dir: Path) -> tuple[Manifest, ProjectGraph, dict[str, str]]:
    """Parse the project and check the rules.

    Args:
        folder: the run's own.
        refused: tenants whose files are known to use too much -> the reason. They are not tried again.

    Returns:
        the manifest, the graph, and the `refused` of the next parse. The graph has the error of each tenant that was left out and of each shared model that a
        stand-in replaces.

    Raises:
        ConfigurationError: the shared files do not parse, or break a rule. The message has all that was found.
    """
    parser = _Parser(project, folder, limits, refused, data_dir)
    broken = {**parser.stopped, **parser.find_file_problems()}
    while True:
        left = [tenant for tenant in parser.tenants if tenant not in broken]
        manifest, problems = parser.parse(left)
        if manifest is not None and parser.graph is not None and not problems:
            broken = {tenant: name_new_model(message, parser.graph.renamed) for tenant, message in broken.items()}
            return manifest, replace(parser.graph, broken=broken, mistakes=parser.find_mistakes(manifest)), parser.stopped
        culprits = {tenant: problems[tenant] for tenant in left if tenant in problems}
        if not culprits and None in problems and manifest is None:
            culprits = parser.find_culprits(left, problems[None])
        if not culprits and manifest is None and parser.replace_culprit():
            continue
        if not culprits:
            found = (parser.shared_problem if manifest is None else None) or "\n".join(problems.values())
            remedy = _ADMIT_VERSION if "Required version of dbt" in found else _CORRECT
            if manifest is None and (located := locate(found, project)):
                found = f"{project.name}/{located.mistake.file}:{located.mistake.line}: {found}"
            raise ConfigurationError("\n".join([found, *broken.values()]), remedy=remedy)
        broken |= culprits


class _Parser:
    """A parser of the project with the own files of some tenants."""

    def __init__(self, project: Path, folder: Path, limits: Limits, refused: Mapping[str, str], data_dir: Path) -> None:
        self._project, self._folder, self._limits, self._data_dir = project, folder, limits, data_dir
        self._copies = 0
        self._parses = 0
        # The graph of the last parse, if it kept the rules. The child builds it, because dbt has its flags there.
        self.graph: ProjectGraph | None = None
        self._found: dict[str, Found] = {}
        folders = {path.name: path for path in self._list_own_folders()}
        self.tenants = sorted(folders)
        for name, own in folders.items():
            if error := naming.get_tenant_name_error(name):
                where = own.relative_to(project).as_posix()
                raise ConfigurationError(f"{where}: the folder {name} is no tenant's: a tenant's name {error}", remedy="rename or remove the folder")
        self.stopped = {tenant: message for tenant, message in refused.items() if tenant in self.tenants}

    def _list_own_folders(self) -> Iterator[Path]:
        for folder in OWN_FOLDERS:
            if (self._project / folder).is_dir():
                yield from (path for path in (self._project / folder).iterdir() if path.is_dir())

    def find_file_problems(self) -> dict[str, str]:
        """Find what is wrong with each tenant's files without dbt."""
        while True:
            left = [tenant for tenant in self.tenants if tenant not in self.stopped]
            try:
                found = run_limited(partial(self._read_files, left), self._limits, self._folder)
            except Stopped as stop:
                if self._note(stop, left) is None:
                    raise ConfigurationError(str(stop), remedy="see dbt's last lines above") from None
            else:
                return {tenant: problems for tenant, problems in found.items() if problems} | self.stopped

    def parse(self, tenants: Sequence[str]) -> tuple[Manifest | None, _Problems]:
        """Parse, and check the rules. The first value is `None` if dbt builds no manifest."""
        project = self._project if len(tenants) == len(self.tenants) and not self._found else self._copy_with(tenants)
        self._parses += 1
        if self._parses == 2:
            make_file_schemas()
        try:
            parts, problems, self.graph = run_limited(lambda meter: self._parse(meter, project), self._limits, self._folder)
        except Stopped as stop:
            owner = self._note(stop, tenants)
            return None, {owner: self.stopped[owner] if owner else str(stop)}
        return Manifest(**parts) if parts is not None else None, problems

    def _note(self, stop: Stopped, tenants: Sequence[str]) -> str | None:
        """Record the tenant whose file stopped the child."""
        owner = get_owner(stop.file or "")
        if owner is None or owner not in tenants:
            return None
        self.stopped[owner] = f"{stop}; {_REMEDY}"
        return owner

    def _read_files(self, tenants: Sequence[str], meter: Meter) -> dict[str, str]:
        found = {}
        for tenant in tenants:
            try:
                with meter.measure(f"{OWN_FOLDERS[0]}/{tenant}/"):
                    found[tenant] = "\n".join(find_file_problems(self._project, tenant))
            except Exception as error:
                # Whatever in this tenant's files causes it, the others go on.
                if (fault := report_own_fault(error, f"{OWN_FOLDERS[0]}/{tenant}", data_dir=self._data_dir, tenant=tenant)) is None:
                    raise
                found[tenant] = fault.message
        return found

    def _parse(self, meter: Meter, project: Path) -> tuple[dict[str, Any] | None, _Problems, ProjectGraph | None]:
        measure_dbt(meter)
        result = call_dbt("parse", project_dir=str(project), folder=self._folder)
        manifest = result.result
        if not isinstance(manifest, Manifest):
            message = clean_message(str(result.exception), hidden=self._folder)
            file = meter.find_file(result.exception)
            return None, {None: message if file in message else f"{message} ({file})"}, None
        place_sources(manifest)
        measure_by_loads(manifest)
        place_seeds_and_snapshots(manifest)
        problems = find_problems(manifest, tenants=self.tenants) | _find_large(manifest)
        return {part: getattr(manifest, part) for part in PARTS}, problems, None if problems else build_graph(manifest)

    def find_culprits(self, tenants: Sequence[str], message: str) -> dict[str, str]:
        """Find the tenants whose files cause dbt's message; empty if the shared files cause it."""
        if self.shared_problem:
            return {}
        named = [tenant for tenant in tenants if any(f"{folder}/{tenant}/" in message for folder in OWN_FOLDERS)]
        found = self._sift(named) if named else {}
        return found or self._sift(tenants) or dict.fromkeys(named, message)

    @cached_property
    def shared_problem(self) -> str | None:
        """The error of the shared project alone."""
        return self.parse([])[1].get(None)

    def replace_culprit(self) -> bool:
        """Replace the shared model or snapshot that dbt's message names by a stand-in. Give False if it names none, or if that did not help."""
        found = locate(self.shared_problem or "", self._project)
        if found is None or not is_replaceable(found) or len(self._found) >= _MOST_MISTAKES:
            return False
        file = found.mistake.file
        if file in self._found:
            if not self._found[file].keeps_config:
                return False
            found = replace(self._found[file], keeps_config=False)
        self._found[file] = found
        del self.shared_problem
        return True

    def find_mistakes(self, manifest: Manifest) -> dict[str, Mistake]:
        """Give the mistakes by the unique ids of their models."""
        models = {key: node for key, node in manifest.nodes.items() if node.resource_type in MODEL_TYPES}
        names = {node.name for node in models.values() if not get_owner(node.original_file_path)}
        known = names | {f"{source.source_name}.{source.name}" for source in manifest.sources.values()}
        found = {file: suggest_name(mistake, known) for file, mistake in self._found.items()}
        return {key: found[node.original_file_path] for key, node in models.items() if node.original_file_path in found}

    def _sift(self, tenants: Sequence[str]) -> dict[str, str]:
        """Halve the list of tenants until each tenant is found whose files do not parse beside the shared project."""
        manifest, problems = self.parse(tenants)
        culprits = {tenant: problems[tenant] for tenant in tenants if tenant in problems}
        if manifest is not None:
            return culprits
        if culprits:
            return culprits | self._sift([tenant for tenant in tenants if tenant not in culprits])
        if len(tenants) < 2:
            return dict.fromkeys(tenants, problems[None])
        middle = len(tenants) // 2
        return self._sift(tenants[:middle]) | self._sift(tenants[middle:])

    def _copy_with(self, tenants: Sequence[str]) -> Path:
        self._copies += 1
        own = [self._project / folder for folder in OWN_FOLDERS]
        left_out = {*self.tenants} - {*tenants}
        copy = self._folder / f"copy_{self._copies}"

        def ignore(folder: str, names: list[str]) -> set[str]:
            if Path(folder) in own:
                return left_out & set(names)
            # Nobody has checked such a file: it may be a link to a device that never ends.
            return {name for name in names if is_unread(Path(folder, name))} if any(map(Path(folder).is_relative_to, own)) else set()

        shutil.copytree(self._project, copy, ignore=ignore)
        for file, found in self._found.items():
            (copy / file).write_text(build_stand_in(found, (self._project / file).read_text(encoding="utf-8", errors="replace")), encoding="utf-8")
        return copy


def _find_large(manifest: Manifest) -> _Problems:
    """Find tenants whose models make the manifest large, for example by a text that Jinja repeats. Every build has the manifest in memory."""
    sizes: dict[str, int] = {}
    for node in [*manifest.nodes.values(), *manifest.unit_tests.values()]:
        if owner := get_owner(node.original_file_path):
            sizes[owner] = sizes.get(owner, 0) + len(pickle.dumps(node))
    return {
        owner: f"{OWN_FOLDERS[0]}/{owner}: its models with their texts take {size // 2**20} MB, more than {_MOST_MEGABYTES}; {_REMEDY}"
        for owner, size in sizes.items()
        if size > _MOST_MEGABYTES * 2**20
    }
