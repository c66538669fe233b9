"""`fabric offboard`: delete a whole tenant, with a certificate of what was deleted and a proof that nothing is left."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabric_assets import naming
from fabric_assets.config.folder import get_tenant_files
from fabric_assets.config.loader import load_fleet, load_tenant_names
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError, PermanentError
from fabric_assets.masking import redact
from fabric_assets.own_faults import report_own_fault
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.offboarding.survey import OffboardingRequest


def offboard(
    tenant: Annotated[str, typer.Argument(help="The tenant's name; its YAML may be gone already.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, what would be deleted is counted and shown.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="First write every table and model as Parquet below DIR, and read it back.", show_default=False)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Delete all of one tenant: data, files, secrets, roles, history. Safe to run again after an interruption."""
    settings = load_settings()
    if error := naming.get_tenant_name_error(tenant):
        raise ConfigurationError(f"'{tenant}' is no tenant's name: it {error}")
    if not settings.serves(tenant):
        # Its data is in the folder of another part of the fleet: this command would find nothing, and would certify that.
        raise ConfigurationError(
            f"{tenant} is not served here: FABRIC_TENANTS={','.join(settings.tenants)} does not match it",
            remedy=f"call this in the part of the fleet that serves it; or, if this is the one, with FABRIC_TENANTS={tenant}",
        )
    _check_export(export, settings)
    request = _find(tenant, settings)
    from fabric_assets.factories.instance.opening import get_instance
    from fabric_assets.factories.offboarding import Offboarding
    from fabric_assets.offboarding.certificate import to_markdown

    with get_instance(settings) as instance:
        work = Offboarding(request, instance, lambda line: typer.echo(f"{tenant}: {line}", err=True))
        if not yes and not _ask(tenant, work.preview(), as_json=json_):
            raise typer.Exit(2)
        try:
            certificate = work.run(export)
        except FabricError:
            raise
        except Exception as error:
            if fault := report_own_fault(error, f"{tenant}: its offboarding", data_dir=settings.data_dir, tenant=tenant):
                raise fault from error
            # Only the first line of a driver's message: the next lines may quote a row.
            first = redact(str(error), settings.secret_keys).partition("\n")[0]
            raise PermanentError(f"{tenant}: {type(error).__name__}: {first}", remedy="fix the cause, then run this again: it goes on from here") from error
    typer.echo(json.dumps(certificate, indent=2) if json_ else to_markdown(certificate).rstrip())
    if certificate["proof"]["left"]:
        typer.echo(f"error: something of {tenant} is left, so there is no certificate; run this again to go on", err=True)
        raise typer.Exit(1)
    typer.echo(f"{tenant}: certificate: {naming.offboarding_certificate(settings.data_dir, tenant)}, and .md", err=True)
    if request.config is not None:
        typer.echo(f"{tenant}: now remove its YAML and reload the code locations; until then Dagster may record its name anew", err=True)


def _find(tenant: str, settings: Settings) -> "OffboardingRequest":
    """Build the request: the tenant's YAML, if it exists, its destinations, and a check that no other tenant's inbox would go with it."""
    from fabric_assets.offboarding.destinations import build_name_matcher, find_destinations, get_graph
    from fabric_assets.offboarding.neighbours import refuse_shared_inboxes
    from fabric_assets.offboarding.survey import OffboardingRequest

    config, notes = _load(tenant, settings)
    refuse_shared_inboxes(tenant, settings.data_dir, config, load_tenant_names(settings))
    graph, unread = get_graph(config, settings)
    matcher = build_name_matcher(tenant, settings, graph)
    return OffboardingRequest(tenant, config, settings, matcher, find_destinations(tenant, config, settings, matcher=matcher, graph=graph), (*notes, *unread))


def _load(tenant: str, settings: Settings) -> tuple[TenantConfig | None, tuple[str, ...]]:
    if tenant not in get_tenant_files(settings.tenants_dir).paths:
        return None, ()
    fleet = load_fleet(replace(settings, tenants=(tenant,)), offboarded=True)
    if problems := fleet.broken.get(tenant):
        raise ConfigurationError(
            "\n".join(str(problem) for problem in problems), remedy=f"correct the YAML of {tenant}, which says where its data is; or remove it, if that is lost"
        )
    return fleet.tenants[tenant].config, ()


def _check_export(export: Path | None, settings: Settings) -> None:
    for name, folder in (("FABRIC_DATA_DIR", settings.data_dir), ("FABRIC_PUBLISH_DIR", settings.publish_dir)):
        if export is not None and folder is not None and export.resolve().is_relative_to(folder.resolve()):
            raise ConfigurationError(f"--export: {export} lies in {name}, of which nothing may be left", remedy="name a folder elsewhere")


def _ask(tenant: str, preview: dict[str, Any], *, as_json: bool) -> bool:
    """Show what would be deleted; on a terminal, ask for the tenant's name as confirmation."""
    if as_json:
        typer.echo(json.dumps({"tenant": tenant, "would_delete": preview["found"], "outside": preview["outside"]}, indent=2))
    else:
        typer.echo(_summarise(tenant, preview))
    if sys.stdin.isatty() and not as_json:
        return typer.prompt(f"Type {tenant} to delete all of this", err=True, default="", show_default=False) == tenant
    typer.echo(f"nothing was deleted: call `fabric offboard {tenant} --yes` to delete all of this", err=True)
    return False


def _summarise(tenant: str, preview: dict[str, Any]) -> str:
    found = preview["found"]
    rows = sum(relation["rows"] or 0 for relation in found["relations"])
    lines = [
        f"Of {tenant}, this would be deleted:",
        f"  {len(found['relations'])} tables and views with {rows:,} rows ({preview['destination']})",
        *(f"  {len(names)} {kind}: {', '.join(names)}" for kind, names in found["database"].items()),
        *(f"  {count['files']} files, {count['bytes']:,} bytes: {kind}{_describe_parts(count)}" for kind, count in found["files"].items()),
        *(f"  {count['objects']} objects, {count['bytes']:,} bytes: {path}" for path, count in found["buckets"].items()),
        f"  {len(found['secrets'])} sealed secrets{': ' if found['secrets'] else ''}{', '.join(found['secrets'])}",
        *(f"  {number:,} {kind} in Dagster" for kind, number in found["history"].items()),
        *(f"Not looked at: {entry}" for entry in preview["outside"]),
    ]
    return "\n".join(lines)


def _describe_parts(count: dict[str, Any]) -> str:
    return f" ({', '.join(f'{number} {part}' for part, number in count['parts'].items())})" if count.get("parts") else ""
