"""pydantic's errors -> places in the YAML, and what is wrong in plain words.

An error's `loc` is followed through the models and the tree together. Pydantic puts tags of unions into it, which only the models tell from keys.
Input values are never quoted: any of them could be a secret that was written under the wrong key.
"""

import re
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from fabric_assets.config.base import PATTERNS, LocatedError, Path, SecretRef
from fabric_assets.config.yaml_tree import Node
from fabric_assets.suggestions import suggest

_MAPPINGS = frozenset({"model_type", "model_attributes_type", "dict_type"})
_LIST = "must be a list: put it in brackets, [...]"
# Each type, and what people call it elsewhere.
_ALSO_CALLED = {
    "sql_database": ("database", "db", "sql", "sqlite", "postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle", "snowflake", "bigquery"),
    "rest_api": ("api", "http", "https", "rest", "web"),
    "files": ("csv", "file", "filesystem", "gcs", "json", "jsonl", "ndjson", "parquet", "s3"),
    "csv_import": ("excel", "inbox", "spreadsheet", "upload", "workbook", "xls", "xlsx"),
    "bearer": ("jwt", "token"),
    "oauth2_client_credentials": ("oauth", "oauth2", "client_credentials"),
    "page_number": ("page", "pages"),
    "header_link": ("link", "links"),
}
_WORDS = {
    "tuple_type": _LIST,
    "list_type": _LIST,
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_too_short": "must not be empty",
}
_KINDS = {"must be text": "text", "must be a whole number": "a whole number", "must be a number": "a number", "must be true or false": "true or false"}


class Mistake(NamedTuple):
    """One finding on the merged tree.

    Args:
        path: real keys and indexes only.
        location: line and column in the node's file.
        node: the deepest node that exists on the path.
    """

    path: Path
    node: Node
    location: tuple[int, int]
    message: str


class _Spot(NamedTuple):
    path: Path
    node: Node
    model: Any
    missing: bool


def get_mistakes(error: ValidationError, root: Node, model: type[BaseModel]) -> Iterator[Mistake]:
    """Turn a validation error into mistakes, one for each place in the YAML."""
    scalars: dict[Path, list[str]] = {}
    spots: dict[Path, _Spot] = {}
    explained: set[Path] = set()
    for details in error.errors(include_url=False, include_input=False):
        spot = _walk(details["loc"], root, model, key_is_unknown=details["type"] == "extra_forbidden")
        message = _WORDS.get(details["type"])
        if message in _KINDS:  # a union of scalars gives one of these per member
            spots[spot.path] = spot
            if message not in scalars.setdefault(spot.path, []):
                scalars[spot.path].append(message)
            continue
        explained.add(spot.path)
        yield from _explain(dict(details), spot)
    for path, messages in scalars.items():
        if path in explained:  # another member of the union fits better
            continue
        spot = spots[path]
        kinds = [_KINDS[message] for message in messages if message != "must be a whole number" or "must be a number" not in messages]
        words = f"must be {', '.join(kinds[:-1])} or {kinds[-1]}" if len(kinds) > 1 else messages[0]
        hint = ""
        if messages == ["must be text"] and isinstance(spot.node.value, int | float):
            hint = "; put it in quotes"
        elif messages == ["must be true or false"] and str(spot.node.value).lower() in {"true", "false"}:
            hint = ", without quotes"
        yield Mistake(path, spot.node, spot.node.value_location, words + hint)


def get_node(root: Node, path: Sequence[str | int]) -> tuple[Node, int]:
    """Follow a path as far as there are nodes; the number says how many of its parts were found."""
    node = root
    for depth, part in enumerate(path):
        below = _get_child(node, part)
        if below is None:
            return node, depth
        node = below
    return node, len(path)


def locate_finding(root: Node, path: Path, message: str) -> Mistake:
    """Find the line and column of a rule's finding: of the value at the path, or of the nearest key above that exists."""
    node, depth = get_node(root, path)
    return Mistake(path[:depth] or path, node, node.value_location if depth == len(path) else node.location, message)


