"""The form into which each kind of dropped file is read: a header, cells as texts, and rows that could not be split into cells."""

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
    """A row that could not be read.

    Args:
        cells: of the header's columns; None if the row was not split into cells, and `text` is the row.
    """

    line: int
    column: int | None
    reason: str
    message: str
    cells: Sequence[str | None] | None = None
    text: str = ""


@dataclass(frozen=True)
class Cells:
    """A batch of a file's rows, in order.

    Args:
        columns: of the header, as texts; an empty or blank cell is null. Blank rows are left out.
        lines: of the rows, from 1, as an editor or a spreadsheet counts them.
        bad: rows that could not be read.
        natives: per column, which cells were not text in the file (a workbook's numbers and dates); None if all were text.
    """

    columns: list[pa.Array]
    lines: pa.Array
    bad: list[BadRow]
    natives: Sequence[pa.Array | None] = ()


def check_header(cells: Sequence[str], limits: ImportLimits) -> list[str]:
    """Check and trim the columns' names. A column without a name gets an empty one, and may hold only empty cells.

    Raises:
        QuarantinedFile: there are too many names, or two are the same.
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
    """Make blank cells null, and leave out blank rows."""
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
