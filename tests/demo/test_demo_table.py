"""What a newcomer reads when the demo is done."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console

from fabric_assets.cli.demo_table import DemoRow, Dropped, print_rows, to_json
from fabric_assets.demo.totals import AdTotals, ShopTotals
from fabric_assets.factories.runs import AssetResult, CheckResult, TenantResult
from fabric_assets.rows.imported_file import ImportedFile, Status

TOTALS = ShopTotals(
    orders=72860, revenue=Decimal("812345.00"), tax=Decimal("40000.10"), supply_cost=Decimal("99.90"), customers=943, lifetime_value=Decimal("852345.10")
)


def make_row(
    tenant: str, *, loaded: int = 72860, new_rows: int | None = None, totals: ShopTotals | None = TOTALS, error: str | None = None, passed: bool = True
) -> DemoRow:
    result = TenantResult(
        tenant,
        "failure" if error else "success",
        run_id="r1",
        seconds=12.34,
        assets=[AssetResult(f"{tenant}/raw/shop/orders", "success", rows_loaded=72860, rows_rejected=0, rows_total=72860)],
        checks=[CheckResult(f"{tenant}/raw/shop/orders", "row_count", True, "error"), CheckResult(f"{tenant}/marts/orders", "orders_add_up", passed, "error")],
        error=error,
    )
    return DemoRow(result, source="files", streams=1, models=2, rows_loaded=loaded, rows_total=72860, new_rows=new_rows, totals=totals)


def show(*rows: DemoRow, agree: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    print_rows(console, list(rows), agree=agree)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_first_run_shows_every_row_as_new_and_ends_in_what_to_type_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/fabric", "demo"])
    lines = show(make_row("demo_database"), make_row("demo_files"), agree=True)
    assert lines[0].split() == ["new", "checks"]
    assert lines[1].split() == ["tenant", "source", "streams", "rows", "rows", "models", "passed", "time"]
    assert lines[2].split() == ["demo_database", "files", "1", "72,860", "72,860", "2", "2/2", "12.3", "s"]
    assert "All shops agree: 72,860 orders, revenue 812,345.00, tax 40,000.10, supply cost 99.90;" in lines
    assert "943 customers with a lifetime value of 852,345.10 USD." in lines
    assert not any("Incremental" in line for line in lines)
    assert [line.split("  ")[1] for line in lines[lines.index("Next:") + 1 :]] == [
        "make demo",
        "make dev",
        ".venv/bin/fabric explain demo_database",
        ".venv/bin/fabric run demo_files --select +marts/orders",
        ".venv/bin/fabric rejects list demo_ads",
    ]


def test_a_second_run_says_that_it_was_incremental_and_what_was_new() -> None:
    lines = show(make_row("demo_database", loaded=953, new_rows=12), make_row("demo_files", loaded=0, new_rows=0), agree=True)
    assert lines[2].split()[3:5] == ["953", "12"]
    assert lines[3].split()[3:5] == ["0", "0"]
    assert "Incremental: 953 of 145,720 rows were loaded, those that are new, changed or without a cursor; 12 are new." in lines


def test_a_run_that_loads_everything_again_is_not_called_incremental() -> None:
    lines = show(make_row("demo_database", loaded=0, new_rows=0), make_row("demo_files", new_rows=0), agree=True)
    assert "Loaded anew, not incrementally: demo_files." in lines
    assert not any("Incremental" in line for line in lines)


def test_a_failed_tenant_shows_its_error_and_the_failed_check() -> None:
    lines = show(make_row("demo_api", totals=None, error="no answer from [the API]\n  remedy: start it", passed=False), make_row("demo_files"), agree=False)
    assert "demo_api: check orders_add_up of demo_api/marts/orders failed (error)" in lines
    assert lines[lines.index("demo_api failed:") + 1 :][:2] == ["no answer from [the API]", "  remedy: start it"]
    assert not any("agree" in line or "differ" in line for line in lines)


def test_tenants_that_differ_are_shown_one_by_one() -> None:
    other = ShopTotals(orders=1, revenue=Decimal("5.00"), tax=Decimal("0.30"), supply_cost=Decimal(1), customers=1, lifetime_value=Decimal("5.30"))
    lines = show(make_row("demo_database"), make_row("demo_api", totals=other), agree=False)
    start = lines.index("The shops' marts differ from each other:")
    assert lines[start + 1].startswith("demo_database: ShopTotals(orders=72860,")
    assert lines[start + 2].startswith("demo_api: ShopTotals(orders=1,")


def test_json_adds_the_demos_own_figures_and_keeps_money_exact() -> None:
    line = json.loads(json.dumps(to_json(make_row("demo_files", loaded=0, new_rows=0))))
    assert line["totals"]["lifetime_value"] == "852345.10"
    assert (line["tenant"], line["incremental"], line["new_rows"], line["streams"], line["models"]) == ("demo_files", True, 0, 1, 2)
    assert line["assets"] == [{"key": "demo_files/raw/shop/orders", "status": "success", "rows_loaded": 72860, "rows_rejected": 0, "warnings": []}]


def make_file(name: str, status: Status, *, reason: str | None = None, loaded: int = 0, rejected: int = 0) -> ImportedFile:
    written = datetime(2019, 1, 1, tzinfo=UTC)
    file = ImportedFile(name, "v1", "ab" * 32, 100, written, status, reason)
    return replace(file, rows_read=loaded + rejected, rows_loaded=loaded, rows_rejected=rejected)


def make_ads_row() -> DemoRow:
    files = [
        make_file("jan[1].csv", "loaded", loaded=1_490, rejected=6),
        make_file("feb.csv", "quarantined", reason="unclosed_quote"),
        make_file("jan (1).csv", "duplicate"),
        make_file("mar.xlsx", "loaded", loaded=10),
    ]
    totals = AdTotals(days=59, spend=Decimal("12345.600000"), clicks=2_345, conversions=67, anomalies=2)
    return replace(make_row("demo_ads", totals=None), source="csv_import", dropped=Dropped(files, totals))


def test_dropped_files_are_shown_with_what_was_loaded_rejected_and_quarantined() -> None:
    lines = show(make_row("demo_database"), make_row("demo_files"), make_ads_row(), agree=True)
    start = lines.index("Dropped for demo_ads: 4 files, of which 2 loaded, 1 duplicate, 1 quarantined;")
    assert lines[start + 1] == "1,506 rows read, of which 1,500 loaded and 6 rejected."
    assert lines[start + 3].split() == ["file", "became", "rows", "loaded", "rejected", "reason"]
    assert [line.split() for line in lines[start + 4 : start + 8]] == [
        ["jan[1].csv", "loaded", "1,496", "1,490", "6"],
        ["feb.csv", "quarantined", "0", "0", "0", "unclosed_quote"],
        ["jan", "(1).csv", "duplicate", "0", "0", "0"],
        ["mar.xlsx", "loaded", "10", "10", "0"],
    ]
    assert "Ad spend: 12,345.60 USD on 59 days, 2,345 clicks, 67 conversions; 2 days of a channel stand out." in lines
    assert any(line.startswith("All shops agree") for line in lines)


def test_json_names_each_dropped_file() -> None:
    line = json.loads(json.dumps(to_json(make_ads_row())))
    assert line["files"][1] == {"name": "feb.csv", "status": "quarantined", "reason": "unclosed_quote", "rows_read": 0, "rows_loaded": 0, "rows_rejected": 0}
    assert line["totals"] == {"days": 59, "spend": "12345.600000", "clicks": 2345, "conversions": 67, "anomalies": 2}
    assert "files" not in to_json(make_row("demo_files"))
