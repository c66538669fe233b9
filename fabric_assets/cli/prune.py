"""`fabric prune`: list, and drop, the tables of streams and models that no config names any more."""

import json
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fabric_assets.cli.console.each_tenant import get_console, run_for_each
from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings

if TYPE_CHECKING:
    from fabric_assets.config.loader import Fleet, LoadedTenant
    from fabric_assets.transform.graph import ProjectGraph
    from fabric_assets.warehouse.leftovers import Leftover


def prune(
    tenants: Tenants = None,
    all_: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Drop what is listed, after a second look under the tenant's lease.")] = False,
    json_: AsJson = False,
) -> None:
    """List the tables and views of streams, seeds and models that no config names any more; with --yes, drop them.

    What a model or view reads is kept and named, and so is every snapshot. A tenant with mistakes in its YAML or models is left alone.
    """
    results: list[tuple[str, Leftover]] = []
    without_models = set[str]()

    # All tenants are listed by one look at the fleet.
    load_once = cache(_load)

    def collect(config: TenantConfig, settings: Settings) -> None:
        from fabric_assets.factories.pruning import drop, list_leftovers

        loaded, graph = _get(config.tenant, *load_once(settings))
        if yes:
            report = partial(typer.echo, err=True)
            found = drop(loaded, graph, settings, read_again=lambda: _get(config.tenant, *_load(settings)), report=report)
        else:
            found = list_leftovers(loaded, graph, settings)
        if config.transform is None:
            without_models.add(config.tenant)
        results.extend((config.tenant, each) for each in found)

    code = run_for_each(tenants, all_, None, None, collect)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **asdict(each), "dropped": yes and not each.kept} for tenant, each in results], indent=2))
    elif results:
        table = Table("tenant", "table", "kind", "of", "outcome", box=None, pad_edge=False)
        for tenant, each in results:
            outcome = f"kept: {each.kept}" if each.kept else "dropped" if yes else "no config names it"
            if not each.kept and each.what != "stream" and tenant in without_models:
                outcome += ": the YAML has no transform"
            outcome += f"; renamed to {each.renamed_to}" if each.renamed_to else ""
            table.add_row(tenant, f"{each.schema}.{each.name}", each.kind, f"{each.what} {each.of}", outcome)
        get_console().print(table)
        if not yes and not all(each.kept for _, each in results):
            typer.echo("nothing is dropped yet: add --yes", err=True)
    elif not code:
        typer.echo("a config names each table", err=True)
    raise typer.Exit(code)


def _load(settings: Settings) -> "tuple[Fleet, ProjectGraph | None]":
    from fabric_assets.cli.headless import get_valid_fleet
    from fabric_assets.config.loader import load_fleet

    return get_valid_fleet(load_fleet(settings), settings)


def _get(tenant: str, fleet: "Fleet", graph: "ProjectGraph | None") -> "tuple[LoadedTenant, ProjectGraph | None]":
    from fabric_assets.errors import ConfigurationError

    if tenant not in fleet.tenants:
        problems = "\n".join(str(problem) for problem in fleet.broken.get(tenant, ()))
        raise ConfigurationError(f"tenant {tenant} has mistakes, so nothing of it is listed or dropped:\n{problems}")
    return fleet.tenants[tenant], graph
