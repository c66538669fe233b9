"""Lists that an earlier release has stored as text (Postgres's `{1,2}`, JSON of Parquet files) -> lists, as today's loads write them.

A text that is not exactly such a list stops the migration of its stream. As in a load, arrays of several dimensions and lists with
a number that does not fit become JSON text in the variant column.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa

from fabric_assets.errors import DataError
from fabric_assets.quoting import quote
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC, get_word, read_word
from fabric_assets.rows.mixed_columns import split
from fabric_assets.rows.source_values import carry_lists
from fabric_assets.rows.variant_columns import name_variant
from fabric_assets.warehouse.session import Columns, Session, Table

_PORTION = 10_000
# Postgres writes bounds before an array whose first index is not 1; they are dropped, since neither a list nor JSON has them.
_BOUNDS = re.compile(r"(\[[+-]?\d+:[+-]?\d+\])+=(?=\{)", re.ASCII)
# One token of an array: a bracket, a comma, a quoted value, or a value without quotes.
_TOKEN = re.compile(r'[{},]|"((?:[^"\\]|\\.)*)"|((?:[^{}",\\\s]|\\.)(?:[^{}",\\]|\\.)*)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_SHORT_ZONE = re.compile(r"(?<=[+-]\d\d)$", re.ASCII)


@dataclass(frozen=True)
class ListForm:
    """How the lists of one column are stored, and what they become.

    Args:
        kind: of a value, in today's lists.
        is_real: each value was rounded to four bytes.
        is_json: each value is JSON, which a list holds as text.
    """

    kind: pa.DataType
    is_real: bool = False
    is_json: bool = False

    @staticmethod
    def build(values: str) -> "ListForm":
        """Build the form of a column's lists.

        Args:
            values: as `value_forms.get_list_values` returns it.
        """
        return ListForm({"real": DOUBLE, "json": TEXT}.get(values) or read_word(values), values == "real", values == "json")

    def parse(self, text: str) -> tuple[list[Any] | None, str | None]:
        """Parse a text as a list, or as JSON text for the variant column. Values of decimals stay texts.

        Raises:
            ValueError: the text is not a list, or a value is not of the type.
        """
        found = _parse_json(text) if text.startswith("[") and not _BOUNDS.match(text) else _parse_array(text)
        if any(isinstance(value, list) for value in found):
            return None, self._write(found)
        return [None if value is None else self._read(value) for value in found], None

    def convert(self, texts: list[str]) -> tuple[pa.Array, pa.Array]:
        """Convert texts to lists; a text that does not fit becomes JSON for the variant column."""
        pairs = [self.parse(text) for text in texts]
        beside = pa.array([text for _, text in pairs], TEXT)
        if not pa.types.is_decimal(self.kind):
            return pa.array([values for values, _ in pairs], pa.list_(self.kind)), beside
        lists, *others = split(carry_lists(pa.array([values for values, _ in pairs], pa.list_(TEXT)), pa.list_(self.kind)))
        for other in others:
            beside = pa.array([left if left is not None else right for left, right in zip(beside.to_pylist(), other.to_pylist(), strict=True)], TEXT)
        return lists, beside

    def _read(self, value: str | bool) -> Any:
        if pa.types.is_decimal(self.kind):
            if not isinstance(value, str) or not (_NUMBER.fullmatch(value) or value in ("NaN", "Infinity", "-Infinity")):
                raise ValueError("not a number")
            return value
        return _READ[self.kind](value, self.is_real)

    def _write(self, value: Any) -> str:
        """Write an array as Postgres's to_json does."""
        if isinstance(value, list):
            return f"[{','.join(map(self._write, value))}]"
        if value is None:
            return "null"
        self._read(value)
        is_number = self.kind in (BIGINT, DOUBLE) or pa.types.is_decimal(self.kind)
        if self.is_json or (is_number and _NUMBER.fullmatch(value)):
            return value
        if self.kind == BOOL:
            return "true" if _read_bool(value, False) else "false"
        if self.kind in (TIMESTAMP, TIMESTAMP_UTC):
            value = _SHORT_ZONE.sub(":00", value.replace(" ", "T")) if self.kind == TIMESTAMP_UTC else value.replace(" ", "T")
        return json.dumps(value, ensure_ascii=False)


def rewrite_lists(session: Session, table: Table, columns: Mapping[str, str], layout: Columns) -> None:
    """Rewrite columns of a table.

    Args:
        columns: column -> the type of its values, as `value_forms.get_list_values` returns it.
        layout: the table's columns.

    Raises:
        DataError: a value is not a list of its type; the caller must roll back.
    """
    for column, values in columns.items():
        if layout[column] != TEXT:
            raise _build_error(session, table, column, f"is of the type {get_word(layout[column])} and not text")
        lists, beside = _convert(session, table, column, ListForm.build(values))
        variant = name_variant(column, TEXT) if beside else None
        if variant in layout:
            raise _build_error(session, table, column, f"needs the column {variant} for arrays of several dimensions, and the table has one of that name")
        session.replace_texts(table, column, lists, list_type=session.name_type(pa.list_(ListForm.build(values).kind)), variant=variant)
        session.execute(f"drop table {lists}")


