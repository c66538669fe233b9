"""`fabric validate`, `schema`, `list` and `explain`: the tenants' YAML checked, listed and explained, without a run."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fabric_assets.cli.console.each_tenant import get_console
from fabric_assets.cli.console.options import AsJson
from fabric_assets.cli.console.output import open_output
from fabric_assets.cli.tenants import get_tenants, narrow
from fabric_assets.cli.validation.connector_mistakes import find_connector_mistakes
from fabric_assets.config.effective import EffectiveValue, get_effective_values
from fabric_assets.config.loader import Fleet, Problem, load_fleet
from fabric_assets.config.problems import shorten
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings
from fabric_assets.suggestions import suggest

if TYPE_CHECKING:
    from fabric_assets.transform.graph import ProjectGraph

Tenants = Annotated[list[str] | None, typer.Argument(help="Names or globs of tenants; default: all.", show_default=False)]


class Listed(StrEnum):
    """The words that `fabric list` takes."""

    TENANTS = "tenants"
    SOURCES = "sources"
    STREAMS = "streams"
    MODELS = "models"
    SCHEDULES = "schedules"
    CHECKS = "checks"


def validate(tenants: Tenants = None, all_: Annotated[bool, typer.Option("--all", help="Every tenant (the default).")] = False, json_: AsJson = False) -> None:
    """Find every mistake in the tenants' YAML, and in what they select of the dbt project."""
    settings = load_settings()
    fleet = load_fleet(settings)
    everything = all_ or not tenants
    fleet = narrow(fleet, get_tenants(fleet, tenants, everything))
    fleet, graph, problems = _check_models(_check_connectors(fleet, settings), settings)
    held_up = _list_held_up(fleet, graph)
    problems = _get_unique([*(problem for found in fleet.broken.values() for problem in found), *(fleet.unused if everything else ()), *problems])
    from fabric_assets.cli.validation.address_warnings import find_address_warnings
    from fabric_assets.cli.validation.stream_warnings import find_warnings
    from fabric_assets.transform.deprecations import find_deprecations

    finders = (find_warnings, find_address_warnings)
    warnings = [warning for loaded in fleet.tenants.values() for find in finders for warning in find(loaded, settings)]
    if graph is not None:
        warnings += [warning for loaded in fleet.tenants.values() for warning in find_deprecations(loaded, graph, settings)]
    warnings = _get_unique(warnings)
    if json_:
        listed = [*(_to_json(problem) for problem in problems), *({**_to_json(warning), "severity": "warning"} for warning in warnings)]
        typer.echo(json.dumps(listed, indent=2))
    else:
        for problem in [*problems, *warnings]:
            typer.echo(f"{problem}\n")
    typer.echo(_summarise(fleet, graph, held_up, problems=len(problems), warnings=len(warnings)), err=json_)
    raise typer.Exit(2 if problems else 0)


def _check_connectors(fleet: Fleet, settings: Settings) -> Fleet:
    """Count tenants as broken that name a connector or a setting that is not there."""
    found = {name: tuple(find_connector_mistakes(loaded, settings)) for name, loaded in fleet.tenants.items()}
    broken = {name: problems for name, problems in found.items() if problems}
    return replace(fleet, tenants={name: loaded for name, loaded in fleet.tenants.items() if name not in broken}, broken={**fleet.broken, **broken})


def schema(out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None) -> None:
    """Print the JSON Schema of a tenant's file, for editors and validators."""
    from fabric_assets.config.schema import build_schema

    text = json.dumps(build_schema(), indent=2) + "\n"
    with open_output(out) as file:
        file.write(text)
    if out is not None:
        typer.echo(f"wrote {out}", err=True)


def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    tenants: Tenants = None,
    all_: Annotated[bool, typer.Option("--all", help="Every tenant (the default).")] = False,
    json_: AsJson = False,
) -> None:
    """List what is declared."""
    from fabric_assets.cli.listings import LISTINGS, NEEDS_GRAPH

    settings = load_settings()
    fleet = load_fleet(settings)
    fleet = narrow(fleet, get_tenants(fleet, tenants, all_ or not tenants))
    graph = None
    if what in NEEDS_GRAPH and _has_models(fleet):
        from fabric_assets.cli.headless import get_valid_fleet

        fleet, graph = get_valid_fleet(fleet, settings)
    rows = list(LISTINGS[what](fleet, graph))
    if json_:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        table = Table(*(name.replace("_", " ") for name in rows[0]), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(_to_cell(value) for value in row.values()))
        get_console().print(table)
    if fleet.broken:
        typer.echo(f"{len(fleet.broken)} broken: {', '.join(fleet.broken)}; `fabric validate` says why", err=True)
    raise typer.Exit(2 if fleet.broken else 0)


