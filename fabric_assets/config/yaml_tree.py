"""YAML text -> a tree of values with their lines and columns, or every reason why it has no tree.

The tree is built from the events of PyYAML's C parser, in one loop without recursion. PyYAML's composer would follow ten thousand levels, expand
aliases and drop duplicate keys before anybody could refuse them. Plain words follow YAML 1.2: only true and false are booleans. So a country `no`
stays a text, as do dates and numbers with a leading zero.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from sys import intern
from typing import NamedTuple

import yaml
from yaml.cyaml import CParser  # pyright: ignore[reportAttributeAccessIssue]
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from fabric_assets.config.base import Path as KeyPath

MAX_DEPTH = 32

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
# Up to 18 digits, what a bigint column holds; a leading zero means an article number or a postal code.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,2})?")
_NUMERIC_START = frozenset("+-.0123456789")
_COLUMNS = 20


class Node:
    """A value, its file, and where the value and its key begin.

    A large fleet holds hundreds of thousands of nodes: hence the slots, and line and column packed into one number.

    Args:
        value: a scalar, or a dict or list of nodes.
        at: line << 20 | column of the value, both counted from 1.
        key_at: the same of its key; 0 for list items and the root.
    """

    __slots__ = ("at", "file", "key_at", "value")

    def __init__(self, value: "Scalar | dict[str, Node] | list[Node]", file: Path, at: int, key_at: int = 0) -> None:
        self.value = value
        self.file = file
        self.at = at
        self.key_at = key_at

    @property
    def location(self) -> tuple[int, int]:
        """Line and column of the key, or of the value where the node has no key."""
        return unpack(self.key_at or self.at)

    @property
    def value_location(self) -> tuple[int, int]:
        """Line and column of a scalar; of the key of a mapping or list, which is what people look for."""
        return self.location if isinstance(self.value, dict | list) else unpack(self.at)


Scalar = str | int | float | bool | None


class Finding(NamedTuple):
    """A mistake in one file, with its line and column.

    Args:
        path: keys from the root; errors of the model below it are not shown, as they follow from this one.
    """

    line: int
    column: int
    path: KeyPath
    message: str


def resolve_scalar(text: str) -> Scalar:
    """Return the value of an unquoted YAML scalar."""
    if text[:1] in _NUMERIC_START:
        if _INTEGER.fullmatch(text):
            return int(text)
        # Longer runs of digits would lose some of them as a float.
        if len(text) <= 24 and _FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit():
            return float(text)
        return text
    if text in _NULLS:
        return None
    return True if text in _TRUE else False if text in _FALSE else text


def to_plain(node: Node) -> object:
    """Return the bare values of a tree, which pydantic validates."""
    value = node.value
    if isinstance(value, dict):
        return {key: to_plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [to_plain(child) for child in value]
    return value


def pack(mark: yaml.Mark) -> int:
    """Pack the line and column of a mark, which count from 0, into one number; they count from 1 in it."""
    return (mark.line + 1) << _COLUMNS | (mark.column + 1)


def unpack(packed: int) -> tuple[int, int]:
    """Turn a packed number into line and column."""
    return packed >> _COLUMNS, packed & ((1 << _COLUMNS) - 1)


class _Open:
    """A mapping or list whose end the parser has not reached."""

    __slots__ = ("fresh", "items", "key", "key_at", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.items: dict[str, Node] | list[Node] = node.value  # type: ignore[assignment]
        self.key: str | None = None
        self.key_at = 0
        self.fresh = True


# The loop sees every event of a whole fleet: split into calls it takes twice the time.
def build_tree(text: str, file: Path, findings: list[Finding]) -> Node | None:  # noqa: PLR0912, PLR0915
    """Parse one document.

    Args:
        findings: mistakes are added here; the values that they are about stay in the tree.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    stack: list[_Open] = []
    root: Node | None = None
    documents = 0
    top: _Open | None = None
    next_event = CParser(text).get_event
    event = next_event()
    while event is not None:
        kind = type(event)
        if kind is ScalarEvent:
            mark = event.start_mark
            at = (mark.line + 1) << _COLUMNS | (mark.column + 1)
            if event.anchor is not None or event.tag is not None:
                _refuse_extras(event, stack, at, findings)
            text = event.value
            if top is not None and top.key is None and type(top.items) is dict:
                top.fresh = text not in top.items
                if not top.fresh or not text or (text == "<<" and event.implicit[0]):
                    findings.append(_get_key_finding(text, top, at, stack))
                top.key = intern(text)
                top.key_at = at
            else:
                value = resolve_scalar(text) if event.implicit[0] else text
                if top is None:
                    root = Node(value, file, at)
                elif type(top.items) is list:
                    top.items.append(Node(value, file, at))
                else:
                    if top.fresh:
                        top.items[top.key] = Node(value, file, at, top.key_at)  # type: ignore[index, call-overload]
                    top.key = None
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            at = pack(event.start_mark)
            if event.anchor is not None or event.tag is not None:
                _refuse_extras(event, stack, at, findings)
            if len(stack) >= MAX_DEPTH:
                findings.append(Finding(*unpack(at), _get_path(stack), f"is nested more than {MAX_DEPTH} levels deep"))
                return None
            node = Node({} if kind is MappingStartEvent else [], file, at)
            if top is None:
                root = node
            elif type(top.items) is list:
                top.items.append(node)
            elif top.key is None:
                findings.append(Finding(*unpack(at), _get_path(stack), "a key must be a word, not a mapping or a list"))
                return None
            else:
                node.key_at = top.key_at
                if top.fresh:
                    top.items[top.key] = node  # type: ignore[index, call-overload]
            top = _Open(node)
            stack.append(top)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            stack.pop()
            top = stack[-1] if stack else None
            if top is not None:
                top.key = None
        elif kind is AliasEvent:
            at = pack(event.start_mark)
            findings.append(Finding(*unpack(at), _get_path(stack), "aliases (*name) are not allowed: write the value out, or use a template"))
            if top is None or (top.key is None and type(top.items) is dict):
                return None
            if type(top.items) is list:
                top.items.append(Node(None, file, at))
            else:
                if top.fresh:
                    top.items[top.key] = Node(None, file, at, top.key_at)  # type: ignore[index, call-overload]
                top.key = None
        elif kind is DocumentStartEvent:
            documents += 1
            if documents > 1:
                findings.append(Finding(*unpack(pack(event.start_mark)), (), "a file holds one document: remove the --- and what follows it"))
                return root
        event = next_event()
    return root


