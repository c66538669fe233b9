"""A run -> its tag `tenant`; and Dagster's queue, which tags each run that is submitted (ADR 0031), and splits one over several tenants (ADR 0045).

Dagster tags the runs of jobs, schedules and sensors. Runs on assets that somebody selects in the UI, backfills, and re-executions of both have no tag. The
limit of runs for each tenant would not count them, and a search by tenant would miss them.
"""

import re
from collections.abc import Callable, Iterable

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

TENANT_TAG = "tenant"
# A tag has one value. No tenant can have this name, since it has a space.
SEVERAL = "several tenants"
# The names of steps begin with their tenant's; those of the platform's own steps with `fabric`, which is reserved.
_OWNER = re.compile(r"([a-z][a-z0-9]*(?:_[a-z0-9]+)*)__[a-z]")
PLATFORM = "fabric"


def find_tenants(run: dg.DagsterRun, steps: Callable[[], Iterable[str]], graph: BaseAssetGraph) -> set[str]:
    """Find the tenants of the assets and checks that a run selects, or of all its steps if it selects nothing by name.

    An asset of the operators' own has a tenant only if it has the tag.

    Args:
        steps: lists the names of the run's steps.
        graph: the assets of the run's code location.
    """
    selected = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    if selected:
        return {tenant for key in selected if (tenant := graph.get(key).tags.get(TENANT_TAG) if graph.has(key) else key.path[0])}
    tenants = {node.tags.get(TENANT_TAG) for node in graph.asset_nodes}
    return {match[1] for step in steps() if (match := _OWNER.match(step)) and match[1] in tenants}


def get_tenant_tag(tenants: set[str]) -> str:
    """Return the tag's value; empty for a run without a tenant."""
    return SEVERAL if len(tenants) > 1 else next(iter(tenants), "")


class TenantRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue of runs. Each run is tagged before it is queued, and a run over several tenants becomes one for each of them (ADR 0045)."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        from fabric_assets.factories.tenant_runs import TenantRuns, find_parts, get_asset_graph  # runs import this module, and submit nothing

        def submit(run: dg.DagsterRun) -> dg.DagsterRun:
            return super(TenantRunCoordinator, self).submit_run(context._replace(dagster_run=run))

        run = context.dagster_run
        parts = find_parts(run, context.workspace)
        runs = TenantRuns(self._instance, context.workspace, submit)
        if parts and run.status == dg.DagsterRunStatus.NOT_STARTED:
            runs.split(run, parts)
        else:
            if TENANT_TAG not in run.tags:
                run = self._tag(run, find_tenants(run, lambda: self._list_steps(run), get_asset_graph(run, context.workspace)))
            submit(run)
        runs.finish()
        return self._instance.get_run_by_id(run.run_id) or run

    def _tag(self, run: dg.DagsterRun, tenants: set[str]) -> dg.DagsterRun:
        tag = get_tenant_tag(tenants)
        if not tag:
            return run
        self._instance.add_run_tags(run.run_id, {TENANT_TAG: tag})
        return run.with_tags({**run.tags, TENANT_TAG: tag})

    def _list_steps(self, run: dg.DagsterRun) -> list[str]:
        if not run.execution_plan_snapshot_id:
            return []
        return [step.key for step in self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).steps]
