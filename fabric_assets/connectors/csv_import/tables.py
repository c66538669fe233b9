"""A dropped CSV file -> its header, then its cells as texts with their lines, a few megabytes at a time; nothing shifts a column.

pyarrow reads a block whose quotes are all in place, which is seen from what stands beside each of them; for a block that has
anything else, or a row of another length, the records are split one by one.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from fabric_assets.config.sources.imports import CsvStream, ImportLimits
from fabric_assets.connectors.csv_import.cells import BadRow, Cells, check_header, count_from, drop_blanks
from fabric_assets.connectors.csv_import.content import BLOCK, detect_encoding, open_content, read_blocks
from fabric_assets.connectors.csv_import.dialect import Dialect, detect_dialect, read_header
from fabric_assets.connectors.csv_import.records import Record
from fabric_assets.errors import QuarantinedFile

LONGEST_LINE = 16 * 1024 * 1024
_TRIES = 64
_WORTH_THREADS = 256 * 1024


@dataclass(frozen=True)
class TextFile:
    """A CSV file whose header has been read.

    Args:
        block: bytes that are read at a time.
    """

    path: Path
    packed: bool
    dialect: Dialect
    header: list[str]
    limits: ImportLimits
    has_header: bool = True
    block: int = BLOCK

    def read(self) -> Iterator[Cells]:
        """Read the rows.

        Raises:
            QuarantinedFile: the rest of the file is none.
        """
        with open_content(self.path, packed=self.packed, limit=self.limits.bytes) as content:
            reader = _Reader(self.dialect, len(self.header), self.limits, has_header=self.has_header)
            yield from reader.read(read_blocks(content, self.dialect.encoding, self.block))


def open_text(path: Path, stream: CsvStream, limits: ImportLimits, *, packed: bool, tabs: bool) -> TextFile:
    """Find out how a file is written, and read its header.

    Raises:
        QuarantinedFile: it cannot be told, or is no CSV.
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
    text = _decode(head)
    dialect, text = detect_dialect(text, stream, limits, encoding=encoding, whole=whole, tabs=tabs)
    header = read_header(dialect, text, limits, whole=whole).cells or []
    if declared := stream.get_declared_header():
        return TextFile(path, packed, dialect, declared, limits, has_header=False)
    return TextFile(path, packed, dialect, check_header(header, limits), limits)


