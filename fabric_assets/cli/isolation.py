"""`fabric isolation`: test now whether tenants can reach other data than their own."""

import json
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from fabric_assets.cli.console.each_tenant import get_console, run_for_each
from fabric_assets.cli.console.options import All, AsJson, Tenants

if TYPE_CHECKING:
    from fabric_assets.config.tenant import TenantConfig
    from fabric_assets.isolation.report import Attempt, IsolationReport
    from fabric_assets.settings import Settings


def isolation(
    tenants: Tenants = None,
    all_: All = False,
    json_: AsJson = False,
) -> None:
    """Test tenant isolation: log in as each tenant, try to access other data, roll back, report what succeeded (exit code 1)."""
    from fabric_assets.isolation.check import check_isolation

    reports: list[IsolationReport] = []

    def work(tenant: "TenantConfig", settings: "Settings") -> None:
        reports.append(check_isolation(tenant, settings))

    code = run_for_each(tenants, all_, None, None, work)
    if json_:
        typer.echo(json.dumps({"tenants": [to_json(report) for report in reports]}, indent=2))
    else:
        print_reports(reports)
    raise typer.Exit(code or int(any(not report.passed for report in reports)))


def print_reports(reports: "list[IsolationReport]") -> None:
    """Print a line per tenant, then what was found."""
    table = Table("tenant", "isolated", "attempts", "denied", "succeeded", "not tried", box=None, pad_edge=False)
    for report in reports:
        counts = [len(report.attempts), *(len(report.list(outcome)) for outcome in ("denied", "succeeded", "untried"))]
        word = "yes" if report.passed else "no" if report.list("succeeded") or report.list("exposed") else "not proven"
        table.add_row(report.tenant, word, *(f"{count:,}" for count in counts))
    console = get_console()
    console.print(table)
    for report in reports:
        if not report.passed or report.notes:
            console.print(f"\n{report.tenant}: {report.message}", soft_wrap=True)


def to_json(report: "IsolationReport") -> dict[str, object]:
    return {
        "tenant": report.tenant,
        "passed": report.passed,
        "severity": report.severity,
        "attempts": len(report.attempts),
        "denied": len(report.list("denied")),
        "succeeded": [_show(attempt) for attempt in report.list("succeeded")],
        "exposed": [_show(attempt) for attempt in report.list("exposed")],
        "untried": [_show(attempt) for attempt in report.list("untried")],
        "message": report.message,
    }


def _show(attempt: "Attempt") -> dict[str, str]:
    return {"action": attempt.action, "target": attempt.target, "reason": attempt.reason}
