"""Config and dbt nodes -> asset keys, specs and check specs. They are built here only: a second builder would split the lineage graph.

Keys, kinds and metadata follow dagster-dlt and dagster-dbt, so their users find what they know. This module runs for every tenant in every process.
So it imports neither of the two, and shares objects that are the same for all tenants.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.checks import AnyCheck, FreshnessCheck, get_check_name
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.sources.deletes import DeletesCheck, DeletesConfig
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.factories.run_tags import TENANT_TAG as TENANT_TAG  # noqa: PLC0414 - for those that need the other tags as well
from fabric_assets.loading.dropped_files.expectations import ImportCheck, build_import_checks
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import ModelNode, SourceNode, TestNode

SOURCE_TAG = "source"
# `raw`, or the dbt schema without the tenant's prefix: keys of both may end in the same word.
LAYER_TAG = "layer"
# On models with dbt's deprecation_date. Its value is always `true`, so that one search finds them all.
DEPRECATED_TAG = "deprecated"
FULL_REFRESH_TAG = "fabric/full_refresh"
# Its value is the number of failed checks of severity error, on a run whose work was done.
FAILED_CHECKS_TAG = "fabric/failed_checks"

_SHORTEST_FRESHNESS = timedelta(minutes=1)  # the shortest that Dagster accepts; the check itself is exact to the second
_SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def raw_key(tenant: str, source: str, stream: str) -> dg.AssetKey:
    return dg.AssetKey(naming.raw_asset_key(tenant, source, stream))


def model_key(tenant: str, model: ModelNode) -> dg.AssetKey:
    return dg.AssetKey(naming.model_asset_key(tenant, model.schema, model.name))


def build_raw_spec(loaded: LoadedTenant, source: str, stream: str, *, node: SourceNode | None = None) -> dg.AssetSpec:
    """Build the asset of one stream, with the line of its declaration, its freshness policy and the name of its table.

    Args:
        node: the dbt project's description of the table.
    """
    tenant = loaded.config
    config = tenant.sources[source]
    origin = loaded.get_origin("sources", source, "streams", stream)
    metadata: dict[str, Any] = {"dagster/code_references": _get_reference(origin.file, origin.line), **_get_display_name(tenant)}
    if node is not None and node.columns:
        metadata["dagster/column_schema"] = _get_schema(tuple(node.columns.items()))
    if get_kind(tenant).has_file:  # elsewhere the database's name is part of a secret, and each load reports it
        metadata["dagster/table_name"] = f"{tenant.tenant}.{naming.raw_dataset(tenant.tenant, source)}.{stream}"
    return dg.AssetSpec(
        raw_key(tenant.tenant, source, stream),
        description=config.streams[stream].description or (node.description if node else "") or config.description,
        group_name=tenant.tenant,
        tags={TENANT_TAG: tenant.tenant, SOURCE_TAG: source, LAYER_TAG: "raw"},
        kinds={config.type, *(["dlt"] if config.is_extracted_by_dlt else []), tenant.destination.type},
        owners=tenant.owners,
        metadata=metadata,
        freshness_policy=_get_freshness_policy(tenant.checks.get(f"raw/{source}/{stream}", ())),
        skippable=True,  # so that a retried step need not materialise again what its first try has materialised
    )


def build_model_spec(tenant: TenantConfig, model: ModelNode, *, selected: Iterable[ModelNode], settings: Settings) -> dg.AssetSpec:
    """Build the asset of one dbt model, seed or snapshot; its sources are the tenant's raw assets, so the lineage is one graph."""
    upstream = {node.unique_id: node for node in selected}
    metadata: dict[str, Any] = {"dagster/code_references": _get_reference(settings.dbt_project_dir / model.file, 1), **_get_display_name(tenant)}
    if get_kind(tenant).has_file:
        metadata["dagster/table_name"] = f"{tenant.tenant}.{naming.dbt_schema(tenant.tenant, model.schema)}.{model.name}"
    return dg.AssetSpec(
        model_key(tenant.tenant, model),
        deps=[
            *(raw_key(tenant.tenant, source, stream) for source, stream in model.depends_on_sources),
            *(model_key(tenant.tenant, upstream[parent]) for parent in model.depends_on_models if parent in upstream),
        ],
        description=model.description or None,
        group_name=tenant.tenant,
        tags={TENANT_TAG: tenant.tenant, LAYER_TAG: model.schema} | ({DEPRECATED_TAG: "true"} if model.deprecation_date else {}),
        kinds={"dbt", tenant.destination.type},
        owners=tenant.owners,
        metadata=metadata,
    )


