"""A tenant's source and the chosen streams -> rows in the warehouse, and a report per stream.

The destination alone is the truth: each run ends what an earlier one left pending, then forgets its working folder and takes
cursors from the destination, where they were committed with the rows. A cursor in a local file could run ahead of them.
"""

import shutil
import time
from collections.abc import Callable
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError, DestinationError
from fabric_assets.loading import ledger
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.lease import LEASE_SECONDS, warehouse_lease
from fabric_assets.loading.reports import LoadRequest, StreamReport, empty_staging, read_table
from fabric_assets.private_files import make_private_folder

# Both destinations take it as it is: dlt's default writes a statement per row, three times slower also for the rows of an API.
FILE_FORMAT = "parquet"
Report = Callable[[str], None]


def run_load(request: LoadRequest, *, report: Report = lambda message: None) -> tuple[StreamReport, ...]:
    """Load the chosen streams of one source; all of them, or an error.

    Args:
        report: takes progress, line by line.

    Raises:
        FabricError: what is wrong, where, and what to do next.
    """
    context = _build_context(request, report)
    with warehouse_lease(request.tenant.tenant, request.settings, timeout_seconds=LEASE_SECONDS, report=report):
        return _load(request, context, report)


def _build_context(request: LoadRequest, report: Report) -> SourceContext:
    sources = request.tenant.sources
    if request.source not in sources:
        raise ConfigurationError(f"tenant {request.tenant.tenant} has no source {request.source}; known: {', '.join(sorted(sources)) or 'none'}")
    config = sources[request.source]
    for stream in request.streams:
        if stream not in config.streams:
            raise ConfigurationError(
                f"tenant {request.tenant.tenant}, source {request.source}: there is no stream {stream}; known: {', '.join(sorted(config.streams))}"
            )
    return SourceContext(
        tenant=request.tenant.tenant,
        name=request.source,
        config=config,
        streams=request.streams or tuple(config.streams),
        settings=request.settings,
        full_refresh=request.full_refresh,
        report=report,
    )


def _load(request: LoadRequest, context: SourceContext, report: Report) -> tuple[StreamReport, ...]:
    from fabric_assets.connectors.isolation import isolate_dlt
    from fabric_assets.connectors.registry import build_source

    isolate_dlt(request.settings.data_dir / "dlt")
    started, place = time.monotonic(), context.describe()
    pipeline = _build_pipeline(request, context)
    try:
        pipeline = _finish_pending(pipeline, place, report)
        pipeline.sync_destination()
        _check_dataset(pipeline, context)
        before = _get_loaded_streams(pipeline, context)
        source = build_source(context)
        report(f"{place}: reading {', '.join(context.streams)}")
        pipeline.extract(source, loader_file_format=FILE_FORMAT, refresh="drop_resources" if request.full_refresh else None)
        info = pipeline.normalize()
        load_id, sizes = _measure(pipeline)
        report(f"{place}: writing {sum(info.row_counts.get(name, 0) for name in context.streams)} rows")
        pipeline.load()
    except Exception as error:  # noqa: BLE001 - the one boundary where dlt, drivers and servers become our errors
        raise build_error(error, tenant=request.tenant, place=place, streams=context.streams) from None
    seconds = time.monotonic() - started
    shutil.rmtree(naming.pipelines_dir(request.settings.data_dir, context.tenant, context.name), ignore_errors=True)
    rows = {name: info.row_counts.get(name, 0) for name in context.streams}
    return _report_streams(request, context, rows, sizes, load_id, before, seconds)


def _build_pipeline(request: LoadRequest, context: SourceContext) -> Any:
    import dlt

    from fabric_assets.connectors.destinations import build_destination

    folder = naming.pipelines_dir(request.settings.data_dir, context.tenant, context.name)
    make_private_folder(folder)
    return dlt.pipeline(
        pipeline_name=naming.pipeline(context.tenant, context.name),
        pipelines_dir=str(folder),
        destination=build_destination(request.tenant, source=context.name, settings=request.settings),
        dataset_name=naming.raw_dataset(context.tenant, context.name),
    )


def _finish_pending(pipeline: Any, place: str, report: Report) -> Any:
    """Load what a killed run has left, or give it up where it cannot be loaded; the source is read again either way."""
    from dlt.pipeline.exceptions import PipelineStepFailed

    if pipeline.has_pending_data:
        report(f"{place}: finishing what an earlier run has left behind")
        try:
            pipeline.normalize()
            pipeline.load()
        except PipelineStepFailed as error:
            report(f"{place}: it cannot be finished ({type(error.exception).__name__}) and is read again instead")
    return pipeline.drop()


def _check_dataset(pipeline: Any, context: SourceContext) -> None:
    """A restored state names the dataset that it was saved in: a copied one would send this tenant's rows to the original's (dlt #3680)."""
    expected = naming.raw_dataset(context.tenant, context.name)
    if pipeline.dataset_name != expected:
        raise DestinationError(
            f"{context.describe()}: the state found in dataset {expected} belongs to dataset {pipeline.dataset_name}",
            remedy="the dataset looks copied: drop its table _dlt_pipeline_state, then load with --full-refresh",
        )


def _get_loaded_streams(pipeline: Any, context: SourceContext) -> frozenset[str]:
    if context.full_refresh or context.name not in pipeline.schemas:
        return frozenset()
    return frozenset(pipeline.schemas[context.name].data_table_names(seen_data_only=True))


def _measure(pipeline: Any) -> tuple[str, dict[str, int]]:
    """The load's id and the bytes per table, from the package about to be loaded."""
    load_id, sizes = "", {}
    for load_id in pipeline.list_normalized_load_packages():
        for jobs in pipeline.get_load_package_info(load_id).jobs.values():
            for job in jobs:
                table = job.job_file_info.table_name
                sizes[table] = sizes.get(table, 0) + job.file_size
    return load_id, sizes


def _report_streams(
    request: LoadRequest, context: SourceContext, rows: dict[str, int], sizes: dict[str, int], load_id: str, before: frozenset[str], seconds: float
) -> tuple[StreamReport, ...]:
    from fabric_assets.connectors.destinations import connect, get_database_name

    tenant: TenantConfig = request.tenant
    dataset, database, reports = naming.raw_dataset(context.tenant, context.name), get_database_name(tenant, request.settings), []
    connection = connect(tenant, request.settings)
    try:
        for name in context.streams:
            total, columns = read_table(connection, dataset, name)
            if name not in before and context.config.type == "sql_database" and total < rows[name]:
                context.report(f"{context.describe(name)}: {rows[name] - total} rows share their primary_key with another one; the newest of each was kept")
            reports.append(
                StreamReport(
                    stream=name,
                    table_name=f"{database}.{dataset}.{name}",
                    rows_loaded=rows[name],
                    rows_total=total,
                    columns=columns,
                    load_id=load_id,
                    destination=tenant.destination.type,
                    dataset=dataset,
                    seconds=seconds,
                    first_run=name not in before,
                    bytes=sizes.get(name, 0),
                )
            )
        empty_staging(connection, naming.load_staging_dataset(context.tenant, context.name))
        ledger.record(connection, request, reports)
        connection.commit()
    finally:
        connection.close()
    return tuple(reports)
