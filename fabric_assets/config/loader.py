"""The tenants' folder -> every healthy tenant as a frozen model, and every mistake of the others at once.

One tenant's mistake never hides another's mistake or stops another tenant: each mistake is a problem of the tenants that use its file.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from fabric_assets.config.base import Path as KeyPath
from fabric_assets.config.collisions import find_collisions, get_longer_names, get_rivals
from fabric_assets.config.folder import TenantFiles, get_tenant_files
from fabric_assets.config.layers import Layers, Stack
from fabric_assets.config.messages import Mistake, get_mistakes, get_node, locate_finding
from fabric_assets.config.problems import Origin, Problem, make_problem
from fabric_assets.config.references import TenantNames, find_dangling
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.config.tenant_names import find_missing_parents, get_tenant_names
from fabric_assets.config.yaml_tree import Node, to_plain
from fabric_assets.errors import ConfigurationError
from fabric_assets.offboarded import find_offboarding
from fabric_assets.settings import Settings
from fabric_assets.suggestions import suggest

# A file with more mistakes is wrong as a whole, or made to keep us busy.
_SHOWN = 200

_log = logging.getLogger(__name__)

__all__ = ["Fleet", "LoadedTenant", "Origin", "Problem", "load_fleet", "load_tenant_names"]


class Origins(Mapping[KeyPath, Origin]):
    """Mapping of each path to its file, line and column, which are looked up when asked for: most of a large fleet's never are."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def __getitem__(self, path: KeyPath) -> Origin:
        node, depth = get_node(self._root, path)
        if depth < len(path) and isinstance(node.value, dict | list):  # one word may stand for a mapping
            raise KeyError(path)
        return Origin(node.file, *node.location)

    def __iter__(self) -> Iterator[KeyPath]:
        return _iterate(self._root, ())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get_nearest(self, path: KeyPath) -> Origin:
        """Return the origin of a path, or of the nearest key above it that exists."""
        node, _ = get_node(self._root, path)
        return Origin(node.file, *node.location)

    def find_reference(self, below: KeyPath, key: str, name: str) -> Origin | None:
        """Find the first reference to a secret below a path: its `key` is env, file or secret."""
        for path in _iterate(get_node(self._root, below)[0], ()):
            if path[-1:] == (key,) and (node := get_node(self._root, (*below, *path))[0]).value == name:
                return Origin(node.file, *node.location)
        return None


@dataclass(frozen=True)
class LoadedTenant:
    """A tenant without mistakes, and where each of its values comes from.

    Args:
        longer_names: tenants, served here or not, whose names begin with this tenant's name.
    """

    config: TenantConfig
    file: Path
    origins: Origins
    longer_names: tuple[str, ...] = ()

    def get_origin(self, *path: str | int) -> Origin:
        """Return the origin of a path; of a default, the origin of the nearest declared key above it."""
        return self.origins.get_nearest(path)

    def make_problem(self, path: KeyPath, message: str) -> Problem:
        """Report a mistake that only another part (the dbt project) shows, with its line in the YAML."""
        origin = self.get_origin(*path)
        return make_problem(self.config.tenant, origin.file, (origin.line, origin.column), path, message, text=_read_again(origin.file))


@dataclass(frozen=True)
class Fleet:
    """What the tenants' folder holds.

    Args:
        broken: the problems of each tenant that has any; its name is the file's stem.
        unused: problems in defaults and templates, whether or not a tenant uses them.
    """

    tenants: dict[str, LoadedTenant]
    broken: dict[str, tuple[Problem, ...]]
    unused: tuple[Problem, ...] = ()


def load_fleet(settings: Settings, *, offboarded: bool = False) -> Fleet:
    """Load the tenants that these settings serve.

    Args:
        offboarded: also load the tenants that were offboarded, to delete the rest of them. Otherwise each of them counts as broken.

    Raises:
        ConfigurationError: the folder does not exist, or FABRIC_TENANTS names an unknown tenant.
    """
    files = get_tenant_files(settings.tenants_dir)
    served = _get_served(settings, files)
    layers = Layers(settings.tenants_dir)
    longer_names = get_longer_names(files.paths)
    healthy: dict[str, LoadedTenant] = {}
    broken: dict[str, list[Problem]] = {}
    roots: dict[str, Node] = {}
    for name in served:
        stack = layers.stack(files.paths[name])
        config, problems = _validate(name, stack, files)
        if stack.root is not None:
            roots[name] = stack.root
        if config is not None and stack.root is not None and not problems:
            healthy[name] = LoadedTenant(config, files.paths[name], Origins(stack.root), tuple(longer_names.get(name, ())))
        else:
            broken[name] = problems
        if not offboarded and (found := find_offboarding(name, settings.data_dir)):
            healthy.pop(name, None)
            broken[name] = [Problem(name, files.paths[name], 1, 1, "", f"the tenant {found[0]}; {found[1]}")]
    for name in get_rivals(served, files.paths):  # perhaps of another code location, which writes to the same warehouse
        rival = layers.stack(files.paths[name])
        if rival.root is not None:
            roots[name] = rival.root
    all_names = [get_tenant_names(name, roots[name]) if name in roots else TenantNames(name, {}) for name in files.paths]
    for name, path, message in find_collisions(all_names, settings.data_dir.resolve()):
        if name in served and name in roots:
            healthy.pop(name, None)
            mistake = locate_finding(roots[name], path, message)
            broken.setdefault(name, []).append(_to_problem(name, mistake, _read_again(mistake.node.file)))
    return Fleet(healthy, {name: _sort(broken[name]) for name in served if name in broken}, layers.find_problems())