def build_isolation_spec(tenant: TenantConfig) -> dg.AssetSpec:
    """Build the asset that the isolation check belongs to. It is not a table, so no run that loads materialises it: each test reports it."""
    return dg.AssetSpec(
        naming.isolation_asset_key(tenant.tenant),
        description=f"What {name_tenant(tenant)} can access. The check `{naming.ISOLATION_CHECK}` tests each day that it is only the tenant's own.",
        group_name=tenant.tenant,
        tags={TENANT_TAG: tenant.tenant},
        kinds={tenant.destination.type},
        owners=tenant.owners,
        metadata=_get_display_name(tenant),
    )


def name_tenant(tenant: TenantConfig) -> str:
    """Return the customer's name as people write it, or else the tenant's."""
    return tenant.display_name or tenant.tenant


@dataclass(frozen=True)
class DeclaredCheck:
    """A check that the YAML declares, or an automatic one, of deletes or dropped files: its stream, its config and its spec."""

    stream: str
    config: AnyCheck | DeletesCheck | ImportCheck
    spec: dg.AssetCheckSpec


def build_source_checks(tenant: TenantConfig, source: str) -> dict[dg.AssetCheckKey, DeclaredCheck]:
    """Build the checks that are declared for a source's streams, and the automatic ones."""
    checks = {}
    config_of_source = tenant.sources[source]
    for stream in config_of_source.streams:
        configs = tenant.checks.get(f"raw/{source}/{stream}", ())
        for config in configs:
            spec = dg.AssetCheckSpec(
                get_check_name(config, configs), asset=raw_key(tenant.tenant, source, stream), blocking=config.blocking, description=type(config).__doc__
            )
            checks[spec.key] = DeclaredCheck(stream, config, spec)
        if getattr(config_of_source.streams[stream], "deletes", DeletesConfig()).mode != "ignore":
            following = DeletesCheck()
            spec = dg.AssetCheckSpec(following.name, asset=raw_key(tenant.tenant, source, stream), description=following.description)
            checks[spec.key] = DeclaredCheck(stream, following, spec)
        if isinstance(config_of_source, CsvImportSource):
            for check in build_import_checks(config_of_source.streams[stream]):
                spec = dg.AssetCheckSpec(check.name, asset=raw_key(tenant.tenant, source, stream), description=check.description)
                checks[spec.key] = DeclaredCheck(stream, check, spec)
    return checks


def build_test_spec(asset: dg.AssetKey, test: TestNode) -> dg.AssetCheckSpec:
    """Build the check of one dbt test. It need not block, since dbt itself skips the models below a failed test."""
    return dg.AssetCheckSpec(test.name, asset=asset, description=test.description or None)


def get_severity(severity: str) -> dg.AssetCheckSeverity:
    return _SEVERITIES[severity]


@lru_cache(maxsize=100_000)
def _get_reference(file: Path, line: int) -> dg.CodeReferencesMetadataValue:
    return dg.CodeReferencesMetadataValue(code_references=[dg.LocalFileCodeReference(file_path=str(file), line_number=line)])


def _get_display_name(tenant: TenantConfig) -> dict[str, str]:
    return {"display_name": tenant.display_name} if tenant.display_name else {}


@lru_cache(maxsize=10_000)
def _get_schema(columns: tuple[tuple[str, tuple[str | None, str]], ...]) -> dg.TableSchema:
    """Build the columns that the dbt project declares, as dagster-dbt does: an undeclared type is `?`."""
    return dg.TableSchema(columns=[dg.TableColumn(name, kind or "?", description=told or None) for name, (kind, told) in columns])


def _get_freshness_policy(checks: tuple[AnyCheck, ...]) -> dg.FreshnessPolicy | None:
    ages = [check.max_age for check in checks if isinstance(check, FreshnessCheck)]
    return dg.FreshnessPolicy.time_window(fail_window=max(min(ages), _SHORTEST_FRESHNESS)) if ages else None
