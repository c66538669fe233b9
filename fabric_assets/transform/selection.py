"""A tenant's `transform:` block and the project's graph -> the tenant's models, parents before children.

This module reads the answer of dbt's own selector, which has evaluated the block before, in dbt's process (`transform/evaluation.py`).
"""

from fabric_assets.config.tenant import TransformConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selections import Evaluation, Selection

UNKNOWN = "dbt has not evaluated this selection yet: run `fabric prepare`, then reload the code location"


def select_models(graph: ProjectGraph, *, tenant: str, transform: TransformConfig) -> tuple[ModelNode, ...]:
    """Select a tenant's models: those that `select` names and its own, without those that `exclude` names.

    Ephemeral models are not among them: they have no table, dbt writes them into the models that use them.

    Raises:
        ConfigurationError: a selector is wrong or matches nothing, or nobody has evaluated the selection.
    """
    evaluation = get_evaluation(graph, tenant=tenant, transform=transform)
    if evaluation is None:
        raise ConfigurationError(f"tenant {tenant}: {UNKNOWN}")
    if evaluation.wrong:
        raise ConfigurationError("\n".join(f"tenant {tenant}: {wrong.message}" for wrong in evaluation.wrong))
    return graph.list_models(evaluation.models)


def get_evaluation(graph: ProjectGraph, *, tenant: str, transform: TransformConfig) -> Evaluation | None:
    """Give what a tenant's block selects; None where it has not been evaluated."""
    selection = get_selection(graph, tenant=tenant, transform=transform)
    if not selection.select and not selection.exclude:
        return Evaluation(models=graph.own_models.get(tenant, frozenset()))
    return graph.selections.get(selection)


def get_selection(graph: ProjectGraph, *, tenant: str, transform: TransformConfig) -> Selection:
    return Selection(tenant if tenant in graph.own_models else "", transform.select, transform.exclude)