def _refuse_extras(event: ScalarEvent | MappingStartEvent | SequenceStartEvent, stack: list[_Open], at: int, findings: list[Finding]) -> None:
    path = _get_path(stack)
    if event.anchor is not None:
        findings.append(Finding(*unpack(at), path, "anchors (&name) are not allowed: write the value out, or use a template"))
    if event.tag is not None:
        findings.append(Finding(*unpack(at), path, "tags (!name) are not allowed"))


def _get_key_finding(text: str, top: _Open, at: int, stack: list[_Open]) -> Finding:
    parent = _get_path(stack)
    if not text:
        return Finding(*unpack(at), parent, "a key must not be empty")
    if text == "<<" and text not in top.items:
        return Finding(*unpack(at), (*parent, text), "merge keys (<<) are not allowed: use a template")
    line, _ = unpack(top.items[text].key_at)  # type: ignore[index, call-overload]
    return Finding(*unpack(at), (*parent, text), f"duplicate key; first defined in line {line}")


def _get_path(stack: list[_Open]) -> KeyPath:
    return tuple(_get_segments(stack))


def _get_segments(stack: list[_Open]) -> Iterator[str | int]:
    for depth, level in enumerate(stack):
        if isinstance(level.items, list):
            # A level that is itself open has been added to its list already.
            yield len(level.items) - (depth + 1 < len(stack))
        elif level.key is not None:
            yield level.key
