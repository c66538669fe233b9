"""Thousands of dirty files, held against a second reader that goes character by character and knows nothing of the first.

FABRIC_TEST_DIRTY_FILES says how many; the figure in a plain `make test` is small.
"""

import os
import tempfile
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fabric_assets.config.sources.imports import CsvStream, ImportLimits
from fabric_assets.connectors.csv_import.cells import Cells
from fabric_assets.connectors.csv_import.tables import open_text
from fabric_assets.errors import QuarantinedFile
from tests.connectors.csv_import.imports import drop

FILES = int(os.environ.get("FABRIC_TEST_DIRTY_FILES", "300"))
# A plain run keeps the suite's time limit; thousands of files may take as long as they need.
pytestmark = pytest.mark.timeout(max(300, FILES))
MANY = settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
HEADER = ["a", "b", "c"]

Rows = list[tuple[int, list[str | None]]]
Bad = list[tuple[int, str]]


# --- the slow reader


def read_slowly(text: str, delimiter: str, quote: str) -> tuple[Rows, Bad] | None:  # noqa: PLR0912
    """Rows and bad lines, by their lines, of a text whose lines end in LF or CRLF; None if a quote is never closed."""
    rows: Rows = []
    bad: Bad = []
    at, line = 0, 1
    while at < len(text):
        start, first, cells, cell, state, fault = at, line, [], "", "begin", ""
        while True:
            if at == len(text):
                if state == "quoted":
                    return None
                break
            mark, at = text[at], at + 1
            if state == "quoted":
                line += mark == "\n"
                if mark == quote:
                    state = "closed"
                else:
                    cell += mark
                continue
            if mark == "\n":
                break
            if state == "closed" and mark == quote:
                cell, state = cell + quote, "quoted"
            elif mark == delimiter:
                cells.append((cell, state))
                cell, state = "", "begin"
            elif state in ("closed", "behind"):
                # Spaces after a quoted field are no part of it; a line end may have several CR.
                state = "behind"
                if not (mark == " " or (mark == "\r" and not text[at:].partition("\n")[0].strip("\r"))):
                    fault = "bad_quotes"
                    end = text.find("\n", at - 1)
                    at = len(text) if end < 0 else end + 1
                    break
            elif state == "begin" and mark == quote:
                state = "quoted"
            elif state == "begin" and mark == " " and text[at : at + 1] == quote:
                state = "quoted"
                at += 1
            else:
                cell, state = cell + mark, "plain"
        raw = text[start:at].removesuffix("\n")
        if fault:
            bad += [(number, fault) for number in range(first, line + 1)]
        else:
            if state == "plain" and not (cell := cell.rstrip("\r")):
                state = "begin"
            cells.append((cell, state))
            values = [each for each, _ in cells]
            while len(cells) > len(HEADER) and cells[-1] == ("", "begin"):
                cells.pop()
            if any("\r" in each for each, how in cells if how == "plain"):
                bad.append((first, "stray_line_end"))
            elif not any(each.strip() for each in values):
                pass
            elif "\0" in raw:
                bad.append((first, "nul_byte"))
            elif len(cells) == len(HEADER):
                rows.append((first, [each if each.strip() else None for each, _ in cells]))
            else:
                bad.append((first, "ragged_row"))
        line += 1
    return rows, bad