def explain(
    tenant: Annotated[str, typer.Argument(help="Name of a tenant.", show_default=False)],
    path: Annotated[str, typer.Argument(help="Dotted path, e.g. sources.shop.streams.orders; default: everything.", show_default=False)] = "",
    json_: AsJson = False,
) -> None:
    """Show the configuration in force, each value with the file and line that it comes from."""
    fleet = load_fleet(load_settings())
    names = get_tenants(fleet, [tenant], all_=False)
    if len(names) > 1:
        raise ConfigurationError(f"'{tenant}' matches {len(names)} tenants", remedy=f"explain one of: {', '.join(names[:20])}")
    name = next(iter(names))
    if name in fleet.broken:
        raise ConfigurationError("\n".join(str(problem) for problem in fleet.broken[name]), remedy=f"correct the YAML of {name} first")
    values = list(get_effective_values(fleet.tenants[name]))
    chosen = [value for value in values if not path or value.dotted == path or value.dotted.startswith(f"{path}.")]
    if not chosen:
        depth = path.count(".") + 1
        beside = {".".join(str(part) for part in value.path[:depth]) for value in values}
        raise ConfigurationError(f"{name} has no '{path}'{suggest(path, beside)}", remedy=f"`fabric explain {name}` shows all")
    if json_:
        typer.echo(json.dumps([_explain_as_json(value) for value in chosen], indent=2))
        return
    table = Table("value", "from", box=None, pad_edge=False, show_header=False)
    for value in chosen:
        table.add_row(f"{value.dotted}: {json.dumps(value.value, ensure_ascii=False)}", _describe_origin(value))
    get_console().print(table)


def _summarise(fleet: Fleet, graph: "ProjectGraph | None", held_up: list[str], *, problems: int, warnings: int) -> str:
    if problems and graph is None and _has_models(fleet):
        return "The shared dbt project does not parse; no tenant can run."
    summary = f"{len(fleet.tenants) - len(held_up)} of {len(fleet.tenants) + len(fleet.broken)} tenants are fine"
    summary += f"; some models of these cannot be built: {', '.join(held_up)}" if held_up else ""
    found = [f"{number} {name}{'s' if number > 1 else ''} found" for number, name in ((problems, "problem"), (warnings, "warning")) if number]
    return "; ".join([summary, *found])


def _check_models(fleet: Fleet, settings: Settings) -> tuple[Fleet, "ProjectGraph | None", list[Problem]]:
    """Check the tenants against the dbt project, if any has models. A mistake in the shared project is a problem of its own."""
    from fabric_assets.cli.headless import get_valid_fleet

    try:
        checked, graph = get_valid_fleet(fleet, settings)
    except ConfigurationError as error:
        return fleet, None, [Problem("", settings.dbt_project_dir, 1, 1, "", str(error))]
    mistakes = dict.fromkeys(graph.mistakes.values()) if graph is not None else ()
    return checked, graph, [Problem("", settings.dbt_project_dir / found.file, found.line, 1, "", found.message) for found in mistakes]


def _list_held_up(fleet: Fleet, graph: "ProjectGraph | None") -> list[str]:
    """List the tenants with a model that a mistake in a shared file stops."""
    from fabric_assets.transform.selection import select_models

    if graph is None or not graph.stopped:
        return []
    chosen = {name: loaded.config.transform for name, loaded in fleet.tenants.items() if loaded.config.transform}
    models = {name: select_models(graph, tenant=name, transform=transform) for name, transform in chosen.items()}
    return [name for name, found in models.items() if any(model.unique_id in graph.stopped for model in found)]


def _has_models(fleet: Fleet) -> bool:
    return any(loaded.config.transform for loaded in fleet.tenants.values())


def _get_unique(problems: list[Problem]) -> list[Problem]:
    """Keep one problem for each mistake in defaults or a template, not one for each tenant that uses it."""
    return list({(problem.file, problem.line, problem.column, problem.path, problem.message): problem for problem in problems}.values())


def _to_json(problem: Problem) -> dict[str, object]:
    return {"file": shorten(problem.file), "line": problem.line, "column": problem.column, "path": problem.path, "message": problem.message}


def _explain_as_json(value: EffectiveValue) -> dict[str, object]:
    origin = value.origin
    where = {"file": shorten(origin.file), "line": origin.line, "column": origin.column} if origin else {"file": None, "line": None, "column": None}
    return {"path": value.dotted, "value": value.value, "default": origin is None, **where}


def _describe_origin(value: EffectiveValue) -> str:
    return f"{shorten(value.origin.file)}:{value.origin.line}" if value.origin else "default"


def _to_cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
