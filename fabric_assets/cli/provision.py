"""`fabric provision`: create roles, schemas and grants of tenants whose Postgres destination is managed, and find those that have drifted."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.cli.headless import get_valid_fleet
from fabric_assets.cli.tenants import get_tenants, narrow
from fabric_assets.config.loader import Fleet, load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.security.roles.entitlements import ServerEntitlements, ServerLogin
    from fabric_assets.security.roles.provisioning import Provisioned
    from fabric_assets.security.roles.steps import Step
    from fabric_assets.transform.graph import ProjectGraph


def provision(
    tenants: Tenants = None,
    all_: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL and change nothing; with --fix, also its SQL.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Print what differs, a line each, and change nothing; exit code 1 if anything does.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Also remove what was added by hand: grants, memberships, attributes, owners.")] = False,
    json_: AsJson = False,
) -> None:
    """Create missing Postgres roles, databases, schemas and grants for tenants with `managed: true`."""
    if check and (fix or dry_run):
        raise ConfigurationError("--check changes nothing: give it without --fix and --dry-run")
    settings = load_settings()
    fleet = load_fleet(settings)
    fleet = narrow(fleet, get_tenants(fleet, tenants, all_))
    fleet, graph = get_valid_fleet(fleet, settings)
    for problems in fleet.broken.values():
        typer.echo("\n".join(str(problem) for problem in problems), err=True)
    login, all_entitlements, refused = _build_all_entitlements(fleet, graph, settings, reports_unmanaged=not all_)
    code = 2 if refused or fleet.broken else 0
    if login is None:
        if not refused:
            typer.echo("no tenant here has a managed destination: nothing to provision", err=True)
        if json_:
            typer.echo(json.dumps({"tenants": [], "findings": [], "notices": []}))
        raise typer.Exit(code)
    raise typer.Exit(_work(login, all_entitlements, settings, dry_run=dry_run, check=check, fix=fix, json_=json_) or code)


def _build_all_entitlements(
    fleet: Fleet, graph: "ProjectGraph | None", settings: Settings, *, reports_unmanaged: bool
) -> "tuple[ServerLogin | None, list[ServerEntitlements], bool]":
    """Return the one login, the managed tenants on its server, and whether a managed tenant is refused.

    Args:
        reports_unmanaged: report the tenants that need no provisioning.
    """
    from fabric_assets.transform.entitlements import build_entitlements, get_server_login

    login, all_entitlements, refused = None, [], False
    for name, loaded in fleet.tenants.items():
        if not loaded.config.destination.managed:
            if reports_unmanaged:
                typer.echo(f"{name}: its destination is not managed: nothing to provision", err=True)
            continue
        try:
            login = get_server_login(loaded.config, settings)
            all_entitlements.append(build_entitlements(loaded.config, graph, settings))
        except ConfigurationError as error:
            typer.echo(f"error: {error}", err=True)
            refused = True
    return login, all_entitlements, refused


def _work(
    login: "ServerLogin", all_entitlements: "Sequence[ServerEntitlements]", settings: Settings, *, dry_run: bool, check: bool, fix: bool, json_: bool
) -> int:
    from fabric_assets.security.roles.logins import Logins
    from fabric_assets.security.roles.provisioning import Provisioned
    from fabric_assets.security.roles.provisioning import provision as run_provision
    from fabric_assets.security.roles.server import open_server
    from fabric_assets.security.roles.survey import describe_limits, describe_readers, survey

    logins = Logins(settings)
    with open_server(login, _report) as server:
        notices = describe_limits(server, all_entitlements)
        notices += describe_readers(server, all_entitlements)
        if check or dry_run:
            steps = survey(server, all_entitlements, logins)
            result = Provisioned((), tuple((step, "") for step in steps))
        else:
            result = run_provision(server, all_entitlements, logins, fix=fix)
    for notice in notices:
        typer.echo(f"note: {notice}", err=True)
    if dry_run:
        chosen = [step for step, _ in result.left if fix or step.kind == "missing"]
        _print_sql(chosen, json_=json_)
        return 0
    if json_:
        typer.echo(json.dumps(_to_json(result, all_entitlements, notices), indent=2))
    else:
        _print(result, all_entitlements, check=check, fix=fix)
    if check or fix:
        return int(bool(result.left))
    return int(any(step.kind == "missing" for step, _ in result.left))


def _report(message: str) -> None:
    typer.echo(message, err=True)


def _print_sql(steps: "Sequence[Step]", *, json_: bool) -> None:
    """Print the SQL of the steps, with passwords masked."""
    if json_:
        typer.echo(json.dumps([{"tenant": step.tenant or None, "database": step.database or None, "sql": list(step.statements)} for step in steps], indent=2))
        return
    for step in steps:
        where = f" (in database {step.database})" if step.database and not step.makes_database else ""
        typer.echo(f"-- {step.tenant or 'server'}: {step.finding}{where}")
        for statement in step.statements:
            typer.echo(f"{statement};")
    if not steps:
        typer.echo("nothing to do", err=True)


def _print(result: "Provisioned", all_entitlements: "Sequence[ServerEntitlements]", *, check: bool, fix: bool) -> None:
    for step in result.done if fix else ():
        typer.echo(f"corrected\t{step.tenant or 'server'}: {step.finding}")
    for step, reason in result.left:
        if check or fix or step.kind == "missing":
            status, why = "" if check else "left\t", f" ({reason})" if reason else ""
            typer.echo(f"{status}{step.tenant or 'server'}: {step.finding}{why}")
    if check or fix:
        if not result.left and not result.done:
            typer.echo(f"{len(all_entitlements)} tenants: as they should be", err=True)
        return
    lacking = {step.tenant for step, _ in result.left if step.kind == "missing"}
    for entitlements in all_entitlements:
        changes = sum(step.tenant == entitlements.tenant for step in result.done)
        typer.echo(f"{entitlements.tenant}\t{f'{changes} changes' if changes else 'nothing done' if entitlements.tenant in lacking else 'nothing to do'}")
    if surplus := sum(step.kind != "missing" for step, _ in result.left):
        typer.echo(f"{surplus} findings are left as they are: fabric provision --check names them, --fix takes them away", err=True)


def _to_json(result: "Provisioned", all_entitlements: "Sequence[ServerEntitlements]", notices: list[str]) -> dict[str, object]:
    findings = [(step, "mended", "") for step in result.done] + [(step, "found", reason) for step, reason in result.left]
    return {
        "tenants": [
            {
                "tenant": entitlements.tenant,
                "role": entitlements.owner,
                "reader": entitlements.reader,
                "reader_login": entitlements.bi,
                "database": entitlements.database,
                "schemas": list(entitlements.schemas),
                "mended": sum(step.tenant == entitlements.tenant for step in result.done),
                "left": sum(step.tenant == entitlements.tenant for step, _ in result.left),
            }
            for entitlements in all_entitlements
        ],
        "findings": [
            {
                "tenant": step.tenant or None,
                "finding": step.finding,
                "kind": step.kind,
                "status": status,
                "reason": reason or None,
                "database": step.database or None,
                "sql": list(step.statements),
            }
            for step, status, reason in findings
        ],
        "notices": notices,
    }
