"""A dropped CSV file -> its header, then its cells as texts with their lines, a few megabytes at a time. No value moves to another column.

pyarrow reads a well-quoted block: the characters beside each quote show that it opens or closes a field. Any other block, or one with
a row of another length, is split record by record. The lines that `fabric rejects list` shows are counted here, in `_Reader._line`.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.imports import CsvStream, ImportLimits, fold
from fabric_assets.connectors.csv.arrow_blocks import count_from, has_longer, is_utf8, is_well_quoted, parse
from fabric_assets.connectors.csv.dialect import LINE_END, Dialect
from fabric_assets.connectors.csv.encodings import show_bytes
from fabric_assets.connectors.csv.records import UNCLOSED_QUOTE, Record
from fabric_assets.connectors.csv_import.cells import BadRow, Cells, check_header, drop_blanks
from fabric_assets.connectors.csv_import.content import BLOCK, detect_encoding, open_content, read_blocks
from fabric_assets.connectors.csv_import.dialect import FAULTS, TextDialect, build_grammar, build_unclosed, detect_dialect
from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows.column_names import drop_hidden

LONGEST_LINE = 16 * 1024 * 1024
_TRIES = 64
_MOST_EMPTY = 64
_LINE_END = re.compile(LINE_END.encode())


@dataclass(frozen=True)
class TextFile:
    """A CSV file whose header has been read.

    Args:
        block: the number of bytes to read at a time.
    """

    path: Path
    packed: bool
    dialect: TextDialect
    header: list[str]
    limits: ImportLimits
    has_header: bool = True
    block: int = BLOCK

    def read(self) -> Iterator[Cells]:
        """Read the rows.

        Raises:
            QuarantinedFile: the rest of the file is not valid CSV.
        """
        assert self.dialect.text
        with open_content(self.path, packed=self.packed, limit=self.limits.bytes) as content:
            reader = _Reader(self.dialect.text, self.header, self.limits, has_header=self.has_header)
            yield from reader.read(read_blocks(content, self.dialect.encoding, self.block))


def open_text(path: Path, stream: CsvStream, limits: ImportLimits, *, packed: bool, tabs: bool) -> TextFile:
    """Find out how a file is written, and read its header.

    Raises:
        QuarantinedFile: its dialect is not certain, or it is not CSV.
    """
    encoding = stream.encoding
    if encoding is None:
        with open_content(path, packed=packed, limit=limits.bytes) as content:
            encoding = detect_encoding(content)
    with open_content(path, packed=packed, limit=limits.bytes) as content:
        blocks, head = read_blocks(content, encoding), b""
        while len(head) < BLOCK and (block := next(blocks, None)):
            head += block
        whole = next(blocks, None) is None
    dialect, header = detect_dialect(_decode(head), stream, limits, encoding=encoding, whole=whole, tabs=tabs)
    if declared := stream.get_declared_header():
        # As in `files`, a first line with the declared names is not a row.
        is_named = not isinstance(stream.header, bool) and list(map(_spell, header)) == list(map(_spell, declared))
        return TextFile(path, packed, dialect, declared, limits, has_header=is_named)
    return TextFile(path, packed, dialect, check_header(header, limits), limits)


def _spell(name: str) -> str:
    return fold(drop_hidden(name))


class _Reader:
    def __init__(self, dialect: Dialect, header: Sequence[str], limits: ImportLimits, *, has_header: bool) -> None:
        self._dialect, self._width, self._limits = dialect, len(header), limits
        # A row may lack the unnamed columns at the end.
        self._least = max((number for number, name in enumerate(header, start=1) if name), default=len(header))
        self._grammar = build_grammar(dialect, limits)
        self._newline, self._quote = dialect.newline.encode(), dialect.quote.encode()
        self._line, self._header = 1, has_header

    def read(self, blocks: Iterator[bytes]) -> Iterator[Cells]:
        rest, block = b"", next(blocks, b"")
        while block or rest:
            following = next(blocks, b"") if block else b""
            rest, cells = self._read_piece(rest + block, final=not following)
            block = following
            if len(rest) > LONGEST_LINE:
                raise QuarantinedFile("line_too_long", f"line {self._line} has more than {LONGEST_LINE:,} bytes")
            if cells is not None:
                yield cells

    def _read_piece(self, piece: bytes, *, final: bool) -> tuple[bytes, Cells | None]:
        """Read the complete records, and return the rest for the next call."""
        while self._line < self._dialect.first_line and piece:
            # Lines before the header are not records: their quotes mean nothing.
            end = _LINE_END.search(piece)
            if not end and not final:
                return piece, None
            self._line, piece = self._line + 1, piece[end.end() :] if end else b""
        if self._header:
            return self._skip_header(piece, final=final), None
        if piece:
            cut = len(piece) if final else self._find_cut(piece)
            if cut is not None and (cells := self._read_fast(piece[:cut])) is not None:
                self._line += piece.count(self._newline, 0, cut)
                return piece[cut:], cells
        return self._read_slowly(piece, final=final)

    def _skip_header(self, piece: bytes, *, final: bool) -> bytes:
        text = _decode(piece)
        for record in self._grammar.scan(text, self._line, final=final):
            if not record.is_blank:
                self._header = False
                self._line += text.count(self._dialect.newline, 0, record.end)
                return text[record.end :].encode("utf-8", "surrogateescape")
        return piece

    def _find_cut(self, piece: bytes) -> int | None:
        """The end of the last line that does not end within quotes."""
        cut = piece.rfind(self._newline) + 1
        quotes = piece.count(self._quote, 0, cut)
        for _ in range(_TRIES):
            if not cut:
                return None
            if quotes % 2 == 0:
                return cut
            earlier = piece.rfind(self._newline, 0, cut - 1) + 1
            quotes -= piece.count(self._quote, earlier, cut)
            cut = earlier
        return None

    # --- well-formed blocks

    def _read_fast(self, piece: bytes) -> Cells | None:
        quoted = self._quote in piece
        if b"\0" in piece or not is_utf8(piece) or self._has_stray(piece) or (quoted and not is_well_quoted(piece, self._dialect)):
            return None
        skipped: list[tuple[int, str]] = []
        try:
            columns = self._parse_any(piece, quoted=quoted)
        except pa.ArrowInvalid:
            # Some rows have another length: read the others. With one thread the numbers of the skipped rows are known.
            try:
                columns = parse(piece, self._dialect, self._width, quoted=quoted, skipped=skipped)
            except pa.ArrowInvalid:
                return None
        if columns is None or any(has_longer(column, self._limits.field_chars) for column in columns):
            return None
        count = len(columns[0]) + len(skipped)
        lines = self._number_lines(piece, columns, count, quoted=quoted and not skipped)
        if lines is None:
            return None
        bad: list[BadRow] = []
        for number, text in skipped:
            record = next(self._grammar.scan(text, self._line + number - 1, final=True))
            if record.is_blank:
                continue
            found = self._check_record(record)
            if not isinstance(found, BadRow):
                return None  # It is a valid row in spite of its length.
            bad.append(found)
        if skipped:
            lines = lines.filter(pc.invert(pc.is_in(lines, value_set=pa.array([self._line + number - 1 for number, _ in skipped], pa.int64()))))
        return drop_blanks(Cells(columns, lines, bad))

    def _parse_any(self, piece: bytes, *, quoted: bool) -> list[pa.Array] | None:
        """Read a block whose rows all have one length: the header's, or another one if the surplus cells are empty. None if they are not."""
        try:
            return parse(piece, self._dialect, self._width, quoted=quoted)
        except pa.ArrowInvalid:
            length = piece[: piece.find(self._newline)].count(self._dialect.delimiter.encode()) + 1
            if not (self._least <= length < self._width or self._width < length <= self._width + _MOST_EMPTY):
                raise
        columns = parse(piece, self._dialect, length, quoted=quoted)
        if any(column.null_count < len(column) for column in columns[self._width :]) or (quoted and length > self._width):
            return None
        return [*columns[: self._width], *(pa.nulls(len(columns[0]), pa.string()) for _ in range(self._width - length))]

    def _has_stray(self, piece: bytes) -> bool:
        if self._newline == b"\r":
            return b"\n" in piece
        return piece.count(b"\r") != piece.count(b"\r\n")

    def _number_lines(self, piece: bytes, columns: Sequence[pa.Array], count: int, *, quoted: bool) -> pa.Array | None:
        breaks = piece.count(self._newline) + (not piece.endswith(self._newline))
        if breaks == count:
            return count_from(self._line, count)
        inner = pa.repeat(pa.scalar(0, pa.int64()), count)
        if quoted:
            for column in columns:
                inner = pc.add(inner, pc.fill_null(pc.count_substring(column, self._dialect.newline), 0).cast(pa.int64()))
        if breaks != count + (pc.sum(inner).as_py() or 0):
            # Blank lines, which pyarrow leaves out.
            return None
        before = pc.subtract(pc.cumulative_sum(pc.add(inner, 1)), pc.add(inner, 1))
        return pc.add(before, self._line)

    # --- other blocks

    def _read_slowly(self, piece: bytes, *, final: bool) -> tuple[bytes, Cells | None]:
        text = _decode(piece)
        rows: list[list[str | None]] = []
        lines: list[int] = []
        bad: list[BadRow] = []
        end = 0
        for record in self._grammar.scan(text, self._line, final=final):
            end = record.end
            if record.is_blank:
                continue
            found = self._check_record(record)
            if isinstance(found, BadRow):
                bad.append(found)
            else:
                rows.append([cell or None for cell in found])
                lines.append(record.line)
        self._line += text.count(self._dialect.newline, 0, end)
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [pa.array([], pa.string())] * self._width
        return text[end:].encode("utf-8", "surrogateescape"), drop_blanks(Cells(columns, pa.array(lines, pa.int64()), bad))

    def _check_record(self, record: Record) -> list[str | None] | BadRow:
        """Fit a record's cells to the header's columns, or say what is wrong with it.

        Raises:
            QuarantinedFile: a quote in it is never closed.
        """
        if record.reason == UNCLOSED_QUOTE:
            raise build_unclosed(record)
        if record.cells is None:
            return _build_bad(record, record.reason, f"{record.where}: {FAULTS[record.reason]}")
        if "\0" in record.text:
            return _build_bad(record, "nul_byte", f"line {record.line} holds a NUL byte")
        cells = self._grammar.fit(record, self._least, self._width)
        if cells is None:
            count = len(record.cells) if len(record.cells) <= self._limits.columns else f"more than {self._limits.columns}"
            return _build_bad(record, "ragged_row", f"line {record.line} has {count} fields, the header {self._width}")
        if len(record.text) > self._limits.field_chars:
            for index, cell in enumerate(cells):
                if cell and len(cell) > self._limits.field_chars:
                    return BadRow(record.line, index, "field_too_long", f"it has more than {self._limits.field_chars} characters", cells)
        return cells


def _build_bad(record: Record, reason: str, message: str) -> BadRow:
    return BadRow(record.line, None, reason, message, text=show_bytes(record.text))


def _decode(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")
