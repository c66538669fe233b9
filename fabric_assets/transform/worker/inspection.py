"""dbt's parsed manifest -> the graph that definitions are built from, and the rules that the project must keep.

The rules keep tenants apart. Every table is in a schema of its tenant. Nobody reads another tenant's own models, and a tenant's own files affect only these.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets import naming
from fabric_assets.quoting import quote_table
from fabric_assets.transform.graph import Columns, ModelNode, Origin, ProjectGraph, SourceNode, TestNode
from fabric_assets.transform.renames import Relation, list_replaced
from fabric_assets.transform.worker.attachment import attach_tests
from fabric_assets.transform.worker.findings import find_sensitive
from fabric_assets.transform.worker.manifest import DATABASE_PLACEHOLDER, MODEL_TYPES, TENANT_PLACEHOLDER, get_file, get_owner

_UNSUPPORTED = {"function": "write it as a macro"}


def place_sources(manifest: Manifest) -> None:
    """Set the tenant's raw dataset as the schema of every source, whatever schema its data has elsewhere.

    A schema that is named as a raw dataset stays: if it is another one, the source is refused.
    """
    for source in manifest.sources.values():
        if "_raw_" not in source.schema:
            source.schema = naming.raw_dataset(TENANT_PLACEHOLDER, source.source_name)
            source.relation_name = quote_table(*filter(None, (source.database, source.schema, source.identifier)))


def place_seeds_and_snapshots(manifest: Manifest) -> None:
    """Set the tenant's schema for snapshots as that of every snapshot, whatever `target_schema` it has, and let seeds be read by dbt itself."""
    for node in manifest.nodes.values():
        if node.resource_type == "snapshot":
            node.schema = naming.dbt_schema(get_owner(node.original_file_path) or TENANT_PLACEHOLDER, naming.SNAPSHOT_SCHEMA)
            node.relation_name = quote_table(*filter(None, (node.database, node.schema, node.alias)))
        elif node.resource_type == "seed":
            node.config["fast"] = False  # dbt-duckdb would let DuckDB read the file, whose connection reads no files


def build_graph(manifest: Manifest) -> ProjectGraph:
    """Build the graph of a project that keeps the rules."""
    root = manifest.metadata.project_name
    nodes: dict[str, Any] = {key: node for key, node in manifest.nodes.items() if node.resource_type in MODEL_TYPES}
    origins: dict[str, Origin] = {key: (source.source_name, source.name) for key, source in manifest.sources.items()}
    parents = {key: tuple(parent for parent in node.depends_on_nodes if parent in nodes or parent in origins) for key, node in nodes.items()}
    tables = {key: resolve_ephemeral(node.depends_on_nodes, nodes, origins) for key, node in nodes.items()}
    attached: dict[str | None, list[TestNode]] = attach_tests(manifest, resolve=lambda ids: resolve_ephemeral(ids, nodes, origins))
    models = {
        key: _build_model(nodes[key], get_file(nodes[key], root), parents=parents[key], tables=tables[key], origins=origins, checks=attached.pop(key, []))
        for key in TopologicalSorter({key: sorted(set(parents[key]) & set(nodes)) for key in sorted(nodes)}).static_order()
    }
    sources = {
        key: SourceNode(
            unique_id=key,
            source=source.source_name,
            stream=source.name,
            fqn=tuple(source.fqn),
            file=get_file(source, root),
            tags=tuple(source.tags),
            description=source.description,
            columns=_build_columns(source.columns),
            sensitive=tuple(sorted(find_sensitive(source))),
            checks=tuple(attached.pop(key, [])),
        )
        for key, source in sorted(manifest.sources.items())
    }
    return ProjectGraph(models=models, sources=sources, unattached=tuple(test for tests in attached.values() for test in tests))


def resolve_ephemeral(unique_ids: Iterable[str], nodes: dict[str, Any], origins: dict[str, Origin]) -> list[str]:
    """Replace ephemeral models, which have no table, by what they read."""
    found: dict[str, None] = {}
    seen = set[str]()
    left = [*unique_ids][::-1]
    while left:
        unique_id = left.pop()
        # Each once: of models that read each other twice, the ways from one to another double with every step.
        if unique_id in seen:
            continue
        seen.add(unique_id)
        if unique_id in nodes and nodes[unique_id].is_ephemeral_model:
            left += reversed(nodes[unique_id].depends_on_nodes)
        elif unique_id in nodes or unique_id in origins:
            found[unique_id] = None
    return list(found)


