"""One source of a tenant -> one multi-asset: an asset per stream, and the source's checks.

The op connects when it runs: definitions open nothing (ADR 0002).
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar, get_args

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import shorten
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import DestinationError, DestinationUnavailable, FabricError, InternalError, LeaseHeld, SecretError
from fabric_assets.factories.failures import build_retry_policy, raised_to_dagster
from fabric_assets.factories.publishing import publish_loaded
from fabric_assets.factories.translators import FULL_REFRESH_TAG, DeclaredCheck, build_raw_spec, build_source_checks, get_severity, raw_key
from fabric_assets.loading.dropped_files.expectations import ImportCheck
from fabric_assets.private_parts import is_verified
from fabric_assets.rows.imported_file import ImportedFile, Status
from fabric_assets.rows.reports import LoadRecord, LoadRequest, StreamFailure, StreamReport
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import SourceNode
from fabric_assets.visible import show_name

_FILES_SHOWN = 100
Outcome = TypeVar("Outcome")
# Set by Dagster on a run that begins where another one failed.
_RESUME_TAG = "dagster/is_resume_retry"


def build_ingestion(loaded: LoadedTenant, source: str, *, settings: Settings, nodes: Mapping[str, SourceNode] | None = None) -> dg.AssetsDefinition:
    """Build the assets of one source; a run may select any of its streams and checks.

    Args:
        nodes: what the dbt project says of each stream. Checks show no values of the columns that it tags `sensitive`.
    """
    nodes = nodes or {}
    sensitive = {stream: frozenset(node.sensitive) for stream, node in nodes.items()}
    tenant = loaded.config
    config = tenant.sources[source]
    checks = build_source_checks(tenant, source)

    @dg.multi_asset(
        name=naming.load_op(tenant.tenant, source),
        specs=[build_raw_spec(loaded, source, stream, node=nodes.get(stream)) for stream in config.streams],
        check_specs=[check.spec for check in checks.values()],
        can_subset=True,
        pool=get_pool(loaded),
        retry_policy=build_retry_policy(config.retries),
        op_tags={"tenant": tenant.tenant, "source": source},
    )
    def load_source(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with raised_to_dagster(settings, tenant.tenant):
            yield from load_and_check(context)

    def load_and_check(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        selected = context.selected_asset_keys
        streams = tuple(stream for stream in config.streams if raw_key(tenant.tenant, source, stream) in selected)
        failures: dict[str, StreamFailure] = {}
        if streams:
            request = LoadRequest(
                tenant=tenant,
                source=source,
                streams=streams,
                settings=settings,
                full_refresh=context.run.tags.get(FULL_REFRESH_TAG) == "true",
                run_id=context.run.run_id,
                earlier_runs=get_earlier_runs(context),
            )
            failures = yield from load(request, context, loaded, nodes)
            if len(failures) < len(streams):
                publish_loaded(tenant, settings, context)
        wanted = [check for key, check in checks.items() if key in context.selected_asset_check_keys and check.stream not in failures]
        yield from run_source_checks(tenant, source, wanted, settings=settings, sensitive=sensitive)
        if failures:
            from fabric_assets.loading.load import join_failures

            # In the YAML's order: a parent before the streams that failed with it.
            raise join_failures([failures[stream] for stream in streams if stream in failures], of=len(streams))

    return load_source


def load(
    request: LoadRequest, context: dg.AssetExecutionContext, loaded: LoadedTenant, nodes: Mapping[str, SourceNode]
) -> Generator[dg.MaterializeResult, None, dict[str, StreamFailure]]:
    """Load streams, and yield a materialisation for each as soon as it is committed. Errors get their line in the YAML.

    Returns:
        the failures, by stream.

    Raises:
        FabricError: nothing could be loaded at all.
    """
    from fabric_assets.loading.load import load_streams

    failures, materialised = dict[str, StreamFailure](), find_materialised(context)
    _cache_output_keys(context)
    outcomes = load_streams(request, report=context.log.info)
    while outcome := _locate(lambda: next(outcomes, None), loaded, request.source):
        if isinstance(outcome, StreamFailure):
            outcome.error.where = find_declaration(outcome.error, loaded, request.source, outcome.stream)
            context.log.error(str(outcome.error))
            failures[outcome.stream] = outcome
        elif (key := raw_key(request.tenant.tenant, request.source, outcome.stream)) not in materialised:
            # Metadata on the result would be stored twice: Dagster also stores it with the step's output.
            context.add_asset_metadata(describe_load(request.tenant, request.source, outcome, nodes.get(outcome.stream)), asset_key=key)
            yield dg.MaterializeResult(asset_key=key)
    return failures


def _locate(step: Callable[[], Outcome], loaded: LoadedTenant, source: str) -> Outcome:
    try:
        return step()
    except FabricError as error:
        error.where = find_declaration(error, loaded, source)
        raise


def find_declaration(error: FabricError, loaded: LoadedTenant, source: str, stream: str = "") -> str:
    """Find the file and line that an error is about; empty where no edit of the YAML would help."""
    if isinstance(error, InternalError | LeaseHeld):
        return ""
    is_destination = error.at_destination or isinstance(error, DestinationError | DestinationUnavailable)
    below = ["destination"] if is_destination else ["sources", source]
    origin = loaded.get_origin(*below, *(["streams", stream] if stream and not is_destination else []))
    if isinstance(error, SecretError) and error.reference:
        origin = loaded.origins.find_reference(tuple(below), *error.reference) or origin
    return f"{show_name(shorten(origin.file))}:{origin.line}"


def _cache_output_keys(context: dg.AssetExecutionContext) -> None:
    """Cache the step's asset keys, which Dagster looks up for each result: 200 streams would take 40,000 look-ups."""
    if not is_verified("dagster"):
        return
    step = context.get_step_execution_context()
    keys = step.get_output_asset_keys()
    step.get_output_asset_keys = lambda: keys


