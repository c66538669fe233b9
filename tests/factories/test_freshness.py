"""dbt's source freshness as Dagster shows it: a check of the raw asset, in each run of the models and by the fleet's schedule."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from fabric_assets.cli.headless import run_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.drivers.destinations import connect
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.schedules import is_freshness_due
from fabric_assets.settings import Settings
from tests.factories.shop import get_tenant

CHECK = dg.AssetCheckKey(dg.AssetKey(["acme", "raw", "shop", "orders"]), "source_freshness")
JOB = "fabric__source_freshness"


def test_a_run_of_the_check_alone_tells_a_stale_stream_from_one_that_was_never_loaded(
    prepared: Settings, write_tenant: Callable[..., Path], shop_url: str, isolated_home: Callable[[], None]
) -> None:
    write_tenant("acme", get_tenant(schedules={}, checks={}, transform={"select": ["staging.shop"]}))
    job = build_definitions(prepared).resolve_job_def(JOB).get_subset(asset_check_selection={CHECK})

    def run() -> dg.AssetCheckEvaluation:
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(instance=instance, tags={"tenant": "acme"})
        assert result.get_asset_materialization_events() == []
        [evaluation] = result.get_asset_check_evaluations()
        assert evaluation.asset_check_key == CHECK
        return evaluation

    never = run()
    assert (never.passed, never.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert never.metadata["message"].value == "the table acme_raw_shop.orders does not exist yet: load raw/shop/orders first"

    (loaded,) = run_tenants(load_fleet(prepared), ["acme"], settings=prepared, on_event=lambda event: None)
    [check] = [check for check in loaded.checks if check.name == CHECK.name]
    assert (loaded.status, check.asset, check.passed) == ("success", "acme/raw/shop/orders", True)

    found = []
    for days in (1, 3, 5):  # the limits are 2 and 7 days
        age(prepared, days)
        evaluation = run()
        found.append((evaluation.passed, evaluation.severity))
    assert found == [(True, dg.AssetCheckSeverity.ERROR), (False, dg.AssetCheckSeverity.WARN), (False, dg.AssetCheckSeverity.ERROR)]
    metadata = {name: value.value for name, value in evaluation.metadata.items()}
    assert metadata["message"] == "the last load is 9d old, limit 7d"
    assert (metadata["measured_by"], metadata["criteria"], metadata["status"]) == ("the last load", "warn after 2d, error after 7d", "fail")
    assert 9 * 86400 <= metadata["age_seconds"] < 9.1 * 86400
    assert {"max_loaded_at", "snapshotted_at"} <= metadata.keys()


def age(settings: Settings, days: int) -> None:
    """Make all that acme has loaded older."""
    with closing(connect(load_fleet(settings).tenants["acme"].config, settings)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"update acme_fabric.loads set loaded_at = loaded_at - interval '{days} days'")
        connection.commit()


def test_the_schedule_asks_for_a_run_of_each_tenant_whose_models_read_such_a_source(prepared: Settings, write_tenant: Callable[..., Path]) -> None:
    for tenant in ("acme", "globex"):
        write_tenant(tenant, get_tenant(schedules={}, checks={}, transform={"select": ["staging.shop"]}))
    write_tenant("initech", get_tenant(schedules={}, checks={}, transform={"select": ["stg_customers"]}))
    repository = build_definitions(prepared).get_repository_def()
    schedule = repository.get_schedule_def(JOB)
    asked: dict[str, list[int]] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for hour in range(24):
            moment = datetime(2026, 1, 2, hour, 50, tzinfo=UTC)
            tick = schedule.evaluate_tick(dg.build_schedule_context(instance=instance, scheduled_execution_time=moment, repository_def=repository))
            for request in tick.run_requests or ():
                asked.setdefault(request.tags["tenant"], []).append(hour)
                expected = dg.AssetCheckKey(dg.AssetKey([request.tags["tenant"], "raw", "shop", "orders"]), "source_freshness")
                assert (request.asset_check_keys, request.asset_selection) == ([expected], None)
    # Of a limit of two days, each tenant once a day.
    assert {tenant: len(hours) for tenant, hours in asked.items()} == {"acme": 1, "globex": 1}
    # Jobs are what a code location costs: one for all tenants.
    assert {job.name for job in repository.get_all_jobs()} == {"__ASSET_JOB", "fabric__isolation", JOB}


@pytest.mark.parametrize(("limit", "times"), [(600, 24), (3600, 24), (4 * 3600, 12), (86400, 2), (30 * 86400, 1)])
def test_a_tenant_is_due_twice_in_its_shortest_limit_at_most_hourly_and_at_least_daily(limit: int, times: int) -> None:
    for day in (0, 20000):
        assert sum(is_freshness_due("acme", limit, hour=24 * day + hour) for hour in range(24)) == times
    hours = {next(hour for hour in range(24) if is_freshness_due(f"tenant_{number}", 30 * 86400, hour=hour)) for number in range(200)}
    assert len(hours) > 20  # spread over the day
