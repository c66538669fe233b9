"""One tenant -> its Dagster definitions. `_build` is the table of contents of the product."""

import warnings
from dataclasses import dataclass, field

import dagster as dg

from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.selection import Key, Renames
from fabric_assets.factories.inbox.sensors import build_import_sensors
from fabric_assets.factories.ingestion import build_ingestion
from fabric_assets.factories.schedules import build_schedules
from fabric_assets.factories.transformation import build_transformation, list_freshness
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests


@dataclass(frozen=True)
class TenantDefinitions:
    """A tenant's part of the code location.

    Args:
        parents: each asset key of the tenant with the keys that it is built from; selections are evaluated on it.
        freshness: each check of a source's age with the shortest age in seconds that fails.
        renames: earlier keys of models, for selections.
    """

    tenant: str
    assets: list[dg.AssetsDefinition]
    schedules: list[dg.ScheduleDefinition]
    sensors: list[dg.SensorDefinition] = field(default_factory=list)
    parents: dict[Key, tuple[Key, ...]] = field(default_factory=dict)
    freshness: dict[dg.AssetCheckKey, int] = field(default_factory=dict)
    renames: Renames = field(default_factory=dict)


def build_tenant_definitions(loaded: LoadedTenant, graph: ProjectGraph | None, *, settings: Settings) -> TenantDefinitions:
    """Build all of a tenant's definitions.

    Args:
        graph: the dbt project; None where no tenant has models.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # code references are beta in Dagster 1.13; the version is bounded, so users need no warning
        return _build(loaded, graph, settings=settings)


def _build(loaded: LoadedTenant, graph: ProjectGraph | None, *, settings: Settings) -> TenantDefinitions:
    tenant = loaded.config
    nodes = graph.streams if graph is not None else {}
    freshness: dict[dg.AssetCheckKey, int] = {}
    assets = [build_ingestion(loaded, source, settings=settings, nodes=nodes.get(source)) for source in tenant.sources]
    if tenant.transform is not None and graph is not None:
        models = select_models(graph, tenant=tenant.tenant, transform=tenant.transform)
        if models:
            tests = get_tests(graph, tenant, models)
            assets.append(build_transformation(loaded, models, tests, settings=settings, stopped=graph.stopped))
            freshness = list_freshness(tenant.tenant, tests)
    parents = {tuple(spec.key.path): tuple(tuple(dep.asset_key.path) for dep in spec.deps) for definition in assets for spec in definition.specs}
    sensors = build_import_sensors(tenant, parents, settings=settings)
    renames = graph.renames if graph is not None else {}
    schedules = build_schedules(tenant, parents, renames)
    return TenantDefinitions(tenant.tenant, assets, schedules, sensors=sensors, parents=parents, freshness=freshness, renames=renames)