class _Reader:
    def __init__(self, dialect: Dialect, width: int, limits: ImportLimits, *, has_header: bool) -> None:
        self._dialect, self._width, self._limits = dialect, width, limits
        self._grammar = dialect.build_grammar(limits)
        self._newline, self._quote = dialect.newline.encode(), dialect.quote.encode()
        self._line, self._header = 1, has_header

    def read(self, blocks: Iterator[bytes]) -> Iterator[Cells]:
        rest, block = b"", next(blocks, b"")
        while block or rest:
            following = next(blocks, b"") if block else b""
            rest, cells = self._take(rest + block, final=not following)
            block = following
            if len(rest) > LONGEST_LINE:
                raise QuarantinedFile("line_too_long", f"line {self._line} has more than {LONGEST_LINE:,} bytes")
            if cells is not None:
                yield cells

    def _take(self, piece: bytes, *, final: bool) -> tuple[bytes, Cells | None]:
        """Read the records that are whole; the rest is left for later."""
        while self._line < self._dialect.first_line and piece:
            # Lines before the header are no records: their quotes mean nothing.
            _, newline, rest = piece.partition(self._newline)
            if not newline and not final:
                return piece, None
            self._line, piece = self._line + 1, rest
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
            if any(cell.strip() for cell in record.cells or ()):
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

    # --- blocks as they should be

    def _read_fast(self, piece: bytes) -> Cells | None:
        quoted = self._quote in piece
        if b"\0" in piece or not _is_utf8(piece) or self._has_stray(piece) or (quoted and not self._is_well_quoted(piece)):
            return None
        skipped: list[tuple[int, str]] = []
        try:
            table = self._parse(piece, quoted=quoted)
        except pa.ArrowInvalid:
            # Rows of another length: read the others, one thread telling which they are.
            try:
                table = self._parse(piece, quoted=quoted, skipped=skipped)
            except pa.ArrowInvalid:
                return None
        columns = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]
        if any(_has_longer(column, self._limits.field_chars) for column in columns):
            return None
        lines = self._number_lines(piece, columns, table.num_rows + len(skipped), quoted=quoted and not skipped)
        if lines is None:
            return None
        bad = [fault for number, text in skipped if (fault := self._find_ragged(text, self._line + number - 1)) is not None]
        if skipped:
            lines = lines.filter(pc.invert(pc.is_in(lines, value_set=pa.array([self._line + number - 1 for number, _ in skipped], pa.int64()))))
        return drop_blanks(Cells(columns, lines, bad))

    def _parse(self, piece: bytes, *, quoted: bool, skipped: list[tuple[int, str]] | None = None) -> pa.Table:
        """Read a block; the rows of another length than the header are noted with their numbers, or an error."""
        names = [str(number) for number in range(self._width)]

        def skip(row: pcsv.InvalidRow) -> str:
            assert skipped is not None
            skipped.append((row.number, row.text))
            return "skip"

        return pcsv.read_csv(
            pa.py_buffer(piece),
            pcsv.ReadOptions(column_names=names, use_threads=skipped is None and len(piece) >= _WORTH_THREADS),
            pcsv.ParseOptions(
                delimiter=self._dialect.delimiter,
                quote_char=self._dialect.quote if quoted else False,
                newlines_in_values=quoted,
                invalid_row_handler=None if skipped is None else skip,
            ),
            pcsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True, check_utf8=False
            ),
        )

    def _find_ragged(self, text: str, line: int) -> BadRow | None:
        record = next(self._grammar.scan(text, line, final=True))
        return None if self._is_blank(record) else self._find_fault(record)

    def _has_stray(self, piece: bytes) -> bool:
        if self._newline == b"\r":
            return b"\n" in piece
        return piece.count(b"\r") != piece.count(b"\r\n")

    def _is_well_quoted(self, piece: bytes) -> bool:
        """Whether each opening quote begins a field, and each closing one ends it; a doubled quote closes and opens again."""
        size = len(piece)
        array = pa.Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(piece)])
        found = pc.indices_nonzero(pc.equal(array, pa.scalar(self._quote[0], pa.uint8()))).cast(pa.int64())
        if len(found) % 2:
            return False
        even = pc.multiply(count_from(0, len(found) // 2), 2)
        opened, closed = found.take(even), found.take(pc.add(even, 1))
        ends = pa.array([*self._dialect.delimiter.encode(), *b"\r\n", *self._quote], pa.uint8())
        before, after = pc.subtract(opened, 1), pc.add(closed, 1)
        before, after = before.filter(pc.greater_equal(before, 0)), after.filter(pc.less(after, size))
        return pc.all(pc.is_in(array.take(before), value_set=ends)).as_py() and pc.all(pc.is_in(array.take(after), value_set=ends)).as_py()

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

    # --- all others

    def _read_slowly(self, piece: bytes, *, final: bool) -> tuple[bytes, Cells | None]:
        text = _decode(piece)
        rows: list[list[str | None]] = []
        lines: list[int] = []
        bad: list[BadRow] = []
        end = 0
        for record in self._grammar.scan(text, self._line, final=final):
            end = record.end
            if self._is_blank(record):
                continue
            if (fault := self._find_fault(record)) is not None:
                bad.append(fault)
            else:
                rows.append([cell or None for cell in record.cells or ()])
                lines.append(record.line)
        self._line += text.count(self._dialect.newline, 0, end)
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [pa.array([], pa.string())] * self._width
        return text[end:].encode("utf-8", "surrogateescape"), drop_blanks(Cells(columns, pa.array(lines, pa.int64()), bad))

    def _is_blank(self, record: Record) -> bool:
        # Of a record with too many cells only some are known.
        known = record.cells is not None and len(record.cells) <= self._limits.columns
        return known and not any(cell and not cell.isspace() for cell in record.cells or ())

    def _find_fault(self, record: Record) -> BadRow | None:
        raw = record.text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if record.cells is None:
            return BadRow(record.line, None, record.reason, record.message, text=raw)
        if len(record.cells) != self._width:
            count = len(record.cells) if len(record.cells) <= self._limits.columns else f"more than {self._limits.columns}"
            return BadRow(record.line, None, "ragged_row", f"line {record.line} has {count} fields, the header {self._width}", text=raw)
        if len(record.text) > self._limits.field_chars:
            for index, cell in enumerate(record.cells):
                if len(cell) > self._limits.field_chars:
                    return BadRow(record.line, index, "field_too_long", f"it has more than {self._limits.field_chars} characters", record.cells)
        return None


def _has_longer(column: pa.Array, limit: int) -> bool:
    # Bytes are at least as many as characters, and cost nothing to count.
    return (pc.max(pc.binary_length(column)).as_py() or 0) > limit and pc.max(pc.utf8_length(column)).as_py() > limit


def _is_utf8(piece: bytes) -> bool:
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")
