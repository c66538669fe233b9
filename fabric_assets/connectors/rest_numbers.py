"""Fields whose numbers come both whole and broken -> `double`, before dlt decides by the first row.

JSON writes 3 and 3.5 in one field and means one type. dlt takes the first for `bigint` and puts the second into a column of its
own (`price__v_double`): nothing is lost, but every sum over `price` is wrong. Fields within nested values are left to dlt.
"""

from typing import Any

import dlt

from fabric_assets.connectors.rest_rows import Row
from fabric_assets.errors import DataError

# Past this a double no longer holds every whole number; such a field keeps dlt's two columns.
_LARGEST_EXACT = 2**53


class NumberWatch:
    """Args:
    place: tenant, source and stream, for messages.
    table: the stream's name.
    fresh: the table is made anew, so its columns bind nobody.
    """

    def __init__(self, place: str, table: str, *, fresh: bool) -> None:
        self._place, self._table, self._fresh = place, table, fresh
        self._whole: set[str] = set()
        self._broken: set[str] = set()
        self._large: set[str] = set()
        self._declared: set[str] = set()

    def find_new_doubles(self, rows: list[Row]) -> dict[str, Any]:
        """Column hints for the fields that turn out mixed with these rows.

        Raises:
            DataError: earlier loads have made the field a whole number, or no column holds so large a one.
        """
        known_broken = len(self._broken)
        for row in rows:
            for name, value in row.items():
                kind = type(value)
                if kind is float:
                    self._broken.add(name)
                elif kind is int:
                    self._whole.add(name)
                    if not -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
                        self._add_large(name, value)
        if len(self._broken) > known_broken and not self._fresh:
            self._check_loaded()
        mixed = (self._whole & self._broken) - self._large - self._declared
        self._declared |= mixed
        return {name: {"data_type": "double"} for name in mixed}

    def _add_large(self, name: str, value: int) -> None:
        if not -(2**63) <= value < 2**63:
            raise DataError(f"{self._place}: field {name!r} holds a whole number of more than 64 bits", remedy="let the API give it as text, if it can")
        self._large.add(name)

    def _check_loaded(self) -> None:
        schema = dlt.current.source_schema()
        columns = schema.get_table_columns(self._table) if self._table in schema.tables else {}
        for name in sorted(self._broken - self._declared):
            if columns.get(schema.naming.normalize_identifier(name), {}).get("data_type") == "bigint":
                raise DataError(
                    f"{self._place}: field {name!r} held whole numbers alone in earlier loads and now holds broken ones",
                    remedy="load the stream anew with --full-refresh: its column becomes double",
                )
