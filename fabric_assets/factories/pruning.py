"""A tenant -> the tables and views in its destination that no config names any more, and their drop.

Streams are known by the states in the tenant's own schemas, models by the assets that Dagster has recorded. So a table that people have made is never taken
for a model's.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from importlib import import_module

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.drivers.destinations import open_ask
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.factories.instance.opening import get_instance
from fabric_assets.factories.instance.storage_errors import explaining_storage
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.selection import select_models
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.leftovers import Declared, Leftover, Relation, drop_leftovers, find_leftovers
from fabric_assets.warehouse.leftovers_sql import LeftoversSql
from fabric_assets.warehouse.session import Session
from fabric_assets.warehouse.warehouse import open_warehouse

Report = Callable[[str], None]
# Reads a tenant's config, and the project's graph, as they are now.
ReadConfig = Callable[[], tuple[LoadedTenant, ProjectGraph | None]]
# On the observation that a prune reports of a model's asset.
_PRUNED = "fabric/pruned"
# Names the lease of a prune that concerns no source.
_NO_SOURCE = "prune"


def list_leftovers(loaded: LoadedTenant, graph: ProjectGraph | None, settings: Settings) -> list[Leftover]:
    """List what no config names any more; nothing is changed.

    Raises:
        FabricError: the destination or Dagster's database cannot be read.
    """
    with open_ask(loaded.config, settings) as ask:
        return find_leftovers(ask, _get_sql(loaded), loaded.config.tenant, _find_declared(loaded, graph, settings))


def drop(
    loaded: LoadedTenant, graph: ProjectGraph | None, settings: Settings, *, read_again: ReadConfig, report: Report = lambda message: None
) -> list[Leftover]:
    """Drop what no config names any more. It is looked for again under the leases, and dropped in one transaction.

    Args:
        read_again: called under the leases. A load that was waited for may be that of a stream that has come back into the YAML.
        report: called if there is a wait for a run.

    Returns:
        what was found; what has a reason in `kept` is still there.

    Raises:
        FabricError: the destination, or a lease, as a whole; nothing is dropped.
    """
    tenant, found = loaded.config, list_leftovers(loaded, graph, settings)
    if all(each.kept for each in found):
        return found
    sources = sorted({each.of.partition(".")[0] for each in found if each.what == "stream"}) or [_NO_SOURCE]
    with ExitStack() as stack:
        # A file has one lease for all sources.
        for source in sources[:1] if get_kind(tenant).has_one_writer else sources:
            stack.enter_context(load_lease(tenant, source, settings, timeout_seconds=LEASE_SECONDS, report=report))
        declared, sql = _find_declared(*read_again(), settings), _get_sql(loaded)

        def work(session: Session) -> None:
            found[:] = [each for each in find_leftovers(session.ask, sql, tenant.tenant, declared) if _is_leased(each, sources)]
            drop_leftovers(session, sql, tenant.tenant, found, declared)

        stack.enter_context(open_warehouse(tenant, sources[0], settings)).run(work)
    _record(tenant.tenant, [each for each in found if not each.kept and each.what != "stream"], settings)
    return found


def _get_sql(loaded: LoadedTenant) -> LeftoversSql:
    return import_module(get_kind(loaded.config).sessions).LEFTOVERS


def _record(tenant: str, dropped: Iterable[Leftover], settings: Settings) -> None:
    """Record with the assets of models that their tables are gone. A later table of that name is somebody else's, until a run builds the model."""
    with explaining_storage(), get_instance(settings) as instance:
        for each in dropped:
            key = dg.AssetKey(naming.model_asset_key(tenant, each.schema.removeprefix(f"{tenant}_"), each.name))
            told = f"`fabric prune` has dropped {each.schema}.{each.name}: no config names it any more."
            instance.report_runless_asset_event(dg.AssetObservation(key, description=told, metadata={_PRUNED: True}))


def _is_pruned(instance: dg.DagsterInstance, key: dg.AssetKey) -> bool:
    """Whether a prune has dropped the asset's table, and no run has built it since."""
    observed = instance.fetch_observations(key, limit=1).records
    observation = observed[0].asset_observation if observed else None
    if observation is None or _PRUNED not in observation.metadata:
        return False
    built = instance.fetch_materializations(key, limit=1).records
    return not built or built[0].timestamp <= observed[0].timestamp


def _is_leased(leftover: Leftover, sources: Sequence[str]) -> bool:
    """Whether no load can be at work on it: a stream that was removed meanwhile has to wait for the next prune."""
    return leftover.what != "stream" or leftover.of.partition(".")[0] in sources


def _find_declared(loaded: LoadedTenant, graph: ProjectGraph | None, settings: Settings) -> Declared:
    tenant = loaded.config
    name = tenant.tenant
    models = select_models(graph, tenant=name, transform=tenant.transform) if graph is not None and tenant.transform is not None else ()
    read: dict[Relation, str] = {}
    for model in models:
        read |= {(naming.raw_dataset(name, source), stream): model.name for source, stream in model.depends_on_sources}
        if graph is not None:
            parents = (graph.models[unique_id] for unique_id in model.depends_on_models)
            read |= {(naming.dbt_schema(name, parent.schema), parent.name): model.name for parent in parents}
    current = frozenset((naming.dbt_schema(name, model.schema), model.name) for model in models)
    with explaining_storage(), get_instance(settings) as instance:
        keys = [key for key in instance.get_asset_keys(prefix=[name]) if len(key.path) == len(naming.model_asset_key(name, "", ""))]
        built = {(naming.dbt_schema(name, key.path[1]), key.path[2]): key for key in keys}
        built = {relation for relation, key in built.items() if relation not in current and not _is_pruned(instance, key)}
    return Declared(
        streams=frozenset((source, stream) for source, config in tenant.sources.items() for stream in config.streams),
        models=current,
        built=frozenset(built),
        read=read,
        renamed={(naming.dbt_schema(name, schema), old): f"{new.schema}.{new.name}" for (schema, old), new in (graph.renamed if graph else {}).items()},
    )
