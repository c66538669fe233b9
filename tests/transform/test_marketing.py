"""The marketing models on DuckDB and on Postgres: the same rows, value by value, computed here by hand or by exact fractions."""

import contextlib
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import psycopg2
import psycopg2.extras
import pytest

from fabric_assets import naming
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.transform.conftest import Outcome, build_tenant, make_tenant

# Its fixtures are built once, by one worker.
pytestmark = pytest.mark.xdist_group("marketing")

Row = tuple[Any, ...]

MODELS = ("staging.ads", "intermediate.marketing", "marts.marketing")
COLUMNS = {
    "ad_spend_by_day": "spend_date, spend, clicks, conversions, cpc, cpa, conversion_rate, currency",
    "ad_spend_by_channel": "channel, first_day, last_day, days, campaigns, spend, clicks, conversions, cpc, cpa, conversion_rate, currency",
    "ad_spend_by_campaign": "channel, campaign, first_day, last_day, days, spend, clicks, conversions, cpc, cpa, conversion_rate, currency",
    "ad_spend_anomalies": "channel_day_id, channel, spend_date, spend, history_days, median_spend, median_deviation, mean_deviation,"
    " score, verdict, is_anomaly",
    "ad_spend_version_changes": "file_name, version_number, imported_at, spend_date, channel, campaign, change, rows_before, rows_after, spend_before,"
    " spend_after, spend_difference, clicks_before, clicks_after, conversions_before, conversions_after",
}
TABLE = """create table acme_raw_ads.campaigns (
    date date, campaign varchar, channel varchar, spend decimal(18, 6), clicks bigint, conversions bigint,
    _fabric_file varchar, _fabric_file_sha256 varchar, _fabric_row bigint, _fabric_imported_at timestamp with time zone)"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Settings:
    """Settings over the repository's own dbt project, parsed."""
    root = tmp_path_factory.mktemp("marketing")
    shutil.copytree(prepared_data, root / "data" / "dbt" / "prepared")
    return Settings(tenants_dir=root / "tenants", dbt_project_dir=ROOT / "dbt_project", data_dir=root / "data")


def sort_rows(rows: Iterable[Row]) -> list[Row]:
    """By words and days: a decimal prints in more ways than one."""
    return sorted(rows, key=lambda row: [str(value) for value in row if isinstance(value, (str, date))])


@dataclass
class Warehouse:
    """A tenant's warehouse of either kind."""

    settings: Settings
    url: str | None

    def build(self, rows: Iterable[Row]) -> Outcome:
        """Put the rows where an import leaves them, instead of any earlier ones, and build the tenant's models."""
        with self._connect() as cursor:
            for statement in ("create schema if not exists acme_raw_ads", "drop table if exists acme_raw_ads.campaigns cascade", TABLE):
                cursor.execute(statement)
            mark = "%s" if self.url else "?"
            insert = f"insert into acme_raw_ads.campaigns values ({', '.join([mark] * 10)})"
            if self.url:
                psycopg2.extras.execute_batch(cursor, insert, list(rows))
            else:
                cursor.executemany(insert, list(rows))
        destination = {"type": "postgres", "url": {"env": "MARKETING_URL"}} if self.url else {"type": "duckdb"}
        return build_tenant(self.settings, make_tenant("acme", destination=destination, streams={"ads": ["campaigns"]}, select=list(MODELS)))

    def read(self, mart: str) -> list[Row]:
        with self._connect() as cursor:
            cursor.execute(f"select {COLUMNS[mart]} from acme_marts.{mart}")
            return sort_rows(cursor.fetchall())

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Any]:
        if self.url:
            with contextlib.closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
                yield cursor
            return
        file = naming.warehouse_file(self.settings.data_dir, "acme")
        file.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(file)) as connection:
            yield connection


@pytest.fixture
def warehouses(project: Settings, tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Warehouse]:
    monkeypatch.setenv("MARKETING_URL", postgres_database)
    settings = replace(project, data_dir=tmp_path / "data")
    naming.dbt_dir(settings.data_dir, "acme").parent.mkdir(parents=True)
    (settings.data_dir / "dbt" / "prepared").symlink_to(project.data_dir / "dbt" / "prepared")
    return {"duckdb": Warehouse(settings, None), "postgres": Warehouse(settings, postgres_database)}


