"""The graph of benchmarks/definitions.py, written by hand without the platform's code: the minimum that Dagster itself needs.

A tenant has 10 raw assets, 10 models on them, 2 checks for each model, and one scheduled job that names its assets. It also has an isolation check; all tenants
share its op, job and schedule.
"""

import os

import dagster as dg

STREAMS = MODELS = 10
CHECKS_PER_MODEL = 2


def defs() -> dg.Definitions:
    """Build BENCHMARK_TENANTS tenants."""
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    schedules: list[dg.ScheduleDefinition] = []
    walls: list[dg.AssetSpec] = []
    for number in range(int(os.environ["BENCHMARK_TENANTS"])):
        loads, models, schedule = _build_tenant(f"tenant_{number}")
        assets += [loads, models]
        schedules.append(schedule)
        walls.append(dg.AssetSpec([f"tenant_{number}", "isolation"], group_name=f"tenant_{number}", tags={"tenant": f"tenant_{number}"}, kinds={"duckdb"}))

    @dg.multi_asset_check(name="fabric__isolation__check", specs=[dg.AssetCheckSpec("isolation", asset=wall.key) for wall in walls], can_subset=True)
    def isolation():
        yield from ()

    job = dg.define_asset_job("fabric__isolation", selection=dg.AssetSelection.checks(*isolation.check_keys))
    schedules.append(dg.ScheduleDefinition(job=job, cron_schedule="30 4 * * *"))
    return dg.Definitions(assets=[*assets, *walls], asset_checks=[isolation], schedules=schedules)


def _build_tenant(tenant: str) -> tuple[dg.AssetsDefinition, dg.AssetsDefinition, dg.ScheduleDefinition]:
    shared = {"group_name": tenant, "tags": {"tenant": tenant}}
    raw = [dg.AssetSpec([tenant, "raw", "shop", f"stream_{index}"], kinds={"dlt", "duckdb"}, **shared) for index in range(STREAMS)]
    marts = [dg.AssetSpec([tenant, "marts", f"model_{index}"], deps=[raw[index % STREAMS].key], kinds={"dbt", "duckdb"}, **shared) for index in range(MODELS)]
    checks = [dg.AssetCheckSpec(f"check_{index}", asset=model.key) for model in marts for index in range(CHECKS_PER_MODEL)]

    @dg.multi_asset(name=f"{tenant}__shop__load", specs=raw, can_subset=True, pool=f"{tenant}__warehouse")
    def load():
        yield from ()

    @dg.multi_asset(name=f"{tenant}__transform", specs=marts, check_specs=checks, can_subset=True, pool=f"{tenant}__warehouse")
    def transform():
        yield from ()

    keys = [spec.key for spec in (*raw, *marts)]
    job = dg.define_asset_job(f"{tenant}__nightly", selection=dg.AssetSelection.assets(*keys), tags={"tenant": tenant})
    return load, transform, dg.ScheduleDefinition(job=job, cron_schedule="0 3 * * *")