def find_materialised(context: dg.AssetExecutionContext) -> frozenset[dg.AssetKey]:
    """Find the assets that an earlier try of this step has materialised. It may have committed others, and failed before it could report them."""
    if not context.retry_number:
        return frozenset()
    found = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return frozenset(entry.dagster_event.asset_key for entry in found if entry.dagster_event and entry.dagster_event.asset_key)


def get_earlier_runs(context: dg.AssetExecutionContext) -> tuple[str, ...]:
    """List the earlier runs whose loads count for this step: its own run if the step is retried, and the failed runs that it resumes."""
    runs = [context.run.run_id] if context.retry_number else []
    run: dg.DagsterRun | None = context.run
    while run is not None and run.parent_run_id and run.tags.get(_RESUME_TAG) == "true":
        runs.append(run.parent_run_id)
        run = context.instance.get_run_by_id(run.parent_run_id)
    return tuple(runs)


def get_pool(loaded: LoadedTenant) -> str | None:
    """Return the pool for all writers of the tenant's data; None where several processes may write at a time."""
    return naming.pool(loaded.config.tenant) if get_kind(loaded.config).has_one_writer else None


def describe_load(tenant: TenantConfig, source: str, report: StreamReport, node: SourceNode | None = None) -> dict[str, Any]:
    """Turn a stream's report into the asset's metadata, under dagster-dlt's keys where it has one. The dbt project describes the columns."""
    record = report.record
    told = {name.lower(): description for name, (_, description) in node.columns.items()} if node else {}
    columns = [
        dg.TableColumn(
            column.name, column.type, description=told.get(column.name.lower()) or None, constraints=dg.TableColumnConstraints(nullable=column.nullable)
        )
        for column in report.columns
    ]
    return {
        "dagster/row_count": report.rows_total,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": report.table_name,
        "rows_read": record.rows_read,
        "rows_loaded": record.rows_loaded,
        "rows_rejected": record.rows_rejected,
        "first_run": report.first_run,
        "dataset_name": report.dataset,
        "destination_type": report.destination,
        "write_disposition": record.write_disposition,
        "load_id": record.load_id,
        "bytes": record.bytes,
        "seconds": round(record.seconds, 3),
        **_describe_window(record),
        **_describe_changes(record),
        **({"warnings": "\n".join(report.warnings)} if report.warnings else {}),
        **({"rows_deleted": record.rows_deleted} if record.rows_deleted is not None else {}),
        **({"source_rows": record.source_rows} if record.source_rows is not None else {}),
        **({"rows_missing": report.rows_missing} if report.rows_missing else {}),
        **(_describe_files(report.files) if isinstance(tenant.sources[source], CsvImportSource) else {}),
    }


