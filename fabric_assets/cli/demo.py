"""`fabric demo`: a simulated shop, loaded four ways into four tenants, and its ad spend from dropped files; modelled, tested, summed up."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fabric_assets.cli.console.options import AsJson
from fabric_assets.cli.demo_table import DemoRow, Dropped, print_rows, shorten, to_json
from fabric_assets.cli.headless import run_tenants
from fabric_assets.cli.run import get_exit_code, open_progress, print_event
from fabric_assets.config.loader import Fleet, load_fleet
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.factories.runs import RunEvent, TenantResult
    from fabric_assets.rows.imported_file import ImportedFile

SHOPS = ("demo_database", "demo_files", "demo_api", "demo_connectors")
ADS = "demo_ads"
TENANTS = (*SHOPS, ADS)


def demo(
    prepare: Annotated[bool, typer.Option("--prepare", help="Only make the source data.")] = False,
    json_: AsJson = False,
) -> None:
    """Load a simulated shop's year from a database, files and an API, and its ad spend from dropped files; then model and test it."""
    from fabric_assets.demo.data import prepare_demo

    settings = load_settings()
    progress = open_progress()
    shop = prepare_demo(settings.data_dir, report=lambda line: progress.print(line, markup=False))
    if prepare:
        progress.print(f"the demo's source data lies in {shorten(shop.folder)}", markup=False)
        return
    from fabric_assets.demo.api import reach_api

    fleet = load_fleet(settings)
    _check_tenants(fleet, settings)
    _install_connectors(settings, progress)
    before = _count_rows(fleet, settings)
    with reach_api(shop):
        results = run_tenants(fleet, TENANTS, settings=settings, on_event=lambda event: _print_progress(progress, event))
    rows = [_build_row(fleet, result, before.get(result.tenant), settings) for result in results]
    shops = {row.totals for row in rows if row.result.tenant in SHOPS}
    agree = len(shops) == 1 and None not in shops
    if json_:
        typer.echo(json.dumps({"tenants": [to_json(row) for row in rows], "equal": agree}, indent=2))
    else:
        # The next commands work on the tenants of the repository only.
        is_own = all(get_kind(loaded.config).has_file for loaded in fleet.tenants.values())
        print_rows(Console(highlight=False, soft_wrap=True), rows, agree=agree, says_next=is_own)
    raise typer.Exit(get_exit_code(results) or int(not agree))


def _check_tenants(fleet: Fleet, settings: Settings) -> None:
    if missing := [name for name in TENANTS if name not in fleet.tenants and name not in fleet.broken]:
        raise ConfigurationError(
            f"the demo's tenants {', '.join(missing)} are not in {shorten(settings.tenants_dir)}",
            remedy="run it at the root of the repository, with FABRIC_TENANTS_DIR and FABRIC_TENANTS unset",
        )


def _install_connectors(settings: Settings, progress: Console) -> None:
    """Install the connectors that the demo's tenants name, as they are locked."""
    from fabric_assets.config.connectors_file import load_connectors
    from fabric_assets.connectors.bridge.installing.building import install
    from fabric_assets.connectors.bridge.installing.checking import find_findings

    connectors = load_connectors(settings)
    lacking = [name for name in connectors if any(find_findings(settings, name, connectors[name]))]
    if not lacking:
        return
    progress.print(f"installing the connectors {', '.join(lacking)} (once, some seconds)", markup=False)
    for _ in install(settings, connectors, names=lacking, frozen=True, report=lambda line: progress.print(line, markup=False)):
        pass


def _print_progress(console: Console, event: "RunEvent") -> None:
    # About two hundred checks pass; the table counts them.
    if not (event.kind == "check" and event.passed):
        print_event(console, event)


def _count_rows(fleet: Fleet, settings: Settings) -> dict[str, Mapping[str, int] | None]:
    from fabric_assets.demo.totals import count_raw_rows

    return {name: count_raw_rows(fleet.tenants[name].config, settings) for name in TENANTS if name in fleet.tenants}


def _build_row(fleet: Fleet, result: "TenantResult", before: Mapping[str, int] | None, settings: Settings) -> DemoRow:
    from fabric_assets.demo.totals import count_raw_rows, read_ad_totals, read_totals

    built = [asset for asset in result.assets if asset.status == "success"]
    loads = [asset for asset in built if asset.kind == "load"]
    loaded = fleet.tenants.get(result.tenant)
    succeeded = loaded is not None and result.status == "success"
    is_shop = result.tenant in SHOPS
    after = sum((count_raw_rows(loaded.config, settings) or {}).values()) if loaded else 0
    return DemoRow(
        result,
        source=", ".join(source.type for source in loaded.config.sources.values()) if loaded else "?",
        streams=len(loads),
        models=len(built) - len(loads),
        rows_loaded=sum(asset.rows_loaded or 0 for asset in loads),
        rows_total=after,
        new_rows=after - sum(before.values()) if before is not None else None,
        totals=read_totals(loaded.config, settings) if loaded and succeeded and is_shop else None,
        dropped=Dropped(_read_files(loaded.config, settings), read_ad_totals(loaded.config, settings)) if loaded and succeeded and not is_shop else None,
    )


def _read_files(tenant: TenantConfig, settings: Settings) -> "list[ImportedFile]":
    """Read the ledger's entries of all dropped files, the oldest file first."""
    from fabric_assets.drivers.destinations import open_ask
    from fabric_assets.warehouse.platform_tables.imported_files import read_files

    with open_ask(tenant, settings) as ask:
        files = [
            file
            for name, source in tenant.sources.items()
            if isinstance(source, CsvImportSource)
            for stream in source.streams
            for file in read_files(ask, tenant.tenant, name, stream)
        ]
    return sorted(files, key=lambda file: (file.modified_at, file.name))
