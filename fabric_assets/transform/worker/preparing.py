"""One parse of the dbt project for all tenants: what the request `prepare` does."""

from pathlib import Path
from typing import Any

from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.files import write_atomically
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.graph import ProjectGraph, dump_graph
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.inspection import build_graph, place_sources
from fabric_assets.transform.worker.manifest import save_manifest
from fabric_assets.transform.worker.profiles import build_placeholder, write_profile


def prepare(request: dict[str, Any], run: RunFolder) -> None:
    """Parse, check the rules, write the manifest and the graph.

    Raises:
        ConfigurationError: the project does not parse, breaks a rule, or is another one on another adapter.
    """
    write_profile(run.path, build_placeholder(request["adapter"], run.path))
    result = call_dbt("parse", project_dir=request["project_dir"], folder=run.path)
    manifest = result.result
    if not result.success or manifest is None:
        raise ConfigurationError(
            clean_message(str(result.exception), hidden=run.path), remedy="mend the dbt project; a var that a model reads needs a default: var('name', default)"
        )
    place_sources(manifest)
    graph = build_graph(manifest)
    graph_file = Path(request["graph_file"])
    save_manifest(manifest, Path(request["file"]), fingerprint=request["fingerprint"])
    write_atomically(graph_file, lambda stream: stream.write(dump_graph(graph, fingerprint=request["fingerprint"]).encode()))


def describe_shape(graph: ProjectGraph) -> dict[str, Any]:
    """What must be the same on every adapter: definitions are built from one graph."""
    return {key: (model.schema, model.name, sorted(model.parents)) for key, model in graph.models.items()}
