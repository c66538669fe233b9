"""All tenants -> a check `<tenant>/isolation` each, one op that runs any of them, and the fleet's schedule: a run a day for each tenant.

The fleet shares one op and one schedule: an op and a job for each tenant would cost the code location more than the rest. A tenant's own
runs leave the check out: it tests access rights, not data, and must not make a load wait.

The check's asset is external: it exists as soon as the tenant does. The UI counts an external asset as missing until an event reports it. So a sensor reports
that of a new tenant, and each test reports its result (ADR 0045).
"""

import hashlib
from collections.abc import Iterator, Sequence

import dagster as dg

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.factories.failures import raised_to_dagster
from fabric_assets.factories.schedules import get_default_status
from fabric_assets.factories.translators import TENANT_TAG, build_isolation_spec, get_severity
from fabric_assets.isolation.report import Attempt, IsolationReport
from fabric_assets.offboarded import find_offboarding
from fabric_assets.settings import Settings

CRON = "30 4 * * *"
SENSOR = "fabric__new_tenants"
_MOST_ROWS = 200


def build_isolation_definitions(tenants: Sequence[TenantConfig], *, settings: Settings) -> dg.Definitions:
    """Build the isolation checks of the tenants, and their schedule."""
    if not tenants:
        return dg.Definitions()
    specs = [build_isolation_spec(tenant) for tenant in tenants]
    checks = {dg.AssetCheckKey(spec.key, naming.ISOLATION_CHECK): tenant for spec, tenant in zip(specs, tenants, strict=True)}
    return dg.Definitions(
        assets=specs, asset_checks=[_build_op(checks, settings)], schedules=[_build_schedule(checks)], sensors=[_build_sensor(checks, settings)]
    )


def _build_op(checks: dict[dg.AssetCheckKey, TenantConfig], settings: Settings) -> dg.AssetChecksDefinition:
    description = "The tenant can access only its own data and roles."

    @dg.multi_asset_check(
        name=naming.ISOLATION_OP,
        specs=[dg.AssetCheckSpec(key.name, asset=key.asset_key, description=description) for key in checks],
        can_subset=True,
    )
    def isolation(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        from fabric_assets.isolation.check import check_isolation

        for key in sorted(context.selected_asset_check_keys):
            with raised_to_dagster(settings, checks[key].tenant):
                report = check_isolation(checks[key], settings)
            context.log.log("INFO" if report.passed else "WARNING", f"{report.tenant}: {report.message}")
            # Before the check's result, which Dagster shows as that of the latest event.
            numbers = {"attempts": len(report.attempts), "denied": len(report.list("denied"))}
            context.op_execution_context.log_event(dg.AssetMaterialization(key.asset_key, description=report.message, metadata=numbers))
            yield _build_result(key, report)

    return isolation


def _build_sensor(checks: dict[dg.AssetCheckKey, TenantConfig], settings: Settings) -> dg.SensorDefinition:
    # No tenant's name is in the cursor, so offboarding one need not change it.
    state = hashlib.sha256("\n".join(tenant.tenant for tenant in checks.values()).encode()).hexdigest()
    description = "Reports the isolation asset of each new tenant once: the graph would show it as missing until its first test."

    @dg.sensor(name=SENSOR, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=60, description=description)
    def report(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if context.cursor == state:
            return dg.SkipReason("no tenant is new since the last report")
        new = [
            key.asset_key
            for key, tenant in checks.items()
            if not find_offboarding(tenant.tenant, settings.data_dir) and context.instance.get_latest_materialization_event(key.asset_key) is None
        ]
        told = f"Not tested yet: the schedule {naming.ISOLATION_SCHEDULE} does that each day, and `fabric isolation` at once."
        return dg.SensorResult(asset_events=[dg.AssetMaterialization(key, description=told) for key in new], cursor=state)

    return report


def _build_result(key: dg.AssetCheckKey, report: IsolationReport) -> dg.AssetCheckResult:
    metadata = {
        "attempts": len(report.attempts),
        "denied": len(report.list("denied")),
        "succeeded": _build_table(report.list("succeeded")),
        "message": report.message,
    }
    if exposed := report.list("exposed"):
        metadata["exposed"] = _build_table(exposed)
    if untried := report.list("untried"):
        metadata["untried"] = _build_table(untried)
    return dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, passed=report.passed, severity=get_severity(report.severity), metadata=metadata)


def _build_table(attempts: Sequence[Attempt]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name, "string") for name in ("action", "target", "reason")]
    records = [dg.TableRecord({"action": found.action, "target": found.target, "reason": found.reason}) for found in attempts[:_MOST_ROWS]]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def _build_schedule(checks: dict[dg.AssetCheckKey, TenantConfig]) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(naming.ISOLATION_SCHEDULE, selection=dg.AssetSelection.checks(*checks), description="The isolation checks of all tenants")

    @dg.schedule(
        name=naming.ISOLATION_SCHEDULE,
        cron_schedule=CRON,
        job=job,
        default_status=get_default_status(),
        description="Tests the isolation of every tenant once a day, in one run per tenant.",
    )
    def isolation(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        moment = context.scheduled_execution_time.isoformat()
        return [dg.RunRequest(run_key=f"{moment}/{tenant.tenant}", tags={TENANT_TAG: tenant.tenant}, asset_check_keys=[key]) for key, tenant in checks.items()]

    return isolation
