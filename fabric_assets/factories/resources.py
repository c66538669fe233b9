"""The resource that ops share: dbt processes, started before they are needed."""

from collections.abc import Iterator

import dagster as dg

from fabric_assets.settings import Settings


def build_dbt_resource(settings: Settings, *, warm: "DbtWorkers | None" = None) -> dg.ResourceDefinition:  # noqa: F821
    """Make the resource `dbt`.

    A run initialises its resources before its first step, so dbt imports itself on the second core while the loads go on.

    Args:
        warm: workers started by the caller even earlier; theirs to close.
    """

    @dg.resource
    def dbt(_context: dg.InitResourceContext) -> Iterator[object]:
        from fabric_assets.transform.workers import DbtWorkers

        if warm is not None:
            yield warm
            return
        workers = DbtWorkers(settings)
        workers.warm()
        try:
            yield workers
        finally:
            workers.close()

    return dbt
