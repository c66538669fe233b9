"""Rejected rows -> a CSV file with the columns that the rows have in their source, and why each was rejected.

Written in two passes: the columns of all rows must be known before the first is written, and there may be more rows than fit in
memory.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from fabric_assets.connectors.column_names import normalize_column
from fabric_assets.loading.rejects import RejectedRow, RejectedRows
from fabric_assets.security.formulas import neutralise

_OWN = ("tenant", "source", "stream", "reason", "column", "message", "origin", "row_number")
# The raw text of what could not be taken apart.
_RAW = "raw"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass
class RejectsCsv:
    """Args:
    is_raw: leave what could be a formula as it is.
    """

    is_raw: bool = False
    columns: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    neutralised: int = 0
    _has_text: bool = False

    def survey(self, chosen: RejectedRows) -> None:
        """Take note of a tenant's columns; for every tenant, before the first row is written."""
        for portion in chosen.read():
            for row in portion:
                fields = row.parse()
                self._has_text = self._has_text or fields is None
                self.columns.update(dict.fromkeys(fields or ()))

    def write_header(self, file: TextIO) -> None:
        """Write the names of the columns; ours give way to the source's."""
        known = {name.lower() for name in self.columns}
        own = [name if name not in known else f"rejected_{name}" for name in (*_OWN, *((_RAW,) if self._has_text else ()))]
        self._write(file, [self._spell(name) for name in (*self.columns, *own)])

    def write(self, file: TextIO, tenant: str, chosen: RejectedRows) -> None:
        """Write a tenant's rows; those that have come since the survey, and have columns of their own, wait for the next export."""
        numbers: dict[tuple[str, str], frozenset[str]] = {}
        for portion in chosen.read():
            for row in portion:
                place, fields = (row.source, row.stream), row.parse()
                if not (fields.keys() <= self.columns.keys() if fields is not None else self._has_text):
                    continue
                if place not in numbers:
                    numbers[place] = chosen.find_numbers(*place)
                self._write(file, self._build_cells(tenant, row, fields, numbers[place]))
                self.rows += 1

    def _build_cells(self, tenant: str, row: RejectedRow, fields: dict[str, Any] | None, numbers: frozenset[str]) -> list[Any]:
        cells = [self._spell((fields or {}).get(name), is_number=normalize_column(name) in numbers) for name in self.columns]
        why = (tenant, row.source, row.stream, row.reason, row.column_name, row.message, row.origin, row.row_number)
        texts = [] if not self._has_text else [row.raw if fields is None else None]
        return [*cells, *(self._spell(value) for value in (*why, *texts))]

    def _spell(self, value: Any, *, is_number: bool = False) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, dict | list):
            return json.dumps(value, ensure_ascii=False)
        # A decimal is text in JSON, to stay exact; in a column of numbers it is one.
        if not isinstance(value, str) or self.is_raw or (is_number and _NUMBER.fullmatch(value)):
            return value
        safe = neutralise(value)
        self.neutralised += safe != value
        return safe

    def _write(self, file: TextIO, cells: Sequence[Any] | Iterable[Any]) -> None:
        csv.writer(file, lineterminator="\r\n").writerow(cells)
