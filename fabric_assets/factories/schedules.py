"""The `schedules:` block -> a job and a schedule each, both named `<tenant>__<name>`; dbt's sources with `freshness` -> one schedule of the fleet.

Each run of the tenant's models tests the age of its sources, and so does the fleet's schedule. Nothing else notices that no run has loaded (ADR 0053).
"""

import os
from collections.abc import Iterable, Mapping
from zlib import crc32

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.selection import Key, Renames, select_keys
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.factories.translators import TENANT_TAG, name_tenant

# Each hour some tenants are due; not on the hour, when most loads begin.
FRESHNESS_CRON = "50 * * * *"
_DAY = 24


def build_schedules(tenant: TenantConfig, parents: Mapping[Key, Iterable[Key]], renames: Renames | None = None) -> list[dg.ScheduleDefinition]:
    """Build the tenant's schedules.

    Args:
        parents: each asset key of the tenant with the keys that it is built from.
        renames: a target may be an earlier key of a model.

    Raises:
        ConfigurationError: a target matches nothing.
    """
    status = get_default_status()
    schedules = []
    for name, config in tenant.schedules.items():
        keys = [dg.AssetKey(key) for key in select_keys(parents, tenant.tenant, config.target, renames=renames)]
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


def build_freshness_definitions(checks: Mapping[str, Mapping[dg.AssetCheckKey, int]]) -> dg.Definitions:
    """Build the schedule that tests the age of all tenants' sources.

    Args:
        checks: by tenant, each check with the shortest age in seconds that fails.
    """
    if not checks:
        return dg.Definitions()
    keys = [key for owned in checks.values() for key in owned]
    job = dg.define_asset_job(naming.SOURCE_FRESHNESS_SCHEDULE, selection=dg.AssetSelection.checks(*keys), description="dbt source freshness of all tenants")

    @dg.schedule(
        name=naming.SOURCE_FRESHNESS_SCHEDULE,
        cron_schedule=FRESHNESS_CRON,
        job=job,
        default_status=get_default_status(),
        description="Tests the age of each tenant's sources, twice in its shortest limit, in one run per tenant.",
    )
    def source_freshness(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        moment = context.scheduled_execution_time
        due = [tenant for tenant, owned in checks.items() if is_freshness_due(tenant, min(owned.values()), hour=int(moment.timestamp()) // 3600)]
        if not due:
            return dg.SkipReason("no tenant is due in this hour")
        return [dg.RunRequest(run_key=f"{moment.isoformat()}/{tenant}", tags={TENANT_TAG: tenant}, asset_check_keys=list(checks[tenant])) for tenant in due]

    return dg.Definitions(schedules=[source_freshness])


def is_freshness_due(tenant: str, limit: int, *, hour: int) -> bool:
    """Whether a tenant's sources are tested in this hour. Its name spreads the tenants over the hours.

    Args:
        limit: the shortest age in seconds that fails. dbt's documentation wants a test twice in that time.
        hour: hours since 1970.
    """
    return (hour + crc32(tenant.encode())) % max(1, min(_DAY, limit // 7200)) == 0


def get_default_status() -> dg.DefaultScheduleStatus:
    """Return the status of new schedules and sensors: running when deployed, stopped under `dagster dev`, so that a laptop does not load customers' data."""
    return dg.DefaultScheduleStatus.STOPPED if os.environ.get("DAGSTER_IS_DEV_CLI") else dg.DefaultScheduleStatus.RUNNING
