"""`fabric run`: tenants materialised in this process, one after the other, and their results.

The runs are recorded in the UI's instance. Progress comes from Dagster's own events, through a logger of the run.
"""

import logging
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter

import dagster as dg

from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.selection import get_renamed, select_keys
from fabric_assets.errors import ConfigurationError, RetriableError
from fabric_assets.factories.execution import ExecutedRun, execute_job
from fabric_assets.factories.failures import INTERRUPTED
from fabric_assets.factories.instance.run_marks import mark_run
from fabric_assets.factories.instance.storage_errors import explaining_storage
from fabric_assets.factories.resources import build_dbt_resources
from fabric_assets.factories.run_rules import describe_failed_check, get_reason, is_failed_checks, run_executor
from fabric_assets.factories.tenant import TenantDefinitions, build_tenant_definitions
from fabric_assets.factories.translators import FULL_REFRESH_TAG, TENANT_TAG
from fabric_assets.findings import describe_duration
from fabric_assets.own_faults import report_own_fault
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ProjectGraph
from fabric_assets.transform.workers import DbtWorkers

# Somebody has started the run and sees how it ends, so the daemon must not start another one instead.
_NO_RETRY = {"dagster/max_retries": "0"}
_ENDS = frozenset({signal.SIGINT, signal.SIGTERM})


@dataclass(frozen=True)
class RunEvent:
    """A line of progress.

    Args:
        kind: `start`, `log`, `asset`, `check`, `failure` or `end`.
        passed: None for a line that is neither good nor bad.
    """

    tenant: str
    kind: str
    message: str
    passed: bool | None = None


@dataclass(frozen=True)
class AssetResult:
    """One asset of a run; the row counts are None where the step did not report them.

    Args:
        status: `success`, `failure` or `skipped`.
        kind: `load` or `model`.
    """

    key: str
    status: str
    rows_loaded: int | None = None
    rows_rejected: int | None = None
    kind: str = "load"
    rows_total: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    asset: str
    name: str
    passed: bool
    severity: str
    message: str = ""


@dataclass(frozen=True)
class TenantResult:
    """One tenant's result, as `fabric run` prints it.

    Args:
        interrupted: whether the process was cancelled during the tenant's run, or before it began.
    """

    tenant: str
    status: str
    run_id: str | None = None
    seconds: float = 0.0
    assets: list[AssetResult] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    error: str | None = None
    interrupted: bool = False

    @property
    def has_failed_check(self) -> bool:
        """Whether a check of severity error failed, also in a run that went through."""
        return any(not check.passed and check.severity == "error" for check in self.checks)


def run_tenant(
    loaded: LoadedTenant,
    *,
    graph: ProjectGraph | None,
    settings: Settings,
    instance: dg.DagsterInstance,
    workers: Mapping[str, DbtWorkers],
    selection: Sequence[str] = (),
    full_refresh: bool = False,
    on_event: Callable[[RunEvent], None],
) -> TenantResult:
    """Materialise a tenant, or the selected part of it; a failure is a result, never an exception.

    Args:
        workers: the dbt processes that the caller has started, by kind of warehouse.
        selection: as in a schedule's target; empty for everything.
    """
    tenant = loaded.config.tenant
    started = perf_counter()
    on_event(RunEvent(tenant, "start", "started"))
    try:
        definitions = build_tenant_definitions(loaded, graph, settings=settings)
        keys = select_keys(definitions.parents, tenant, list(selection) or "all", renames=definitions.renames)
        if not keys:
            raise ConfigurationError(f"{tenant} declares no asset: there is nothing to run", remedy="add a source or a transform block")
    except ConfigurationError as error:
        return TenantResult(tenant, "failure", seconds=perf_counter() - started, error=str(error))
    except Exception as error:  # noqa: BLE001 - the boundary between tenants: one that cannot be built must not stop the next
        what = f"{tenant}: its definitions cannot be built"
        fault = report_own_fault(error, what, data_dir=settings.data_dir, tenant=tenant)
        return TenantResult(tenant, "failure", seconds=perf_counter() - started, error=str(fault or f"{what}: {error}"))
    for part in selection:
        if new := get_renamed(part, definitions.renames):
            on_event(RunEvent(tenant, "log", f"warning: '{part}' is an earlier name of '{new}': write that"))
    job = dg.Definitions(
        assets=definitions.assets,
        resources=build_dbt_resources(settings, warm=workers),
        executor=run_executor,
        loggers={"progress": _build_logger(tenant, on_event)},
    ).resolve_implicit_global_asset_job_def()
    run_id = str(uuid.uuid4())
    try:
        with explaining_storage(), mark_run(run_id, settings), _watch_signals() as was_interrupted:
            result = execute_job(
                job,
                [dg.AssetKey(key) for key in keys],
                instance=instance,
                location=settings.location,
                tags={TENANT_TAG: tenant} | _NO_RETRY | ({FULL_REFRESH_TAG: "true"} if full_refresh else {}),
                run_config={"loggers": {"progress": {}}},
                run_id=run_id,
            )
            interrupted = was_interrupted()
    except RetriableError as error:
        return TenantResult(tenant, "failure", run_id, perf_counter() - started, error=str(error))
    outcome = _build_result(tenant, definitions, keys, result)
    error = outcome.error or (INTERRUPTED if interrupted and not result.success else None)
    return replace(outcome, seconds=round(perf_counter() - started, 3), error=error, interrupted=interrupted)