def read_in_blocks(content: bytes, stream: CsvStream, block: int) -> tuple[Rows, Bad] | None:
    """The same by the importer's reader of CSV, so many bytes at a time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        try:
            file = open_text(path, stream, ImportLimits(), packed=False, tabs=False)
            parts: list[Cells] = list(replace(file, block=block).read())
        except QuarantinedFile as error:
            assert error.reason == "unclosed_quote"
            return None
    rows = [
        (line, list(cells))
        for part in parts
        for line, cells in zip(part.lines.to_pylist(), zip(*(column.to_pylist() for column in part.columns), strict=True), strict=True)
    ]
    return rows, [(bad.line, bad.reason) for part in parts for bad in part.bad]


@MANY
@given(
    body=st.lists(
        st.sampled_from(
            ["x", "yy", ",", ",", ",", '"', '"', '""', '","', "\n", "\n", "\r\n", " ", "ü", "1,2,3\n", '1,"2\n",3\n', ',"2" ,', ', "', ",,\n", "\0", "\r", "\t"]
        ),
        max_size=60,
    ),
    block=st.sampled_from([1, 2, 3, 7, 16, 64, 4096]),
    delimiter=st.sampled_from([",", ";"]),
    quote=st.sampled_from(['"', "'"]),
)
@example(body=['""', "\r", "x"], block=1, delimiter=",", quote='"')
@example(body=[",", ',"2" ,', "\r\n"], block=1, delimiter=",", quote='"')
def test_no_text_is_split_otherwise_than_character_by_character(body: list[str], block: int, delimiter: str, quote: str) -> None:
    text = ("a,b,c\n" + "".join(body)).replace(",", delimiter).replace('"', quote)
    stream = CsvStream.model_validate({"glob": "*", "mapping": {"a": "a"}, "delimiter": delimiter, "quote": quote, "encoding": "utf-8"})
    expected = read_slowly(text, delimiter, quote)
    if expected is not None:
        expected = (expected[0][1:], expected[1])
    assert read_in_blocks(text.encode(), stream, block) == expected


# --- whole files, each cell with what it must become

BAD = object()
_TEXTS: list[tuple[str, Any]] = [
    ("", None),
    (" ", None),
    ("x", "x"),
    ("ü;,", "ü;,"),
    ('say "hi"', 'say "hi"'),
    ("two\nlines", "two\nlines"),
    (" {} ", " {} "),
    ("NULL", "NULL"),
]
_WHOLE: list[tuple[str, Any]] = [
    ("", None),
    ("0", 0),
    ("-7", -7),
    ("+3", 3),
    ("007", 7),
    (" 5 ", 5),
    ("1e2", 100),
    ("x", BAD),
    ("1.5e0", BAD),
    ("9223372036854775808", BAD),
    ("0x1F", BAD),
]
_DAYS: list[tuple[str, Any]] = [
    ("", None),
    ("2026-01-31", date(2026, 1, 31)),
    ("28.2.2026", date(2026, 2, 28)),
    ("2026-02-29", BAD),
    ("29.02.2026", BAD),
    ("01/02/2026", BAD),
    ("0000-01-01", BAD),
    ("9999-12-31", date(9999, 12, 31)),
]
_TIMES: list[tuple[str, Any]] = [
    ("", None),
    ("2026-01-31 10:00", datetime(2026, 1, 31, 10)),
    ("2026-01-31T10:00:01.5", datetime(2026, 1, 31, 10, 0, 1, 500000)),
    ("2026-01-31", datetime(2026, 1, 31)),
    ("2026-01-31 10:00+01:00", BAD),
    ("10:00", BAD),
]
_TRUTHS: list[tuple[str, Any]] = [("", None), ("yes", True), ("FALSE", False), ("0", False), ("2", BAD)]


def write_number(number: Decimal, mark: str, *, grouped: bool) -> str:
    text = f"{number:,f}" if grouped else f"{number:f}"
    return text.translate(str.maketrans(",.", ".,")) if mark == "," else text


@st.composite
def build_numbers(draw: st.DrawFn, mark: str) -> tuple[str, Any]:
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from([("", None), ("x", BAD), ("1.2.3,4", BAD), ("NaN", BAD), ("1e99", BAD), ("-", BAD), ("€ 5", Decimal(5)), ("6 €", Decimal(6))])
        )
    number = draw(st.decimals(min_value=-(10**9), max_value=10**9, places=draw(st.integers(0, 9))))
    return write_number(number, mark, grouped=draw(st.booleans())), number


COLUMNS: dict[str, Any] = {
    "name": {},
    "count": {"type": "bigint"},
    "price": {"type": "decimal"},
    "day": {"type": "date", "formats": ["%Y-%m-%d", "%d.%m.%Y"]},
    "seen": {"type": "timestamp"},
    "open": {"type": "bool"},
}


@st.composite
def build_file(draw: st.DrawFn) -> tuple[bytes, str, list[tuple[int, dict[str, Any]]], list[int]]:
    """A file, its decimal mark, and the rows and the rejected lines that must come of it."""
    mark, delimiter = draw(st.sampled_from([(".", ","), (",", ";"), (".", "\t"), (",", "|")]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "windows-1252"]))
    order = draw(st.permutations(list(COLUMNS)))
    lines, good, bad, line = [delimiter.join(order)], [], [], 2
    for _ in range(draw(st.integers(0, 12))):
        cells = {
            "name": draw(st.sampled_from(_TEXTS)),
            "count": draw(st.sampled_from(_WHOLE)),
            "price": draw(build_numbers(mark)),
            "day": draw(st.sampled_from(_DAYS)),
            "seen": draw(st.sampled_from(_TIMES)),
            "open": draw(st.sampled_from(_TRUTHS)),
        }
        texts = [_quote(cells[name][0], delimiter, always=draw(st.booleans())) for name in order]
        values = {name: cells[name][1] for name in COLUMNS}
        ragged = draw(st.integers(0, 9)) == 0
        if ragged:
            texts = texts[:-1] if draw(st.booleans()) else [*texts, "x"]
        text = delimiter.join(texts)
        lines.append(text)
        blank = all(not cell.strip() for cell, _ in (cells[name] for name in (order[:-1] if ragged and len(texts) < len(order) else order)))
        if blank and "x" not in texts:
            pass
        elif ragged or any(value is BAD for value in values.values()):
            bad.append(line)
        else:
            good.append((line, values))
        line += text.count("\n") + 1
    return newline.join(lines).encode(encoding), mark, good, bad


def _quote(text: str, delimiter: str, *, always: bool) -> str:
    needed = delimiter in text or "\n" in text or text.startswith('"')
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if always or needed else text


@MANY
@given(build_file())
def test_every_row_of_a_dirty_file_is_loaded_as_it_says_or_rejected(file: tuple[bytes, str, list[tuple[int, dict[str, Any]]], list[int]]) -> None:
    content, mark, good, bad = file
    dropped = drop(content, columns=COLUMNS, decimal=mark)
    assert list(zip(dropped.lines, dropped.rows, strict=True)) == good
    assert [reject.row_number for reject in dropped.rejects] == bad


@pytest.mark.parametrize("mark", [".", ","])
@settings(MANY, max_examples=max(1, FILES // 5))
@given(st.data())
def test_a_column_of_plain_numbers_reads_as_each_of_them_alone(mark: str, data: st.DataObject) -> None:
    cells = data.draw(st.lists(st.text(alphabet="0123456789.,-+e' %€", min_size=1, max_size=8), min_size=1, max_size=8))
    kind = data.draw(st.sampled_from(["decimal", "bigint", "double"]))
    columns = {"n": {"type": kind}, "k": {}}

    def read(texts: list[str]) -> dict[str, Any]:
        content = "k|n\n" + "".join(f"{number}|{text}\n" for number, text in enumerate(texts))
        dropped = drop(content.encode(), columns=columns, decimal=mark)
        return {row["k"]: row["n"] for row in dropped.rows}

    together = read(cells)
    for number, cell in enumerate(cells):
        # Beside a text that is no number none is read by the column.
        alone = read([cell, "x"])
        if str(number) in together:
            assert alone == {"0": together[str(number)]}
        elif alone and "%" not in "".join(cells) and "€" not in "".join(cells):
            raise AssertionError(f"{cell!r} is a number only if it stands alone")