def make_file(name: str, sha256: str, imported: str, *rows: tuple[str, str, str, str, int | None, int | None], first_line: int = 2) -> list[Row]:
    """A version of a file as an import loads it; a row is day, channel, campaign, spend, clicks, conversions."""
    at = datetime.fromisoformat(imported).replace(tzinfo=UTC)
    return [
        (date.fromisoformat(day), campaign, channel, Decimal(spend), clicks, conversions, name, sha256, number, at)
        for number, (day, channel, campaign, spend, clicks, conversions) in enumerate(rows, start=first_line)
    ]


# The second version corrects a spend, drops a row, adds one, and has the smaller hash. A row of the first was replayed after it came. April's file has a
# credit and empty cells.
FILES = [
    *make_file(
        "march.csv",
        "ff01",
        "2024-04-01 08:00",
        ("2024-03-01", "search", "brand", "10.00", 4, 1),
        ("2024-03-01", "search", "brand", "2.50", 1, 0),
        ("2024-03-01", "social", "brand", "99.99", 10, 2),
    ),
    *make_file("march.csv", "ff01", "2024-05-01 08:00", ("2024-03-02", "search", "spring", "7.00", 3, 0), first_line=5),
    *make_file(
        "march.csv",
        "0a02",
        "2024-04-02 08:00",
        ("2024-03-01", "search", "brand", "10.00", 4, 1),
        ("2024-03-01", "search", "brand", "2.50", 1, 0),
        ("2024-03-01", "social", "brand", "9.99", 10, 2),
        ("2024-03-03", "social", "spring", "0.01", 128, 0),
    ),
    *make_file(
        "april.csv",
        "0b01",
        "2024-04-01 08:00",
        ("2024-04-01", "search", "brand", "-1.00", 0, 0),
        ("2024-04-01", "print", "spring", "500.123456", None, None),
    ),
]


def to_day(text: str) -> date:
    return date.fromisoformat(text)


def to_numbers(*texts: str | None) -> list[Decimal | None]:
    return [None if text is None else Decimal(text) for text in texts]


EXPECTED: dict[str, list[Row]] = {
    "ad_spend_by_day": [
        (to_day("2024-03-01"), Decimal("22.49"), 15, 3, *to_numbers("1.499333", "7.496667", "0.2"), "USD"),
        (to_day("2024-03-03"), Decimal("0.01"), 128, 0, *to_numbers("0.000078", None, "0"), "USD"),
        (to_day("2024-04-01"), Decimal("499.123456"), 0, 0, *to_numbers(None, None, None), "USD"),
    ],
    "ad_spend_by_channel": [
        ("print", to_day("2024-04-01"), to_day("2024-04-01"), 1, 1, Decimal("500.123456"), 0, 0, *to_numbers(None, None, None), "USD"),
        ("search", to_day("2024-03-01"), to_day("2024-04-01"), 2, 1, Decimal("11.50"), 5, 1, *to_numbers("2.3", "11.5", "0.2"), "USD"),
        ("social", to_day("2024-03-01"), to_day("2024-03-03"), 2, 2, Decimal("10.00"), 138, 2, *to_numbers("0.072464", "5", "0.014493"), "USD"),
    ],
    "ad_spend_by_campaign": [
        ("print", "spring", to_day("2024-04-01"), to_day("2024-04-01"), 1, Decimal("500.123456"), 0, 0, *to_numbers(None, None, None), "USD"),
        ("search", "brand", to_day("2024-03-01"), to_day("2024-04-01"), 2, Decimal("11.50"), 5, 1, *to_numbers("2.3", "11.5", "0.2"), "USD"),
        ("social", "brand", to_day("2024-03-01"), to_day("2024-03-01"), 1, Decimal("9.99"), 10, 2, *to_numbers("0.999", "4.995", "0.2"), "USD"),
        ("social", "spring", to_day("2024-03-03"), to_day("2024-03-03"), 1, Decimal("0.01"), 128, 0, *to_numbers("0.000078", None, "0"), "USD"),
    ],
    "ad_spend_version_changes": [
        (*key, change, *counts[:2], *to_numbers(*spends), *counts[2:])
        for key, change, counts, spends in (
            (
                ("march.csv", 2, datetime(2024, 4, 2, 8), to_day("2024-03-01"), "social", "brand"),
                "changed",
                (1, 1, 10, 10, 2, 2),
                ("99.99", "9.99", "-90"),
            ),
            (("march.csv", 2, datetime(2024, 4, 2, 8), to_day("2024-03-02"), "search", "spring"), "gone", (1, None, 3, None, 0, None), ("7", None, "-7")),
            (
                ("march.csv", 2, datetime(2024, 4, 2, 8), to_day("2024-03-03"), "social", "spring"),
                "added",
                (None, 1, None, 128, None, 0),
                (None, "0.01", "0.01"),
            ),
        )
    ],
}


