"""Reads one sheet of a workbook in a process of its own, which may use so much memory and time and has nothing else to lose.

A workbook of a kilobyte can name a cell in row 1,048,576, or one long text a million times; the reader allocates for all of it and
aborts its process. Writes one JSON array a row to standard output: texts as they are, and what was no text in the sheet (numbers,
dates, truth values) as an array around its text. The first line names the sheets, the second one says
how many empty columns stand before a row's first cell.
"""

import datetime
import json
import resource
import sys
from collections.abc import Sequence
from typing import Any

MEMORY = 768 * 1024 * 1024
SECONDS = 120
NO_SHEET, NO_WORKBOOK = 3, 4


def main(path: str, sheet: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import python_calamine as calamine

    try:
        book = calamine.CalamineWorkbook.from_path(path)
        names = [facts.name for facts in book.sheets_metadata if facts.typ == calamine.SheetTypeEnum.WorkSheet]
        print(json.dumps(names))
        if not names or (sheet and sheet not in names):
            return NO_SHEET
        rows = book.get_sheet_by_name(sheet or names[0])
    except (calamine.CalamineError, OSError):
        return NO_WORKBOOK
    print((rows.start or (0, 0))[1])
    for row in rows.iter_rows():
        print(json.dumps([_build_cell(cell) for cell in row]))
    return 0


def _build_cell(cell: Any) -> str | Sequence[str] | None:
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, bool):
        return [str(cell).lower()]
    if isinstance(cell, float):
        return [str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)]
    if isinstance(cell, datetime.datetime):
        return [cell.isoformat(" ")]
    return [cell.isoformat() if isinstance(cell, datetime.date | datetime.time) else str(cell)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
