"""A JSON object that names a field twice -> a value that can be distinguished from a valid object.

JSON allows it, and its parsers silently keep the last value. Which of the two values is right is not known.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

_Pairs = list[tuple[str, Any]]


class RepeatedNames(dict[str, Any]):
    """An object that names a field twice; as a mapping it holds the last values.

    Args:
        pairs: all names and values, in order.
    """

    def __init__(self, pairs: _Pairs) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    @property
    def repeated(self) -> str:
        """The first name that occurs twice."""
        seen: set[str] = set()
        return next(name for name, _ in self.pairs if name in seen or seen.add(name))


def build_object_hook(found: list[RepeatedNames]) -> Callable[[_Pairs], dict[str, Any]]:
    """Build a function for `object_pairs_hook`.

    Args:
        found: collects each object that names a field twice.
    """

    def build(pairs: _Pairs) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        found.append(repeated := RepeatedNames(pairs))
        return repeated

    return build


def find_repeated(value: Any) -> Iterator[RepeatedNames]:
    """Yield the objects that name a field twice, in a value and below it."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, RepeatedNames):
            yield each
            waiting += [inner for _, inner in each.pairs]
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def write_pairs(value: Any) -> str:
    """Write a value as JSON, with every name and value of the source."""
    if isinstance(value, dict):
        pairs = value.pairs if isinstance(value, RepeatedNames) else value.items()
        return "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {write_pairs(inner)}" for name, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_pairs, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