def test_every_mart_holds_what_a_calculation_by_hand_gives_on_both_warehouses(warehouses: dict[str, Warehouse]) -> None:
    for kind, warehouse in warehouses.items():
        outcome = warehouse.build(FILES)
        assert {name: result.message for name, result in outcome.tests.items() if result.status != "pass"} == {}, kind
        assert {name: result.message for name, result in outcome.models.items() if result.status != "success"} == {}, kind
        assert {mart: warehouse.read(mart) for mart in EXPECTED} == {mart: sort_rows(rows) for mart, rows in EXPECTED.items()}, kind


def test_a_spike_a_dip_and_a_quiet_day_are_told_apart(warehouses: dict[str, Warehouse]) -> None:
    start = to_day("2024-05-01")
    spends = ["100", "100", "101", "99", "102", "98", "103"] * 2  # median 100; deviations 0 0 0 0 1 1 1 1 2 2 2 2 3 3: median 1, mean 18 / 14
    days = [(start + timedelta(days=number), spend) for number, spend in enumerate(spends)]
    days += [(to_day("2024-05-16"), "105.19"), (to_day("2024-05-17"), "94.80")]  # the 15th has no rows
    rows = make_file("may.csv", "0c", "2024-06-01", *((day.isoformat(), "search", "brand", spend, 1, 0) for day, spend in days))
    for kind, warehouse in warehouses.items():
        warehouse.build(rows)
        found = warehouse.read("ad_spend_anomalies")
        assert {row[9] for row in found[:14]} == {"too_little_history"}, kind
        assert found[0][4:] == (0, None, None, None, None, "too_little_history", False), kind
        assert found[14:] == [
            # 0.6745 * 5.19 / 1 = 3.500655
            ("search-2024-05-16", "search", to_day("2024-05-16"), Decimal("105.19"), 14, 100, 1, Decimal("1.285714"), Decimal("3.500655"), "high", True),
            # The spike is history now: 15 days, median still 100, deviations ... 2 2 2 2 3 3 5.19. The eighth is 1, their mean 23.19 / 15; -0.6745 * 5.2
            ("search-2024-05-17", "search", to_day("2024-05-17"), Decimal("94.80"), 15, 100, 1, Decimal("1.546"), Decimal("-3.5074"), "low", True),
        ], kind


def round_half_away(value: Fraction) -> Decimal:
    millionths = int(abs(value) * 1_000_000 + Fraction(1, 2))
    return Decimal(millionths).scaleb(-6).copy_sign(-1 if value < 0 else 1)


def divide(numerator: Fraction | int, denominator: Fraction | int) -> Decimal | None:
    return round_half_away(Fraction(numerator) / denominator) if denominator > 0 else None


