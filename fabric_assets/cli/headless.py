"""Names of tenants -> their runs. dbt's process starts early, and imports dbt while this process imports Dagster."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from fabric_assets.config.loader import Fleet, LoadedTenant
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.importing import without_garbage_collection
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.fleet import validate_fleet
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.workers import DbtWorkers

if TYPE_CHECKING:
    from fabric_assets.factories.runs import RunEvent, TenantResult


def get_valid_fleet(fleet: Fleet, settings: Settings) -> tuple[Fleet, ProjectGraph | None]:
    """Check the tenants against the dbt project.

    The project is prepared first: it is parsed if it has changed, and new selections of tenants are evaluated.
    """
    if not any(loaded.config.transform for loaded in fleet.tenants.values()):
        return validate_fleet(fleet, None), None
    graph = prepare_graph((loaded.config for loaded in fleet.tenants.values()), settings)
    return validate_fleet(fleet, graph), graph


def run_tenants(
    fleet: Fleet,
    names: Iterable[str],
    *,
    settings: Settings,
    selection: Iterable[str] = (),
    full_refresh: bool = False,
    on_event: "Callable[[RunEvent], None]",
) -> "list[TenantResult]":
    """Materialise tenants one after the other; a broken or failing tenant does not stop the others. An interrupted process starts no further tenant.

    Args:
        names: tenants of the fleet, healthy or broken.
        selection: see `fabric_assets.config.selection`; empty for everything.
    """
    chosen = list(names)
    fleet, graph = get_valid_fleet(fleet, settings)
    healthy = [fleet.tenants[name] for name in chosen if name in fleet.tenants]
    workers = {adapter: DbtWorkers(settings, adapter=adapter) for adapter in sorted({_get_adapter(loaded) for loaded in healthy if loaded.config.transform})}
    try:
        _warm_next(workers, healthy)
        with without_garbage_collection():
            from fabric_assets.factories.instance.opening import get_instance
            from fabric_assets.factories.instance.run_marks import end_dead_runs
            from fabric_assets.factories.instance.storage_errors import explaining_storage
            from fabric_assets.factories.runs import RunEvent, TenantResult, run_tenant
            from fabric_assets.factories.translators import TENANT_TAG

        results = {
            name: TenantResult(name, "failure", error="\n".join(str(problem) for problem in fleet.broken[name])) for name in chosen if name in fleet.broken
        }
        # Around the whole: as it is closed, the instance stores the events that it still has.
        with explaining_storage(), get_instance(settings) as instance:
            for dead in end_dead_runs(instance, settings):
                told = f"run {dead.run_id} was killed, or lost Dagster's database; it is recorded as failed, and this one goes on from there"
                on_event(RunEvent(dead.tags[TENANT_TAG], "log", told))
            is_interrupted = False
            for index, loaded in enumerate(healthy):
                if is_interrupted:
                    results[loaded.config.tenant] = TenantResult(
                        loaded.config.tenant, "failure", error="not started: the command was cancelled before", interrupted=True
                    )
                    continue
                _warm_next(workers, healthy[index:])
                results[loaded.config.tenant] = result = run_tenant(
                    loaded,
                    graph=graph,
                    settings=settings,
                    instance=instance,
                    workers=workers,
                    selection=tuple(selection),
                    full_refresh=full_refresh,
                    on_event=on_event,
                )
                is_interrupted = result.interrupted
        return [results[name] for name in chosen]
    finally:
        for ready in workers.values():
            ready.close()


def _warm_next(workers: Mapping[str, DbtWorkers], waiting: Iterable[LoadedTenant]) -> None:
    """Start dbt for the next tenant that has models."""
    for loaded in waiting:
        if loaded.config.transform:
            workers[_get_adapter(loaded)].warm()
            return


def _get_adapter(loaded: LoadedTenant) -> str:
    return get_kind(loaded.config).dbt_adapter
