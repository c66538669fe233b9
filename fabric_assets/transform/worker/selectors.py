"""One text of a tenant's `select` or `exclude` -> the nodes that dbt's own selector finds for it.

dbt parses and evaluates each criterion. This module writes the messages and adds `selector:`, which dbt 1.11 has only as a command's option. It refuses
selectors that depend on earlier runs, or look outside of the project.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch, fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from dbt.artifacts.resources.types import NodeType
from dbt.contracts.graph.manifest import Manifest
from dbt.exceptions import InvalidSelectorError
from dbt.graph.graph import Graph
from dbt.graph.selector import NodeSelector
from dbt.graph.selector_methods import MethodName
from dbt.graph.selector_spec import RAW_SELECTOR_PATTERN, SelectionCriteria, SelectionSpec
from dbt_common.exceptions import DbtBaseException

from fabric_assets.suggestions import suggest
from fabric_assets.transform.renames import find_old_name, rename_selector
from fabric_assets.transform.worker.manifest import MODEL_TYPES

# The entries of the project's selectors.yml, by name.
NamedSelectors = Mapping[str, SelectionSpec]

_NAMED = "selector"
_OF_EARLIER_RUNS = (MethodName.State, MethodName.Result, MethodName.SourceStatus)
# Whether a selector of selectors.yml may still name another one. dbt 1.11 has replaced the name by the definition.
_EVALUATES_NAMES = _NAMED in map(str, MethodName)
_METHODS = sorted({*map(str, MethodName), _NAMED} - {*map(str, _OF_EARLIER_RUNS)})
_EXAMPLES = "write a model's name, a folder such as staging.shop, or a method such as tag:daily"
# What `exclude` may name although nothing matches: deprecated models go with the next release, and the tenant's YAML stays valid.
_MAY_BE_GONE = "tag:deprecated"
_LONGEST = 100
# How the unique ids of the graph's models begin.
MODEL_PREFIXES = tuple(f"{kind}." for kind in sorted(MODEL_TYPES))
_BUILT = (*MODEL_PREFIXES, "source.")


def shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class Refused(Exception):
    """The error of a text that selects nothing valid. The message names the remedy."""


class SelectorFinder:
    """A finder of nodes among those that one tenant may see.

    Args:
        manifest, graph: they hold only these nodes.
        renamed: earlier names of models -> their fqn.
    """

    def __init__(self, manifest: Manifest, graph: Graph, named: NamedSelectors, renamed: Mapping[str, str]) -> None:
        self._manifest, self._named, self._renamed = manifest, named, renamed
        definitions: dict[str, Any] = {"selectors": {name: {"definition": spec} for name, spec in named.items()}} if _EVALUATES_NAMES else {}
        self._nodes = NodeSelector(graph, manifest, **definitions)
        self._known = dict[tuple[str, bool], set[str]]()

    def find(self, text: str, *, needs_models: bool) -> set[str]:
        """Find what a text selects: the union of its parts between spaces, each of which is the intersection of its criteria between commas.

        Args:
            needs_models: whether tests alone are not enough.

        Raises:
            Refused: the text is wrong, or a part of it matches nothing.
        """
        key = (text, needs_models)
        if key not in self._known:
            parts = text.split()
            if not parts:
                raise Refused(f"a selector is empty; {_EXAMPLES}")
            self._known[key] = set[str]().union(*(self._find_part(part, needs_models=needs_models) for part in parts))
        return self._known[key]

    def _find_part(self, part: str, *, needs_models: bool) -> set[str]:
        found = set.intersection(*(self._find_renamed(criterion, part) for criterion in part.split(",")))
        if not found and (needs_models or part != _MAY_BE_GONE):
            raise Refused(f"the selector '{shorten(part)}' matches no model{suggest(part.strip('+*.@'), self._list_names())}")
        if needs_models and not any(key.startswith(_BUILT) for key in found):
            kinds = ", ".join(sorted({key.split(".", 1)[0].replace("_", " ") for key in found}))
            raise Refused(f"the selector '{shorten(part)}' matches no model, only: {kinds}; tests come with the models that they read: select those")
        return found

    def _find_renamed(self, text: str, part: str) -> set[str]:
        """Find what a criterion selects; where it names models that were renamed, with what the same criterion selects by each new name."""
        named = find_old_name(text)
        news = [new for old, new in self._renamed.items() if named and fnmatchcase(old, named)]
        return self._find_criterion(text, part).union(*(self._find_criterion(rename_selector(text, new), part) for new in news))

    def _find_criterion(self, text: str, part: str) -> set[str]:
        match = RAW_SELECTOR_PATTERN.match(text)
        if match is None or not match["value"]:
            raise Refused(f"'{shorten(text)}' is no dbt selector; {_EXAMPLES}")
        is_named = match["method"] == _NAMED
        try:
            # Of `selector:` dbt parses all but the method.
            criterion = SelectionCriteria.from_single_spec(text.replace(f"{_NAMED}:", "fqn:", 1) if is_named else text)
            spec = self._get_named(criterion.value, part) if is_named else criterion
            _check(spec, part, self._named)
            found, _ = self._nodes.select_nodes(spec, warn_on_no_nodes=False)
            return {*found, *self._nodes.collect_specified_neighbors(criterion, found)} if is_named else {*found}
        except InvalidSelectorError:
            method = match["method"].split(".")[0]
            raise Refused(f"the selector '{shorten(part)}' uses the method '{method}', which dbt does not have{suggest(method, _METHODS)}") from None
        except (DbtBaseException, ValueError, NotImplementedError) as error:
            # The two built-in ones are those of a pattern that is no path.
            reason = " ".join(str(getattr(error, "msg", error)).split())
            hint = suggest(match["value"], map(str, NodeType)) if match["method"] == MethodName.ResourceType else ""
            raise Refused(f"dbt cannot evaluate the selector '{shorten(part)}': {reason}{hint}") from error

    def _get_named(self, name: str, part: str) -> SelectionSpec:
        if name not in self._named:
            raise Refused(
                f"the selector '{shorten(part)}' names '{shorten(name)}', which the project's selectors.yml does not have{suggest(name, self._named)}"
            )
        return self._named[name]

    def _list_names(self) -> Iterator[str]:
        yield from (f"{_NAMED}:{name}" for name in self._named)
        yield from (f"exposure:{exposure.name}" for exposure in self._manifest.exposures.values())
        for source in self._manifest.sources.values():
            yield f"source:{source.source_name}"
            yield from (f"tag:{tag}" for tag in source.tags)
        for node in self._manifest.nodes.values():
            if node.resource_type in MODEL_TYPES:
                yield node.name
                yield from (f"tag:{tag}" for tag in node.tags)
                yield from (".".join(node.fqn[1:depth]) for depth in range(2, len(node.fqn)))


def _check(spec: SelectionSpec, part: str, named: NamedSelectors, *, inside: frozenset[str] = frozenset()) -> None:
    """Refuse selectors that no tenant may use.

    Args:
        inside: the named selectors that this one is a part of. One that names itself is left to dbt, which refuses it.

    Raises:
        Refused: the selector depends on earlier runs, looks outside of the project, or into private parts of dbt's objects.
    """
    if not isinstance(spec, SelectionCriteria):
        for component in spec:
            _check(component, part, named, inside=inside)
        return
    if spec.method == _NAMED:
        for name in named.keys() - inside:
            if fnmatch(name, str(spec.value)):
                _check(named[name], part, named, inside=inside | {name})
        return
    if spec.method in _OF_EARLIER_RUNS:
        raise Refused(
            f"the selector '{shorten(part)}' uses the method '{spec.method}', which depends on earlier runs: a tenant's models must not change with them;"
            " select by folder, tag or config instead"
        )
    if any(argument.startswith("_") for argument in spec.method_arguments):
        raise Refused(f"the selector '{shorten(part)}' names a private part of dbt's; name a config, e.g. config.materialized:table")
    if spec.method == MethodName.Path and ((path := PurePosixPath(str(spec.value))).is_absolute() or ".." in path.parts):
        raise Refused(f"the selector '{shorten(part)}' looks outside of the dbt project; write the path from there, e.g. path:models/staging")
