"""One parse of the dbt project for all tenants: what the request `prepare` does."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import write_atomically
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.graph import ProjectGraph, dump_graph, read_graph
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.inspection import build_graph, place_sources
from fabric_assets.transform.worker.manifest import save_manifest
from fabric_assets.transform.worker.profiles import build_placeholder, write_profile

_OWN_MODELS = re.compile(r"models/tenants/([a-z0-9_]+)/")


def prepare(request: dict[str, Any], run: RunFolder) -> None:
    """Parse, check the rules, write the manifest and the graph.

    Raises:
        ConfigurationError: the project does not parse, or breaks a rule.
    """
    write_profile(run.path, build_placeholder(request["adapter"], run.path))
    manifest, broken = _parse(Path(request["project_dir"]), run.path)
    place_sources(manifest)
    graph = replace(build_graph(manifest), broken=broken)
    _save_graph(graph, Path(request["graph_file"]), fingerprint=request["fingerprint"])
    save_manifest(manifest, Path(request["file"]), fingerprint=request["fingerprint"])


def _parse(project: Path, folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Parse the project; the own models of a tenant that break it are left out, so that they stop nobody else.

    Returns:
        the manifest, and dbt's message by each tenant that was left out.

    Raises:
        ConfigurationError: what all tenants share does not parse.
    """
    broken: dict[str, str] = {}
    parsed = project
    while True:
        result = call_dbt("parse", project_dir=str(parsed), folder=folder)
        if isinstance(result.result, Manifest):
            return result.result, broken
        message = clean_message(str(result.exception), hidden=folder)
        culprit = _OWN_MODELS.search(message)
        if culprit is None or culprit[1] in broken:
            raise ConfigurationError(message, remedy="mend the dbt project; a var that a model reads needs a default: var('name', default)")
        broken[culprit[1]] = message
        parsed = _copy_without(project, set(broken), folder / f"without_{len(broken)}")


def _copy_without(project: Path, tenants: set[str], copy: Path) -> Path:
    own = str(project / "models" / "tenants")
    shutil.copytree(project, copy, ignore=lambda folder, names: tenants & set(names) if folder == own else ())
    return copy


def _save_graph(graph: ProjectGraph, file: Path, *, fingerprint: str) -> None:
    """Write the graph, unless another kind of warehouse has done so: then both must be the same, for definitions are built from one."""
    try:
        known, other = read_graph(file)
    except (OSError, ValueError, LookupError, TypeError):
        known, other = "", graph
    if known != fingerprint:
        write_atomically(file, lambda stream: stream.write(dump_graph(graph, fingerprint=fingerprint).encode()))
        return
    here, there = _get_shape(graph), _get_shape(other)
    if differing := sorted(key for key in {*here, *there} if here.get(key) != there.get(key)):
        raise ConfigurationError(
            f"{', '.join(differing)}: not the same on every kind of warehouse", remedy="let no `enabled`, schema, alias or ref() depend on target.type"
        )


def _get_shape(graph: ProjectGraph) -> dict[str, Any]:
    return {key: (model.schema, model.name, sorted(model.parents)) for key, model in graph.models.items()}
