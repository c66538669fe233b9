"""One dbt selector, e.g. `+staging.shop,tag:daily` -> the nodes of the graph that it names, by the rules of dbt 1.11 (a test holds it against `dbt ls`)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import PurePosixPath

from fabric_assets.config.suggestions import suggest
from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.graph import ModelNode, SourceNode

Node = ModelNode | SourceNode

_PATTERN = re.compile(r"(?P<around>@)?((?P<up>\d*)\+)?((?P<method>[\w.]+):)?(?P<value>.*?)(\+(?P<down>\d*))?", re.DOTALL)
_WILDCARDS = frozenset("*?[]")


@dataclass(frozen=True)
class Selectable:
    """What a tenant's selectors choose from.

    Args:
        nodes: models and sources by unique_id.
        parents, children: unique ids, as far as they are among the nodes.
    """

    nodes: Mapping[str, Node]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]


def find_nodes(selector: str, graph: Selectable) -> set[str]:
    """Evaluate a selector without spaces: an intersection of its comma-separated parts.

    Raises:
        ConfigurationError: a method that is not supported, or nothing matches.
    """
    found = set.intersection(*(_find_part(part, graph) for part in selector.split(",")))
    if not found:
        near = suggest(selector.strip("+*."), _get_known_names(graph))
        raise ConfigurationError(f"the selector '{selector}' matches no model{near}", remedy="select a model, a folder or a tag")
    return found


def _find_part(part: str, graph: Selectable) -> set[str]:
    match = _PATTERN.fullmatch(part)
    if not match or not match["value"]:
        raise ConfigurationError(f"'{part}' is no dbt selector", remedy="write a model's name, a folder such as staging.shop, or a method such as tag:daily")
    if match["around"]:
        raise ConfigurationError(f"the selector '{part}' uses @, which is not supported", remedy="use + before and after the name")
    method = match["method"] or _guess_method(match["value"])
    if method not in METHODS:
        raise ConfigurationError(f"the selector '{part}' uses the method '{method}'{suggest(method, METHODS)}", remedy="use one of the known methods")
    matches = METHODS[method]
    found = {unique_id for unique_id, node in graph.nodes.items() if matches(node, match["value"])}
    result = set(found)
    if match["up"] is not None:
        result |= _reach(found, graph.parents, match["up"])
    if match["down"] is not None:
        result |= _reach(found, graph.children, match["down"])
    return result


def _guess_method(value: str) -> str:
    if "/" in value:
        return "path"
    return "file" if value.lower().endswith((".sql", ".py", ".csv")) else "fqn"


def _reach(start: Iterable[str], edges: Mapping[str, tuple[str, ...]], depth: str) -> set[str]:
    """Follow the edges, as many steps as `depth` says; all the way if that is empty."""
    reached, border, steps = set(start), set(start), int(depth) if depth else None
    while border and steps != 0:
        border = {neighbour for unique_id in border for neighbour in edges.get(unique_id, ())} - reached
        reached |= border
        steps = None if steps is None else steps - 1
    return reached


def _get_known_names(graph: Selectable) -> Iterator[str]:
    for node in graph.nodes.values():
        yield from (f"tag:{tag}" for tag in node.tags)
        if isinstance(node, SourceNode):
            yield f"source:{node.source}"
        else:
            yield node.fqn[-1]
            yield from (".".join(node.fqn[1:depth]) for depth in range(2, len(node.fqn)))


# --- the methods


def _matches_fqn(node: Node, value: str) -> bool:
    if isinstance(node, SourceNode):
        return False
    return any(_matches_names(fqn, value, node.versioned) for fqn in (node.fqn, node.fqn[1:]))


def _matches_names(fqn: tuple[str, ...], value: str, versioned: bool) -> bool:
    leaf = fqn[-2] if versioned else fqn[-1]
    wanted = value.split(".")
    if leaf == value or (versioned and "_".join(fqn[-2:]) == "_".join(wanted[-2:])):
        return True
    flat = [name for part in fqn for name in part.split(".")]
    if len(flat) < len(wanted):
        return False
    for index, name in enumerate(wanted):
        if _WILDCARDS & set(name):
            # From the first wildcard on, dots are ordinary characters; without any dot the pattern may also be the model's own name.
            return fnmatch(".".join(flat[index:]), ".".join(wanted[index:])) or (len(wanted) == 1 and fnmatch(leaf, value))
        if flat[index] != name:
            return False
    return True


def _matches_tag(node: Node, value: str) -> bool:
    return any(fnmatch(tag, value) for tag in node.tags)


def _matches_source(node: Node, value: str) -> bool:
    if not isinstance(node, SourceNode):
        return False
    parts = value.split(".")
    package, source, stream = {1: ("*", parts[0], "*"), 2: ("*", *parts), 3: parts}.get(len(parts), ("", "", ""))
    return fnmatch(node.fqn[0], package) and fnmatch(node.source, source) and fnmatch(node.stream, stream)


def _matches_path(node: Node, value: str) -> bool:
    pattern = _compile_glob(value)
    file = PurePosixPath(node.file)
    places = [file, *file.parents, *([PurePosixPath(node.patch_file)] if isinstance(node, ModelNode) and node.patch_file else [])]
    return any(pattern.fullmatch(str(place)) for place in places)


def _matches_file(node: Node, value: str) -> bool:
    file = PurePosixPath(node.file)
    return fnmatch(file.name, value) or fnmatch(file.stem, value)


@lru_cache(maxsize=1024)
def _compile_glob(value: str) -> re.Pattern[str]:
    """As pathlib has it: `*` stays within a folder's level, `**` is any number of levels."""
    parts = [part for part in value.split("/") if part not in {"", "."}]
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += "(?:[^/]+/)*[^/]+" if last else "(?:[^/]+/)*"
        else:
            text += "".join("[^/]*" if sign == "*" else "[^/]" if sign == "?" else re.escape(sign) for sign in part) + ("" if last else "/")
    return re.compile(text)


METHODS: Mapping[str, Callable[[Node, str], bool]] = {
    "fqn": _matches_fqn,
    "tag": _matches_tag,
    "path": _matches_path,
    "source": _matches_source,
    "file": _matches_file,
}
