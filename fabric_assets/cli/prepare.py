"""`fabric prepare`: parse the dbt project and evaluate the tenants' selections of it ahead of time, so that no code server does it.

Loading a code location starts no process. So each deployment runs this command as a step of its own, for every kind of warehouse.
"""

import json

import typer

from fabric_assets.cli.console.options import AsJson
from fabric_assets.config.loader import load_fleet
from fabric_assets.settings import Settings, load_settings


def prepare(json_: AsJson = False) -> None:
    """Pre-parse the dbt project for DuckDB and Postgres, and evaluate what tenants select of it. Run it on each deployment.

    Installs the project's packages first, as `dbt deps` does, where packages.yml or dependencies.yml asks for others than are installed.
    """
    from fabric_assets.drivers.kinds import ADAPTERS
    from fabric_assets.transform.packages import prepare_with_packages
    from fabric_assets.transform.project import is_prepared

    settings = load_settings()
    states = dict[str, str]()
    installed = False
    for adapter in ADAPTERS:
        states[adapter] = "unchanged" if is_prepared(settings, adapter) else "parsed"
        installed = prepare_with_packages(settings, adapter) or installed
    evaluated, wrong = _evaluate(settings)
    if wrong:
        typer.echo(f"{len(wrong)} wrong: {', '.join(wrong)}; `fabric validate` says why", err=True)
    packages = "installed" if installed else "unchanged"
    if json_:
        found = {"packages": packages, "adapters": states, "selections_evaluated": evaluated, "wrong": wrong}
        typer.echo(json.dumps({"project": str(settings.dbt_project_dir), **found}, indent=2))
        return
    typer.echo(f"packages: {packages}")
    for adapter, state in states.items():
        typer.echo(f"{adapter}: {state}")
    typer.echo(f"selections: {f'{evaluated} evaluated' if evaluated else 'unchanged'}")


def _evaluate(settings: Settings) -> tuple[int, list[str]]:
    """Evaluate new selections, and return their number and the tenants whose selection is wrong. A container's image is built without tenants."""
    from fabric_assets.transform.evaluation import evaluate_selections, list_unknown
    from fabric_assets.transform.graph import load_graph
    from fabric_assets.transform.selection import get_evaluation

    if not settings.tenants_dir.is_dir():
        return 0, []
    tenants = [loaded.config for loaded in load_fleet(settings).tenants.values()]
    graph = load_graph(settings)
    evaluated = len(list_unknown(tenants, graph))
    graph = evaluate_selections(tenants, graph, settings)
    wrong = []
    for tenant in tenants:
        if tenant.transform is not None and (found := get_evaluation(graph, tenant=tenant.tenant, transform=tenant.transform)) and found.wrong:
            wrong.append(tenant.tenant)
    return evaluated, wrong
