"""A tenant's YAML and the dbt project -> problems that can be found only with both, each with a file and a line."""

from collections.abc import Iterator

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant, Problem
from fabric_assets.suggestions import suggest
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selection import UNKNOWN, get_evaluation, select_models


def find_problems(loaded: LoadedTenant, graph: ProjectGraph) -> tuple[Problem, ...]:
    """Find every mistake of a tenant's `transform:` block."""
    transform = loaded.config.transform
    if transform is None:
        return ()
    if message := graph.broken.get(loaded.config.tenant):
        text = " ".join(message.split())
        return (loaded.make_problem(("transform",), f"tenant {loaded.config.tenant}'s own dbt models cannot be used; correct them: {text}"),)
    evaluation = get_evaluation(graph, tenant=loaded.config.tenant, transform=transform)
    if evaluation is None:
        return (loaded.make_problem(("transform", "select" if transform.select else "exclude"), UNKNOWN),)
    if evaluation.wrong:
        return tuple(loaded.make_problem(("transform", wrong.field, wrong.index), wrong.message) for wrong in evaluation.wrong)
    models = select_models(graph, tenant=loaded.config.tenant, transform=transform)
    if unpublished := [*_find_unknown_schemas(loaded, graph)]:
        return tuple(unpublished)
    messages = [*_find_missing_inputs(loaded, models, graph), *_find_doubles(models), *_find_others_schemas(loaded, models)]
    return tuple(loaded.make_problem(("transform", "select"), message) for message in messages)


def _find_unknown_schemas(loaded: LoadedTenant, graph: ProjectGraph) -> Iterator[Problem]:
    """Find schemas to publish that no model is in. The default, marts, may be missing."""
    publish = loaded.config.destination.publish
    for index, schema in enumerate(publish.schemas if publish is not None and "schemas" in publish.model_fields_set else ()):
        if schema not in graph.schemas:
            yield loaded.make_problem(("destination", "publish", "schemas", index), f"no dbt model is in a schema '{schema}'{suggest(schema, graph.schemas)}")


def _find_missing_inputs(loaded: LoadedTenant, models: tuple[ModelNode, ...], graph: ProjectGraph) -> Iterator[str]:
    sources = loaded.config.sources
    known = {f"{source}.{stream}" for source, config in sources.items() for stream in config.streams}
    chosen = {model.unique_id for model in models}
    tenant = loaded.config.tenant
    for model in models:
        subject = f"{model.kind} {_get_name(model)}"
        for source, stream in model.depends_on_sources:
            if source not in sources or stream not in sources[source].streams:
                yield f"{subject} needs source {source}.{stream}, which tenant {tenant} does not load{suggest(f'{source}.{stream}', known)}"
        for parent in model.depends_on_models:
            if parent not in chosen:
                needed = graph.models[parent]
                name = f"{needed.kind} {_get_name(needed)}, which tenant {tenant} does not select"
                yield f"{subject} needs {name}; write +{model.fqn[-1]}, or select {_get_name(needed)} too"


def _find_doubles(models: tuple[ModelNode, ...]) -> Iterator[str]:
    """Find models that make the same table. A tenant's own model may replace a shared one of its name if that one is excluded.

    To DuckDB, names that differ by case alone are one, and dbt builds no such table on Postgres either.
    """
    taken: dict[tuple[str, str], ModelNode] = {}
    for model in models:
        other = taken.setdefault((model.schema, model.name.lower()), model)
        if other is not model:
            shared, own = (other, model) if model.tenant else (model, other)
            yield f"models {shared.fqn[-1]} and {own.fqn[-1]} make the same table {model.schema}.{model.name}; exclude {shared.fqn[-1]}, or rename the other"


def _find_others_schemas(loaded: LoadedTenant, models: tuple[ModelNode, ...]) -> Iterator[str]:
    """Find models in a schema that belongs to another tenant by its name: acme's models may not use a schema of acme_eu's."""
    for schema, model in {model.schema: model for model in models}.items():
        name = naming.dbt_schema(loaded.config.tenant, schema)
        if other := next((other for other in loaded.longer_names if name.startswith(f"{other}_")), None):
            yield f"{model.kind} {_get_name(model)} makes the schema {name}, which is tenant {other}'s by its name; give the {model.kind} another schema"


def _get_name(model: ModelNode) -> str:
    return f"{model.schema}.{model.name}"
