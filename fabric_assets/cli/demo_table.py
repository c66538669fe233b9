"""The output of `fabric demo`: a line per tenant, whether the shops agree, the dropped files, and the next commands to try."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fabric_assets.cli import run

if TYPE_CHECKING:
    from fabric_assets.demo.totals import AdTotals, ShopTotals
    from fabric_assets.factories.runs import TenantResult
    from fabric_assets.rows.imported_file import ImportedFile


@dataclass(frozen=True)
class Dropped:
    """The dropped files of a tenant with their status, and the totals of the marts that are built from them."""

    files: "list[ImportedFile]"
    totals: "AdTotals"

    def count(self, status: str) -> int:
        return sum(file.status == status for file in self.files)


@dataclass(frozen=True)
class DemoRow:
    """One tenant's line of the table.

    Args:
        rows_total: rows that the raw tables hold after the run.
        new_rows: rows that the raw tables gained; None on the tenant's first run.
        totals: of a shop; None where the run failed.
        dropped: of a tenant with dropped files; None where the run failed.
    """

    result: "TenantResult"
    source: str
    streams: int
    models: int
    rows_loaded: int
    rows_total: int
    new_rows: int | None
    totals: "ShopTotals | None"
    dropped: Dropped | None = None

    @property
    def is_incremental(self) -> bool:
        """Whether the run built on an earlier one, and did not load all rows again."""
        return self.new_rows is not None and self.rows_loaded < self.rows_total


def to_json(row: DemoRow) -> dict[str, object]:
    """Return the line for `fabric demo --json`: that of `fabric run`, and the demo's own keys."""
    return {
        **run.to_json(row.result),
        "source": row.source,
        "streams": row.streams,
        "models": row.models,
        "rows_loaded": row.rows_loaded,
        "rows_total": row.rows_total,
        "incremental": row.is_incremental,
        "new_rows": row.new_rows,
        "totals": _totals_to_json(row.totals),
    } | (_dropped_to_json(row.dropped) if row.dropped else {})


def _totals_to_json(totals: "ShopTotals | AdTotals | None") -> dict[str, object] | None:
    """Return the totals, with money as text so that it stays exact."""
    return {name: value if isinstance(value, int) else str(value) for name, value in asdict(totals).items()} if totals else None


def _dropped_to_json(dropped: Dropped) -> dict[str, object]:
    names = ("name", "status", "reason", "rows_read", "rows_loaded", "rows_rejected")
    return {"files": [{name: getattr(file, name) for name in names} for file in dropped.files], "totals": _totals_to_json(dropped.totals)}


def print_rows(console: Console, rows: list[DemoRow], *, agree: bool, says_next: bool = True) -> None:
    """Print the table, the problems, whether the shops agree, the dropped files, and the next commands.

    Args:
        says_next: print the next commands; they work on the demo's tenants in the repository only.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("tenant", "source"):
        table.add_column(name, no_wrap=True)
    for name in ("streams", "rows", "new\nrows", "models", "checks\npassed", "time"):
        # Headers of two lines: all fits into 80 characters.
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        passed = sum(check.passed for check in row.result.checks)
        new_rows = row.rows_loaded if row.new_rows is None else row.new_rows
        numbers = (
            str(row.streams),
            f"{row.rows_loaded:,}",
            f"{new_rows:,}",
            str(row.models),
            f"{passed}/{len(row.result.checks)}",
            f"{row.result.seconds:.1f} s",
        )
        table.add_row(row.result.tenant, row.source, *numbers)
    console.print(table)
    console.print()
    for row in rows:
        _print_problems(console, row.result)
    _print_increment(console, rows)
    _print_agreement(console, [row for row in rows if row.source != "csv_import"], agree=agree)
    for row in rows:
        if row.dropped:
            _print_dropped(console, row.result.tenant, row.dropped)
    if says_next:
        _print_next(console)


def _print_problems(console: Console, result: "TenantResult") -> None:
    for check in result.checks:
        if not check.passed:
            console.print(f"{result.tenant}: check {check.name} of {check.asset} failed ({check.severity})", markup=False)
    if result.error:
        console.print(f"{result.tenant} failed:\n{result.error}\n", markup=False)


def _print_increment(console: Console, rows: list[DemoRow]) -> None:
    if all(row.is_incremental for row in rows):
        loaded, total, new = (sum(numbers) for numbers in zip(*((row.rows_loaded, row.rows_total, row.new_rows or 0) for row in rows), strict=True))
        console.print(f"Incremental: {loaded:,} of {total:,} rows were loaded, those that are new, changed or without a cursor; {new:,} are new.")
    elif anew := [row.result.tenant for row in rows if row.new_rows is not None and not row.is_incremental]:
        console.print(f"Loaded anew, not incrementally: {', '.join(anew)}.")


def _print_agreement(console: Console, rows: list[DemoRow], *, agree: bool) -> None:
    totals = rows[0].totals if rows else None
    if agree and totals:
        console.print(f"All shops agree: {totals.orders:,} orders, revenue {totals.revenue:,}, tax {totals.tax:,}, supply cost {totals.supply_cost:,};")
        console.print(f"{totals.customers:,} customers with a lifetime value of {totals.lifetime_value:,} USD.")
    elif all(row.totals for row in rows):
        console.print("[red]The shops' marts differ from each other:[/]")
        for row in rows:
            console.print(f"{row.result.tenant}: {row.totals}", markup=False)


def _print_dropped(console: Console, tenant: str, dropped: Dropped) -> None:
    files, totals = dropped.files, dropped.totals
    table = Table(box=None, pad_edge=False)
    table.add_column("file", no_wrap=True)
    table.add_column("became", no_wrap=True)
    for name in ("rows", "loaded", "rejected"):
        table.add_column(name, justify="right")
    table.add_column("reason", no_wrap=True)
    for file in files:
        table.add_row(Text(file.name), file.status, f"{file.rows_read:,}", f"{file.rows_loaded:,}", f"{file.rows_rejected:,}", file.reason or "")
    loaded, rejected = sum(file.rows_loaded for file in files), sum(file.rows_rejected for file in files)
    console.print(f"\nDropped for {tenant}: {len(files)} files, of which {', '.join(f'{dropped.count(status)} {status}' for status in _name_statuses(files))};")
    console.print(f"{loaded + rejected:,} rows read, of which {loaded:,} loaded and {rejected:,} rejected.\n")
    console.print(table)
    console.print(
        f"\nAd spend: {totals.spend:,.2f} USD on {totals.days} days, {totals.clicks:,} clicks, {totals.conversions:,} conversions;"
        f" {totals.anomalies} days of a channel stand out."
    )


def _name_statuses(files: "list[ImportedFile]") -> list[str]:
    found = {file.status for file in files}
    return [status for status in ("loaded", "replaced", "duplicate", "quarantined", "failed") if status in found]


def _print_next(console: Console) -> None:
    # The path under which this command was called: on a fresh machine it is not on PATH.
    fabric = shorten(Path(sys.argv[0]))
    console.print("\nNext:")
    for command, purpose in (
        ("make demo", "once more: the second run is incremental"),
        ("make dev", "the asset graph in Dagster's UI, at http://127.0.0.1:3000"),
        (f"{fabric} explain demo_database", "a tenant's whole config, and where each value comes from"),
        (f"{fabric} run demo_files --select +marts/orders", "one mart, and what it needs"),
        (f"{fabric} rejects list demo_ads", "the rows that were set aside, and why"),
    ):
        console.print(f"  {command:54}  {purpose}", markup=False)


def shorten(path: Path) -> str:
    """Write a path relative to the current folder where it is below it, otherwise in full."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
