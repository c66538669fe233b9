"""A run over assets of several tenants -> one run for each of them, as *Materialize all* of the UI asks for (ADR 0045).

The process that submits may be killed between two of these runs. So the id of each follows from the first run and the tenant, and a process that goes on
finds those that exist. The first run stays unstarted until the last one is submitted.
"""

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.events import EngineEventData
from dagster._core.workspace.context import BaseWorkspaceRequestContext

from fabric_assets.factories.run_tags import SEVERAL, TENANT_TAG
from fabric_assets.masking import mask

# On the first run: the number of tenants. On the run of each tenant: the id of the first run.
SPLIT_TAG = "fabric/split_into"
ORIGIN_TAG = "fabric/split_from"

# The run of assets that somebody selects; runs of named jobs are as their author wants them.
_ASSET_JOB = "__ASSET_JOB"
_BACKFILL_TAG, _RESUME_TAG = "dagster/backfill", "dagster/is_resume_retry"
# The daemon does not start a first run again: that would be a run of the tenants that have one.
_NO_RETRY = {"dagster/max_retries": "0"}
# No live process takes as long for one run.
_SETTLED = timedelta(minutes=10)
_TRIES_FOR = timedelta(days=1)
_REMEDY = "Select the assets of the tenants without a run, and start a run again."

_log = logging.getLogger(__name__)
# Held by the thread of this process that finishes what was left.
_finishing = threading.Lock()


@dataclass(frozen=True)
class Part:
    """What a run selects of one tenant.

    Args:
        checks: None for all checks of the assets.
    """

    assets: frozenset[dg.AssetKey]
    checks: frozenset[dg.AssetCheckKey] | None


def find_parts(run: dg.DagsterRun, workspace: BaseWorkspaceRequestContext) -> dict[str, Part]:
    """Find what the run selects of each tenant. It is empty for a run that stays as it is.

    A run is whole if it selects an asset without a tenant: what that asset is built from may belong to several tenants.
    """
    if not run.job_name.startswith(_ASSET_JOB) or run.remote_job_origin is None or {_BACKFILL_TAG, _RESUME_TAG} & run.tags.keys():
        return {}
    checks = run.asset_check_selection
    selected = [*(run.asset_selection or ()), *(check.asset_key for check in checks or ())]
    if selected and len({key.path[0] for key in selected}) < 2:
        return {}
    graph = get_asset_graph(run, workspace)
    assets = (run.asset_selection or frozenset()) if selected else graph.executable_asset_keys
    tenants = {key: graph.get(key).tags.get(TENANT_TAG) if graph.has(key) else None for key in selected or assets}
    names = sorted({name for name in tenants.values() if name})
    if len(names) < 2 or None in tenants.values():
        return {}
    return {
        name: Part(
            frozenset(key for key in assets if tenants[key] == name),
            None if checks is None else frozenset(check for check in checks if tenants[check.asset_key] == name),
        )
        for name in names
    }


def get_asset_graph(run: dg.DagsterRun, workspace: BaseWorkspaceRequestContext) -> BaseAssetGraph:
    """Return the assets of the code location that a submitted run belongs to."""
    location, repository = _get_origin(run)
    return workspace.get_code_location(location).get_repository(repository).asset_graph


