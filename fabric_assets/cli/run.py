"""`fabric run`: materialise tenants without the UI."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.cli.headless import run_tenants
from fabric_assets.cli.tenants import get_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import load_settings

if TYPE_CHECKING:
    from fabric_assets.factories.runs import RunEvent, TenantResult


def run(
    tenants: Tenants = None,
    all_: All = False,
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Parts of the tenant: raw/shop, marts/orders, +marts (with what is upstream); several by comma, space or option.", show_default=False
        ),
    ] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Load everything anew and rebuild incremental models.")] = False,
    json_: AsJson = False,
) -> None:
    """Load, model and check tenants now, with progress; a failing tenant does not hold up the others."""
    selection = [part for text in select or () for part in text.replace(",", " ").split()]
    if select and not selection:
        raise ConfigurationError("--select is empty", remedy="name what to run, or leave --select out to run everything")
    settings = load_settings()
    fleet = load_fleet(settings)
    names = get_tenants(fleet, tenants, all_)
    console = open_progress()
    results = run_tenants(
        fleet,
        names,
        settings=settings,
        selection=selection,
        full_refresh=full_refresh,
        on_event=lambda event: print_event(console, event),
    )
    if json_:
        typer.echo(json.dumps({"tenants": [to_json(result) for result in results]}, indent=2))
    else:
        print_results(Console(highlight=False), results)
    raise typer.Exit(get_exit_code(results))


def open_progress() -> Console:
    """Return the console for progress. Its size is fixed, and it is asked once whether it is a terminal: Rich asks for both several times a line."""
    return Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=Console(stderr=True).is_terminal, width=80, height=25)


def print_event(console: Console, event: "RunEvent") -> None:
    """Print one line of progress."""
    sign = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}[event.passed]
    console.print(Text.assemble((event.tenant, "bold"), " ", sign, " ", event.message))


def print_results(console: Console, results: "list[TenantResult]") -> None:
    """Print one line per tenant, then each error."""
    table = Table("tenant", "status", "assets", "rows loaded", "rejected", "checks passed", "seconds", box=None, pad_edge=False)
    for result in results:
        built = sum(asset.status == "success" for asset in result.assets)
        passed = sum(check.passed for check in result.checks)
        rows = sum(asset.rows_loaded or 0 for asset in result.assets)
        rejected = sum(asset.rows_rejected or 0 for asset in result.assets)
        table.add_row(
            result.tenant,
            result.status,
            f"{built}/{len(result.assets)}",
            f"{rows:,}",
            f"{rejected:,}",
            f"{passed}/{len(result.checks)}",
            f"{result.seconds:.1f}",
        )
    console.print(table)
    for result in results:
        for asset in result.assets:
            for warning in asset.warnings:
                console.print(f"{result.tenant}: warning: {asset.key}: {warning}", markup=False, soft_wrap=True)
        if sum(asset.rows_rejected or 0 for asset in result.assets):
            console.print(f"{result.tenant}: see the rejected rows and why: fabric rejects list {result.tenant}", markup=False, soft_wrap=True)
        for check in result.checks:
            if not check.passed and check.severity == "warn":
                console.print(f"{result.tenant}: warning: check {check.name} of {check.asset} failed: {check.message}", markup=False, soft_wrap=True)
        if result.error:
            console.print(f"\n{result.tenant}:\n{result.error}", markup=False, soft_wrap=True)


def to_json(result: "TenantResult") -> dict[str, object]:
    """Return the result as `fabric run --json` prints it."""
    return {
        "tenant": result.tenant,
        "status": result.status,
        "run_id": result.run_id,
        "seconds": result.seconds,
        "assets": [
            {
                "key": asset.key,
                "status": asset.status,
                "rows_loaded": asset.rows_loaded,
                "rows_rejected": asset.rows_rejected,
                "warnings": list(asset.warnings),
            }
            for asset in result.assets
        ],
        "checks": [{"asset": check.asset, "name": check.name, "passed": check.passed, "severity": check.severity} for check in result.checks],
        "error": result.error,
    }


def get_exit_code(results: "list[TenantResult]") -> int:
    """Return 0 for success, 1 if a run or a check of severity error failed or a run was interrupted, 2 for wrong configuration only."""
    if any((result.run_id or result.interrupted) and (result.status != "success" or result.has_failed_check) for result in results):
        return 1
    return 2 if any(result.status != "success" for result in results) else 0
