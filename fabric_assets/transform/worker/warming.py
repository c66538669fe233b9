"""What a worker does before it has a request: everything that every build would do first.

That is dbt's imports, and one harmless call of dbt: its first one spends over half a second on making JSON schemas of its own settings.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from sys import stderr

from fabric_assets.transform.folders import RunFolder

_MODULES = ("dbt.cli.main", "dbt.task.build", "fabric_assets.transform.worker.building")


def import_dbt(adapter: str) -> None:
    """Import what a build on this kind of warehouse needs."""
    for module in (*_MODULES, f"dbt.adapters.{adapter}", f"sqlglot.dialects.{adapter}"):
        import_module(module)


def rehearse(adapter: str, project_dir: str, prepared: Path, *, hold: Callable[[RunFolder], None]) -> None:
    """List nothing of the prepared project, if there is one; it reads no warehouse.

    Args:
        prepared: the prepared manifest.
        hold: told of the folder that must go if this process does.
    """
    if not prepared.is_file():
        return
    from fabric_assets.transform.worker.dbt_call import call_dbt
    from fabric_assets.transform.worker.lineage import LineageFinder
    from fabric_assets.transform.worker.manifest import SELECTED_TAG, load_manifest
    from fabric_assets.transform.worker.profiles import build_placeholder, write_profile

    run = RunFolder(prepared.parent / "warming")
    hold(run)
    try:
        write_profile(run.path, build_placeholder(adapter, run.path))
        with redirect_stdout(stderr):
            call_dbt("list", "--quiet", "--select", f"tag:{SELECTED_TAG}", project_dir=project_dir, folder=run.path, manifest=load_manifest(prepared))
        LineageFinder({}, dialect=adapter).find("with one as (select 1 as number) select number from one")
    finally:
        run.remove()
