"""The `schedules:` block -> a job and a schedule each, both named `<tenant>__<name>`."""

import os
from collections.abc import Iterable, Mapping

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.selection import Key, select_keys
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.factories.translators import TENANT_TAG, name_tenant


def build_schedules(tenant: TenantConfig, parents: Mapping[Key, Iterable[Key]]) -> list[dg.ScheduleDefinition]:
    """Build the tenant's schedules.

    Args:
        parents: each asset key of the tenant with the keys that it is built from.

    Raises:
        ConfigurationError: a target matches nothing.
    """
    status = get_default_status()
    schedules = []
    for name, config in tenant.schedules.items():
        keys = [dg.AssetKey(key) for key in select_keys(parents, tenant.tenant, config.target)]
        job = dg.define_asset_job(
            naming.schedule(tenant.tenant, name),
            selection=dg.AssetSelection.assets(*keys),
            tags={TENANT_TAG: tenant.tenant},
            description=f"{name} of {name_tenant(tenant)}",
        )
        schedules.append(
            dg.ScheduleDefinition(
                name=job.name,
                job=job,
                cron_schedule=config.cron,
                execution_timezone=config.timezone or tenant.timezone,
                default_status=status,
                description=job.description,
            )
        )
    return schedules


def get_default_status() -> dg.DefaultScheduleStatus:
    """Return the status of new schedules and sensors: running when deployed, stopped under `dagster dev`, so that a laptop does not load customers' data."""
    return dg.DefaultScheduleStatus.STOPPED if os.environ.get("DAGSTER_IS_DEV_CLI") else dg.DefaultScheduleStatus.RUNNING
