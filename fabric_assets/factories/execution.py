"""A job -> its run in this process, recorded as a run of the code location. The UI's timeline leaves out runs without a code location (ADR 0031).

`JobDefinition.execute_in_process` does the same without an origin, and under an executor of its own.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import ExecuteRunWithPlanIterable, create_execution_plan, job_execution_iterator
from dagster._core.execution.context_creation_job import PlanOrchestrationContextManager, orchestration_context_event_generator
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

MODULE = "fabric_assets.definitions"


@dataclass(frozen=True)
class ExecutedRun:
    """A run that has ended."""

    run_id: str
    success: bool
    events: Sequence[dg.DagsterEvent]


def execute_job(
    job: dg.JobDefinition,
    keys: Sequence[dg.AssetKey],
    *,
    instance: dg.DagsterInstance,
    location: str,
    run_id: str,
    tags: Mapping[str, str],
    run_config: Mapping[str, object],
) -> ExecutedRun:
    """Run the assets with their checks.

    Args:
        location: the code location's name, as workspace.yaml has it.
    """
    selection = frozenset(keys)
    subset = job.get_subset(asset_selection=selection)
    plan = create_execution_plan(subset, run_config=run_config, instance_ref=instance.get_ref())
    run = instance.create_run_for_job(
        job_def=subset,
        execution_plan=plan,
        run_id=run_id,
        run_config=run_config,
        tags={**subset.run_tags, **tags},
        asset_selection=selection,
        remote_job_origin=build_origin(job.name, location),
    )
    manager = PlanOrchestrationContextManager(
        context_event_generator=orchestration_context_event_generator,
        job=InMemoryJob(subset),
        execution_plan=plan,
        run_config=run_config,
        dagster_run=run,
        instance=instance,
        raise_on_error=False,
    )
    events = list(ExecuteRunWithPlanIterable(execution_plan=plan, iterator=job_execution_iterator, execution_context_manager=manager))
    ended = instance.get_run_by_id(run_id)
    return ExecutedRun(run_id, ended is not None and ended.is_success, events)


def build_origin(job: str, location: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE)
    return RemoteJobOrigin(RemoteRepositoryOrigin(ManagedGrpcPythonEnvCodeLocationOrigin(target, location), SINGLETON_REPOSITORY_NAME), job)
