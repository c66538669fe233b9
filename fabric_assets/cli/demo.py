"""`fabric demo`: a simulated shop, loaded three ways into three tenants, modelled, tested, and summed up in one table."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fabric_assets.cli.headless import run_tenants
from fabric_assets.cli.run import get_exit_code, print_event, to_json
from fabric_assets.config.loader import Fleet, load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.demo.totals import ShopTotals
    from fabric_assets.factories.runs import RunEvent, TenantResult

TENANTS = ("demo_database", "demo_files", "demo_api")


@dataclass(frozen=True)
class DemoRow:
    """One tenant's line of the table.

    Args:
        new_rows: rows that the raw tables gained; None on the tenant's first run.
        totals: None where the run failed.
    """

    result: "TenantResult"
    source: str
    streams: int
    models: int
    rows_loaded: int
    new_rows: int | None
    totals: "ShopTotals | None"


def demo(
    prepare: Annotated[bool, typer.Option("--prepare", help="Only make the source data.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a shop's simulated year, load it from a database, from files and from an API, model and test it; a second run is incremental."""
    from fabric_assets.demo.data import prepare_demo

    settings = load_settings()
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    shop = prepare_demo(settings.data_dir, report=lambda line: progress.print(line, markup=False))
    if prepare:
        progress.print(f"the demo's source data lies in {_shorten(shop.folder)}", markup=False)
        return
    from fabric_assets.demo.api import reach_api

    fleet = load_fleet(settings)
    _check_tenants(fleet, settings)
    before = _count_rows(fleet, settings)
    with reach_api(shop):
        results = run_tenants(fleet, TENANTS, settings=settings, on_event=lambda event: _print_progress(progress, event))
    rows = [_build_row(fleet, result, before.get(result.tenant), settings) for result in results]
    agree = len({row.totals for row in rows}) == 1 and rows[0].totals is not None
    if json_:
        typer.echo(json.dumps({"tenants": [_to_json(row) for row in rows], "equal": agree}, indent=2))
    else:
        _print_rows(Console(highlight=False, soft_wrap=True), rows, agree=agree)
    raise typer.Exit(get_exit_code(results) or int(not agree))


def _check_tenants(fleet: Fleet, settings: Settings) -> None:
    if missing := [name for name in TENANTS if name not in fleet.tenants and name not in fleet.broken]:
        raise ConfigurationError(
            f"the demo's tenants {', '.join(missing)} are not in {_shorten(settings.tenants_dir)}",
            remedy="run it at the root of the repository, with FABRIC_TENANTS_DIR and FABRIC_TENANTS unset",
        )


def _print_progress(console: Console, event: "RunEvent") -> None:
    # Some two hundred checks pass: the table counts them.
    if not (event.kind == "check" and event.passed):
        print_event(console, event)


def _count_rows(fleet: Fleet, settings: Settings) -> dict[str, Mapping[str, int] | None]:
    from fabric_assets.demo.totals import count_raw_rows

    return {name: count_raw_rows(fleet.tenants[name].config, settings) for name in TENANTS if name in fleet.tenants}


def _build_row(fleet: Fleet, result: "TenantResult", before: Mapping[str, int] | None, settings: Settings) -> DemoRow:
    from fabric_assets.demo.totals import count_raw_rows, read_totals

    built = [asset for asset in result.assets if asset.status == "success"]
    loads = [asset for asset in built if asset.kind == "dlt"]
    loaded = fleet.tenants.get(result.tenant)
    after = count_raw_rows(loaded.config, settings) if loaded and before is not None else None
    return DemoRow(
        result,
        source=", ".join(source.type for source in loaded.config.sources.values()) if loaded else "?",
        streams=len(loads),
        models=len(built) - len(loads),
        rows_loaded=sum(asset.rows_loaded or 0 for asset in loads),
        new_rows=sum((after or {}).values()) - sum(before.values()) if before is not None else None,
        totals=read_totals(loaded.config, settings) if loaded and result.status == "success" else None,
    )


def _to_json(row: DemoRow) -> dict[str, object]:
    totals = {name: value if isinstance(value, int) else str(value) for name, value in asdict(row.totals).items()} if row.totals else None
    return {
        **to_json(row.result),
        "source": row.source,
        "streams": row.streams,
        "models": row.models,
        "rows_loaded": row.rows_loaded,
        "incremental": row.new_rows is not None,
        "new_rows": row.new_rows,
        "totals": totals,
    }


def _print_rows(console: Console, rows: list[DemoRow], *, agree: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("tenant", "source"):
        table.add_column(name)
    for name in ("streams", "rows loaded", "new rows", "models", "checks passed", "seconds"):
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
        for check in row.result.checks:
            if not check.passed:
                console.print(f"{row.result.tenant}: check {check.name} of {check.asset} failed ({check.severity})", markup=False)
        if row.result.error:
            console.print(f"{row.result.tenant} failed:\n{row.result.error}\n", markup=False)
    if all(row.new_rows is not None for row in rows):
        new = sum(row.new_rows or 0 for row in rows)
        console.print(f"Incremental: only what is new or changed was loaded; {new:,} new rows since the last run.")
    totals = rows[0].totals
    if agree and totals:
        console.print(f"All three tenants agree: {totals.orders:,} orders, revenue {totals.revenue:,}, tax {totals.tax:,}, supply cost {totals.supply_cost:,};")
        console.print(f"{totals.customers:,} customers with a lifetime value of {totals.lifetime_value:,} USD.")
    elif all(row.totals for row in rows):
        console.print("[red]The tenants' marts differ from each other:[/]")
        for row in rows:
            console.print(f"{row.result.tenant}: {row.totals}", markup=False)
    fabric = _shorten(Path(sys.argv[0]))
    console.print("\nNext:")
    for command, purpose in (
        ("make demo", "once more: the second run is incremental"),
        ("make dev", "the asset graph in Dagster's UI, at http://127.0.0.1:3000"),
        (f"{fabric} explain demo_database", "a tenant's whole config, and where each value comes from"),
        (f"{fabric} run demo_api --select +marts/orders", "a part of one tenant"),
    ):
        console.print(f"  {command:48} {purpose}", markup=False)


def _shorten(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