def make_random_rows(seed: int) -> list[Row]:
    """Six channels over 90 days, many days without rows; wild ones, steady ones with a few jumps, one that never changes but once."""
    generator = random.Random(seed)
    rows: list[tuple[str, str, str, str, int | None, int | None]] = []
    for channel in ("wild", "steady", "weekends", "flat", "credits", "pennies"):
        for number in range(90):
            if generator.random() < 0.2:
                continue
            spend = {
                "wild": generator.lognormvariate(4, 1),
                "steady": 100 + generator.gauss(0, 1) * generator.choice([0, 0, 0, 1, 10]),
                "weekends": 500 if number % 7 > 4 else 0,
                "flat": 80 if number in (40, 75) else 50,
                "credits": generator.gauss(0, 20),
                "pennies": generator.randrange(1, 9) / 1_000_000,
            }[channel]
            for campaign in ("a", "b")[: 1 if channel == "flat" else generator.randrange(1, 3)]:
                clicks, conversions = generator.randrange(0, 400), generator.randrange(0, 3)
                rows.append(((to_day("2024-01-01") + timedelta(days=number)).isoformat(), channel, campaign, f"{spend:.6f}", clicks, conversions))
    return make_file("all.csv", "0d", "2024-06-01", *rows)


def compute_days(rows: Iterable[Row]) -> list[Row]:
    days: dict[date, list[Row]] = defaultdict(list)
    for row in rows:
        days[row[0]].append(row)
    found = []
    for day, group in days.items():
        spend, clicks, conversions = sum(Fraction(row[3]) for row in group), sum(row[4] for row in group), sum(row[5] for row in group)
        found.append((day, spend, clicks, conversions, divide(spend, clicks), divide(spend, conversions), divide(conversions, clicks), "USD"))
    return sort_rows(found)


def compute_anomalies(rows: Iterable[Row]) -> list[Row]:
    spends: dict[tuple[str, date], Fraction] = defaultdict(Fraction)
    for row in rows:
        spends[row[2], row[0]] += Fraction(row[3])
    found = []
    for (channel, day), spend in spends.items():
        past = [spends[channel, before] for ago in range(1, 29) if (channel, before := day - timedelta(days=ago)) in spends]
        middle = median(past) if past else None
        deviations = [abs(value - middle) for value in past]
        score, verdict = None, "too_little_history"
        if len(past) >= 14:
            score = divide(Fraction("0.6745") * (spend - middle), median(deviations))
            if score is None:
                score = divide(len(past) * (spend - middle), Fraction("1.253314") * sum(deviations))
            far = spend != middle and (score is None or abs(score) > Decimal("3.5"))
            verdict = "normal" if not far else "high" if spend > middle else "low"
        spread = (middle, median(deviations), divide(sum(deviations), len(past))) if past else (None, None, None)
        found.append((f"{channel}-{day}", channel, day, spend, len(past), *spread, score, verdict, verdict in ("high", "low")))
    return sort_rows(found)


def test_generated_spend_comes_out_as_exact_fractions_say_on_both_warehouses(warehouses: dict[str, Warehouse]) -> None:
    rows = make_random_rows(seed=20240601)
    anomalies = compute_anomalies(rows)
    assert {row[9] for row in anomalies} == {"normal", "high", "low", "too_little_history"}
    assert any(row[7] == 0 and row[10] for row in anomalies)  # a history of one and the same spend
    assert any(row[6] == 0 and row[8] is not None for row in anomalies)  # no MAD, but a mean deviation
    for kind, warehouse in warehouses.items():
        warehouse.build(rows)
        assert warehouse.read("ad_spend_by_day") == compute_days(rows), kind
        assert warehouse.read("ad_spend_anomalies") == anomalies, kind


def test_a_correction_under_a_new_name_is_warned_of(warehouses: dict[str, Warehouse]) -> None:
    row = ("2024-03-01", "search", "brand", "10.00", 4, 1)
    outcome = warehouses["duckdb"].build([*make_file("march.csv", "01", "2024-04-01", row), *make_file("march (1).csv", "02", "2024-04-02", row)])
    doubled = outcome.tests["ad_spend_comes_from_one_file"]
    assert (doubled.status, doubled.failures) == ("warn", 1)
    assert outcome.models["ad_spend_by_day"].status == "success"


def test_a_row_without_a_channel_holds_up_the_marts(warehouses: dict[str, Warehouse]) -> None:
    (row,) = make_file("march.csv", "01", "2024-04-01", ("2024-03-01", "search", "brand", "10.00", 4, 1))
    outcome = warehouses["duckdb"].build([(*row[:2], None, *row[3:])])
    assert outcome.tests["not_null_stg_ads__campaigns_channel"].status == "fail"
    assert outcome.models["ad_spend_by_channel"].status == "skipped"
