"""The work that every build begins with, done before a worker has a request.

It is dbt's imports, and one harmless call of dbt: the first call spends over half a second on building JSON schemas of dbt's settings.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from sys import stderr

from fabric_assets.private_parts import VERIFIED, is_verified
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.worker.adapters.adapter import get_adapter

# dbt validates settings and files with JSON schemas. It builds each one when a process first needs it: 0.8 s for every call, and 1.5 s more for a parse.
_SETTINGS = (
    "dbt.contracts.project:ProjectFlags",
    "dbt.contracts.project:ProfileConfig",
    "dbt.contracts.project:Project",
    "dbt.contracts.project:PackageConfig",
    "dbt.contracts.project:Configuration",
    "dbt.contracts.selection:SelectorFile",
)
_FILES = (
    "dbt.artifacts.resources:Contract",
    "dbt.artifacts.resources:ModelConfig",
    "dbt.artifacts.resources:NodeConfig",
    "dbt.artifacts.resources:SourceConfig",
    "dbt.artifacts.resources:TestConfig",
    "dbt.artifacts.resources:UnitTestConfig",
    "dbt.contracts.graph.nodes:GenericTestNode",
    "dbt.contracts.graph.nodes:HookNode",
    "dbt.contracts.graph.nodes:ModelNode",
    "dbt.contracts.graph.nodes:SingularTestNode",
    "dbt.contracts.graph.unparsed:UnparsedModelUpdate",
    "dbt.contracts.graph.unparsed:UnparsedSourceDefinition",
    "dbt.contracts.graph.unparsed:UnparsedUnitTest",
)
_MODULES = ("dbt.cli.main", "dbt.task.build", "fabric_assets.transform.worker.building")


def import_dbt(adapter: str) -> None:
    """Import what a build on this kind of warehouse needs, and warn once of an unknown version of dbt."""
    for library in {"dbt-core", "dbt-adapters", "dbt-common", "jinja2", f"dbt-{adapter}"} & VERIFIED.keys():
        is_verified(library)
    for module in (*_MODULES, f"dbt.adapters.{adapter}", f"sqlglot.dialects.{adapter}", f"fabric_assets.transform.worker.adapters.{adapter}"):
        import_module(module)


def make_setting_schemas(adapter: str) -> None:
    """Build the schemas of dbt's own settings, before several calls are forked from this process."""
    _make_schemas(*_SETTINGS, get_adapter(adapter).credentials)


def make_file_schemas() -> None:
    """Build the schemas with which a parse validates the project's files, before several parses are forked from this process."""
    _make_schemas(*_FILES)


def _make_schemas(*names: str) -> None:
    for name in names:
        module, _, kind = name.partition(":")
        getattr(import_module(module), kind).json_schema()


def rehearse(adapter: str, project_dir: str, prepared: Path, *, hold: Callable[[RunFolder], None]) -> None:
    """Run a dbt command that lists nothing of the prepared project, if there is one. It reads no warehouse.

    Args:
        prepared: the prepared manifest.
        hold: called with the folder that must be removed if this process ends.
    """
    if not prepared.is_file():
        return
    from fabric_assets.transform.worker.dbt_call import call_dbt
    from fabric_assets.transform.worker.lineage import LineageFinder
    from fabric_assets.transform.worker.manifest import SELECTED_TAG, load_manifest
    from fabric_assets.transform.worker.profiles import write_profile

    run = RunFolder(prepared.parent / "warming")
    hold(run)
    try:
        write_profile(run.path, get_adapter(adapter).build_placeholder(run.path))
        with redirect_stdout(stderr):
            call_dbt("list", "--quiet", "--select", f"tag:{SELECTED_TAG}", project_dir=project_dir, folder=run.path, manifest=load_manifest(prepared))
        LineageFinder({}, dialect=adapter, folds_names=True).find("with one as (select 1 as number) select number from one")
    finally:
        run.remove()
