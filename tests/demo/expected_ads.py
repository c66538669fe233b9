"""The demo's inbox -> what becomes of each file and what the marketing marts hold, in plain Python: no SQL, no dbt, nothing of the import.

It reads the files as they were dropped, each by what a person sees in it; spend is in whole cents until the very end.
"""

import csv
import gzip
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

COLUMNS = {
    "ad_spend_by_day": "spend_date spend clicks conversions cpc cpa conversion_rate currency",
    "ad_spend_by_channel": "channel first_day last_day days campaigns spend clicks conversions cpc cpa conversion_rate currency",
    "ad_spend_by_campaign": "channel campaign first_day last_day days spend clicks conversions cpc cpa conversion_rate currency",
}
# File -> status, reason, rows read, rows rejected.
FATES = {
    "2018-09.csv": ("loaded", None, 150, 0),
    "2018-09 (1).csv": ("duplicate", None, 0, 0),
    "2018-10.csv": ("loaded", None, 155, 0),
    "2018-11.csv.gz": ("loaded", None, 150, 0),
    "2018-12.xlsx": ("loaded", None, 155, 0),
    "2019-01.csv": ("loaded", None, 155, 6),
    "2019-02.csv": ("quarantined", "too_many_rejects", 0, 0),
    "2019-03.csv": ("quarantined", "unclosed_quote", 0, 0),
}
# Line -> column and reason.
REJECTED = {
    5: ("Date", "bad_date"),
    19: ("Spend", "too_low"),
    33: ("Clicks", "bad_number"),
    60: ("Channel", "not_accepted"),
    79: ("Campaign", "required"),
    104: (None, "ragged_row"),
}
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@dataclass(frozen=True)
class Spend:
    day: date
    campaign: str
    channel: str
    cents: int
    clicks: int
    conversions: int


def compute_ad_marts(inbox: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of each mart, sorted, in the columns' order of `COLUMNS`."""
    groups: dict[str, dict[tuple[Any, ...], list[Spend]]] = {mart: defaultdict(list) for mart in COLUMNS}
    for row in read_good_rows(inbox):
        groups["ad_spend_by_day"][(row.day,)].append(row)
        groups["ad_spend_by_channel"][(row.channel,)].append(row)
        groups["ad_spend_by_campaign"][row.channel, row.campaign].append(row)
    marts: dict[str, list[tuple[Any, ...]]] = {}
    for mart, keys in groups.items():
        marts[mart] = []
        for key, rows in keys.items():
            days = {row.day for row in rows}
            span = () if mart == "ad_spend_by_day" else (min(days), max(days), len(days))
            campaigns = (len({row.campaign for row in rows}),) if mart == "ad_spend_by_channel" else ()
            marts[mart].append((*key, *span, *campaigns, *_sum_up(rows)))
        marts[mart].sort()
    return marts


def read_good_rows(inbox: Path) -> Iterator[Spend]:
    """The rows that count: those of the files that are loaded, less the bad ones."""
    for row in _read_texts((inbox / "2018-09.csv").read_bytes().decode(), ","):
        yield _parse(row)
    for row in _read_texts((inbox / "2018-10.csv").read_bytes().decode("windows-1252"), ";"):
        day, month, year = row[0].split(".")
        yield _parse([f"{year}-{month}-{day}", *row[1:3], row[3].replace(",", "."), *row[4:]])
    for row in _read_texts(gzip.decompress((inbox / "2018-11.csv.gz").read_bytes()).decode(), ","):
        yield _parse(row)
    for row in _read_sheet(inbox / "2018-12.xlsx"):
        yield _parse([(date(1899, 12, 30) + timedelta(days=int(row[0]))).isoformat(), *row[1:]])
    for line, row in enumerate(_read_texts((inbox / "2019-01.csv").read_bytes().decode(), ","), start=2):
        if line not in REJECTED:
            yield _parse(row)


def _read_texts(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]


def _read_sheet(path: Path) -> list[list[str]]:
    with zipfile.ZipFile(path) as book:
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    return [["".join(cell.itertext()) for cell in row.iter(f"{_SHEET}c")] for row in sheet.iter(f"{_SHEET}row")][1:]


def _parse(row: list[str]) -> Spend:
    return Spend(date.fromisoformat(row[0]), row[1], row[2], int((Decimal(row[3]) * 100).to_integral_exact()), int(row[4]), int(row[5]))


def _sum_up(rows: list[Spend]) -> tuple[Any, ...]:
    cents, clicks, conversions = (sum(getattr(row, name) for row in rows) for name in ("cents", "clicks", "conversions"))
    rates = (_divide(Fraction(cents, 100), clicks), _divide(Fraction(cents, 100), conversions), _divide(Fraction(conversions), clicks))
    return (Decimal(cents).scaleb(-2), clicks, conversions, *rates, "USD")


def _divide(number: Fraction, by: int) -> Decimal | None:
    return Decimal(int(number / by * 1_000_000 + Fraction(1, 2))).scaleb(-6) if by else None
