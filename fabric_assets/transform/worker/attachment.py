"""dbt's tests, and its sources with `freshness` -> the asset that each one is a check of, by the rules of dagster-dbt.

A generic test belongs to the model or source that it is declared on. A singular test belongs to what it reads, if that is a single model or source, otherwise
to what `meta.dagster.ref.name` names.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.transform.graph import TestNode
from fabric_assets.transform.worker.freshness import build_freshness_test
from fabric_assets.transform.worker.manifest import TENANT_PLACEHOLDER

_SOURCE_CALL = re.compile(r"source\(\s*['\"]([^'\"]+)['\"]\s*,\s*['\"]([^'\"]+)['\"]\s*\)")


def attach_tests(manifest: Manifest, *, resolve: Callable[[Iterable[str]], list[str]]) -> dict[str | None, list[TestNode]]:
    """Group the tests by the unique id of the model or source that they check. The key None holds those without one.

    Args:
        resolve: replaces ephemeral models by the models that they read.
    """
    attached: dict[str | None, list[TestNode]] = {key: [test] for key, source in manifest.sources.items() if (test := build_freshness_test(source))}
    tests: list[Any] = [*(node for node in manifest.nodes.values() if node.resource_type == "test"), *manifest.unit_tests.values()]
    for node in sorted(tests, key=lambda node: node.unique_id):
        is_unit = node.resource_type == "unit_test"
        owner = node.depends_on.nodes[0] if is_unit else _find_owner(node, manifest)
        if owner and owner in manifest.nodes and manifest.nodes[owner].is_ephemeral_model:
            owner = None
        tables = resolve(node.depends_on_nodes)
        test = TestNode(
            unique_id=node.unique_id,
            name=re.sub(r"[^A-Za-z0-9_]", "_", node.name),
            kind="unit" if is_unit else "data",
            severity="error" if is_unit or node.config.severity.lower() == "error" else "warn",
            column=None if is_unit else getattr(node, "column_name", None),
            description=node.description or "",
            depends_on_models=tuple(table for table in tables if table not in manifest.sources),
            depends_on_sources=tuple((manifest.sources[table].source_name, manifest.sources[table].name) for table in tables if table in manifest.sources),
            schema=node.schema.removeprefix(f"{TENANT_PLACEHOLDER}_") if not is_unit and node.should_store_failures else None,
        )
        siblings = attached.setdefault(owner, [])
        siblings.append(_rename(test, {sibling.name for sibling in siblings}))
    return attached


def _rename(test: TestNode, taken: set[str]) -> TestNode:
    """Number a test whose name another test of the asset has: an asset's checks need different names."""
    number = 2
    name = test.name
    while name in taken:
        name, number = f"{test.name}_{number}", number + 1
    return replace(test, name=name)


def _find_owner(node: Any, manifest: Manifest) -> str | None:
    if attached := getattr(node, "attached_node", None):
        return attached
    parents = node.depends_on.nodes
    if len(parents) == 1:
        return parents[0]
    metadata = getattr(node, "test_metadata", None)
    if metadata and (match := _SOURCE_CALL.search(str(metadata.kwargs.get("model", "")))):
        return next((key for key, source in manifest.sources.items() if (source.source_name, source.name) == match.groups()), None)
    name = ((node.config.meta or {}).get("dagster", {}).get("ref") or {}).get("name")
    return next((parent for parent in parents if parent in manifest.nodes and manifest.nodes[parent].name == name), None)