def load_tenant_names(settings: Settings) -> Iterator[TenantNames]:
    """Yield the names in the YAML of every tenant, also of one that is served elsewhere or has mistakes; nothing is validated.

    Raises:
        ConfigurationError: the folder does not exist.
    """
    layers = Layers(settings.tenants_dir)
    for name, file in get_tenant_files(settings.tenants_dir).paths.items():
        root = layers.stack(file).root
        yield get_tenant_names(name, root) if root is not None else TenantNames(name, {})


def _get_served(settings: Settings, files: TenantFiles) -> list[str]:
    names = sorted(files.paths)
    for pattern in settings.tenants:
        if pattern not in files.paths and not any(sign in pattern for sign in "*?["):
            raise ConfigurationError(
                f"FABRIC_TENANTS names '{pattern}', and there is no such tenant{suggest(pattern, names)}",
                remedy=f"correct FABRIC_TENANTS, or add {settings.tenants_dir / f'{pattern}.yaml'}",
            )
    served = [name for name in names if settings.serves(name)]
    if names and not served:
        # Of a fleet split by first letters a part may have no tenant yet.
        _log.warning("FABRIC_TENANTS=%s matches no tenant: this code location is empty", ",".join(settings.tenants))
    return served


def _validate(name: str, stack: Stack, files: TenantFiles) -> tuple[TenantConfig | None, list[Problem]]:
    problems = [
        make_problem(name, file, (finding.line, finding.column), finding.path, finding.message, text=stack.texts.get(file, ""))
        for file, finding in stack.findings
    ]
    if double := files.doubles.get(name):
        problems.append(Problem(name, double, 1, 1, "", f"{files.paths[name].name} is the same tenant: remove one of the two"))
    if stack.root is None:
        return None, problems
    mistakes: list[Mistake] = []
    config = None
    try:
        config = TenantConfig.model_validate(to_plain(stack.root))
    except ValidationError as error:
        mistakes += islice(get_mistakes(error, stack.root, TenantConfig), _SHOWN)
        if (count := error.error_count()) > _SHOWN:
            mistakes.append(locate_finding(stack.root, (), f"... and about {count - _SHOWN} more mistakes"))
        mistakes += _find_cross_mistakes(name, stack.root)
    if (declared := stack.root.value.get("tenant")) and isinstance(declared.value, str) and declared.value != name:  # type: ignore[union-attr]
        mistakes.append(locate_finding(stack.root, ("tenant",), f"must equal the file's name: write '{name}', or rename the file"))
    poisoned = [finding.path for _, finding in stack.findings if finding.path]
    seen: set[tuple[Path, tuple[int, int], KeyPath, str]] = set()
    for mistake in mistakes:
        key = (mistake.node.file, mistake.location, mistake.path, mistake.message)
        if key not in seen and not any(mistake.path[: len(path)] == path for path in poisoned):
            seen.add(key)
            problems.append(_to_problem(name, mistake, stack.texts.get(mistake.node.file, "")))
    return config, problems


def _find_cross_mistakes(name: str, root: Node) -> Iterator[Mistake]:
    """Apply the rules that compare parts of a file to a file with other mistakes, for which pydantic does not come to them."""
    findings = [*find_dangling(get_tenant_names(name, root)), *find_missing_parents(root)]
    return (locate_finding(root, path, message) for path, message in findings)


def _to_problem(tenant: str, mistake: Mistake, text: str) -> Problem:
    return make_problem(tenant, mistake.node.file, mistake.location, mistake.path, mistake.message, text=text)


def _sort(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (str(problem.file), problem.line, problem.column, problem.path, problem.message)))


def _read_again(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""


def _iterate(node: Node, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _iterate(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _iterate(child, (*path, index))
