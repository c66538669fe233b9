"""`fabric prepare`: the dbt project parsed ahead, so that no code server and no run does it.

Loading a code location starts no process, so somebody parses before: a deployment, as a step of its own, for every kind of warehouse.
"""

import json
from typing import Annotated

import typer

from fabric_assets.settings import load_settings


def prepare(json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False) -> None:
    """Pre-parse the dbt project for DuckDB and Postgres. Run it on each deployment."""
    from fabric_assets.drivers.kinds import ADAPTERS
    from fabric_assets.transform.project import is_prepared, prepare_project

    settings = load_settings()
    states = {}
    for adapter in ADAPTERS:
        states[adapter] = "unchanged" if is_prepared(settings, adapter) else "parsed"
        prepare_project(settings, adapter)
    if json_:
        typer.echo(json.dumps({"project": str(settings.dbt_project_dir), "adapters": states}, indent=2))
    else:
        for adapter, state in states.items():
            typer.echo(f"{adapter}: {state}")