def _describe_window(record: LoadRecord) -> dict[str, str]:
    bounds = {"window_start": record.window_start, "window_end": record.window_end}
    return {name: value for name, value in bounds.items() if value is not None}


def _describe_changes(record: LoadRecord) -> dict[str, Any]:
    """Build a table of the schema's changes: each column before and after. Values that are kept in another column are counted."""
    if not record.schema_changes:
        return {}
    rows = [
        dg.TableRecord({"table": change.table, "column": change.column, "change": change.change, "before": change.before, "after": change.after})
        for change in record.schema_changes
    ]
    beside = sum(change.values for change in record.schema_changes)
    return {"schema_changes": dg.MetadataValue.table(records=rows), **({"values_kept_beside": beside} if beside else {})}


def _describe_files(files: Sequence[ImportedFile]) -> dict[str, dg.MetadataValue | int | str]:
    """Build metadata on the dropped files of this load; those that somebody must look at come first."""
    counts = Counter(file.status for file in files)
    described: dict[str, dg.MetadataValue | int | str] = {f"files_{status}": counts[status] for status in get_args(Status)}
    if attempts := [file.next_attempt_at for file in files if file.status == "failed" and file.next_attempt_at]:
        described["next_attempt_at"] = min(attempts).isoformat()
    shown = sorted(files, key=lambda file: file.status not in ("quarantined", "failed"))[:_FILES_SHOWN]
    if shown:
        described["files"] = dg.MetadataValue.table(
            records=[
                dg.TableRecord(
                    {
                        "name": file.name,
                        "status": file.status,
                        "rows_read": file.rows_read,
                        "rows_loaded": file.rows_loaded,
                        "rows_rejected": file.rows_rejected,
                        "reason": file.reason or "",
                        "message": file.message or "",
                    }
                )
                for file in shown
            ]
        )
    return described


def run_source_checks(
    tenant: TenantConfig, source: str, checks: Iterable[DeclaredCheck], *, settings: Settings, sensitive: Mapping[str, frozenset[str]]
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks of each stream's table, and of its dropped files, over one connection each."""
    from fabric_assets.loading.checks import CheckOutcome, run_checks
    from fabric_assets.loading.dropped_files.checks import run_import_checks

    for stream, declared in groupby(checks, key=lambda check: check.stream):
        group = sorted(declared, key=lambda check: isinstance(check.config, ImportCheck))
        of_rows = tuple(check.config for check in group if not isinstance(check.config, ImportCheck))
        of_files = tuple(check.config for check in group if isinstance(check.config, ImportCheck))
        outcomes: tuple[CheckOutcome, ...] = ()
        if of_rows:
            outcomes = run_checks(of_rows, tenant=tenant, source=source, stream=stream, settings=settings, sensitive=sensitive.get(stream, frozenset()))
        if of_files:
            outcomes += run_import_checks(of_files, tenant=tenant, source=source, stream=stream, settings=settings)
        for check, outcome in zip(group, outcomes, strict=True):
            yield dg.AssetCheckResult(
                asset_key=check.spec.asset_key,
                check_name=check.spec.name,
                passed=outcome.passed,
                severity=get_severity(check.config.severity),
                metadata=dict(outcome.metadata),
            )
