"""`fabric secrets`: manage the sealed store. Values come from standard input or a hidden prompt, never from the command line, and are never shown."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from fabric_assets.cli.console.options import AsJson
from fabric_assets.errors import ConfigurationError
from fabric_assets.offboarded import find_offboarding, refuse_offboarded
from fabric_assets.settings import Settings, load_settings

app = typer.Typer(name="secrets", help="Seal the secrets that {secret: NAME} refers to.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's name, or a glob; left out with --all.", show_default=False)]
SecretName = Annotated[str | None, typer.Argument(metavar="NAME", help="The secret's name, as in {secret: NAME}.", show_default=False)]
Tenants = Annotated[list[str] | None, typer.Argument(metavar="[TENANT]...", help="Names or globs of tenants.", show_default=False)]
EverySealed = Annotated[bool, typer.Option("--all", help="All tenants that have sealed secrets, with or without a YAML file.")]


@app.command("set")
def set_secret(
    tenant: Tenant, name: SecretName = None, every: Annotated[bool, typer.Option("--all", help="The same value for all tenants that have a YAML file.")] = False
) -> None:
    """Encrypt and store a secret, read from standard input or a hidden prompt; replaces an existing one."""
    from fabric_assets.config.folder import get_tenant_files
    from fabric_assets.security.secrets import check_names, write_secret

    settings = load_settings()
    pattern, secret = _split_arguments(tenant, name, every)
    declared = get_tenant_files(settings.tenants_dir).paths if settings.tenants_dir.is_dir() else {}
    tenants = _choose([pattern], [stem for stem in declared if settings.serves(stem) and not find_offboarding(stem, settings.data_dir)])
    for chosen in tenants:
        check_names(chosen, secret)
        refuse_offboarded(chosen, settings.data_dir)  # before somebody types the value
    value = _read_value(f"Value of {', '.join(tenants)}/{secret}")
    for chosen in tenants:
        write_secret(chosen, secret, value, settings=settings)
        if chosen not in declared:
            typer.echo(f"note: there is no {settings.tenants_dir / f'{chosen}.yaml'} yet", err=True)
        typer.echo(f"sealed {chosen}/{secret}", err=True)


@app.command("list")
def list_names(tenants: Tenants = None, every: EverySealed = False, as_json: AsJson = False) -> None:
    """List the names of stored secrets; values are never shown."""
    from fabric_assets.security.secrets import list_secrets

    settings = load_settings()
    found = [{"tenant": tenant, "secrets": list(list_secrets(tenant, settings=settings))} for tenant in _choose_sealed(tenants, every, settings)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for entry in found:
        for name in entry["secrets"]:
            typer.echo(f"{entry['tenant']}\t{name}")
    if not any(entry["secrets"] for entry in found):
        typer.echo("no sealed secrets", err=True)


@app.command("remove")
def remove(
    tenant: Tenant, name: SecretName = None, every: Annotated[bool, typer.Option("--all", help="From all tenants that have a secret of that name.")] = False
) -> None:
    """Delete a stored secret."""
    from fabric_assets.security.secrets import list_sealed_tenants, list_secrets, remove_secret

    settings = load_settings()
    pattern, secret = _split_arguments(tenant, name, every)
    # With a glob, the tenants that have the secret are chosen; a tenant that is named must have it.
    holders = [sealed for sealed in list_sealed_tenants(settings) if secret in list_secrets(sealed, settings=settings)]
    for chosen in _choose([pattern], holders):
        remove_secret(chosen, secret, settings=settings)
        typer.echo(f"removed {chosen}/{secret}", err=True)


@app.command("rotate")
def rotate(tenants: Tenants = None, every: EverySealed = False, as_json: AsJson = False) -> None:
    """Encrypt all secrets with the newest key of FABRIC_SECRET_KEYS. Safe to run again after an interruption."""
    from fabric_assets.security.rotation import needs_older_keys, rotate_secrets
    from fabric_assets.security.secrets import list_sealed_tenants

    settings = load_settings()
    rotations = [rotate_secrets(tenant, settings=settings) for tenant in _choose_sealed(tenants, every, settings)]
    needing = [tenant for tenant in list_sealed_tenants(settings) if needs_older_keys(tenant, settings=settings)]
    if as_json:
        typer.echo(json.dumps({"tenants": [asdict(rotation) for rotation in rotations], "older_keys_needed_by": needing}))
    for rotation in rotations:
        for message in rotation.failed.values():
            typer.echo(f"error: {message}", err=True)
        if not as_json:
            counts = {"rotated": rotation.rotated, "already under the newest key": rotation.current, "failed": rotation.failed}
            typer.echo(f"{rotation.tenant}: " + ", ".join(f"{len(names)} {word}" for word, names in counts.items()))
    if not as_json:
        typer.echo(_describe_older_keys(needing, len(settings.secret_keys) - 1))
    if any(rotation.failed for rotation in rotations):
        raise typer.Exit(1)


def _describe_older_keys(needing: list[str], older: int) -> str:
    if needing:
        return f"keep the older keys in FABRIC_SECRET_KEYS: {len(needing)} tenants still need them or could not be read: {', '.join(needing)}"
    if not older:
        return "all secrets are sealed with the one key of FABRIC_SECRET_KEYS"
    return (
        f"all secrets are sealed with the newest key: once every process has it, remove the {older} older from FABRIC_SECRET_KEYS; keep them with older backups"
    )


def _split_arguments(tenant: str, name: str | None, every: bool) -> tuple[str, str]:
    """Split the arguments into the tenant's pattern and the secret's name; with --all only the name is given."""
    if every == (name is not None):
        raise ConfigurationError("name one tenant or glob and the secret, or --all and the secret", remedy="e.g. fabric secrets set acme shop_url")
    return ("*", tenant) if name is None else (tenant, name)


def _choose_sealed(patterns: list[str] | None, every: bool, settings: Settings) -> list[str]:
    from fabric_assets.security.secrets import list_sealed_tenants

    if bool(patterns) == every:
        raise ConfigurationError("name tenants or globs, or give --all")
    known = list_sealed_tenants(settings)
    return list(known) if every else _choose(patterns or [], known)


def _choose(patterns: list[str], known: Iterable[str]) -> list[str]:
    """Expand globs; a plain name is kept, so that an unknown name is reported."""
    chosen: dict[str, None] = {}
    for pattern in patterns:
        is_glob = any(character in pattern for character in "*?[")
        found = [name for name in known if fnmatchcase(name, pattern)] if is_glob else [pattern]
        if not found:
            raise ConfigurationError(
                f"'{pattern}' matches no tenant for which this can be done", remedy="see `fabric list tenants` and `fabric secrets list --all`"
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _read_value(prompt: str) -> str:
    if sys.stdin.isatty():
        return typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")
