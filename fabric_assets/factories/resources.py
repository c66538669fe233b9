"""The resources that ops share: dbt processes, started before they are needed."""

from collections.abc import Iterator, Mapping

import dagster as dg

from fabric_assets.drivers.kinds import ADAPTERS
from fabric_assets.settings import Settings
from fabric_assets.transform.workers import DbtWorkers


def get_dbt_resource_key(adapter: str) -> str:
    return f"dbt_{adapter}"


def build_dbt_resources(settings: Settings, *, warm: Mapping[str, DbtWorkers] | None = None) -> dict[str, dg.ResourceDefinition]:
    """Build a resource per kind of warehouse.

    A run initialises the resources of its ops before its first step, so dbt's process starts on a second core during the loads.

    Args:
        warm: workers, by kind of warehouse, that the caller has started even earlier and closes itself.
    """
    return {get_dbt_resource_key(adapter): _build_resource(settings, adapter, (warm or {}).get(adapter)) for adapter in ADAPTERS}


def _build_resource(settings: Settings, adapter: str, warm: DbtWorkers | None) -> dg.ResourceDefinition:
    @dg.resource(description=f"dbt processes that are ready for {adapter}.")
    def dbt(_context: dg.InitResourceContext) -> Iterator[DbtWorkers]:
        if warm is not None:
            yield warm
            return
        workers = DbtWorkers(settings, adapter=adapter)
        workers.warm()
        try:
            yield workers
        finally:
            workers.close()

    return dbt
