"""What a page of JSON must hold: objects as rows, their key, and what a child's path takes from them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from fabric_assets.config.rest import PLACEHOLDER, RestStream
from fabric_assets.connectors.batches import Reject, Row
from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.errors import SourceError

# What `find_value` gives where there is no such field; null is a value.
MISSING = object()


_KINDS = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Page:
    """The rows of one answer.

    Args:
        number: within its endpoint, from 1.
        strays: what stands among the rows and is no object, each with its number from 1.
    """

    number: int
    rows: list[Row]
    strays: tuple[tuple[int, Any], ...] = ()

    def reject_strays(self, origin: str) -> tuple[Reject, ...]:
        return tuple(
            Reject(origin, number, None, "bad_json", f"{_KINDS[type(value)]} among the rows is not a JSON object", json.dumps(value))
            for number, value in self.strays
        )


def build_page(number: int, items: list[Any]) -> Page:
    rows = [item for item in items if type(item) is dict]
    if len(rows) == len(items):
        return Page(number, rows)
    return Page(number, rows, tuple((index, item) for index, item in enumerate(items, 1) if type(item) is not dict))


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
    """Finds out on a stream's first page that its key is none of the API's fields; single rows without one are the shaper's."""

    def __init__(self, place: str, keys: tuple[str, ...]) -> None:
        self._place, self._unseen = place, keys

    def check(self, rows: list[Row]) -> None:
        """Raises:
        SourceError: no row has the column.
        """
        for key in self._unseen:
            if not any(key in row for row in rows):
                raise build_missing_error(self._place, kind="primary_key column", name=key, known=rows[0], remedy="let primary_key name a field of every row")
            values = [value for row in rows if (value := row.get(key)) is not None]
            if values and all(isinstance(value, dict | list) for value in values):
                kind = "objects" if isinstance(values[0], dict) else "lists"
                raise SourceError(f"{self._place}: the primary_key '{key}' holds {kind}", remedy="let primary_key name fields of single values")
        self._unseen = ()


def get_parent_value(row: Row, field: str, place: str, parent: str) -> Any:
    """A field of a parent's row.

    Raises:
        SourceError: it has no such field.
    """
    value = find_value(row, field)
    if value is MISSING:
        raise build_missing_error(place, kind=f"field of {parent}", name=field, known=row, remedy=f"name a field that each row of {parent} has")
    return value


def fill_placeholders(stream: RestStream, row: Row, place: str) -> tuple[str, dict[str, str | int]]:
    """A child's path and query for one row of its parent, whatever the row holds.

    Raises:
        SourceError: the row lacks a field, or holds nothing in it that can be asked for.
    """

    def fill(match: re.Match[str], *, is_path: bool) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        parent, field = match[4], match[5]
        value = get_parent_value(row, field, place, parent)
        # An empty value would ask for another endpoint, or for all there is.
        if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value) in ({"", ".", ".."} if is_path else {""}):
            where = "a path" if is_path else "a query"
            raise SourceError(
                f"{place}: a row of {parent} holds nothing in {field!r} that can stand in {where}", remedy=f"choose a field that each row of {parent} has"
            )
        return quote(str(value), safe="") if is_path else str(value)

    path = PLACEHOLDER.sub(partial(fill, is_path=True), stream.path)
    query = {name: PLACEHOLDER.sub(partial(fill, is_path=False), value) if isinstance(value, str) else value for name, value in stream.get_query().items()}
    return path, query
