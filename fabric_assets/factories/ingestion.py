"""One source of a tenant -> one multi-asset: an asset per stream, and the source's checks.

The op builds dlt's source and pipeline itself, when it runs: definitions open nothing (ADR 0002).
"""

from collections.abc import Iterator

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.factories.failures import build_retry_policy, raised_to_dagster
from fabric_assets.factories.translators import FULL_REFRESH_TAG, build_raw_spec, build_source_check_specs, get_severity, raw_key
from fabric_assets.settings import Settings


def build_ingestion(loaded: LoadedTenant, source: str, *, settings: Settings) -> dg.AssetsDefinition:
    """Make the assets of one source; a run may take any part of its streams and checks."""
    tenant = loaded.config
    config = tenant.sources[source]
    checks = build_source_check_specs(tenant, source)

    @dg.multi_asset(
        name=naming.load_op(tenant.tenant, source),
        specs=[build_raw_spec(loaded, source, stream) for stream in config.streams],
        check_specs=[spec for _, _, spec in checks.values()],
        can_subset=True,
        pool=get_pool(loaded),
        retry_policy=build_retry_policy(config.retries),
        op_tags={"tenant": tenant.tenant, "source": source},
    )
    def load(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from fabric_assets.loading.load import LoadRequest, run_load

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
        wanted = context.selected_asset_check_keys
        yield from run_source_checks(loaded, source, {key: check[:2] for key, check in checks.items() if key in wanted}, settings=settings)

    return load


def get_pool(loaded: LoadedTenant) -> str | None:
    """DuckDB takes one writer a file, so everything that writes the tenant's file shares a pool; Postgres takes many."""
    return naming.pool(loaded.config.tenant) if loaded.config.destination.type == "duckdb" else None


def build_load_result(tenant: str, source: str, report) -> dg.MaterializeResult:
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
            "seconds": round(report.seconds, 3),
        },
    )


def run_source_checks(loaded: LoadedTenant, source: str, checks, *, settings: Settings) -> Iterator[dg.AssetCheckResult]:
    """Evaluate declared checks on the loaded tables.

    Args:
        checks: per check key its stream and its config.
    """
    if not checks:
        return
    from fabric_assets.loading.checks import run_check

    for key, (stream, check) in checks.items():
        with raised_to_dagster():
            outcome = run_check(check, tenant=loaded.config, source=source, stream=stream, settings=settings)
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=outcome.passed,
            severity=get_severity(check.severity),
            metadata=dict(outcome.metadata),
        )