@contextmanager
def _watch_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the process was told to end: Dagster's handlers forget a signal between two steps.

    The handlers are restored afterwards. Dagster leaves SIGTERM with the handler of SIGINT, which a shell makes a background job ignore; `kill` would have
    no effect any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread alone
        return
    handlers = {number: signal.getsignal(number) for number in _ENDS}
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def was_interrupted() -> bool:
            with suppress(BlockingIOError):
                return not _ENDS.isdisjoint(reader.recv(4096))
            return False

        try:
            yield was_interrupted
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                if handler is not None:  # a handler that was not set from Python cannot be restored
                    signal.signal(number, handler)


def _build_result(tenant: str, definitions: TenantDefinitions, keys: list[tuple[str, ...]], result: ExecutedRun) -> TenantResult:
    materialised = {}
    checks, errors, found = [], [], []
    for event in result.events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            materialised[tuple(event.asset_key.path)] = event.step_materialization_data.materialization.metadata
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            reason = get_reason(check)
            checks.append(CheckResult("/".join(check.asset_key.path), check.check_name, check.passed, check.severity.value.lower(), reason))
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
                found.append(describe_failed_check(check.asset_check_key, reason))
        elif event.is_step_failure and not is_failed_checks(event):
            errors.append(_get_message(event))
    kinds = {tuple(spec.key.path): "model" if "dbt" in spec.kinds else "load" for definition in definitions.assets for spec in definition.specs}
    failed_steps = {event.step_key for event in result.events if event.is_step_failure and not is_failed_checks(event)}
    owners = {tuple(spec.key.path): definition.op.name for definition in definitions.assets for spec in definition.specs}
    assets = []
    for key in keys:
        metadata = materialised.get(key)
        status = "success" if metadata is not None else "failure" if owners[key] in failed_steps else "skipped"
        assets.append(
            AssetResult(
                "/".join(key),
                status,
                rows_loaded=_get_int(metadata, "rows_loaded"),
                rows_rejected=_get_int(metadata, "rows_rejected"),
                kind=kinds[key],
                rows_total=_get_int(metadata, "dagster/row_count"),
                warnings=_get_lines(metadata, "warnings"),
            )
        )
    # Each line is shown once: several steps may fail at one destination, and a step's error may name a check that failed.
    errors = list(dict.fromkeys(errors))
    named = {line for error in errors for line in error.splitlines()}
    lines = [*errors, *dict.fromkeys(line for line in found if line not in named)]
    return TenantResult(tenant, "success" if result.success else "failure", result.run_id, 0.0, assets, checks, "\n".join(lines) or None)


def _get_int(metadata, name: str) -> int | None:
    return metadata[name].value if metadata is not None and name in metadata else None


def _get_lines(metadata, name: str) -> tuple[str, ...]:
    return tuple(str(metadata[name].value).splitlines()) if metadata is not None and name in metadata else ()


def _get_message(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.error and failure.error.cls_name == "DagsterAssetCheckFailedError":
        return "a blocking check failed, so nothing below it was built; fix the data, or the check's limits, and run it again"
    if failure.error_source.value == "INTERRUPT":
        return INTERRUPTED
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    return failure.error.message.strip() if failure.error else (event.message or "the step failed")


def _build_logger(tenant: str, on_event: Callable[[RunEvent], None]) -> dg.LoggerDefinition:
    """Build the logger that passes a run's progress to `on_event`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if event := _translate(tenant, record):
                on_event(event)

    @dg.logger
    def progress(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger(f"fabric.progress.{tenant}", level=logging.DEBUG)
        logger.addHandler(Handler())
        return logger

    return progress


def _translate(tenant: str, record: logging.LogRecord) -> RunEvent | None:
    meta = getattr(record, "dagster_meta", None) or {}
    event = meta.get("dagster_event")
    if event is None and record.getMessage().startswith("Dependencies for step"):
        return None  # Dagster logs a line per missing input; the failure above it says why, and the result says what was skipped
    if event is None:
        return RunEvent(tenant, "log", meta.get("orig_message") or record.getMessage()) if record.levelno >= logging.INFO else None
    if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
        metadata = event.step_materialization_data.materialization.metadata
        loaded, rejected, deleted, total = (_get_int(metadata, name) for name in ("rows_loaded", "rows_rejected", "rows_deleted", "dagster/row_count"))
        rows = f"rows: {total:,}" if total is not None else "built"
        if loaded is not None:
            further = {"rejected": rejected, "gone from the source": deleted}
            rows = ", ".join([f"rows loaded: {loaded:,}", *(f"{name}: {count:,}" for name, count in further.items() if count), f"in the table: {total or 0:,}"])
        return RunEvent(tenant, "asset", f"{event.asset_key.to_user_string()}: {rows}", passed=True)
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        verdict = "passed" if check.passed else "failed"
        reason = f": {get_reason(check)}" if not check.passed else ""
        warned = not check.passed and check.severity == dg.AssetCheckSeverity.WARN
        return RunEvent(tenant, "check", f"{check.asset_key.to_user_string()}: {check.check_name} {verdict}{reason}", passed=None if warned else check.passed)
    if event.is_step_failure:
        message = _get_message(event)  # only the first line for failed checks, since each check has its own line
        return RunEvent(tenant, "failure", message.splitlines()[0] if is_failed_checks(event) else message, passed=False)
    if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
        wait = event.step_retry_data.seconds_to_wait  # Dagster's own message shows all of its digits
        return RunEvent(tenant, "log", "the step is tried again" + (f" in {describe_duration(wait)}" if wait else ""))
    return None
