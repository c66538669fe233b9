"""The texts of a CSV or JSON Lines file -> for each column the types that fit all of its values in the whole file.

DuckDB's own detection is not used: it turns 007 into 7, decides by the first rows, and drops lines that begin with #. A type fits only
if writing its values again gives the same meaning. Values that fit no type stay text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fabric_assets.rows import arrow_types
from fabric_assets.rows.arrow_types import CANONICAL_NUMBER, TEXT

_DAY = r"\d{4}-\d{2}-\d{2}"
_CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
_INTEGER = r"-?(0|[1-9][0-9]{0,17})"
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_DIGITS = "length(ltrim(regexp_replace({v}, '([eE].*)|[^0-9]', '', 'g'), '0'))"

# In the order of preference. `{v}` is the text of a value that is not missing.
_TEXT_FITS: dict[pa.DataType, str] = {
    arrow_types.BIGINT: f"try_cast({{v}} as bigint) is not null and regexp_full_match({{v}}, '{_INTEGER}')",
    arrow_types.DOUBLE: (
        f"try_cast({{v}} as double) is not null and isfinite(try_cast({{v}} as double)) and regexp_full_match({{v}}, '{_NUMBER}')"
        f" and ({_DIGITS} <= 15 or try_cast({{v}} as double)::varchar = {{v}})"
        # Smaller doubles have fewer digits, or are zero.
        " and (abs(try_cast({v} as double)) >= 2.3e-308 or not regexp_matches({v}, '^[-0.]*[1-9]') or try_cast({v} as double)::varchar = {v})"
    ),
    arrow_types.BOOL: "lower({v}) in ('true', 'false')",
    arrow_types.DATE: f"try_cast({{v}} as date) is not null and regexp_full_match({{v}}, '{_DAY}')",
    arrow_types.TIMESTAMP: f"try_cast({{v}} as timestamp) is not null and regexp_full_match({{v}}, '{_DAY}([ T]{_CLOCK})?')",
    arrow_types.TIMESTAMP_UTC: f"try_cast({{v}} as timestamptz) is not null and regexp_full_match({{v}}, '{_DAY}[ T]{_CLOCK}(Z|[+-]\\d{{2}}(:?\\d{{2}})?)')",
}
CANDIDATES = tuple(_TEXT_FITS)

_JSON_KINDS = {
    arrow_types.BIGINT: "{t} in ('BIGINT', 'UBIGINT')",
    arrow_types.DOUBLE: "{t} in ('BIGINT', 'UBIGINT', 'DOUBLE')",
    arrow_types.BOOL: "{t} = 'BOOLEAN'",
    arrow_types.DATE: "{t} = 'VARCHAR'",
    arrow_types.TIMESTAMP: "{t} = 'VARCHAR'",
    arrow_types.TIMESTAMP_UTC: "{t} = 'VARCHAR'",
}

_DUCKDB_NAMES = {
    arrow_types.BIGINT: "bigint",
    arrow_types.DOUBLE: "double",
    arrow_types.BOOL: "boolean",
    arrow_types.DATE: "date",
    arrow_types.TIMESTAMP: "timestamp",
    arrow_types.TIMESTAMP_UTC: "timestamptz",
}
# No longer text is a number or a date, and checking megabytes takes long.
LONGEST = 400
SAMPLE = 1_000
# A key keeps its spelling: 10.1 and 10.10 are different codes but the same number, as are 1e5 and 10e4.
_INEXACT = (arrow_types.DOUBLE, arrow_types.BOOL)
# One moment has many spellings too, in JSON as in CSV: 2024-01-01T00:00:00Z and 2024-01-01T01:00:00+01:00.
_MOMENTS = (arrow_types.TIMESTAMP, arrow_types.TIMESTAMP_UTC)
# If a table of an earlier release has numbers for codes, only the canonical spelling of a number is read as one.
_CANONICAL = {
    arrow_types.BIGINT: "{v} <> '-0'",
    arrow_types.DOUBLE: f"regexp_full_match({{v}}, '{CANONICAL_NUMBER}') and {{v}} <> '-0'",
    arrow_types.BOOL: "{v} in ('true', 'false')",
}

Fits = dict[str, frozenset[pa.DataType]]


@dataclass(frozen=True)
class TextColumn:
    """One column of a file of texts.

    Args:
        text: SQL of its value as text; a JSON string without its quotes.
        kind: SQL of its JSON type; empty for CSV.
        keeps_spelling: two spellings of one moment stay two values; in a CSV also those of one number.
        has_number: the table of an earlier release has numbers or truth values in the column, so only one spelling is read as such.
    """

    name: str
    text: str
    kind: str = ""
    keeps_spelling: bool = False
    has_number: bool = False

    @property
    def candidates(self) -> tuple[pa.DataType, ...]:
        """The types that its values may be read as."""
        if not self.keeps_spelling or self.has_number:
            return CANDIDATES
        return tuple(kind for kind in CANDIDATES if kind not in _MOMENTS and (self.kind or kind not in _INEXACT))

    def build_fit(self, candidate: pa.DataType) -> str:
        """The SQL that asks whether all of its values fit."""
        return f"coalesce(bool_and({self._build_test(candidate)}) filter ({self._value} is not null), true)"

    def build_read(self, wanted: pa.DataType, fits: frozenset[pa.DataType]) -> str:
        """The SQL that reads it as a type, if all values fit it. Else it reads text, in the type's spelling for values that fit."""
        if wanted == TEXT:
            return self.text
        if wanted not in _DUCKDB_NAMES:
            return self._value
        if self._keeps_number and wanted in _CANONICAL and wanted not in fits:
            return self._value
        cast = f"cast({self._value} as {_DUCKDB_NAMES[wanted]})"
        return cast if wanted in fits else f"case when {self._build_test(wanted)} then cast({cast} as varchar) else {self._value} end"

    @property
    def _keeps_number(self) -> bool:
        return self.keeps_spelling and not self.kind

    @property
    def _value(self) -> str:
        return self.text if self.kind else f"nullif({self.text}, '')"

    def _build_test(self, candidate: pa.DataType) -> str:
        fit = f"case when strlen({self._value}) <= {LONGEST} then {_TEXT_FITS[candidate].replace('{v}', self._value)} else false end"
        if self._keeps_number and candidate in _CANONICAL:
            fit = f"{fit} and {_CANONICAL[candidate].replace('{v}', self._value)}"
        return f"({fit})" if not self.kind else f"({_JSON_KINDS[candidate].replace('{t}', self.kind)} and ({fit}))"


