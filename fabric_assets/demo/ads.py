"""A shop's ad spend as people send it: an inbox of monthly files in several formats, some of them bad.

The rows are the same on every machine. tests/demo/expected_ads.py computes the expected result of each file from the files themselves, without this module.
"""

import csv
import gzip
import io
import os
import random
import shutil
import tempfile
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fabric_assets.demo.workbook import build_workbook
from fabric_assets.private_files import make_private_folder

_HEADER = ("Date", "Campaign", "Channel", "Spend", "Clicks", "Conversions")
_GERMAN = ("Datum", "Kampagne", "Kanal", "Kosten", "Klicks", "Conversions")
# Campaign, channel, cents a day, cents a click, clicks a conversion.
_CAMPAIGNS = (
    ("Brand", "search", 9_000, 45, 12),
    ("Jaffles, near me", "search", 6_500, 80, 20),
    ("Café stories", "social", 7_200, 60, 35),
    ("Newsletter", "email", 1_500, 10, 18),
    ("Come back", "display", 4_000, 25, 60),
)
_SPIKE = date(2018, 11, 23)  # Black Friday
_DAYS_LATER = timedelta(days=2)


@dataclass(frozen=True)
class AdRow:
    """A campaign's cost on one day, with its clicks and conversions."""

    day: date
    campaign: str
    channel: str
    cents: int
    clicks: int
    conversions: int


def write_inbox(folder: Path) -> None:
    """Write the files, unless the folder exists: loads move them away, and they must not appear again."""
    if folder.exists():
        return
    make_private_folder(folder.parent)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.part-"))
    try:
        for name, content, written in _build_files():
            (part / name).write_bytes(content)
            os.utime(part / name, (written.timestamp(), written.timestamp()))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make_rows(year: int, month: int) -> list[AdRow]:
    """Make a month's rows: weekends are quiet, Black Friday is not."""
    chance = random.Random(year * 12 + month)  # noqa: S311 the rows must be the same on every machine
    rows = []
    for number in range(1, monthrange(year, month)[1] + 1):
        day = date(year, month, number)
        for campaign, channel, cents, click, conversion in _CAMPAIGNS:
            factor = (70 if day.weekday() > 4 else 100) * (5 if day == _SPIKE and channel == "search" else 1)
            spent = cents * factor * chance.randrange(85, 116) // 10_000
            clicks = spent // click
            rows.append(AdRow(day, campaign, channel, spent, clicks, clicks // conversion))
    return rows


def _build_files() -> Iterable[tuple[str, bytes, datetime]]:
    """Yield the name, bytes and time of each file."""
    september = _write_csv(_HEADER, map(_spell, make_rows(2018, 9)))
    yield "2018-09.csv", september, _end_of(2018, 9)
    yield "2018-09 (1).csv", september, _end_of(2018, 9) + _DAYS_LATER
    yield "2018-10.csv", _write_csv(_GERMAN, map(_spell_german, make_rows(2018, 10)), delimiter=";", encoding="windows-1252"), _end_of(2018, 10)
    yield "2018-11.csv.gz", gzip.compress(_write_csv(_HEADER, map(_spell, make_rows(2018, 11))), mtime=0), _end_of(2018, 11)
    yield "2018-12.xlsx", build_workbook("Ad spend", _HEADER, map(_spell_natively, make_rows(2018, 12))), _end_of(2018, 12)
    yield "2019-01.csv", _write_csv(_HEADER, _spoil(list(map(_spell, make_rows(2019, 1))))), _end_of(2019, 1)
    # Month and day in an order that is not declared, so the days are ambiguous.
    february = ([f"{row.day:%m/%d/%Y}", *_spell(row)[1:]] for row in make_rows(2019, 2))
    yield "2019-02.csv", _write_csv(_HEADER, february), _end_of(2019, 2)
    # A quote that is never closed: nobody can know where the last campaign ends.
    before, campaign, after = _write_csv(_HEADER, map(_spell, make_rows(2019, 3))).rpartition(b"Come back")
    yield "2019-03.csv", before + b'"' + campaign + after, _end_of(2019, 3)


def _spoil(rows: list[Sequence[str]]) -> list[Sequence[str]]:
    """Make six rows bad: an impossible day, a negative spend, a word for a number, an unknown channel, no campaign, a missing cell."""
    rows[3] = ["2019-01-32", *rows[3][1:]]
    rows[17] = [*rows[17][:3], f"-{rows[17][3]}", *rows[17][4:]]
    rows[31] = [*rows[31][:4], "unknown", rows[31][5]]
    rows[58] = [*rows[58][:2], "billboard", *rows[58][3:]]
    rows[77] = [rows[77][0], "", *rows[77][2:]]
    rows[102] = rows[102][:4]
    return rows


def _spell(row: AdRow) -> list[str]:
    return [row.day.isoformat(), row.campaign, row.channel, f"{row.cents // 100}.{row.cents % 100:02}", str(row.clicks), str(row.conversions)]


def _spell_german(row: AdRow) -> list[str]:
    cells = _spell(row)
    return [f"{row.day:%d.%m.%Y}", *cells[1:3], cells[3].replace(".", ","), *cells[4:]]


def _spell_natively(row: AdRow) -> list[object]:
    cells = _spell(row)
    return [row.day, row.campaign, row.channel, float(cells[3]), row.clicks, row.conversions]


def _write_csv(header: Sequence[str], rows: Iterable[Sequence[str]], *, delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\r\n").writerows([header, *rows])
    return file.getvalue().encode(encoding)


def _end_of(year: int, month: int) -> datetime:
    return datetime(year, month, monthrange(year, month)[1], 18, tzinfo=UTC)