def get_keys(model: type[BaseModel]) -> list[str]:
    """List the keys that a model's mapping may have, as the YAML spells them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _explain(details: dict[str, Any], spot: _Spot) -> Iterator[Mistake]:
    kind, context = details["type"], details.get("ctx", {})
    path, node, location = spot.path, spot.node, spot.node.value_location
    if kind == "too_short" and node.value:
        return  # pydantic leaves out the entries that have mistakes of their own
    if kind == "extra_forbidden":
        known = get_keys(spot.model)
        if spot.model is SecretRef:  # the key itself may be the secret
            yield Mistake(path[:-1], node, node.location, f"unknown key; known: {', '.join(known)}")
        else:
            yield Mistake(path, node, node.location, f"unknown key '{path[-1]}'{suggest(str(path[-1]), known)}")
    elif kind == "missing":
        only = get_args(spot.model) if get_origin(spot.model) is Literal else ()
        yield Mistake(path, node, node.location, f"is missing; write {path[-1]}: {only[0]}" if len(only) == 1 else "is missing")
    elif kind in {"union_tag_invalid", "union_tag_not_found"}:
        key = context["discriminator"].strip("'")
        known = _get_tags(spot.model)
        below = _get_child(node, key)
        if below is None:
            yield Mistake((*path, key), node, node.location, f"is missing; known: {', '.join(known)}")
        else:
            yield Mistake((*path, key), below, below.value_location, f"unknown {key}{suggest(str(below.value), known, _find_type(below.value, known))}")
    elif kind == "literal_error":
        words = re.findall(r"'([^']*)'", context["expected"])
        only = context["expected"].strip("'")
        as_text = ", without quotes" if not words and str(node.value) == only else ""
        yield Mistake(
            path, node, location, f"is not one of the words allowed{suggest(str(node.value), words)}" if len(words) > 1 else f"must be {only}{as_text}"
        )
    elif kind == "value_error":
        reason = context["error"]
        findings = reason.findings if isinstance(reason, LocatedError) else (((), str(reason)),)
        for below, message in findings:
            end, depth = get_node(node, below)
            # The finding names a key: show that, unless a value is what is wrong.
            yield Mistake((*path, *below), end, end.value_location if depth == len(below) else end.location, message)
    else:
        mapping = f"must be a mapping (key: value){_show_mapping(spot)}" if kind in _MAPPINGS else None
        yield Mistake(path, node, location, mapping or _WORDS.get(kind) or _count(kind, context) or details["msg"])


def _show_mapping(spot: _Spot) -> str:
    """Write the end of a message: an example of the mapping that is expected. Only our own words are used, since the input may be a secret."""
    model, value = spot.model, spot.node.value
    if get_origin(model) is dict:
        return ", such as {name: ...}"
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        known = _get_tags(model)
        named = value if value in known else _find_type(value, known) if isinstance(value, str) else ""
        return f", such as {{type: {named or '...'}}}{suggest('', known)}"
    required = [field.alias or name for name, field in model.model_fields.items() if field.is_required()]
    if value is None and not required:
        return "; write {} to accept all defaults"
    return f", such as {{{(required or get_keys(model))[0]}: ...}}{suggest('', get_keys(model))}"


def _find_type(word: object, known: Sequence[str]) -> str:
    return next((name for name, others in _ALSO_CALLED.items() if name in known and str(word).lower() in others), "")


def _count(kind: str, context: dict[str, Any]) -> str | None:
    match kind:
        case "too_short":
            return "must not be empty" if context["min_length"] == 1 else f"must have at least {context['min_length']} entries"
        case "too_long":
            return f"must have at most {context['max_length']} entries"
        case "string_too_long":
            return f"must be at most {context['max_length']} characters long"
        case "string_pattern_mismatch":
            return PATTERNS.get(context["pattern"])
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
    return None


def _walk(loc: tuple[str | int, ...], root: Node, model: Any, *, key_is_unknown: bool) -> _Spot:
    path: list[str | int] = []
    node, annotation, missing = root, model, False
    for index, part in enumerate(loc):
        annotation = _strip(annotation)
        if get_origin(annotation) in {Union, UnionType}:  # the part is a member's tag, not a key
            annotation = _get_member(annotation, str(part))
            continue
        if part == "[key]":
            continue
        path.append(part)
        below = None if missing else _get_child(node, part)
        missing = below is None
        node = below or node
        if key_is_unknown and index == len(loc) - 1:
            break
        annotation = _get_annotation(annotation, part)
    return _Spot(tuple(path), node, _strip(annotation), missing)


def _get_child(node: Node, part: str | int) -> Node | None:
    if isinstance(node.value, dict):
        return node.value.get(part) if isinstance(part, str) else None
    if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def _strip(annotation: Any) -> Any:
    """Take off Annotated and `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in {Union, UnionType}:
            members = [member for member in get_args(annotation) if member is not NoneType]
            if len(members) == 1:
                annotation = members[0]
                continue
        return annotation


def _get_annotation(annotation: Any, part: str | int) -> Any:
    """Return the type of the value below a key or index."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in {field.alias, name}:
                return field.annotation
        return None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def _get_member(union: Any, tag: str) -> Any:
    for member in get_args(union):
        if tag in _get_member_tags(member):
            return member
    return None


def _get_tags(union: Any) -> list[str]:
    return [tag for member in get_args(_strip(union)) for tag in _get_member_tags(member)]


def _get_member_tags(member: Any) -> list[str]:
    tags = [item.tag for item in getattr(member, "__metadata__", ()) if isinstance(item, Tag)]
    inner = _strip(member)
    if isinstance(inner, type) and issubclass(inner, BaseModel) and "type" in inner.model_fields:
        literal = inner.model_fields["type"].annotation
        tags += [str(word) for word in get_args(literal)] if get_origin(literal) is Literal else []
    return tags
