"""A tenant's `transform:` block and the project's graph -> the tenant's models, parents before children."""

from collections.abc import Sequence
from functools import lru_cache

from fabric_assets.config.tenant import TransformConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selectors import Selectable, find_nodes


def select_models(graph: ProjectGraph, *, tenant: str, transform: TransformConfig) -> tuple[ModelNode, ...]:
    """Select a tenant's models: those that `select` names and its own, without those that `exclude` names.

    Ephemeral models are not among them: they have no table, dbt writes them into the models that use them.

    Raises:
        ConfigurationError: a selector is wrong or matches nothing.
    """
    return _select(_Identity(graph), tenant if has_own_models(graph, tenant) else "", transform.select, transform.exclude)


def has_own_models(graph: ProjectGraph, tenant: str) -> bool:
    return tenant in _get_owners(_Identity(graph))


class _Identity:
    """A graph as a key of a cache: graphs are read once a process, and hashing one would cost more than evaluating a selector."""

    def __init__(self, graph: ProjectGraph) -> None:
        self.graph = graph

    def __hash__(self) -> int:
        return id(self.graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.graph is self.graph


@lru_cache(maxsize=4)
def _get_owners(key: _Identity) -> frozenset[str]:
    return frozenset(model.tenant for model in key.graph.models.values() if model.tenant)


@lru_cache(maxsize=256)
def _get_selectable(key: _Identity, tenant: str) -> Selectable:
    """Everything that the tenant may see: other tenants' own models are not there."""
    graph = key.graph
    models = {unique_id: model for unique_id, model in graph.models.items() if model.tenant in {None, tenant}}
    nodes = {**models, **graph.sources}
    children: dict[str, list[str]] = {}
    for unique_id, model in models.items():
        for parent in model.parents:
            children.setdefault(parent, []).append(unique_id)
    return Selectable(
        nodes=nodes,
        parents={unique_id: model.parents for unique_id, model in models.items()},
        children={unique_id: tuple(found) for unique_id, found in children.items()},
    )


@lru_cache(maxsize=1024)
def _select(key: _Identity, tenant: str, select: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[ModelNode, ...]:
    """Most tenants share a template's selectors, so a fleet evaluates few different ones."""
    graph = _get_selectable(key, tenant)
    chosen = {unique_id for unique_id, model in key.graph.models.items() if tenant and model.tenant == tenant}
    chosen |= _find_union(select, graph)
    chosen -= _find_union(exclude, graph)
    return tuple(model for unique_id, model in key.graph.models.items() if unique_id in chosen and not model.is_ephemeral)


def _find_union(selectors: Sequence[str], graph: Selectable) -> set[str]:
    found: set[str] = set()
    for text in selectors:
        parts = text.split()
        if not parts:
            raise ConfigurationError("a selector is empty", remedy="write a model's name, a folder such as staging.shop, or a method such as tag:daily")
        for selector in parts:
            found |= find_nodes(selector, graph)
    return found
