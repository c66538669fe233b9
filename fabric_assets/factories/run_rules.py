"""The rules for every run, however it was started: it has the tag `tenant`, and a failed check of severity error fails it (ADR 0031).

Dagster has no hook for either. But every run of this code location goes through the executor: runs of the UI, schedules, sensors, backfills,
re-executions, `dg launch` and `fabric run`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster_shared.error import SerializableErrorInfo

from fabric_assets.factories.run_tags import find_tenants, get_tenant_tag
from fabric_assets.factories.translators import FAILED_CHECKS_TAG, TENANT_TAG

FAILED_CHECKS = "failed checks"


class _RuledExecutor(dg.Executor):
    """The in-process executor, with the rules applied before the first step and after the last one."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> RetryMode:
        return self._inner.retries

    @property
    def step_dependency_config(self):
        return self._inner.step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        run, instance = plan_context.dagster_run, plan_context.instance
        if TENANT_TAG not in run.tags:
            graph = plan_context.job.get_definition().asset_layer.asset_graph
            if tag := get_tenant_tag(find_tenants(run, lambda: execution_plan.step_keys_to_execute, graph)):
                instance.add_run_tags(run.run_id, {TENANT_TAG: tag})
        verdicts: dict[dg.AssetCheckKey, tuple[str, dg.AssetCheckEvaluation]] = {}
        broken = set[str]()
        for event in self._inner.execute(plan_context, execution_plan):
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION and event.step_key:
                check = event.asset_check_evaluation_data
                verdicts[check.asset_check_key] = (event.step_key, check)  # of a step that was tried again the last one counts
            elif event.is_step_failure and event.step_key:
                broken.add(event.step_key)
            yield event
        failed = [(step, check) for step, check in verdicts.values() if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR]
        if failed and not broken:
            # A sensor that starts failed runs again skips this one: its data is loaded, and its checks would only fail again.
            instance.add_run_tags(run.run_id, {FAILED_CHECKS_TAG: str(len(failed))})
        for step in dict.fromkeys(step for step, _ in failed if step not in broken):
            message = describe_failed_checks(check for owner, check in failed if owner == step)
            context = plan_context.for_step(execution_plan.get_executable_step_by_key(step))
            yield DagsterEvent.step_failure_event(context, _build_failure(message), message=message)


def describe_failed_checks(checks: Iterable[dg.AssetCheckEvaluation]) -> str:
    lines = [describe_failed_check(check.asset_check_key, get_reason(check)) for check in checks]
    return "\n".join([f"{len(lines)} check{'s' if len(lines) > 1 else ''} of severity error failed; what was loaded and built is kept", *lines])


def describe_failed_check(key: dg.AssetCheckKey, reason: str) -> str:
    return f"{key.asset_key.to_user_string()}: check {key.name} failed: {reason}".rstrip(": ")


def get_reason(check: dg.AssetCheckEvaluation) -> str:
    """Return the reason of a failed check, for terminals and logs: without the values of rows that its message may have."""
    found = check.metadata.get("log_message") or check.metadata.get("message")
    return str(found.value) if found is not None else ""


def _build_failure(message: str) -> StepFailureData:
    error = SerializableErrorInfo(message=message, stack=[], cls_name="FailedChecks")
    return StepFailureData(error=error, user_failure_data=UserFailureData(label=FAILED_CHECKS, description=message))


def is_failed_checks(event: DagsterEvent) -> bool:
    """Whether a step failed only because of its checks, after its work was done."""
    return event.is_step_failure and event.step_failure_data.user_failure_data is not None and event.step_failure_data.user_failure_data.label == FAILED_CHECKS


_ANY_CONFIG: Any = dg.in_process_executor.config_schema  # Dagster accepts its own schema here, but does not declare that


@dg.executor(name="in_process", config_schema=_ANY_CONFIG)
def run_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Execute all steps in a single process (ADR 0005), and apply the rules."""
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None
    return _RuledExecutor(create(context))
