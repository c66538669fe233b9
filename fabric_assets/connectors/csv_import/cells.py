"""What every kind of dropped file is read into: a header, and cells as texts beside the rows that could not be split into cells."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.imports import ImportLimits
from fabric_assets.errors import QuarantinedFile


@dataclass(frozen=True)
class BadRow:
    """Args:
    cells: of the header's columns; None where the row is not split into them, and `text` is the row.
    """

    line: int
    column: int | None
    reason: str
    message: str
    cells: Sequence[str | None] | None = None
    text: str = ""


@dataclass(frozen=True)
class Cells:
    """Rows of a file, in order.

    Args:
        columns: of the header, as texts; an empty or blank cell is null. None of the rows is blank all over.
        lines: of the rows, from 1, as an editor or a spreadsheet counts them.
        bad: rows that are not among them.
        natives: per column the cells that were no text in the file (a workbook's numbers and dates); None where all were.
    """

    columns: list[pa.Array]
    lines: pa.Array
    bad: list[BadRow]
    natives: Sequence[pa.Array | None] = ()


def check_header(cells: Sequence[str], limits: ImportLimits) -> list[str]:
    """The columns' names, blanks trimmed; empty for columns without one, which may only hold empty cells.

    Raises:
        QuarantinedFile: there are too many, or two are the same.
    """
    names = [" ".join(cell.split()) for cell in cells]
    if len(names) > limits.columns:
        raise QuarantinedFile(
            "too_many_columns", f"its header has more than {limits.columns} columns", remedy="drop columns, or raise the source's limits.columns"
        )
    if long := next((name for name in names if len(name) > limits.name_chars), None):
        raise QuarantinedFile("long_name", f"the column {long[:40]!r}… has a name of more than {limits.name_chars} characters", remedy="shorten it")
    seen: dict[str, str] = {}
    for name in filter(None, names):
        if name.casefold() in seen:
            raise QuarantinedFile("duplicate_header", f"its header names {name!r} twice", remedy="give each column its own name")
        seen[name.casefold()] = name
    return names


def drop_blanks(cells: Cells) -> Cells:
    """Make blank cells null, and leave out rows without any other."""
    columns = [pc.if_else(blank, None, column) if pc.any(blank := pc.utf8_is_space(column)).as_py() else column for column in cells.columns]
    empty = None
    for column in columns:
        if not column.null_count:
            return Cells(columns, cells.lines, cells.bad, cells.natives)
        empty = pc.is_null(column) if empty is None else pc.and_(empty, pc.is_null(column))
    if empty is None or not pc.any(empty).as_py():
        return Cells(columns, cells.lines, cells.bad, cells.natives)
    kept = pc.invert(empty)
    natives = [None if mask is None else mask.filter(kept) for mask in cells.natives]
    return Cells([column.filter(kept) for column in columns], cells.lines.filter(kept), cells.bad, natives)
