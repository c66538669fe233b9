"""A file's cells as texts -> typed canonical columns, and the rows with a bad cell.

Plain spellings are read a column at a time. Every other distinct text is read once by `csv_import/values.py`; both must follow the same
rules. One rejection per row names all of its bad cells.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.imports import NUMBERS, CsvStream, ImportColumn, fold
from fabric_assets.connectors.csv_import.cells import Cells
from fabric_assets.connectors.csv_import.faults import Faults
from fabric_assets.connectors.csv_import.reading import Reading, read_column
from fabric_assets.connectors.csv_import.values import quote
from fabric_assets.errors import ConfigurationError, QuarantinedFile
from fabric_assets.rows import arrow_types
from fabric_assets.rows.column_names import drop_hidden
from fabric_assets.visible import show_name

DECIMAL_SCALE = 9


def get_type(column: ImportColumn) -> pa.DataType:
    """The Arrow type of a canonical column."""
    if column.type == "decimal":
        return pa.decimal128(arrow_types.MAX_PRECISION, DECIMAL_SCALE if column.scale is None else column.scale)
    if column.type == "timestamp":
        return arrow_types.TIMESTAMP_UTC if column.timezone else arrow_types.TIMESTAMP
    return {
        "text": arrow_types.TEXT,
        "bigint": arrow_types.BIGINT,
        "double": arrow_types.DOUBLE,
        "bool": arrow_types.BOOL,
        "date": arrow_types.DATE,
    }[column.type]


@dataclass(frozen=True)
class Layout:
    """A file's columns, matched with the stream's canonical columns.

    Args:
        columns: canonical column -> its index in the file; None for one that the file lacks.
        unmapped: indexes of the columns that match no canonical column.
        unnamed: indexes of the columns without a name, which must be empty.
    """

    header: Sequence[str]
    columns: Mapping[str, int | None]
    unmapped: Sequence[int]
    unnamed: Sequence[int]


def map_columns(header: Sequence[str], stream: CsvStream) -> Layout:
    """Match a file's header with the stream's columns.

    Raises:
        QuarantinedFile: a required column is missing, two match the same canonical column, or one is unknown and the stream refuses unknown columns.
    """
    names, columns = stream.get_names(), stream.get_columns()
    seen_names = {drop_hidden(name): target for name, target in names.items()}
    found: dict[str, int] = {}
    unmapped: list[int] = []
    for index, name in enumerate(header):
        # Invisible characters in a name, such as a second byte order mark, are ignored.
        target = names.get(fold(name)) or seen_names.get(fold(drop_hidden(name)))
        if target is None:
            unmapped += [index] if name else []
        elif target in found:
            raise QuarantinedFile("duplicate_header", f"its columns {header[found[target]]!r} and {name!r} are both {target}", remedy="leave one of them out")
        else:
            found[target] = index
    if not found:
        raise QuarantinedFile("no_known_column", f"none of its columns is known: {_join(header)}", remedy="correct its header, or the stream's mapping")
    if missing := [name for name, column in columns.items() if column.required and name not in found]:
        raise QuarantinedFile(
            "missing_column", f"it lacks the column {', '.join(missing)}; it has: {_join(header)}", remedy="correct its header, or the stream's mapping"
        )
    if unmapped and stream.unmapped == "refuse":
        unknown = _join([header[index] for index in unmapped])
        raise QuarantinedFile("unknown_column", f"no column of the stream is for: {unknown}", remedy="leave the column out, or add it to the stream's mapping")
    return Layout(header, {name: found.get(name) for name in columns}, unmapped, [index for index, name in enumerate(header) if not name])


def _join(names: Sequence[str]) -> str:
    shown = [show_name(name[:60]) for name in names if name][:20]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


@dataclass
class ColumnChecker:
    """A reader and checker of one canonical column, for all batches of a file.

    Args:
        mark: the decimal mark of cells that are texts.
        is_key: whether the column belongs to the primary key.
    """

    name: str
    column: ImportColumn
    mark: str | None
    is_key: bool = False
    _percent: bool | None = None
    _currency: str = ""

    def __post_init__(self) -> None:
        if self.column.pattern is None:
            return
        try:
            pc.match_substring_regex(pa.array([""]), self.column.pattern)
        except pa.ArrowInvalid as error:
            raise ConfigurationError(f"the pattern of column {self.name} is not valid in RE2: {error}", remedy="use only syntax that RE2 supports") from None

    def check(self, texts: pa.Array, natives: pa.Array | None, faults: Faults, index: int) -> pa.Array:
        """Read a batch's cells. A bad cell becomes null and is added to the faults.

        Args:
            natives: which cells were not texts in a workbook.
            index: of the column in the file.
        """
        if self.column.nulls:
            empty = pc.is_in(pc.utf8_trim_whitespace(texts), value_set=pa.array(self.column.nulls, pa.string()))
            texts = pc.if_else(empty, None, texts)
        if self.column.required:
            faults.add(pc.is_null(texts), index, "required", lambda row: f"{self.name} is required")
        reading = read_column(texts, natives, self.column, get_type(self.column), self.mark, is_key=self.is_key)
        for row, fault in reading.faults.items():
            faults.add_row(row, index, fault.reason, fault.message)
        values = reading.values
        if self.column.type in NUMBERS:
            values = self._check_signs(values, texts, reading, faults, index)
        self._check_text(values, faults, index)
        self._check_bounds(values, texts, faults, index)
        return values

    def _check_signs(self, values: pa.Array, texts: pa.Array, reading: Reading, faults: Faults, index: int) -> pa.Array:
        """Allow one currency per column of a file, and either numbers or percentages. The first value decides."""
        for row, currency in sorted(reading.currencies.items()):
            self._currency = self._currency or currency
            if currency != self._currency:
                faults.add_row(row, index, "mixed_currency", f"{quote(texts[row].as_py())} is in another currency than the rows before ({self._currency})")
        if not reading.percents and not self._percent:
            self._percent = False if len(values) > values.null_count else self._percent
            return values
        percent = pa.array([row in reading.percents for row in range(len(values))], pa.bool_()) if reading.percents else pa.array([False] * len(values))
        present = pc.is_valid(values)
        first = pc.index(present, True).as_py()
        if self._percent is None and first >= 0:
            self._percent = percent[first].as_py()
        other = pc.and_(present, pc.not_equal(percent, bool(self._percent)))
        kind = "percentages" if self._percent else "no percentages"
        faults.add(other, index, "mixed_percent", lambda row: f"{quote(texts[row].as_py())}: the rows before hold {kind}")
        return values

    def _check_text(self, values: pa.Array, faults: Faults, index: int) -> None:
        column = self.column
        if column.accepted:
            known = pc.is_in(values, value_set=pa.array(column.accepted, pa.string()))
            shown = ", ".join(column.accepted[:10]) + (", ..." if len(column.accepted) > 10 else "")
            faults.add(
                pc.and_(pc.is_valid(values), pc.invert(known)), index, "not_accepted", lambda row: f"{quote(values[row].as_py())} is not one of: {shown}"
            )
        if column.pattern is not None:
            matches = pc.match_substring_regex(values, rf"\A(?:{column.pattern})\z")
            faults.add(pc.invert(matches), index, "pattern", lambda row: f"{quote(values[row].as_py())} does not match {column.pattern}")

    def _check_bounds(self, values: pa.Array, texts: pa.Array, faults: Faults, index: int) -> None:
        keys: tuple[Literal["min", "max"], ...] = ("min", "max")
        for key in keys:
            bound = self.column.get_bound(key)
            if bound is None:
                continue
            beyond = _compare(values, bound, key)
            word = "below the lowest" if key == "min" else "above the highest"
            code = "too_low" if key == "min" else "too_high"
            faults.add(beyond, index, code, lambda row, word=word, bound=bound: f"{quote(texts[row].as_py())} is {word} value allowed, {bound}")


class UniqueChecker:
    """A checker for values that an earlier row of the same file has. Rejected rows do not count.

    Args:
        indexes: of the columns in the file.
    """

    def __init__(self, indexes: Mapping[str, int]) -> None:
        self._indexes = indexes
        self._seen: dict[str, set[Any]] = {name: set() for name in indexes}

    def check(self, values: Mapping[str, pa.Array], cells: Cells, faults: Faults) -> None:
        columns = [(index, self._seen[name], values[name].to_pylist()) for name, index in self._indexes.items()]
        for row in range(len(cells.lines)) if columns else ():
            if row in faults:
                continue
            for index, seen, column in columns:
                if column[row] is not None and column[row] in seen:
                    faults.add_row(row, index, "duplicate", f"{quote(cells.columns[index][row].as_py())} occurs in an earlier row too")
            if row not in faults:
                for _, seen, column in columns:
                    if column[row] is not None:
                        seen.add(column[row])


def _compare(values: pa.Array, bound: Any, key: str) -> pa.Array:
    compare = pc.less if key == "min" else pc.greater
    if isinstance(bound, datetime):
        return compare(values, pa.scalar(bound.astimezone(UTC) if bound.tzinfo else bound, values.type))
    if isinstance(bound, date):
        return compare(values, pa.scalar(bound))
    if pa.types.is_floating(values.type):
        return compare(values, float(bound))
    if pa.types.is_integer(values.type):
        values = values.cast(pa.decimal128(38, DECIMAL_SCALE))
    return compare(values, pa.scalar(_fit_bound(bound, key, values.type.scale), values.type))


def _fit_bound(bound: Decimal, key: str, scale: int) -> Decimal:
    """The nearest number within the bound that the column can hold."""
    with localcontext(prec=2 * arrow_types.MAX_PRECISION):
        most = (Decimal(10) ** arrow_types.MAX_PRECISION - 1).scaleb(-scale)
        bound = max(-most, min(most, bound))
        return bound.quantize(Decimal(1).scaleb(-scale), ROUND_CEILING if key == "min" else ROUND_FLOOR)
