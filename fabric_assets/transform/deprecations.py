"""A tenant and the dbt project -> warnings: own models that read a deprecated model, and earlier names in the tenant's YAML."""

import re
from collections.abc import Iterator
from pathlib import Path

from fabric_assets.config.loader import LoadedTenant, Problem
from fabric_assets.config.selection import get_renamed
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.renames import find_old_name, rename_selector


def find_deprecations(loaded: LoadedTenant, graph: ProjectGraph, settings: Settings) -> Iterator[Problem]:
    """Warn of each, with its file, its line and what to write instead."""
    if loaded.config.transform is not None:
        yield from _find_refs(loaded, graph, settings)
        yield from _find_old_selectors(loaded, graph)
    yield from _find_old_targets(loaded, graph)


def _find_refs(loaded: LoadedTenant, graph: ProjectGraph, settings: Settings) -> Iterator[Problem]:
    tenant = loaded.config.tenant
    for model in graph.models.values():
        if model.tenant != tenant:
            continue
        for parent in (graph.models[key] for key in model.parents if key in graph.models):
            if parent.deprecation_date is not None:
                file = settings.dbt_project_dir / model.file
                message = f"warning: refs {_get_name(parent)}, which is deprecated (deprecation_date {parent.deprecation_date}){_advise(parent, graph)}"
                yield Problem(tenant, file, *_locate(file, _get_name(parent)), "", message)


def _advise(model: ModelNode, graph: ProjectGraph) -> str:
    if new := graph.renamed.get((model.schema, model.name)):
        return f": use ref('{_get_name(new)}')"
    return f": {' '.join(model.description.split())}" if model.description else ""


def _locate(file: Path, name: str) -> tuple[int, int]:
    """Give the line and column of a ref; the file's first where Jinja builds the name."""
    text = file.read_text(encoding="utf-8", errors="replace")
    match = re.search(r"\bref\s*\([^)]*['\"]" + re.escape(name) + r"['\"]", text)
    if match is None:
        return 1, 1
    return text.count("\n", 0, match.start()) + 1, match.start() - text.rfind("\n", 0, match.start())


def _find_old_selectors(loaded: LoadedTenant, graph: ProjectGraph) -> Iterator[Problem]:
    transform = loaded.config.transform
    present = {name: _get_name(model) for (_, name), model in graph.renamed.items()}
    for field, texts in (("select", transform.select), ("exclude", transform.exclude)) if transform is not None else ():
        for index, text in enumerate(texts):
            for criterion in re.split(r"[\s,]+", text):
                if new := present.get(find_old_name(criterion)):
                    yield loaded.make_problem(("transform", field, index), _describe(criterion, rename_selector(criterion, new)))


def _find_old_targets(loaded: LoadedTenant, graph: ProjectGraph) -> Iterator[Problem]:
    for name, schedule in loaded.config.schedules.items():
        for index, target in enumerate(() if schedule.target == "all" else schedule.target):
            if new := get_renamed(target, graph.renames):
                yield loaded.make_problem(("schedules", name, "target", index), _describe(target, new))


def _describe(old: str, new: str) -> str:
    return f"warning: '{old}' is an earlier name of '{new}': write that"


def _get_name(model: ModelNode) -> str:
    """Give the name by which ref() finds the model."""
    return model.unique_id.split(".")[2]
