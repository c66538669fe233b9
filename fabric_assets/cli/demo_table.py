"""What `fabric demo` prints: a line per tenant, whether they agree, and what to type next."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fabric_assets.cli import run

if TYPE_CHECKING:
    from fabric_assets.demo.totals import ShopTotals
    from fabric_assets.factories.runs import TenantResult


@dataclass(frozen=True)
class DemoRow:
    """One tenant's line of the table.

    Args:
        rows_total: rows that the raw tables hold after the run.
        new_rows: rows that the raw tables gained; None on the tenant's first run.
        totals: None where the run failed.
    """

    result: "TenantResult"
    source: str
    streams: int
    models: int
    rows_loaded: int
    rows_total: int
    new_rows: int | None
    totals: "ShopTotals | None"

    @property
    def is_incremental(self) -> bool:
        """Whether the run built on an earlier one: what was there already was not loaded once more."""
        return self.new_rows is not None and self.rows_loaded < self.rows_total


def to_json(row: DemoRow) -> dict[str, object]:
    """The line as `fabric demo --json` prints it: that of `fabric run`, and what the demo adds."""
    totals = {name: value if isinstance(value, int) else str(value) for name, value in asdict(row.totals).items()} if row.totals else None
    return {
        **run.to_json(row.result),
        "source": row.source,
        "streams": row.streams,
        "models": row.models,
        "rows_loaded": row.rows_loaded,
        "rows_total": row.rows_total,
        "incremental": row.is_incremental,
        "new_rows": row.new_rows,
        "totals": totals,
    }


def print_rows(console: Console, rows: list[DemoRow], *, agree: bool) -> None:
    """Print the table, what went wrong, whether the tenants agree, and what comes next."""
    table = Table(box=None, pad_edge=False)
    for name in ("tenant", "source"):
        table.add_column(name, no_wrap=True)
    for name in ("streams", "rows", "new rows", "models", "checks passed", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        passed = sum(check.passed for check in row.result.checks)
        new_rows = row.rows_loaded if row.new_rows is None else row.new_rows
        numbers = (
            str(row.streams),
            f"{row.rows_loaded:,}",
            f"{new_rows:,}",
            str(row.models),
            f"{passed}/{len(row.result.checks)}",
            f"{row.result.seconds:.1f}",
        )
        table.add_row(row.result.tenant, row.source, *numbers)
    console.print(table)
    console.print()
    for row in rows:
        _print_problems(console, row.result)
    _print_increment(console, rows)
    _print_agreement(console, rows, agree=agree)
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
    totals = rows[0].totals
    if agree and totals:
        console.print(f"All three tenants agree: {totals.orders:,} orders, revenue {totals.revenue:,}, tax {totals.tax:,}, supply cost {totals.supply_cost:,};")
        console.print(f"{totals.customers:,} customers with a lifetime value of {totals.lifetime_value:,} USD.")
    elif all(row.totals for row in rows):
        console.print("[red]The tenants' marts differ from each other:[/]")
        for row in rows:
            console.print(f"{row.result.tenant}: {row.totals}", markup=False)


def _print_next(console: Console) -> None:
    # The name under which the command was found: on a fresh machine it is not on PATH.
    fabric = shorten(Path(sys.argv[0]))
    console.print("\nNext:")
    for command, purpose in (
        ("make demo", "once more: the second run is incremental"),
        ("make dev", "the asset graph in Dagster's UI, at http://127.0.0.1:3000"),
        (f"{fabric} explain demo_database", "a tenant's whole config, and where each value comes from"),
        (f"{fabric} run demo_files --select +marts/orders", "one mart, and what it needs"),
    ):
        console.print(f"  {command:54}  {purpose}", markup=False)


def shorten(path: Path) -> str:
    """Name a path below the current folder from there, any other in full."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
