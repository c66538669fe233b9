"""A dropped .xlsx workbook -> the header of one sheet, then its cells as texts with their rows' numbers.

A worker process reads it (`csv_import/sheet_worker.py`). Before that, its parts are unpacked here once and discarded, to check their size.
"""

import json
import posixpath
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from fabric_assets.config.sources.imports import CsvStream, ImportLimits
from fabric_assets.connectors.csv_import import sheet_worker as import_sheet_worker
from fabric_assets.connectors.csv_import.cells import BadRow, Cells, check_header, drop_blanks
from fabric_assets.connectors.csv_import.content import BLOCK, build_size_error, open_regular
from fabric_assets.connectors.csv_import.dialect import WORKBOOK, TextDialect
from fabric_assets.errors import InternalError, QuarantinedFile
from fabric_assets.rows.value_forms import CURRENT

_ROWS = 10_000
_PARTS = 10_000
_FAULTS = {
    import_sheet_worker.ERROR: "the sheet shows an error there, such as #N/A, or a number that is not a date: below zero, or 1900-02-29",
    import_sheet_worker.NO_RESULT: "its formula was saved without a result: open the workbook in a spreadsheet program, and save it there",
}

Row = list[Any]


@dataclass
class SheetFile:
    """A sheet whose header has been read; its rows can be read once."""

    header: list[str]
    dialect: TextDialect
    limits: ImportLimits
    _rows: Iterator[Row]
    _line: int = 1

    def read(self) -> Iterator[Cells]:
        """Read the rows.

        Raises:
            QuarantinedFile: the sheet takes too much memory or time.
        """
        rows: list[Row] = []
        for row in self._rows:
            rows.append(row)
            if len(rows) == _ROWS:
                yield self._build(rows)
                rows = []
        yield self._build(rows)

    def _build(self, rows: list[Row]) -> Cells:
        first, self._line = self._line, self._line + len(rows)
        bad, good, lines = [], [], []
        for line, row in enumerate(rows, start=first):
            fault = self._find_fault(line, row)
            if fault is not None:
                bad.append(fault)
            else:
                good.append(row)
                lines.append(line)
        columns = [list(column) for column in zip(*good, strict=True)] or [[]] * len(self.header)
        texts = [pa.array([_get_text(cell) for cell in column], pa.string()) for column in columns]
        natives = [pa.array([isinstance(cell, list) for cell in column], pa.bool_()) for column in columns]
        return drop_blanks(Cells(texts, pa.array(lines, pa.int64()), bad, natives))

    def _find_fault(self, line: int, row: Row) -> BadRow | None:
        texts = [_get_text(cell) for cell in row]
        for index, cell in enumerate(row):
            if isinstance(cell, list) and len(cell) > 1:
                return BadRow(line, index, cell[1], _FAULTS[cell[1]], texts)
        for index, text in enumerate(texts):
            if text and len(text) > self.limits.field_chars:
                return BadRow(line, index, "field_too_long", f"it has more than {self.limits.field_chars} characters", texts)
            if text and "\0" in text:
                return BadRow(line, index, "nul_byte", "it holds a NUL character", texts)
        return None


def open_sheet(path: Path, stream: CsvStream, limits: ImportLimits, *, value_forms: int = CURRENT) -> SheetFile:
    """Read the header of a workbook's sheet: its first row that is not blank, after the rows that the stream skips.

    Args:
        value_forms: the version of the forms in which the stream's values are written.

    Raises:
        QuarantinedFile: it is not a workbook, lacks the sheet, or unpacks to more than the limit.
    """
    part = _screen(path, stream.sheet or "", limits)
    rows = _run_worker(path, stream.sheet or "", part, value_forms)
    names = stream.get_declared_header()
    for line, row in enumerate(rows, start=1):
        if line > stream.lines_before_header and any(text and text.strip() for text in map(_get_text, row)):
            if names:
                header = names + [""] * (len(row) - len(names))
                filled = (each + [None] * (len(header) - len(each)) for each in chain([row], rows))
                return SheetFile(header, TextDialect(WORKBOOK, mark=stream.decimal), limits, filled, line)
            cells = [_get_text(cell) or "" for cell in row]
            width = len(cells)
            while not cells[-1].strip():
                cells.pop()
            header = check_header(cells, limits)
            return SheetFile(header + [""] * (width - len(header)), TextDialect(WORKBOOK, mark=stream.decimal), limits, rows, line + 1)
    raise QuarantinedFile("empty_file", "the sheet is empty")


