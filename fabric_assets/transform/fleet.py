"""A fleet and the dbt project -> the fleet without the tenants whose YAML does not fit the project.

These are the last checks that need no warehouse: models whose sources are not loaded, selectors and schedule targets that match nothing.
"""

from fabric_assets import naming
from fabric_assets.config.loader import Fleet, LoadedTenant
from fabric_assets.config.problems import Problem
from fabric_assets.config.selection import Key, Renames, select_keys
from fabric_assets.errors import ConfigurationError
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.validation import find_problems


def validate_fleet(fleet: Fleet, graph: ProjectGraph | None) -> Fleet:
    """Move the tenants that do not fit the dbt project to the broken ones.

    Args:
        graph: None where no tenant has models.
    """
    healthy, broken = {}, dict(fleet.broken)
    for name, loaded in fleet.tenants.items():
        problems = find_tenant_problems(loaded, graph)
        if problems:
            broken[name] = problems
        else:
            healthy[name] = loaded
    return Fleet(tenants=healthy, broken=broken, unused=fleet.unused)


def find_tenant_problems(loaded: LoadedTenant, graph: ProjectGraph | None) -> tuple[Problem, ...]:
    """Find all problems with the dbt project that keep a tenant from being built."""
    models: tuple[ModelNode, ...] = ()
    if loaded.config.transform is not None and graph is not None:
        if problems := find_problems(loaded, graph):
            return problems
        models = select_models(graph, tenant=loaded.config.tenant, transform=loaded.config.transform)
    return _find_target_problems(loaded, get_parents(loaded, models), graph.renames if graph is not None else {})


def get_parents(loaded: LoadedTenant, models: tuple[ModelNode, ...]) -> dict[Key, tuple[Key, ...]]:
    """Map each asset key of a tenant to the keys that it is built from."""
    tenant = loaded.config.tenant
    parents: dict[Key, tuple[Key, ...]] = {
        naming.raw_asset_key(tenant, source, stream): () for source, config in loaded.config.sources.items() for stream in config.streams
    }
    keys = {model.unique_id: naming.model_asset_key(tenant, model.schema, model.name) for model in models}
    for model in models:
        origins = (naming.raw_asset_key(tenant, source, stream) for source, stream in model.depends_on_sources)
        parents[keys[model.unique_id]] = (*origins, *(keys[parent] for parent in model.depends_on_models if parent in keys))
    return parents


def _find_target_problems(loaded: LoadedTenant, parents: dict[Key, tuple[Key, ...]], renames: Renames) -> tuple[Problem, ...]:
    problems = []
    for name, schedule in loaded.config.schedules.items():
        for index, target in enumerate(() if schedule.target == "all" else schedule.target):
            try:
                select_keys(parents, loaded.config.tenant, [target], renames=renames)
            except ConfigurationError as error:
                problems.append(loaded.make_problem(("schedules", name, "target", index), error.message))
    return tuple(problems)
