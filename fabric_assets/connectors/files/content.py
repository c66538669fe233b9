"""A file of a `files` source -> a file of UTF-8 text for its reader: unpacked, decoded, and without the lines to skip.

A plain UTF-8 file is read without a copy. A file of another format is refused, and the error names the format: a text reader would find one row in it.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.sources.files import FileLimits, FileStream
from fabric_assets.connectors.csv.dialect import LINE_END, find_beginning
from fabric_assets.connectors.csv.encodings import decode, find_mark, get_errors
from fabric_assets.connectors.csv.foreign_formats import find_foreign, find_markup, is_json
from fabric_assets.connectors.files.json_array import find_array, split_array
from fabric_assets.connectors.files.listing import FetchedFile, refuse_size
from fabric_assets.errors import DataError
from fabric_assets.rows.wide_text import find_wide_encoding, guess_by_zeros

_BLOCK = 1024 * 1024
_HEAD = 64 * 1024
# A Zstandard file may begin with a skippable frame, as pzstd writes it.
_PACKED = {"gzip": re.compile(rb"\x1f\x8b"), "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)}
_TEXTS = {"csv": "CSV", "jsonl": "JSON Lines", "json": "JSON"}
_BAD_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Content:
    """A file that its reader can read.

    Args:
        encoding: of the original, for messages.
        skipped: lines that were left out at its beginning.
        delimiter: that a CSV file names in a line `sep=;`; empty without such a line.
        is_array: its lines are the elements of a JSON array.
        is_copy: it is a copy, which need not be kept.
    """

    path: Path
    encoding: str = "utf-8"
    skipped: int = 0
    delimiter: str = ""
    is_array: bool = False
    is_copy: bool = False


def prepare(file: FetchedFile, stream: FileStream, limits: FileLimits, where: str) -> Content:
    """Find how a file is written, and make a copy if its reader could not read the original.

    Raises:
        DataError: it is not of the stream's format, or larger than the limits.
    """
    return _Preparation(file, stream, limits, f"{where}: the file {file.source.shown}").run()


class _Preparation:
    def __init__(self, file: FetchedFile, stream: FileStream, limits: FileLimits, name: str) -> None:
        self._file, self._stream, self._limits, self._name = file, stream, limits, name
        self._target = file.path.with_suffix(".text")
        self._has_bad_bytes = False
        with file.path.open("rb") as opened:
            self._packing = self._find_packing(opened.read(8))

    def run(self) -> Content:
        if self._stream.format == "parquet":
            return self._write_bytes() if self._packing else Content(self._file.path)
        head = self._read_head()
        self._refuse_foreign(head)
        encoding = self._stream.encoding or find_mark(head) or "utf-8"
        text = self._decode_head(head, encoding)
        self._refuse_markup(text)
        beginning = find_beginning(text, self._stream.skip_rows) if self._stream.format == "csv" else None
        skipped = beginning.skipped if beginning else 0
        is_array = self._stream.format == "json" or (self._stream.format == "jsonl" and find_array(text, is_whole=len(head) < _HEAD))
        is_copy = bool(self._packing or skipped or is_array or encoding not in ("utf-8", "utf-8-sig"))
        if is_copy:
            self._write_text(encoding, skipped, is_array=is_array)
        path = self._target if is_copy else self._file.path
        return Content(path, encoding, skipped, beginning.hint if beginning else "", is_array, is_copy)

    # --- bytes

    def _find_packing(self, head: bytes) -> str:
        wanted = self._stream.compression
        found = next((name for name, magic in _PACKED.items() if magic.match(head)), "")
        if wanted == "none":
            return ""
        if wanted not in ("auto", found) and self._file.source.size:
            raise DataError(f"{self._name} is not a {wanted} file, as the stream's compression says", remedy="leave out compression, or correct it")
        return found

    def _read_blocks(self) -> Iterator[bytes]:
        size = 0
        try:
            with self._open() as opened:
                while block := opened.read(_BLOCK):
                    size += len(block)
                    refuse_size(size, self._limits.bytes, self._name)
                    yield block
        except (gzip.BadGzipFile, zlib.error, EOFError, OSError) as error:
            if not self._packing:
                raise
            raise DataError(f"{self._name} is not a complete {self._packing} file ({type(error).__name__})", remedy="upload it again") from None

    def _open(self) -> Any:
        if self._packing == "zstd":
            import pyarrow as pa

            return pa.CompressedInputStream(pa.OSFile(str(self._file.path)), "zstd")
        return gzip.open(self._file.path) if self._packing else self._file.path.open("rb")

    def _read_head(self) -> bytes:
        head = b""
        for block in self._read_blocks():
            head += block
            if len(head) >= _HEAD:
                break
        return head[:_HEAD]

    def _write_bytes(self) -> Content:
        with self._target.open("wb") as target:
            for block in self._read_blocks():
                target.write(block)
        return Content(self._target, is_copy=True)

    # --- format

    def _refuse_foreign(self, head: bytes) -> None:
        if foreign := find_foreign(head):
            raise DataError(f"{self._name} is {foreign.what}, not {_TEXTS[self._stream.format]}", remedy=foreign.remedy)

    def _refuse_markup(self, text: str) -> None:
        if page := find_markup(text):
            raise DataError(f"{self._name} is {page.what}, not {_TEXTS[self._stream.format]}", remedy=page.remedy)
        if self._stream.format == "csv" and is_json(text):
            raise DataError(f"{self._name} is JSON, not CSV", remedy="declare format: jsonl (one object a line) or format: json (an array of objects)")

    def _decode_head(self, head: bytes, encoding: str) -> str:
        if encoding == "utf-8" and (guess := find_wide_encoding(head) or guess_by_zeros(head)):
            raise DataError(
                f"{self._name} is not UTF-8 text: it looks like UTF-16", remedy=f"declare encoding: {guess}, or correct the stream's glob or format"
            )
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        try:
            return decoder.decode(head).removeprefix("\ufeff")
        except UnicodeError:
            raise self._build_encoding_error(encoding) from None

    def _build_encoding_error(self, encoding: str) -> DataError:
        return DataError(f"{self._name} is not valid {encoding}", remedy="correct the stream's encoding, or save the file as UTF-8")

    # --- text

    def _write_text(self, encoding: str, skipped: int, *, is_array: bool) -> None:
        texts = self._read_lines(encoding, skipped) if skipped else self._read_texts(encoding)
        with self._target.open("w", encoding="utf-8", errors=get_errors(encoding), newline="") as target:
            try:
                for text in split_array(texts, self._name) if is_array else texts:
                    target.write(text)
            except DataError:
                if self._has_bad_bytes:
                    # A wrong encoding hides quotes, so that the array seems to have no end.
                    raise self._build_encoding_error(encoding) from None
                raise

    def _read_texts(self, encoding: str) -> Iterator[str]:
        """Decode the content. Invalid bytes stay invalid in the copy, so that only the rows that contain them are rejected."""
        try:
            for text in decode(self._read_blocks(), encoding):
                self._has_bad_bytes = self._has_bad_bytes or bool(_BAD_BYTE.search(text))
                yield text
        except UnicodeError:
            raise self._build_encoding_error(encoding) from None

    def _read_lines(self, encoding: str, skipped: int) -> Iterator[str]:
        left, kept = skipped, ""
        for text in self._read_texts(encoding):
            kept += text
            while left and (end := re.search(LINE_END, kept)):
                kept, left = kept[end.end() :], left - 1
            if not left:
                yield kept
                kept = ""
        if left:
            raise DataError(f"{self._name} has fewer than the {skipped} lines of the stream's skip_rows", remedy="correct skip_rows, or the stream's glob")
