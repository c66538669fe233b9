"""What a row of JSON must hold: its key, and what a child's path takes from it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fabric_assets.connectors.batches import Row
from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.errors import SourceError

# What `find_value` gives where there is no such field; null is a value.
MISSING = object()


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


def quote_value(row: Row, field: str, place: str, parent: str) -> str:
    """A field of a parent's row as one segment of a path, whatever it holds.

    Raises:
        SourceError: it has no such field, or nothing in it that can be one.
    """
    value = get_parent_value(row, field, place, parent)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value) in {"", ".", ".."}:
        raise SourceError(
            f"{place}: a row of {parent} holds nothing in {field!r} that can stand in a path", remedy=f"choose a field that each row of {parent} has"
        )
    return quote(str(value), safe="")