def _build_model(node: Any, file: str, *, parents: tuple[str, ...], tables: list[str], origins: dict[str, Origin], checks: Iterable[TestNode]) -> ModelNode:
    tenant = get_owner(node.original_file_path)
    return ModelNode(
        unique_id=node.unique_id,
        name=node.alias,
        schema=node.schema.removeprefix(f"{tenant or TENANT_PLACEHOLDER}_"),
        fqn=tuple(node.fqn),
        file=file,
        materialized=node.config.materialized,
        tags=tuple(node.tags),
        description=node.description,
        columns=_build_columns(node.columns),
        depends_on_models=tuple(table for table in tables if table not in origins),
        depends_on_sources=tuple(origins[table] for table in tables if table in origins),
        meta=dict(node.config.meta or {}),
        tenant=tenant,
        checks=tuple(checks),
        parents=parents,
        kind=node.resource_type.value,
        deprecation_date=date.date().isoformat() if (date := getattr(node, "deprecation_date", None)) else None,
    )


def _build_columns(columns: dict[str, Any]) -> Columns:
    return {column.name: (column.data_type, column.description) for column in columns.values()}


def find_problems(manifest: Manifest, *, tenants: Collection[str]) -> dict[str | None, str]:
    """Find all files that break a rule, by the tenant whose own file it is. The key None holds the shared files.

    Args:
        tenants: all that have models of their own, also those that are not in this manifest.
    """
    found: dict[str | None, list[str]] = {}
    for file, problem in _find_problems(manifest, tenants):
        found.setdefault(get_owner(file), []).append(f"{file}: {problem}".replace(TENANT_PLACEHOLDER, "<tenant>"))
    return {owner: "\n".join(sorted(problems)) for owner, problems in found.items()}


def _find_problems(manifest: Manifest, tenants: Collection[str]) -> Iterator[tuple[str, str]]:
    root = manifest.metadata.project_name
    for node in [*manifest.nodes.values(), *manifest.functions.values(), *manifest.unit_tests.values()]:
        file, kind = get_file(node, root), str(node.resource_type)
        if node.package_name != root and get_owner(node.original_file_path):
            yield file, "a folder tenants/<tenant>/ belongs to a tenant of the project itself; a package's has to have another name"
        elif kind in _UNSUPPORTED:
            yield file, f"a {kind} is not built for tenants; {_UNSUPPORTED[kind]}"
        elif kind in MODEL_TYPES:
            yield from ((file, problem) for problem in (*_find_model_problems(node, tenants, root), *_find_foreign_inputs(node, manifest)))
            yield from _find_foreign_patch(node)
            continue
        if kind == "test" and node.should_store_failures:
            yield from ((file, f"{node.name}: {problem}") for problem in _find_table_problems(node, TENANT_PLACEHOLDER))
        if get_owner(file):
            yield from ((file, problem) for problem in (*_find_foreign_subject(node, manifest), *_find_foreign_inputs(node, manifest)))
    yield from _find_circle(manifest)
    yield from _find_wrong_renames(manifest)
    files = dict[str, str]()
    for source in manifest.sources.values():
        file, name = get_file(source, root), f"{source.source_name}.{source.name}"
        yield from ((file, f"source {name}: {problem}") for problem in _find_source_problems(source))
        if files.setdefault(name, file) != file:
            yield file, f"source {name} is declared in {files[name]} too: the stream is one asset. Disable one of the two in dbt_project.yml"


def _find_model_problems(node: Any, tenants: Collection[str], root: str | None) -> Iterator[str]:
    tenant = get_owner(node.original_file_path)
    if tenant is not None:
        yield from _find_own_problems(node, tenant, tenants)
    elif node.fqn[:2] == [root, "tenants"]:
        folder, suffix = ("seeds", "csv") if node.resource_type == "seed" else (f"{node.resource_type}s", "sql")
        yield f"a tenant's own {folder} lie in a folder with the tenant's name: {folder}/tenants/<tenant>/<tenant>__<name>.{suffix}"
    yield from _find_table_problems(node, tenant or TENANT_PLACEHOLDER)


def _find_table_problems(node: Any, owner: str) -> Iterator[str]:
    """Check that the table of a model, seed or snapshot, or of a test with `store_failures`, is in a schema of its tenant."""
    prefix = f"{owner}_"
    schema = node.schema.removeprefix(prefix)
    allowed = node.resource_type == "test" and schema == naming.TEST_SCHEMA
    if not node.schema.startswith(prefix) or (naming.get_name_error(schema) and not allowed):
        yield f"its schema comes out as {node.schema}: it must be <tenant>_<name>, as macros/generate_schema_name.sql has it"
    elif schema == "fabric" or schema.startswith("raw_"):
        yield f"the schema {schema} is the platform's own; use another +schema"
    elif schema == naming.SNAPSHOT_SCHEMA and node.resource_type != "snapshot":
        yield f"the schema {schema} is for snapshots alone, whose rows cannot be built again; use another +schema"
    if node.database != DATABASE_PLACEHOLDER:
        yield f"it names the database {node.database}; every model lies in its tenant's own"
    if not re.fullmatch(r"[A-Za-z0-9_]+", node.alias):
        yield f"the name {node.alias} must be letters, digits and underscores"


