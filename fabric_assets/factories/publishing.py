"""A step that has changed a tenant's tables -> the file for its readers, written anew under the same lease (ADR 0044)."""

import dagster as dg

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import FabricError
from fabric_assets.masking import mask
from fabric_assets.own_faults import report_own_fault
from fabric_assets.settings import Settings


def publish_for_readers(tenant: TenantConfig, settings: Settings, log: dg.DagsterLogManager) -> None:
    """Publish a tenant's schemas. A failure is a warning of the step: its tables are built, and readers keep the old file."""
    publish, publish_dir = tenant.destination.publish, settings.publish_dir
    if publish is None or publish_dir is None:
        return
    from fabric_assets.warehouse.publishing import publish_schemas

    try:
        published = publish_schemas(tenant.tenant, publish, data_dir=settings.data_dir, publish_dir=publish_dir)
    except FabricError as error:
        log.warning(str(error))
    except Exception as error:  # noqa: BLE001 - the step's tables are committed, and no fault of publishing may fail it
        where = f"tenant {tenant.tenant}: the file for readers"
        fault = report_own_fault(error, where, data_dir=settings.data_dir, tenant=tenant.tenant)
        log.warning(str(fault) if fault else f"{where} is not written: {mask(str(error))}")
    else:
        if published.file is not None:
            log.info(f"published {published.tables} tables with {published.rows:,} rows, {published.bytes:,} bytes: {published.file}")