@dataclass(frozen=True)
class TenantRuns:
    """What submits the runs of tenants in place of a first run over all of them.

    Args:
        submit: queues a run.
        settled: the age from which a run that is not submitted was left by a process that was killed.
    """

    instance: dg.DagsterInstance
    workspace: BaseWorkspaceRequestContext
    submit: Callable[[dg.DagsterRun], object]
    settled: timedelta = _SETTLED

    def split(self, run: dg.DagsterRun, parts: Mapping[str, Part]) -> None:
        """Submit a run for each tenant, and end the first run."""
        self.instance.add_run_tags(run.run_id, {TENANT_TAG: SEVERAL, SPLIT_TAG: str(len(parts))})
        _run_aside(lambda: self._split(run, parts))

    def finish(self) -> None:
        """Go on with first runs that a killed process has left unstarted. No error gets out, since the caller submits another run."""
        waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED], tags={TENANT_TAG: SEVERAL}, created_before=self._get_settled_time())
        try:
            records = [record for record in self.instance.get_run_records(waiting, limit=20) if SPLIT_TAG in record.dagster_run.tags]
            if records and _finishing.acquire(blocking=False):
                _run_aside(lambda: self._finish_each(records))
        except Exception as error:  # noqa: BLE001 - Dagster would record the caller's run, which is queued, as failed
            _log.warning("runs whose process was killed could not be looked for (%s); they are looked for again", type(error).__name__)

    def _split(self, run: dg.DagsterRun, parts: Mapping[str, Part]) -> None:
        missing = list(parts)
        try:
            if self._submit_each(run, parts, missing):
                self._end(run, parts)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: the run says what failed
            self._fail(run, f"{type(error).__name__}: {mask(str(error))}. Without a run: {', '.join(map(_name, missing))}.")

    def _finish_each(self, records: Sequence[dg.RunRecord]) -> None:
        try:
            for record in records:
                run = record.dagster_run
                try:
                    self._finish(run)
                except Exception as error:  # noqa: BLE001 - e.g. a code location that does not answer: the others go on, and this one is tried again
                    _log.warning("run %s: the runs of its tenants could not be submitted (%s); they are tried again", run.run_id, type(error).__name__)
                    if record.create_timestamp < datetime.now(UTC) - _TRIES_FOR:
                        self._fail(run, "The runs of its tenants could not all be submitted for a day.")
        finally:
            _finishing.release()

    def _finish(self, run: dg.DagsterRun) -> None:
        newest = self.instance.get_run_records(dg.RunsFilter(tags={ORIGIN_TAG: run.run_id}), limit=1)
        if newest and newest[0].create_timestamp > self._get_settled_time():
            return  # its process is at work
        parts = find_parts(run, self.workspace)
        if not parts:
            self._fail(run, "The selected assets have changed since the run was started, and not every tenant has a run.")
        elif self._submit_each(run, parts, list(parts)):
            self._end(run, parts)

    def _submit_each(self, run: dg.DagsterRun, parts: Mapping[str, Part], missing: list[str]) -> bool:
        """Create and submit the runs that do not exist yet, and take their tenants out of `missing`.

        Returns:
            whether all runs are submitted; not if another process is at it.
        """
        for tenant, part in parts.items():
            found = self.instance.get_run_record_by_id(get_run_id(run, tenant))
            if found is None:
                self.submit(self._create(run, tenant, part))
            elif found.dagster_run.status == dg.DagsterRunStatus.NOT_STARTED:
                if found.create_timestamp > self._get_settled_time():
                    return False  # a run that two processes submit at once could be launched twice
                self.submit(found.dagster_run)
            missing.remove(tenant)
        return True

    def _get_settled_time(self) -> datetime:
        return datetime.now(UTC) - self.settled

    def _create(self, run: dg.DagsterRun, tenant: str, part: Part) -> dg.DagsterRun:
        location, repository = _get_origin(run)
        served = self.workspace.get_code_location(location)
        job = served.get_job(JobSubsetSelector(location, repository, run.job_name, None, part.assets, part.checks))
        plan = served.get_execution_plan(job, run.run_config, None, None, self.instance)
        return self.instance.create_run(
            job_name=run.job_name,
            run_id=get_run_id(run, tenant),
            run_config=run.run_config,
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={**{key: value for key, value in run.tags.items() if key != SPLIT_TAG}, TENANT_TAG: tenant, ORIGIN_TAG: run.run_id},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=part.assets or None,
            asset_check_selection=part.checks,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=self.workspace.asset_graph,
        )

    def _end(self, run: dg.DagsterRun, parts: Mapping[str, Part]) -> None:
        links = {_name(tenant): dg.MetadataValue.dagster_run(get_run_id(run, tenant)) for tenant in parts}
        told = f"{len(parts)} runs do the work, one for each tenant. Each has the tag {ORIGIN_TAG}: {run.run_id}"
        self.instance.report_engine_event(told, run, EngineEventData(metadata=links))
        self.instance.report_run_canceled(run, message="This run ends here: a run for each tenant replaces it. The event above links them.")

    def _fail(self, run: dg.DagsterRun, what: str) -> None:
        self.instance.add_run_tags(run.run_id, _NO_RETRY)
        self.instance.report_run_failed(run, message=f"{what} Runs that exist have the tag {ORIGIN_TAG}: {run.run_id}. {_REMEDY}")


def _run_aside(work: Callable[[], None]) -> None:
    """Run the work in a thread where an event loop waits for the caller: a webserver must answer meanwhile. Elsewhere, run it at once.

    Nothing waits for the thread, since a run that it leaves is finished later.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        work()
    else:
        threading.Thread(target=work, name="tenant runs", daemon=True).start()


def _name(tenant: str) -> str:
    """Name a tenant in a record that several share. An offboarding finds the name in these words, and replaces it."""
    return f"tenant {tenant}"


def get_run_id(run: dg.DagsterRun, tenant: str) -> str:
    return str(uuid.uuid5(uuid.UUID(run.run_id), tenant))


def _get_origin(run: dg.DagsterRun) -> tuple[str, str]:
    """Return the names of the run's code location and repository."""
    assert run.remote_job_origin is not None
    origin = run.remote_job_origin.repository_origin
    return origin.code_location_origin.location_name, origin.repository_name
