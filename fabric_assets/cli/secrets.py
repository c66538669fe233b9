"""`fabric secrets`: the sealed store by hand. Values come from standard input or a hidden prompt, never from the command line, and are never shown."""

import json
import sys
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

app = typer.Typer(name="secrets", help="Seal the secrets that {secret: NAME} refers to.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(help="The tenant's name.", show_default=False)]
SecretName = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, as in {secret: NAME}.", show_default=False)]


@app.command("set")
def set_secret(tenant: Tenant, name: SecretName) -> None:
    """Seal a value, read from standard input or a hidden prompt, over what was there."""
    from fabric_assets.security.secrets import write_secret

    settings = load_settings()
    write_secret(tenant, name, _read_value(f"Value of {tenant}/{name}"), settings=settings)
    if not (settings.tenants_dir / f"{tenant}.yaml").exists():
        typer.echo(f"note: there is no {settings.tenants_dir / f'{tenant}.yaml'} yet", err=True)
    typer.echo(f"sealed {tenant}/{name}", err=True)


@app.command("list")
def list_names(
    tenants: Annotated[list[str] | None, typer.Argument(metavar="[TENANT]...", help="Tenants, or globs.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All tenants that have sealed secrets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the sealed secrets; their values are never shown."""
    from fabric_assets.security.secrets import list_secrets

    if bool(tenants) == every:
        raise ConfigurationError("name tenants or globs, or give --all")
    settings = load_settings()
    found = [{"tenant": tenant, "secrets": list(list_secrets(tenant, settings=settings))} for tenant in _choose(tenants or ["*"], settings)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for entry in found:
        for name in entry["secrets"]:
            typer.echo(f"{entry['tenant']}\t{name}")
    if not any(entry["secrets"] for entry in found):
        typer.echo("no sealed secrets", err=True)


@app.command("remove")
def remove(tenant: Tenant, name: SecretName) -> None:
    """Forget a sealed value."""
    from fabric_assets.security.secrets import remove_secret

    remove_secret(tenant, name, settings=load_settings())
    typer.echo(f"removed {tenant}/{name}", err=True)


def _choose(patterns: list[str], settings: Settings) -> list[str]:
    """Expand globs over the tenants that have sealed secrets; a plain name stays, so that a wrong one is told."""
    from fabric_assets.security.secrets import list_sealed_tenants

    known = list_sealed_tenants(settings)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        is_glob = any(character in pattern for character in "*?[")
        chosen.update(dict.fromkeys([name for name in known if fnmatchcase(name, pattern)] if is_glob else [pattern]))
    return list(chosen)


def _read_value(prompt: str) -> str:
    if sys.stdin.isatty():
        return typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")
