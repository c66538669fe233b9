"""One parse of the dbt project for all tenants: what the request `prepare` does."""

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


def prepare(request: dict[str, Any], run: RunFolder) -> None:
    """Parse, check the rules, write the manifest and the graph.

    Raises:
        ConfigurationError: the project does not parse, or breaks a rule.
    """
    write_profile(run.path, build_placeholder(request["adapter"], run.path))
    result = call_dbt("parse", project_dir=request["project_dir"], folder=run.path)
    manifest = result.result
    if not isinstance(manifest, Manifest):
        raise ConfigurationError(
            clean_message(str(result.exception), hidden=run.path), remedy="mend the dbt project; a var that a model reads needs a default: var('name', default)"
        )
    place_sources(manifest)
    graph = build_graph(manifest)
    _save_graph(graph, Path(request["graph_file"]), fingerprint=request["fingerprint"])
    save_manifest(manifest, Path(request["file"]), fingerprint=request["fingerprint"])


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