def _get_text(cell: Any) -> str | None:
    return cell[0] if isinstance(cell, list) else cell


def _run_worker(path: Path, sheet: str, part: str, value_forms: int) -> Iterator[Row]:
    command = [sys.executable, "-I", import_sheet_worker.__file__, str(path), sheet, part, str(value_forms)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env={}) as worker,
    ):
        assert worker.stdout is not None
        try:
            names = worker.stdout.readline()
            for line in worker.stdout:
                if line.endswith(b"\n"):
                    yield json.loads(line)
            code = worker.wait()
        finally:
            worker.kill()
        log.seek(0)
        if code == import_sheet_worker.OWN_FAULT:
            raise InternalError(**json.load(log))
    if code == import_sheet_worker.NO_SHEET:
        known = ", ".join(json.loads(names or b"[]")[:20]) or "none"
        raise QuarantinedFile("no_sheet", f"it has no sheet {sheet!r}; it has: {known}", remedy="name the sheet as the stream does")
    if code == import_sheet_worker.NO_WORKBOOK:
        raise _build_no_workbook()
    if code:
        raise QuarantinedFile("too_large", "its sheet takes more memory or time to open than a workbook may", remedy="save the sheet as CSV")


def _build_no_workbook() -> QuarantinedFile:
    return QuarantinedFile("bad_workbook", "it is not an .xlsx workbook, is damaged or has a password", remedy="save it as .xlsx without a password, or as CSV")


# --- parts of the package


def _screen(path: Path, sheet: str, limits: ImportLimits) -> str:
    """Check the size of all parts, and find the sheet's part."""
    left = limits.bytes
    try:
        with open_regular(path, limit=limits.bytes) as file, zipfile.ZipFile(file) as book:
            parts = book.infolist()
            if len(parts) > _PARTS:
                raise QuarantinedFile("bad_workbook", f"it has more than {_PARTS:,} parts")
            for part in parts:
                left = _read_part(book, part, left, limits)
            return _find_part(book, sheet)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ElementTree.ParseError, OSError):
        raise _build_no_workbook() from None


def _find_part(book: zipfile.ZipFile, sheet: str) -> str:
    """Find the sheet's part by the package's relations, in the namespaces of Transitional or Strict Open XML."""
    names = {_normalize(name): name for name in reversed(book.namelist())}
    top = _read_relations(book, names, "/_rels/.rels", "/")
    workbook = next((target for kind, target in top.values() if kind.endswith("/officeDocument")), "/xl/workbook.xml")
    folder = posixpath.dirname(workbook)
    relations = _read_relations(book, names, f"{folder}/_rels/{posixpath.basename(workbook)}.rels", folder)
    if workbook not in names:
        raise zipfile.BadZipFile
    for entry in _parse(book, names[workbook]).iter():
        relation = next((value for key, value in entry.attrib.items() if key.endswith("/relationships}id")), "")
        kind, target = relations.get(relation, ("", ""))
        if entry.tag.endswith("}sheet") and kind.endswith("/worksheet") and sheet in ("", entry.get("name")):
            return names.get(target, "")
    return ""


def _read_relations(book: zipfile.ZipFile, names: Mapping[str, str], part: str, folder: str) -> dict[str, tuple[str, str]]:
    """The type and the target of each relation of a part; empty if it has no list of relations."""
    if part not in names:
        return {}
    entries = _parse(book, names[part])
    return {entry.get("Id", ""): (entry.get("Type", ""), _normalize(posixpath.join(folder, entry.get("Target", "").replace("\\", "/")))) for entry in entries}


def _normalize(name: str) -> str:
    """A part's name in the form for comparison: from the root, in lower case. Some programs write backslashes."""
    return posixpath.normpath(posixpath.join("/", name.replace("\\", "/"))).lower()


def _parse(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with book.open(name) as part:
        text = part.read(BLOCK)
        if part.read(1):
            raise zipfile.BadZipFile
    if b"<!" in text.replace(b"<!--", b"") or b"\0" in text:
        # A document type, whose entities could multiply.
        raise zipfile.BadZipFile
    return ElementTree.fromstring(text)  # noqa: S314


def _read_part(book: zipfile.ZipFile, part: zipfile.ZipInfo, left: int, limits: ImportLimits) -> int:
    with book.open(part) as content:
        while block := content.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise build_size_error(limits.bytes)
    return left
