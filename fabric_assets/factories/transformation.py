"""A tenant's dbt models -> one multi-asset: an asset per model, a check per test, one dbt call a run.

dbt runs in a process of its own, which is started during the loads (ADR 0003). Its reports become materialisations and check results, under the names of
dagster-dbt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import shorten
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import TransformError
from fabric_assets.factories.failures import raised_to_dagster
from fabric_assets.factories.ingestion import get_pool
from fabric_assets.factories.publishing import publish_for_readers
from fabric_assets.factories.resources import get_dbt_resource_key
from fabric_assets.factories.run_rules import describe_failed_check
from fabric_assets.factories.translators import FULL_REFRESH_TAG, build_model_spec, build_test_spec, get_severity, model_key, raw_key
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, ModelResult, TestResult
from fabric_assets.transform.graph import Mistake, ModelNode, TestNode
from fabric_assets.warehouse.lease import LEASE_SECONDS, warehouse_lease

TRANSFORM_TIMEOUT = timedelta(hours=4)
_REMEDY = "Fix the model or the data. If an upstream table is missing: --select +MODEL. Models already built are kept."


def build_transformation(
    loaded: LoadedTenant,
    models: Sequence[ModelNode],
    tests: Mapping[str, tuple[TestNode, ...]],
    *,
    settings: Settings,
    stopped: Mapping[str, Mistake] | None = None,
) -> dg.AssetsDefinition:
    """Build the assets of a tenant's models.

    Args:
        models: in topological order.
        stopped: the models that cannot be built because of a mistake in a shared file.
        tests: the tests of each asset, by a model's unique_id or by `source.stream`.
    """
    tenant = loaded.config
    assets = {model.unique_id: model_key(tenant.tenant, model) for model in models}
    nodes = {key: model for model in models for key in [assets[model.unique_id]]}
    checks: dict[dg.AssetCheckKey, TestNode] = {}
    check_specs = []
    for owner, owned in tests.items():
        asset = assets.get(owner) or raw_key(tenant.tenant, *owner.split(".", 1))
        for test in owned:
            spec = build_test_spec(asset, test)
            checks[spec.key] = test
            check_specs.append(spec)

    workers = get_dbt_resource_key(get_kind(tenant).dbt_adapter)

    @dg.multi_asset(
        name=naming.transform_op(tenant.tenant),
        specs=[build_model_spec(tenant, model, selected=models, settings=settings) for model in models],
        check_specs=check_specs,
        can_subset=True,
        pool=get_pool(loaded),
        required_resource_keys={workers},
        allow_arbitrary_check_specs=True,  # tests of sources are checks of the raw assets, which the load makes
        op_tags={"tenant": tenant.tenant},
    )
    def transform(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with raised_to_dagster(settings, tenant.tenant):
            yield from build_and_test(context)

    def build_and_test(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        chosen = {key: nodes[key] for key in nodes if key in context.selected_asset_keys}
        selected = {key: test for key, test in checks.items() if key in context.selected_asset_check_keys}
        unbuildable = {key: (stopped or {})[model.unique_id] for key, model in chosen.items() if model.unique_id in (stopped or {})}
        chosen = {key: model for key, model in chosen.items() if key not in unbuildable}
        selected = {key: test for key, test in selected.items() if not (stopped or {}).keys() & test.depends_on_models}
        wanted = _leave_out_tests_without_inputs(context, selected, tenant=tenant.tenant, selected=models, assets=assets, built=set(chosen))
        request = BuildRequest(
            tenant=tenant,
            models=tuple(model.unique_id for model in chosen.values()),
            tests=tuple(test.unique_id for test in wanted.values()),
            settings=settings,
            run_id=context.run.run_id,
            full_refresh=context.run.tags.get(FULL_REFRESH_TAG) == "true",
            timeout_seconds=int(TRANSFORM_TIMEOUT.total_seconds()),
        )
        with warehouse_lease(tenant.tenant, settings, timeout_seconds=LEASE_SECONDS, report=context.log.info):
            results = getattr(context.resources, workers).build(request) if chosen or wanted else iter(())
            failed = [_describe_stopped(key, mistake, settings) for key, mistake in unbuildable.items()]
            translated = _translate(results, tenant.tenant, models=chosen, tests=wanted, assets=assets, failed=failed, warn=context.log.warning)
            is_changed, failure = False, None
            try:
                for result in translated:
                    is_changed |= isinstance(result, dg.MaterializeResult)
                    yield result
            except TransformError as error:  # of some models; others may be built
                failure = error
            if is_changed:
                publish_for_readers(tenant, settings, context.log)
            if failure is not None:
                raise failure

    return transform


def list_freshness(tenant: str, tests: Mapping[str, tuple[TestNode, ...]]) -> dict[dg.AssetCheckKey, int]:
    """List the checks of sources' ages, each with the shortest age in seconds that fails.

    Args:
        tests: as for `build_transformation`.
    """
    return {
        dg.AssetCheckKey(raw_key(tenant, *owner.split(".", 1)), test.name): test.max_age_seconds
        for owner, owned in tests.items()
        for test in owned
        if test.max_age_seconds is not None
    }


def _describe_stopped(key: dg.AssetKey, mistake: Mistake, settings: Settings) -> str:
    return f"{key.to_user_string()}: not built: {shorten(settings.dbt_project_dir / mistake.file)}:{mistake.line}: {mistake.message}"


def _leave_out_tests_without_inputs(
    context: dg.AssetExecutionContext,
    tests: Mapping[dg.AssetCheckKey, TestNode],
    *,
    tenant: str,
    selected: Sequence[ModelNode],
    assets: Mapping[str, dg.AssetKey],
    built: set[dg.AssetKey],
) -> dict[dg.AssetCheckKey, TestNode]:
    """Leave out tests that read tables which neither this run nor an earlier one builds.

    On a new tenant, a run of a part of the graph would otherwise fail for lack of the rest.
    """

    models = {model.unique_id: model for model in selected}

    @cache
    def exists(key: dg.AssetKey) -> bool:
        return key in built or context.instance.get_latest_materialization_event(key) is not None

    kept = {}
    for check, test in tests.items():
        if test.kind == "freshness":  # a stream that was never loaded is as stale as can be
            kept[check] = test
            continue
        # A unit test builds its rows in the shape of its model's inputs, so these must exist.
        read = [test, *(models[model] for model in test.depends_on_models if test.kind == "unit" and model in models)]
        inputs = [
            *(assets[model] for node in read for model in node.depends_on_models if model in assets),
            *(raw_key(tenant, *origin) for node in read for origin in node.depends_on_sources),
        ]
        if missing := [key.to_user_string() for key in inputs if not exists(key)]:
            context.log.warning(f"{check.name} is left out: {', '.join(missing)} was never materialised")
        else:
            kept[check] = test
    return kept


def _translate(
    results: Iterator[ModelResult | TestResult],
    tenant: str,
    *,
    models: Mapping[dg.AssetKey, ModelNode],
    tests: Mapping[dg.AssetCheckKey, TestNode],
    assets: Mapping[str, dg.AssetKey],
    failed: list[str],
    warn: Callable[[str], None],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Yield a result for each model and test as dbt reports it, then fail if a model was not built."""
    model_keys = {model.unique_id: key for key, model in models.items()}
    test_keys = {test.unique_id: key for key, test in tests.items()}
    refused, skipped = [], []
    for result in results:
        if isinstance(result, TestResult):
            key = test_keys[result.unique_id]
            if result.status == "skipped":
                continue  # its model was not built, so there is nothing to test
            if result.status == "left_out":
                warn(f"{key.name} of {key.asset_key.to_user_string()} is {result.message}")
                continue
            if result.status in {"fail", "error"}:
                refused.append(describe_failed_check(key, result.log_message or result.message))
            yield _build_check_result(key, tests[key], result)
        else:
            key = model_keys[result.unique_id]
            if result.status == "success":
                yield _build_model_result(key, models[key], result, tenant=tenant, assets=assets)
            else:
                (failed if result.status == "error" else skipped).append(key.to_user_string())
                if result.status == "error":
                    failed[-1] += f": {result.message}"
    if failed or skipped:
        below = [f"skipped, because an upstream model or test failed: {', '.join(skipped)}"] if skipped else []
        raise TransformError(f"{tenant}: the models could not all be built\n" + "\n".join([*failed, *refused, *below]), remedy=_REMEDY)