def _convert(session: Session, table: Table, column: str, form: ListForm) -> tuple[Table, bool]:
    """Write each text of a column and its list into a temporary table; return also whether a variant column is needed."""
    texts, lists = Table(session.temporary_schema, "_fabric_texts"), Table(session.temporary_schema, "_fabric_lists")
    distinct = f"select distinct {quote(column)} as value from {table} where {quote(column)} is not null"
    session.execute(f"create temporary table {texts} as select row_number() over () as number, value from ({distinct}) as t")
    session.create(lists, {"value": TEXT, "list": pa.list_(form.kind), "beside": TEXT})
    has_beside = False
    for portion in _read_portions(session, texts):
        try:
            values, beside = form.convert(portion)
        except (ValueError, OverflowError, RecursionError, pa.ArrowException):
            raise _build_error(session, table, column, f"has a text that is not a list of {get_word(form.kind)}") from None
        has_beside = has_beside or beside.null_count < len(beside)
        session.insert(lists, pa.table({"value": pa.array(portion, TEXT), "list": values, "beside": beside}))
    session.execute(f"drop table {texts}")
    return lists, has_beside


def _read_portions(session: Session, texts: Table) -> Iterator[list[str]]:
    ((count,),) = session.ask(f"select count(*) from {texts}")
    for first in range(1, count + 1, _PORTION):
        yield session.query(f"select value from {texts} where number between {first} and {first + _PORTION - 1}")["value"].to_pylist()


def _build_error(session: Session, table: Table, column: str, fault: str) -> DataError:
    return DataError(f"{session.where}: {table}: column {column} {fault}", remedy="load the stream anew with --full-refresh")


def _parse_array(text: str) -> list[Any]:
    """Parse Postgres's text of an array.

    Raises:
        ValueError: it is not one.
    """
    start = match.end() if (match := _BOUNDS.match(text)) else 0
    stack: list[list[Any]] = [[]]
    # Whether a value may follow; after a value only a comma or a bracket may.
    is_open = True
    while start < len(text):
        token = _TOKEN.match(text, start)
        if token is None or (len(stack) == 1 and stack[0]):
            raise ValueError("not an array")
        start = token.end()
        if token[0] == "{" and is_open:
            stack.append([])
        elif token[0] == "}" and len(stack) > 1 and (not is_open or not stack[-1]):
            done = stack.pop()
            stack[-1].append(done)
            is_open = False
        elif token[0] == "," and not is_open:
            is_open = True
        elif token[0] not in "{}," and is_open and len(stack) > 1:
            stack[-1].append(_unquote(token))
            is_open = False
        else:
            raise ValueError("not an array")
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("not an array")
    return stack[0][0]


def _unquote(token: re.Match[str]) -> str | None:
    if token[1] is not None:
        return _ESCAPED.sub(r"\1", token[1])
    return None if token[2].upper() == "NULL" else _ESCAPED.sub(r"\1", token[2])


def _parse_json(text: str) -> list[Any]:
    found = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    if not isinstance(found, list) or any(isinstance(value, list | dict) for value in found):
        raise ValueError("not a list of plain values")
    return found


def _read_text(value: Any, is_real: bool) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _read_whole(value: Any, is_real: bool) -> int:
    if not _WHOLE.fullmatch(_read_text(value, is_real)):
        raise ValueError("not a whole number")
    return int(value)


def _read_double(value: Any, is_real: bool) -> float:
    if not (_NUMBER.fullmatch(_read_text(value, is_real)) or value in ("NaN", "Infinity", "-Infinity")):
        raise ValueError("not a number")
    number = float(value)
    return struct.unpack("f", struct.pack("f", number))[0] if is_real else number


def _read_bool(value: Any, is_real: bool) -> bool:
    found = {True: True, False: False, "t": True, "f": False}.get(value)
    if found is None:
        raise ValueError("not a truth value")
    return found


def _read_bytes(value: Any, is_real: bool) -> bytes:
    return bytes.fromhex(_read_text(value, is_real).removeprefix("\\x"))


def _read_moment(value: Any, is_real: bool) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError("no zone")
    return found.astimezone(UTC)


def _read_local_moment(value: Any, is_real: bool) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is not None:
        raise ValueError("a zone")
    return found


_READ: Mapping[pa.DataType, Callable[[Any, bool], Any]] = {
    TEXT: _read_text,
    BIGINT: _read_whole,
    DOUBLE: _read_double,
    BOOL: _read_bool,
    BINARY: _read_bytes,
    DATE: lambda value, _: date.fromisoformat(value),
    TIME: lambda value, _: time.fromisoformat(value),
    TIMESTAMP: _read_local_moment,
    TIMESTAMP_UTC: _read_moment,
}
