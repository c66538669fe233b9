"""The request `prepare`: one parse of the dbt project for all tenants."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fabric_assets.errors import ConfigurationError, UnresolvedPackages
from fabric_assets.private_files import write_atomically
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.graph import ProjectGraph, dump_graph, read_graph
from fabric_assets.transform.worker.adapters.adapter import get_adapter
from fabric_assets.transform.worker.manifest import save_manifest
from fabric_assets.transform.worker.parse.limits import Limits
from fabric_assets.transform.worker.parse.packages import find_unresolved
from fabric_assets.transform.worker.parse.parsing import parse_project
from fabric_assets.transform.worker.parse.refusals import Refusals
from fabric_assets.transform.worker.profiles import write_profile


def prepare(request: dict[str, Any], run: RunFolder) -> None:
    """Parse, check the rules, write the manifest and the graph.

    Raises:
        ConfigurationError: the project does not parse, or breaks a rule.
        UnresolvedPackages: its packages are not installed as its packages.yml says.
    """
    write_profile(run.path, get_adapter(request["adapter"]).build_placeholder(run.path))
    if reason := find_unresolved(Path(request["project_dir"])):
        raise UnresolvedPackages(reason)
    project, limits = Path(request["project_dir"]), Limits(**request["limits"])
    refusals = Refusals(Path(request["refused_file"]), project, str(limits))
    manifest, graph, stopped = parse_project(project, run.path, limits, refused=refusals.read(), data_dir=Path(request["data_dir"]))
    refusals.write(stopped)
    _save_graph(graph, Path(request["graph_file"]), fingerprint=request["fingerprint"])
    save_manifest(manifest, Path(request["file"]), fingerprint=request["fingerprint"])


def _save_graph(graph: ProjectGraph, file: Path, *, fingerprint: str) -> None:
    """Write the graph. All kinds of warehouse share one graph, so it is united with the one that another kind has written."""
    try:
        known, other = read_graph(file)
    except (OSError, ValueError, LookupError, TypeError):
        known, other = "", graph
    if known == fingerprint:
        graph = _unite(graph, other)
    if known != fingerprint or (graph.broken, graph.mistakes) != (other.broken, other.mistakes):
        write_atomically(file, lambda stream: stream.write(dump_graph(graph, fingerprint=fingerprint).encode()))


def _unite(graph: ProjectGraph, other: ProjectGraph) -> ProjectGraph:
    """Leave out the tenants whose own models are not the same in both.

    Raises:
        ConfigurationError: the shared models are not the same in both.
    """
    here, there = _get_shape(graph), _get_shape(other)
    differing: dict[str | None, list[str]] = {}
    mistakes = {**other.mistakes, **graph.mistakes}
    for key in sorted({*here, *there} - mistakes.keys()):
        if here.get(key) != there.get(key):
            differing.setdefault((graph.models.get(key) or other.models[key]).tenant, []).append(key)
    messages = {tenant: f"{', '.join(keys)}: not the same on every kind of warehouse" for tenant, keys in differing.items()}
    remedy = "let no `enabled`, schema, alias or ref() depend on target.type"
    if None in messages:
        raise ConfigurationError(messages[None], remedy=remedy)
    broken = {tenant: f"{message}; {remedy}" for tenant, message in messages.items() if tenant} | graph.broken | other.broken
    return replace(graph, models={key: model for key, model in graph.models.items() if model.tenant not in broken}, broken=broken, mistakes=mistakes)


def _get_shape(graph: ProjectGraph) -> dict[str, Any]:
    return {key: (model.schema, model.name, sorted(model.parents)) for key, model in graph.models.items()}