def _find_own_problems(node: Any, tenant: str, tenants: Collection[str]) -> Iterator[str]:
    if node.config.pre_hook or node.config.post_hook:
        yield f"a tenant's own {node.resource_type}s have no hooks; put what the hook does into a model"
    if not node.name.startswith(f"{tenant}__"):
        yield f"name the {node.resource_type} {tenant}__{node.name}: dbt wants names that are unique among all tenants"
    for other in tenants:
        if other.startswith(f"{tenant}_") and node.schema.startswith(f"{other}_"):
            yield f"its schema comes out as {node.schema}, which is tenant {other}'s; use another schema"


def _find_foreign_inputs(node: Any, manifest: Manifest) -> Iterator[str]:
    for parent in node.depends_on_nodes:
        owner = _get_owner(manifest, parent)
        if owner not in {None, get_owner(node.original_file_path)}:
            yield f"it refers to {manifest.nodes[parent].name}, which only tenant {owner} has"


def _find_foreign_subject(test: Any, manifest: Manifest) -> Iterator[str]:
    """Refuse a tenant's test of anything but its own models: it would run for all tenants that have its subject, with their logins."""
    subject = test.depends_on.nodes[0] if test.resource_type == "unit_test" else getattr(test, "attached_node", None)
    if _get_owner(manifest, subject) != get_owner(test.original_file_path):
        yield f"{test.name}: a tenant's tests are of models in that tenant's own folder"


def _find_foreign_patch(node: Any) -> Iterator[tuple[str, str]]:
    patch = (node.patch_path or "").split("://", 1)[-1]
    if get_owner(patch) not in {None, get_owner(node.original_file_path)}:
        yield patch, f"it describes {node.name}, which lies in {node.original_file_path}; a tenant's yml describes what is in that tenant's own folder"


def _find_circle(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Find models that refer to each other in a circle, which dbt itself notices only when it builds."""
    models = {key: node for key, node in manifest.nodes.items() if node.resource_type in MODEL_TYPES}
    try:
        TopologicalSorter({key: node.depends_on_nodes for key, node in models.items()}).prepare()
    except CycleError as error:
        circle = [models[key] for key in error.args[1]]
        yield circle[0].original_file_path, f"models refer to each other in a circle: {', '.join(node.name for node in circle)}"


def _find_wrong_renames(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Find entries of `meta.fabric.replaces` that are no names, that two models have, or whose old model is not marked as deprecated."""
    shared = [node for node in manifest.nodes.values() if node.resource_type in MODEL_TYPES and not get_owner(node.original_file_path)]
    present = {(node.schema.removeprefix(f"{TENANT_PLACEHOLDER}_"), node.alias): node for node in shared}
    taken: dict[Relation, Any] = {}
    for node in shared:
        file = node.original_file_path
        try:
            replaced = list_replaced(node.config.meta or {})
        except ValueError as error:
            yield file, str(error)
            continue
        for relation in replaced:
            other, old = taken.setdefault(relation, node), present.get(relation)
            if other is not node:
                yield file, f"it replaces {'.'.join(relation)}, and so does {other.original_file_path}; remove one of the two entries"
            elif old is not None and not getattr(old, "deprecation_date", None):
                yield file, f"it replaces {'.'.join(relation)}, which {old.original_file_path} makes; give that model a deprecation_date"


def _get_owner(manifest: Manifest, unique_id: str | None) -> str | None:
    node = manifest.nodes.get(unique_id or "")
    return get_owner(node.original_file_path) if node else None


def _find_source_problems(source: Any) -> Iterator[str]:
    expected = naming.raw_dataset(TENANT_PLACEHOLDER, source.source_name)
    if source.schema != expected:
        written = f"{{{{ var('fabric_tenant') }}}}_raw_{source.source_name}"
        yield f'its schema is {source.schema}; leave the schema out, or write "{written}"'
    if source.database != DATABASE_PLACEHOLDER:
        yield f"it names the database {source.database}; leave that out"
    if source.identifier != source.name:
        yield f"it names the table {source.identifier}; a raw table is named as its stream, so leave the identifier out"
