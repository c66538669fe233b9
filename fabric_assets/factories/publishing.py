"""A step that has changed a tenant's tables -> the file for its readers, written anew under the same lease (ADR 0044)."""

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import FabricError
from fabric_assets.masking import mask
from fabric_assets.own_faults import report_own_fault
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, warehouse_lease


def publish_loaded(tenant: TenantConfig, settings: Settings, context: dg.AssetExecutionContext) -> None:
    """Publish after a load, if published views may show its rows and the run builds no models afterwards."""
    # The step of the models may be there for checks of raw tables alone: then it builds no asset.
    steps = (step.assets_def for step in context.job_def.asset_layer.data)
    is_built_later = any(step.keys and step.node_def.name == naming.transform_op(tenant.tenant) for step in steps)
    if tenant.destination.publish is None or settings.publish_dir is None or tenant.transform is None or is_built_later:
        return
    try:
        with warehouse_lease(tenant.tenant, settings, timeout_seconds=LEASE_SECONDS, report=context.log.info):
            publish_for_readers(tenant, settings, context.log, only_of_views=True)
    except FabricError as error:  # the lease; the streams are committed
        context.log.warning(str(error))


def publish_for_readers(tenant: TenantConfig, settings: Settings, log: dg.DagsterLogManager, *, only_of_views: bool = False) -> None:
    """Publish a tenant's schemas. A failure is a warning of the step: its tables are built, and readers keep the old file.

    Args:
        only_of_views: see `publish_schemas`.
    """
    publish, publish_dir = tenant.destination.publish, settings.publish_dir
    if publish is None or publish_dir is None:
        return
    from fabric_assets.warehouse.publishing import publish_schemas

    try:
        published = publish_schemas(tenant.tenant, publish, data_dir=settings.data_dir, publish_dir=publish_dir, only_of_views=only_of_views)
    except FabricError as error:
        log.warning(str(error))
    except Exception as error:  # noqa: BLE001 - the step's tables are committed, and no fault of publishing may fail it
        where = f"tenant {tenant.tenant}: the file for readers"
        fault = report_own_fault(error, where, data_dir=settings.data_dir, tenant=tenant.tenant)
        log.warning(str(fault) if fault else f"{where} is not written: {mask(str(error))}")
    else:
        if published.file is not None:
            log.info(f"published {published.tables} tables with {published.rows:,} rows, {published.bytes:,} bytes: {published.file}")
