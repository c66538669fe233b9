"""The rows of a JSON page: checks that they are objects with a key, and fills a child's path from them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from fabric_assets.config.sources.rest import PLACEHOLDER, RestStream
from fabric_assets.connectors.rest_api.json_objects import find_repeated, write_pairs
from fabric_assets.errors import SourceError
from fabric_assets.rows.batches import Reject, Row
from fabric_assets.suggestions import build_missing_error

# The result of `find_value` if there is no such field; null is a value.
MISSING = object()


_KINDS = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Page:
    """The rows of one answer.

    Args:
        number: within its endpoint, from 1.
        strays: items among the rows that are not valid objects, each with its number from 1.
    """

    number: int
    rows: list[Row]
    strays: tuple[tuple[int, Any], ...] = ()

    def reject_strays(self, origin: str) -> tuple[Reject, ...]:
        def reject(number: int, value: Any) -> Reject:
            raw = write_pairs(value) if isinstance(value, dict) else json.dumps(value)
            return Reject(origin, number, None, "bad_json", _describe_stray(value), raw, has_fixed_position=False)

        return tuple(reject(number, value) for number, value in self.strays)


def build_page(number: int, items: list[Any], *, has_repeated: bool = False) -> Page:
    """Separate the rows of a page from its strays.

    Args:
        has_repeated: some object of the answer names a field twice.
    """

    def is_row(item: Any) -> bool:
        return type(item) is dict and not (has_repeated and any(find_repeated(item)))

    rows = list(filter(is_row, items))
    if len(rows) == len(items):
        return Page(number, rows)
    return Page(number, rows, tuple((index, item) for index, item in enumerate(items, 1) if not is_row(item)))


def _describe_stray(value: Any) -> str:
    if isinstance(value, dict):
        return f"it names {next(find_repeated(value)).repeated!r} twice"
    return f"{_KINDS[type(value)]} among the rows is not a JSON object"


def find_value(row: Mapping[str, Any], path: str) -> Any:
    """The value of a field or dotted path, or MISSING."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


class KeyCheck:
    """A check that a stream's first page has the primary key's fields. Single rows without a key are rejected later, by the shaper."""

    def __init__(self, where: str, keys: tuple[str, ...]) -> None:
        self._where, self._unseen = where, keys

    def check(self, rows: list[Row]) -> None:
        """Check the first page.

        Raises:
            SourceError: no row has the column.
        """
        for key in self._unseen:
            if not any(key in row for row in rows):
                remedy = "let primary_key name a field of every row; if these are not the rows, let `data` be their JSONPath, `$` for the whole answer"
                raise build_missing_error(self._where, kind="primary_key column", name=key, known=rows[0], remedy=remedy)
            values = [value for row in rows if (value := row.get(key)) is not None]
            if values and all(isinstance(value, dict | list) for value in values):
                kind = "objects" if isinstance(values[0], dict) else "lists"
                raise SourceError(f"{self._where}: the primary_key '{key}' holds {kind}", remedy="let primary_key name fields of single values")
        self._unseen = ()


class ParentRows:
    """The rows of a parent for which a child is requested: those with a value in each field of the child's path and params.

    Args:
        where: tenant, source and child stream, for messages.
    """

    def __init__(self, where: str, parent: str, stream: RestStream) -> None:
        self._where, self._parent = where, parent
        self._fields = dict.fromkeys(stream.get_parent_fields())
        self._unseen = dict.fromkeys([*self._fields, *stream.include_from_parent])
        self._skipped = 0

    def select(self, rows: list[Row]) -> list[Row]:
        """Leave out the rows of a page that lack a field, or have null in it.

        Raises:
            SourceError: no row has the field.
        """
        for field in list(self._unseen) if rows else ():
            if all(find_value(row, field) is MISSING for row in rows):
                known = rows[0]
                raise build_missing_error(
                    self._where, kind=f"field of {self._parent}", name=field, known=known, remedy=f"name a field that the rows of {self._parent} have"
                )
            del self._unseen[field]
        selected = [row for row in rows if all(get_parent_value(row, field) is not None for field in self._fields)]
        self._skipped += len(rows) - len(selected)
        return selected

    def describe_skipped(self) -> str | None:
        """Describe the rows that were left out; None if there are none."""
        if not self._skipped:
            return None
        fields, many = " and ".join(map(repr, self._fields)), self._skipped != 1
        return f"{self._skipped:,} row{'s' if many else ''} of {self._parent} hold{'' if many else 's'} nothing in {fields}: nothing was asked for there"


def get_parent_value(row: Row, field: str) -> Any:
    """The value of a field of a parent's row; None if it has no such field."""
    value = find_value(row, field)
    return None if value is MISSING else value


def fill_placeholders(stream: RestStream, row: Row, where: str) -> tuple[str, dict[str, str | int]]:
    """Build a child's path and query for one row of its parent.

    Raises:
        SourceError: the row lacks a field, or its value cannot be part of a path or query.
    """

    def fill(match: re.Match[str], *, is_path: bool) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        parent, field = match[4], match[5]
        value = get_parent_value(row, field)
        # An empty value would request another endpoint, or all rows.
        if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value) in ({"", ".", ".."} if is_path else {""}):
            part = "a path" if is_path else "a query"
            raise SourceError(
                f"{where}: a row of {parent} has no value in {field!r} that can be part of {part}", remedy=f"choose a field that each row of {parent} has"
            )
        return quote(str(value), safe="") if is_path else str(value)

    path = PLACEHOLDER.sub(partial(fill, is_path=True), stream.path)
    query = {name: PLACEHOLDER.sub(partial(fill, is_path=False), value) if isinstance(value, str) else value for name, value in stream.get_query().items()}
    return path, query
