"""A tenant's models -> the dbt tests that it runs, each as a check of one asset."""

from collections.abc import Iterable

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.transform.graph import ModelNode, ProjectGraph, TestNode
from fabric_assets.transform.selection import get_evaluation


def get_tests(graph: ProjectGraph, tenant: TenantConfig, models: Iterable[ModelNode]) -> dict[str, tuple[TestNode, ...]]:
    """Find the tests of a tenant's models and raw streams.

    A test counts only if everything that it reads is the tenant's: a relationship to a model that was not selected cannot be checked. A test that the tenant's
    `exclude` names does not count.

    Returns:
        tests by their model's unique_id, or by `source.stream` for those of a raw stream.
    """
    chosen = {model.unique_id: model for model in models}
    streams = {(source, stream) for source, config in tenant.sources.items() for stream in config.streams}
    used = {origin for model in chosen.values() for origin in model.depends_on_sources} & streams
    owned = {unique_id: model.checks for unique_id, model in chosen.items()}
    owned |= {".".join(origin): checks for origin, checks in graph.source_checks.items() if origin in used}
    evaluation = get_evaluation(graph, tenant=tenant.tenant, transform=tenant.transform) if tenant.transform is not None else None
    left_out = evaluation.left_out if evaluation is not None else frozenset()
    found = {
        owner: tuple(
            test for test in tests if test.unique_id not in left_out and set(test.depends_on_models) <= set(chosen) and set(test.depends_on_sources) <= streams
        )
        for owner, tests in owned.items()
    }
    return {owner: tests for owner, tests in found.items() if tests}
