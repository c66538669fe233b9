"""One source of a tenant -> one multi-asset: an asset per stream, and the source's checks.

The op builds dlt's source and pipeline itself, when it runs: definitions open nothing (ADR 0002).
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.factories.failures import build_retry_policy, raised_to_dagster
from fabric_assets.factories.translators import FULL_REFRESH_TAG, DeclaredCheck, build_raw_spec, build_source_checks, get_severity, raw_key
from fabric_assets.loading.reports import LoadRequest, StreamReport
from fabric_assets.settings import Settings


def build_ingestion(loaded: LoadedTenant, source: str, *, settings: Settings) -> dg.AssetsDefinition:
    """Make the assets of one source; a run may take any part of its streams and checks."""
    tenant = loaded.config
    config = tenant.sources[source]
    checks = build_source_checks(tenant, source)

    @dg.multi_asset(
        name=naming.load_op(tenant.tenant, source),
        specs=[build_raw_spec(loaded, source, stream) for stream in config.streams],
        check_specs=[check.spec for check in checks.values()],
        can_subset=True,
        pool=get_pool(loaded),
        retry_policy=build_retry_policy(config.retries),
        op_tags={"tenant": tenant.tenant, "source": source},
    )
    def load(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from fabric_assets.loading.load import run_load

        selected = context.selected_asset_keys
        streams = tuple(stream for stream in config.streams if raw_key(tenant.tenant, source, stream) in selected)
        if streams:
            request = LoadRequest(
                tenant=tenant,
                source=source,
                streams=streams,
                settings=settings,
                full_refresh=context.run.tags.get(FULL_REFRESH_TAG) == "true",
                run_id=context.run.run_id,
            )
            with raised_to_dagster():
                reports = run_load(request, report=context.log.info)
            for report in reports:
                yield build_load_result(tenant.tenant, source, report)
        wanted = [check for key, check in checks.items() if key in context.selected_asset_check_keys]
        yield from run_source_checks(tenant, source, wanted, settings=settings)

    return load


def get_pool(loaded: LoadedTenant) -> str | None:
    """DuckDB takes one writer a file, so everything that writes the tenant's file shares a pool; Postgres takes many."""
    return naming.pool(loaded.config.tenant) if loaded.config.destination.type == "duckdb" else None


def build_load_result(tenant: str, source: str, report: StreamReport) -> dg.MaterializeResult:
    """Turn a stream's report into the asset's metadata, in dagster-dlt's words where it has one."""
    columns = [dg.TableColumn(name=column.name, type=column.type, constraints=dg.TableColumnConstraints(nullable=column.nullable)) for column in report.columns]
    return dg.MaterializeResult(
        asset_key=raw_key(tenant, source, report.stream),
        metadata={
            "dagster/row_count": report.rows_total,
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/table_name": report.table_name,
            "rows_loaded": report.rows_loaded,
            "first_run": report.first_run,
            "dataset_name": report.dataset,
            "destination_type": report.destination,
            "load_id": report.load_id,
            "bytes": report.bytes,
            "seconds": round(report.seconds, 3),
        },
    )


def run_source_checks(tenant: TenantConfig, source: str, checks: Iterable[DeclaredCheck], *, settings: Settings) -> Iterator[dg.AssetCheckResult]:
    """Evaluate declared checks on the loaded tables, one connection a stream."""
    from fabric_assets.loading.checks import run_checks

    for stream, declared in groupby(checks, key=lambda check: check.stream):
        group = tuple(declared)
        with raised_to_dagster():
            outcomes = run_checks(tuple(check.config for check in group), tenant=tenant, source=source, stream=stream, settings=settings)
        for check, outcome in zip(group, outcomes, strict=True):
            yield dg.AssetCheckResult(
                asset_key=check.spec.asset_key,
                check_name=check.spec.name,
                passed=outcome.passed,
                severity=get_severity(check.config.severity),
                metadata=dict(outcome.metadata),
            )
