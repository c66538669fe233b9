"""All tenants -> one code location."""

from dataclasses import replace

import dagster as dg

from fabric_assets.config.loader import Fleet, load_fleet
from fabric_assets.config.problems import Problem
from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.broken import build_broken_definitions, build_offboarded_specs
from fabric_assets.factories.isolation import build_isolation_definitions
from fabric_assets.factories.own.definitions import OwnDefinitionsError, merge_own_definitions
from fabric_assets.factories.resources import build_dbt_resources
from fabric_assets.factories.run_rules import run_executor
from fabric_assets.factories.schedules import build_freshness_definitions
from fabric_assets.factories.tenant import TenantDefinitions, build_tenant_definitions
from fabric_assets.offboarded import find_offboarding
from fabric_assets.own_faults import prune_tracebacks, report_own_fault
from fabric_assets.settings import Settings
from fabric_assets.transform.fleet import validate_fleet
from fabric_assets.transform.graph import ProjectGraph, load_graph


def build_definitions(settings: Settings, *, prepares: bool = False) -> dg.Definitions:
    """Build the definitions of all tenants that this process serves.

    Args:
        prepares: whether dbt may be started to parse a project, or to evaluate a selection, that has changed.

    Raises:
        ConfigurationError: a tenant or the operators' module is broken and FABRIC_STRICT is 1.
    """
    prune_tracebacks(settings.data_dir)
    fleet = load_fleet(settings)
    graph = get_graph(fleet, settings, prepares=prepares)
    fleet = validate_fleet(fleet, graph)
    gone = {name: problems for name, problems in fleet.broken.items() if find_offboarding(name, settings.data_dir)}
    fleet = replace(fleet, broken={name: problems for name, problems in fleet.broken.items() if name not in gone})
    if settings.strict and fleet.broken:
        raise ConfigurationError(
            "FABRIC_STRICT=1 and these tenants are broken:\n" + "\n".join(str(problem) for problems in fleet.broken.values() for problem in problems),
            remedy="correct them (`fabric validate` shows the same list), or set FABRIC_STRICT=0 to load the healthy ones",
        )
    if settings.strict and graph is not None and graph.mistakes:
        wrong = [f"{settings.dbt_project_dir / found.file}:{found.line}: {found.message}" for found in graph.mistakes.values()]
        raise ConfigurationError("FABRIC_STRICT=1 and these shared models are wrong:\n" + "\n".join(wrong), remedy="correct them, or set FABRIC_STRICT=0")
    tenants, unbuilt = _build_tenants(fleet, graph, settings)
    broken = {**fleet.broken, **unbuilt}
    healthy = dg.Definitions(
        assets=[*(asset for tenant in tenants for asset in tenant.assets), *build_offboarded_specs(gone)],
        schedules=[schedule for tenant in tenants for schedule in tenant.schedules],
        sensors=[sensor for tenant in tenants for sensor in tenant.sensors],
        resources=build_dbt_resources(settings),
        executor=run_executor,
    )
    isolation = build_isolation_definitions([loaded.config for name, loaded in fleet.tenants.items() if name not in broken], settings=settings)
    freshness = build_freshness_definitions({built.tenant: built.freshness for built in tenants if built.freshness})
    working = dg.Definitions.merge(healthy, isolation, freshness)
    definitions = dg.Definitions.merge(working, build_broken_definitions(broken))
    if not settings.definitions:
        return definitions
    try:
        return merge_own_definitions(definitions, settings.definitions)
    except OwnDefinitionsError as error:
        if settings.strict:
            raise ConfigurationError(f"FABRIC_STRICT=1 and the operators' definitions cannot be used:\n{error}", remedy="correct the module") from error
        return dg.Definitions.merge(working, build_broken_definitions(broken, own=[error.problem]))


def _build_tenants(fleet: Fleet, graph: ProjectGraph | None, settings: Settings) -> tuple[list[TenantDefinitions], dict[str, tuple[Problem, ...]]]:
    """Build each tenant's definitions. If Dagster refuses some, they are a problem of that tenant, unless FABRIC_STRICT is 1."""
    tenants, unbuilt = [], {}
    for name, loaded in fleet.tenants.items():
        try:
            tenants.append(build_tenant_definitions(loaded, graph, settings=settings))
        except Exception as error:
            what = "its definitions cannot be built"
            fault = report_own_fault(error, what, data_dir=settings.data_dir, tenant=name)
            if settings.strict:
                if fault is None:
                    raise
                raise fault from error
            unbuilt[name] = (loaded.make_problem((), str(fault or f"{what}: {error}")),)
    return tenants, unbuilt


def get_graph(fleet: Fleet, settings: Settings, *, prepares: bool = False) -> ProjectGraph | None:
    """Load the dbt project, if any tenant has models.

    Args:
        prepares: see `build_definitions`.
    """
    if not any(loaded.config.transform for loaded in fleet.tenants.values()):
        return None
    if not prepares:
        return load_graph(settings)
    from fabric_assets.transform.evaluation import prepare_graph  # a code server does not need it

    return prepare_graph((loaded.config for loaded in fleet.tenants.values()), settings)
