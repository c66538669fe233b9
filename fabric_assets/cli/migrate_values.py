"""`fabric migrate-values`: convert tables that an earlier release has made to the present names and forms."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fabric_assets.cli.console.each_tenant import run_for_each
from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings

if TYPE_CHECKING:
    from fabric_assets.loading.older_forms.migration import Migrated

_DONE = {"current", "migrated", "planned"}
_WORDS = {"migrated": "migrated", "planned": "would be migrated", "unknown": "left", "reload": "left", "failed": "failed, and nothing was changed"}


def migrate_values(
    tenants: Tenants = None,
    all_: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")] = False,
    json_: AsJson = False,
) -> None:
    """Convert columns that an earlier release has made to the present names and forms, each stream in one transaction."""
    from fabric_assets.loading.older_forms.migration import migrate

    results: list[tuple[str, Migrated]] = []

    def collect(config: TenantConfig, settings: Settings) -> None:
        results.extend((config.tenant, found) for found in migrate(config, settings, dry_run=dry_run, report=lambda message: typer.echo(message, err=True)))

    code = run_for_each(tenants, all_, None, None, collect)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **asdict(found)} for tenant, found in results], indent=2, ensure_ascii=False))
    else:
        for tenant, found in results:
            if found.status != "current":
                typer.echo(_describe(tenant, found))
        if not code and all(found.status == "current" for _, found in results):
            typer.echo("every stream has the present forms", err=True)
    raise typer.Exit(max(code, int(any(found.status not in _DONE for _, found in results))))


def _describe(tenant: str, found: "Migrated") -> str:
    changes = [f"{old} is now {new}" for old, new in found.renamed.items()] + [f"{column} is rewritten" for column in found.rewritten]
    said = "; ".join([*changes, *([found.message] if found.message else [])])
    return f"{tenant} {found.source}.{found.stream}: {': '.join([_WORDS[found.status], *([said] if said else [])])}"
