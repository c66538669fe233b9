"""A csv or jsonl file with bad lines -> a copy without them, and the bad lines as rejected rows.

This is done only for files that DuckDB refuses or would misread. It reads the copy as fast as any other file.
"""

import json
import mmap
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.csv.encodings import show_bytes
from fabric_assets.connectors.files.listing import FetchedFile
from fabric_assets.errors import DataError
from fabric_assets.rows.batches import Reject
from fabric_assets.rows.json_numbers import has_long_number, quote_long_numbers

MAX_LINE, PART_BYTES = 32 * 1024 * 1024, 8 * 1024 * 1024
_REJECTS_AT_ONCE = 1_000
# This much stays in the processor's cache.
_LOOK_BYTES = 256 * 1024
BAD_BYTES = "is not valid {}; if the file has another encoding, declare it as the stream's `encoding`"


@dataclass(frozen=True)
class Salvage:
    """The copy of a file without its bad lines.

    Args:
        path: the copy.
        rejects_path: one reject per line, as JSON.
        gaps: for each reject, in order, the rank of the first good row after it, from 1.
    """

    path: Path
    rejects_path: Path
    gaps: "array[int]"

    def read_rejects(self) -> Iterator[tuple[Reject, ...]]:
        """The rejected rows, in portions that fit in memory."""
        with self.rejects_path.open(encoding="utf-8") as lines:
            while portion := tuple(Reject(**json.loads(line)) for line in islice(lines, _REJECTS_AT_ONCE)):
                yield portion


@dataclass(frozen=True)
class Fragment:
    """The text of one row, or of one bad line with its reason.

    Args:
        is_row: False for a header and for an empty line, which do not count as rows.
    """

    text: str
    reason: str = ""
    message: str = ""
    is_row: bool = True


def salvage(fragments: Iterator[Fragment], file: FetchedFile) -> Salvage:
    """Write a file's copy without bad lines, and its rejects, beside the file."""
    found = Salvage(file.path.with_suffix(".good"), file.path.with_suffix(".bad"), array("q"))
    number = 0
    with found.path.open("w", encoding="utf-8", newline="") as good, found.rejects_path.open("w", encoding="utf-8") as bad:
        for fragment in fragments:
            number += fragment.is_row
            if not fragment.reason:
                good.write(fragment.text)
                continue
            found.gaps.append(number - len(found.gaps))
            raw = show_bytes(fragment.text.rstrip("\r\n"))
            bad.write(json.dumps(asdict(Reject(file.source.name, number, None, fragment.reason, fragment.message, raw))) + "\n")
    return found


def number_rows(tables: Iterator[pa.Table], gaps: "array[int]") -> Iterator[tuple[pa.Table, int]]:
    """Number rows as in the original; `gaps` are those of its salvage."""
    rank = 1
    for table in tables:
        done = 0
        while done < table.num_rows:
            before = bisect_right(gaps, rank)
            follow = min(gaps[before] - rank if before < len(gaps) else table.num_rows, table.num_rows - done)
            yield table.slice(done, follow), rank + before
            done, rank = done + follow, rank + follow


def cut(fragments: Iterator[Fragment], path: Path, most: int = PART_BYTES, rows: int = sys.maxsize) -> Iterator[Path]:
    """Write a file without bad lines in parts, each over the one before. Each part of a CSV begins with its header.

    Args:
        most: the characters of a part, which its last row may exceed.
        rows: the most rows of a part.
    """
    header, text, size = "", list[str](), 0
    for number, fragment in enumerate(fragments):
        if not number and not fragment.is_row:
            header = fragment.text
            continue
        text.append(fragment.text)
        size += len(fragment.text)
        if size >= most or len(text) >= rows:
            path.write_text(header + "".join(text), encoding="utf-8", newline="")
            yield path
            text, size = [], 0
    if text:
        path.write_text(header + "".join(text), encoding="utf-8", newline="")
        yield path


def is_misread(path: Path) -> bool:
    """Whether DuckDB would silently misread a JSON Lines file.

    It reads a bad line that begins with null as an object without values, and it rounds numbers.
    """
    if not (size := path.stat().st_size):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 0
        while start < size:
            end = content.find(b"\n", start + _LOOK_BYTES) + 1 or size
            lines = content[start:end]
            if lines.startswith(b"null") or b"\nnull" in lines or has_long_number(lines):
                return True
            start = end
    return False


def split_json(path: Path, *, name: str, encoding: str = "utf-8", unit: str = "line") -> Iterator[Fragment]:
    """Split a JSON Lines file.

    Args:
        encoding: of the original, for messages.
        unit: what a line is called in messages: a line, or an element.

    Raises:
        DataError: it is not JSON Lines, or a line is longer than MAX_LINE.
    """
    return _split_json(_read_lines(path, name), name, encoding, unit)


def _read_lines(path: Path, name: str) -> Iterator[str]:
    """Yield the lines with their ends; invalid bytes become surrogates, which `_is_utf8` finds."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        while line := lines.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise build_length_error(name)
            yield line


def build_length_error(name: str) -> DataError:
    return DataError(f"{name} holds a line of more than {MAX_LINE // 1024**2} MB", remedy="correct the file; no row of it has been loaded")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- JSON Lines


def _split_json(lines: Iterator[str], name: str, encoding: str, unit: str) -> Iterator[Fragment]:
    first, any_row = "", False
    for number, line in enumerate(lines, start=1):
        text = line.strip(" \t\r\n")  # without separators such as U+001E, which a plain strip() would remove too
        if not text:
            continue
        first = first or text[0]
        reason, message = _find_fault(text) if _is_utf8(text) else ("bad_encoding", BAD_BYTES.format(encoding.upper()))
        any_row = any_row or not reason
        whole = line if line.endswith("\n") else line + "\n"
        yield Fragment(whole if reason else quote_long_numbers(whole), reason, f"{unit} {number} {message}")
    if not any_row and first not in ("", "{"):
        kind = "JSON Lines" if unit == "line" else "JSON rows"
        raise DataError(f"{name} holds no {kind}: none of its {unit}s is a JSON object", remedy="write one object a line, or an array of objects")


def _find_fault(text: str) -> tuple[str, str]:
    try:
        value = json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_Pairs)
        if "\\ud" in text.lower():
            # JSON can contain half of a surrogate pair, which is not valid in a text.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return "bad_json", f"is no JSON: {error.msg} at character {error.colno}"
    except UnicodeEncodeError:
        return "bad_json", "spells half of a surrogate pair"
    except RecursionError:
        return "bad_json", "is nested too deep"
    if not isinstance(value, _Pairs):
        return "bad_json", "is no JSON object"
    names = [name for name, _ in value]
    if any("\0" in name for name in names):
        return "bad_json", "names a field with a NUL byte in it"
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    return ("", "") if twice is None else ("bad_json", f"names {twice!r} twice")


class _Pairs(list[tuple[str, Any]]):
    """An object's names and values in order, including duplicates."""
