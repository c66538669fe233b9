"""`fabric connectors`: install, list, show and check the connectors of the operators' list."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fabric_assets.cli.console.options import AsJson
from fabric_assets.config.connectors_file import ConnectorEntry, get_entry, load_connectors
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.connectors.bridge.installing.environments import Environment

app = typer.Typer(name="connectors", help="The connectors that the operators install, and that tenants' YAML names.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Names of connectors; default: all.", show_default=False)]


@app.command("install")
def install(
    names: Names = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Refuse connectors that connectors.lock does not hold as connectors.yaml says.")] = False,
) -> None:
    """Lock connectors in connectors.lock, and install each in a read-only environment of its own."""
    from fabric_assets.connectors.bridge.installing.building import install as install_all

    settings = load_settings()
    connectors = load_connectors(settings)
    chosen = _choose(connectors, names, settings)
    for done in install_all(settings, connectors, names=chosen, frozen=frozen, report=lambda line: typer.echo(line, err=True)):
        typer.echo(f"{done.name}: {done.was}, {done.packages} packages")
        for change in done.changes:
            typer.echo(f"{done.name}: {change}")
    if not chosen:
        typer.echo(f"{settings.connectors} names no connector")


@app.command("list")
def list_(json_: AsJson = False) -> None:
    """List the connectors, and which of them are installed."""
    settings = load_settings()
    found = [_describe(settings, name, entry) for name, entry in load_connectors(settings).items()]
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("connector", "type", "requirements", "installed", "confined", box=None, pad_edge=False)
    for each in found:
        words = ("yes" if each[key] else "no" for key in ("installed", "confined"))
        table.add_row(each["name"], each["type"], ", ".join(each["requirements"]), *words)
    Console(highlight=False, soft_wrap=True).print(table)


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of a connector.", show_default=False)], json_: AsJson = False) -> None:
    """Show a connector: its locked packages, and the settings that it has."""
    from fabric_assets.connectors.bridge.installing.building import get_lock_file
    from fabric_assets.connectors.bridge.installing.lock_file import read_lock

    settings = load_settings()
    entry = get_entry(load_connectors(settings), name, settings)
    environment, locked = _find(settings, name), read_lock(get_lock_file(settings)).get(name)
    spec = environment.spec if environment else None
    packages = [line.split(" ")[0] for line in locked.requirements] if locked else []
    streams = environment.streams if environment else None
    found = {**_describe(settings, name, entry), "packages": packages, "settings": spec, "streams": streams}
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{name}: {entry.type}, {'installed' if environment else 'not installed'}")
    typer.echo(f"packages: {', '.join(packages) or 'none locked'}")
    if streams is not None:
        typer.echo(f"streams: {', '.join(streams)}")
    if spec is None:
        typer.echo("settings: the connector does not say; it checks them itself when it runs")
        return
    table = Table("setting", "type", "required", "description", box=None, pad_edge=False)
    for key, declared in spec.get("properties", {}).items():
        kinds = declared.get("type", "")
        kind = kinds if isinstance(kinds, str) else ", ".join(each for each in kinds if each != "null")
        table.add_row(key, kind, "yes" if key in spec.get("required", ()) else "", str(declared.get("description", "")))
    Console(highlight=False, soft_wrap=True).print(table)


@app.command("check")
def check(names: Names = None, json_: AsJson = False) -> None:
    """Check that connectors are installed as locked, and say what confines them on this machine."""
    from fabric_assets.connectors.bridge.installing.checking import find_findings
    from fabric_assets.connectors.bridge.process.confinement import describe_confinement

    settings = load_settings()
    connectors = load_connectors(settings)
    findings = [
        {"connector": name, "finding": each} for name in _choose(connectors, names, settings) for each in find_findings(settings, name, connectors[name])
    ]
    confinement = list(describe_confinement())
    if json_:
        typer.echo(json.dumps({"findings": findings, "confinement": confinement}, indent=2))
    else:
        for line in confinement:
            typer.echo(line)
        for each in findings:
            typer.echo(f"{each['connector']}: {each['finding']}")
        typer.echo("every connector is installed as locked" if not findings else f"{len(findings)} findings")
    raise typer.Exit(1 if findings else 0)


def _choose(connectors: dict[str, ConnectorEntry], names: list[str] | None, settings: Settings) -> list[str]:
    for name in names or ():
        get_entry(connectors, name, settings)
    return names or list(connectors)


def _describe(settings: Settings, name: str, entry: ConnectorEntry) -> dict[str, Any]:
    return {
        "name": name,
        "type": entry.type,
        "requirements": list(entry.requirements),
        "executable": entry.executable,
        "installed": _find(settings, name) is not None,
        "confined": not entry.trusted,
    }


def _find(settings: Settings, name: str) -> "Environment | None":
    from fabric_assets.connectors.bridge.installing.environments import get_environment

    try:
        return get_environment(settings, name)
    except ConfigurationError:
        return None