def _build_model_result(key: dg.AssetKey, model: ModelNode, result: ModelResult, *, tenant: str, assets: Mapping[str, dg.AssetKey]) -> dg.MaterializeResult:
    descriptions = {name: description for name, (_, description) in model.columns.items()}
    columns = [dg.TableColumn(name=name, type=kind, description=descriptions.get(name) or None) for name, kind in result.columns]
    metadata = {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": result.table_name,
        "unique_id": result.unique_id,
        "seconds": round(result.seconds, 3),
    }
    if result.rows is not None:
        metadata["dagster/row_count"] = result.rows
    if lineage := _build_lineage(result.lineage, tenant=tenant, assets=assets):
        metadata["dagster/column_lineage"] = lineage
    return dg.MaterializeResult(asset_key=key, metadata=metadata)


def _build_lineage(lineage, *, tenant: str, assets: Mapping[str, dg.AssetKey]) -> dg.TableColumnLineage | None:
    deps = {}
    for column, origins in lineage.items():
        found = []
        for owner, name in origins:
            asset = assets.get(owner) if isinstance(owner, str) else raw_key(tenant, *owner)
            if asset:
                found.append(dg.TableColumnDep(asset_key=asset, column_name=name))
        if found:
            deps[column] = found
    return dg.TableColumnLineage(deps_by_column=deps) if deps else None


def _build_check_result(key: dg.AssetCheckKey, test: TestNode, result: TestResult) -> dg.AssetCheckResult:
    metadata = {"unique_id": result.unique_id, "status": result.status, "seconds": round(result.seconds, 3), **result.facts}
    if result.failures is not None:
        metadata["dagster_dbt/failed_row_count"] = result.failures
    if result.message:
        metadata["message"] = result.message
    if result.log_message:
        metadata["log_message"] = result.log_message
    # dbt chooses between a source's two limits; a test of rows has one severity.
    severity = get_severity(result.severity if test.kind == "freshness" else test.severity)
    return dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, passed=result.status == "pass", severity=severity, metadata=metadata)