def ask(connection: Any, relation: str, columns: Sequence[TextColumn], candidates: Mapping[str, Sequence[pa.DataType]]) -> tuple[Fits, int]:
    """Find which of the candidates all values of a relation fit, and count its rows.

    For columns without a candidate the values are counted, so that every value is read here and no bad line is found later.
    """
    questions = [(column, kind) for column in columns for kind in candidates[column.name]]
    counts = [f"count({column.text})" for column in columns if not candidates[column.name]]
    asked = ["count(*)", *(column.build_fit(kind) for column, kind in questions), *counts]
    rows, *answers = connection.execute(f"select {', '.join(asked)} from {relation}").fetchone()
    fits: dict[str, set[pa.DataType]] = {column.name: set() for column in columns}
    for (column, kind), answer in zip(questions, answers, strict=False):
        if answer:
            fits[column.name].add(kind)
    return {name: frozenset(kinds) for name, kinds in fits.items()}, rows


def complete(columns: Sequence[TextColumn], fits: Fits) -> Fits:
    """A column without values fits every type."""
    return {column.name: frozenset(CANDIDATES) if fits[column.name] == set(column.candidates) else fits[column.name] for column in columns}


def choose(fits: frozenset[pa.DataType]) -> pa.DataType:
    """The narrowest type that fits; text for a column without values, whose type is not known yet."""
    if fits == frozenset(CANDIDATES):
        return TEXT
    return next((kind for kind in CANDIDATES if kind in fits), TEXT)
