"""Rejected rows -> a CSV file with the columns that the rows have in their source, and why each was rejected.

The export reads the rows twice: all columns must be known before the first row is written, and the rows may not fit in
memory. Rows of dropped files carry the id of the rejected row, so that the file can be corrected and replayed (replay_file.py).
"""

import csv
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from fabric_assets.config.sources.imports import CsvStream, fold
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.loading.rejects.reader import RejectedRow, RejectedRows
from fabric_assets.rows.column_names import normalize_column, spell_column
from fabric_assets.rows.imported_file import REJECT
from fabric_assets.security.formulas import neutralise

OWN = ("tenant", "source", "stream", "reason", "column", "message", "origin", "row_number")
# The raw text of a row that could not be split into columns.
RAW = "raw"
# Put before the name of our column, repeatedly if needed, when the source has a column of that name.
PREFIX = "rejected_"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def is_own(name: str, source_names: Collection[str]) -> bool:
    """Whether a column of an exported file is ours.

    Args:
        source_names: the names of the source's columns, folded.
    """
    bare = fold(name)
    while bare.startswith(PREFIX):
        bare = bare.removeprefix(PREFIX)
    return bare in (*OWN, RAW) and fold(name) not in source_names


@dataclass
class RejectsCsv:
    """A CSV file of rejected rows: call `survey` for every tenant, then `write_header`, then `write`.

    Args:
        is_raw: do not neutralise cells that could be formulas.
    """

    is_raw: bool = False
    columns: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    neutralised: int = 0
    _has_text: bool = False
    _has_dropped: bool = False
    # A column of dropped files, folded -> its spelling here: no two columns differ in case or space only.
    _spellings: dict[str, str] = field(default_factory=dict)
    # Folded names that a stream of dropped files has for its columns.
    _taken: set[str] = field(default_factory=set)

    def survey(self, tenant: TenantConfig, chosen: RejectedRows) -> None:
        """Collect a tenant's columns; call it for every tenant before the first row is written."""
        imports, textual = find_imports(tenant), dict[tuple[str, str], CsvStream]()
        for portion in chosen.read():
            for row in portion:
                stream = imports.get((row.source, row.stream))
                fields = row.parse_dropped() if stream else row.parse()
                self._has_text = self._has_text or fields is None
                if stream is None:
                    self.columns.update(dict.fromkeys(fields or ()))
                    continue
                self._has_dropped = True
                self._taken.update(stream.get_names())
                for name in fields or ():
                    self._add(name)
                if fields is None:
                    textual[row.source, row.stream] = stream
        for stream in textual.values():
            # Columns for the cells of rows that could not be split.
            names = stream.get_names()
            there = {names.get(fold(name)) for name in self.columns}
            for column in stream.get_columns():
                if column not in there:
                    self._add(column)

    def _add(self, name: str) -> None:
        self.columns.setdefault(self._spellings.setdefault(fold(name), name))

    def write_header(self, file: TextIO) -> None:
        """Write the names of the columns; ours are renamed if the source has a column of that name."""
        own = [self._name_own(name) for name in (*OWN, *((RAW,) if self._has_text else ()))]
        mark = [REJECT] if self._has_dropped else []
        self._write(file, [self._spell(name) for name in (*self.columns, *own, *mark)])

    def _name_own(self, name: str) -> str:
        known = {column.lower() for column in self.columns} | self._taken
        while name in known:
            name = PREFIX + name
        return name

    def write(self, file: TextIO, tenant: TenantConfig, chosen: RejectedRows) -> None:
        """Write a tenant's rows, except rows with new columns that have come since the survey: they wait for the next export."""
        imports, numbers = find_imports(tenant), dict[tuple[str, str], frozenset[str]]()
        for portion in chosen.read():
            for row in portion:
                key = (row.source, row.stream)
                stream = imports.get(key)
                fields = row.parse() if stream is None else self._spell_names(row.parse_dropped())
                if not (fields.keys() <= self.columns.keys() if fields is not None else self._has_text) or (stream and not self._has_dropped):
                    continue
                if key not in numbers:
                    numbers[key] = chosen.find_numbers(*key)
                self._write(file, self._build_cells(tenant.tenant, row, fields or {}, stream, numbers[key], has_fields=fields is not None))
                self.rows += 1

    def _spell_names(self, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if fields is None else {self._spellings.get(fold(name), name): value for name, value in fields.items()}

    def _build_cells(
        self, tenant: str, row: RejectedRow, fields: Mapping[str, Any], stream: CsvStream | None, numbers: frozenset[str], *, has_fields: bool
    ) -> list[Any]:
        names = stream.get_names() if stream else {}
        cells = [self._spell(fields.get(name), is_number=not numbers.isdisjoint(_list_columns(names, name))) for name in self.columns]
        why = (tenant, row.source, row.stream, row.reason, row.column_name, row.message, row.origin, row.row_number)
        texts = [] if not self._has_text else [None if has_fields else row.raw]
        mark = [] if not self._has_dropped else [row.row_id if stream else None]
        return [*cells, *(self._spell(value) for value in (*why, *texts)), *mark]

    def _spell(self, value: Any, *, is_number: bool = False) -> Any:
        spelt = spell(value)
        # A decimal is text in JSON, to stay exact; in a column of numbers it is written as a number.
        if not isinstance(value, str) or self.is_raw or (is_number and _NUMBER.fullmatch(value)):
            return spelt
        safe = neutralise(value)
        self.neutralised += safe != value
        return safe

    def _write(self, file: TextIO, cells: Sequence[Any] | Iterable[Any]) -> None:
        csv.writer(file, lineterminator="\r\n").writerow(cells)


def _list_columns(names: Mapping[str, str], field: str) -> set[str]:
    """List the columns that a field may have; tables of an earlier release follow dlt's rule alone."""
    return {mapped} if (mapped := names.get(fold(field))) else {spell_column(field), normalize_column(field)}


def spell(value: Any) -> Any:
    """Write a value of a rejected row as its cell shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def find_imports(tenant: TenantConfig) -> dict[tuple[str, str], CsvStream]:
    """Find a tenant's streams of dropped files, by source and stream."""
    return {(source, name): stream for source, config in tenant.sources.items() for name, stream in config.streams.items() if isinstance(stream, CsvStream)}
