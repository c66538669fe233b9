"""The isolation checks as Dagster shows them: a check per tenant, one op and one schedule for all, a run for each tenant."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from fabric_assets import naming
from fabric_assets.config.loader import load_fleet
from fabric_assets.drivers.destinations import connect
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.settings import Settings

SHOP = {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {"orders": {"primary_key": "id"}}}


@pytest.fixture
def definitions(settings: Settings, write_tenant: Callable[..., Path]) -> dg.Definitions:
    for tenant in ("acme", "globex"):
        write_tenant(tenant, {"sources": {"shop": SHOP}, "owners": ["team:data"], "schedules": {"nightly": {"cron": "0 3 * * *"}}})
        connect(load_fleet(settings).tenants[tenant].config, settings).close()
    return build_definitions(settings)


def get_check(tenant: str) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(dg.AssetKey([tenant, "isolation"]), "isolation")


def run_check(definitions: dg.Definitions, tenant: str) -> dg.AssetCheckEvaluation:
    job = definitions.resolve_job_def("fabric__isolation").get_subset(asset_check_selection={get_check(tenant)})
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, tags={"tenant": tenant})
    assert result.success
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


def test_every_tenant_has_an_isolation_check(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert {get_check("acme"), get_check("globex")} == set(graph.asset_check_keys)
    node = graph.get(dg.AssetKey(["acme", "isolation"]))
    assert (node.group_name, node.tags["tenant"], list(node.owners), node.is_materializable) == ("acme", "acme", ["team:data"], False)


def test_the_schedule_asks_for_a_run_of_each_tenant(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    schedule = repository.get_schedule_def("fabric__isolation")
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 2, 4, 30), repository_def=repository)
        requests = schedule.evaluate_tick(context).run_requests or ()
    assert [(request.tags["tenant"], request.asset_check_keys, request.asset_selection) for request in requests] == [
        ("acme", [get_check("acme")], None),
        ("globex", [get_check("globex")], None),
    ]
    assert len({request.run_key for request in requests}) == 2
    # Jobs are what a code location costs: none for a tenant's walls.
    assert {job.name for job in repository.get_all_jobs()} == {"__ASSET_JOB", "acme__nightly", "globex__nightly", "fabric__isolation"}


def test_a_run_of_the_check_tests_its_own_tenant_only(definitions: dg.Definitions) -> None:
    evaluation = run_check(definitions, "globex")
    assert (evaluation.asset_check_key, evaluation.passed) == (get_check("globex"), True)
    assert evaluation.metadata["attempts"] == evaluation.metadata["denied"]
    assert evaluation.metadata["succeeded"].records == []


def test_a_leak_is_an_error_with_a_row_for_each_attempt(definitions: dg.Definitions, settings: Settings) -> None:
    naming.warehouse_file(settings.data_dir, "acme").chmod(0o644)
    evaluation = run_check(definitions, "acme")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert [record.data["target"] for record in evaluation.metadata["succeeded"].records] == ["acme.duckdb (mode 0644)"]
    assert "acme.duckdb (mode 0644)" in evaluation.metadata["message"].value
    assert run_check(definitions, "globex").passed


def test_a_tenants_own_schedules_and_runs_leave_out_the_isolation_check(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("acme__nightly")
    assert job.asset_layer.selected_asset_keys == {dg.AssetKey(["acme", "raw", "shop", "orders"])}
    assert not job.asset_layer.asset_graph.asset_check_keys


def report_new(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[list[str]], str | None]:
    """What a tick of the sensor reports, and its cursor. The events are stored, as the daemon stores them."""
    sensor = definitions.resolve_sensor_def("fabric__new_tenants")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
    for event in tick.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        instance.report_runless_asset_event(event)
    return [list(event.asset_key.path) for event in tick.asset_events], tick.cursor


def test_the_asset_of_a_new_tenant_is_reported_once_and_does_not_wait_for_its_first_test(
    definitions: dg.Definitions, settings: Settings, write_tenant: Callable[..., Path]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        reported, cursor = report_new(definitions, instance, None)
        assert reported == [["acme", "isolation"], ["globex", "isolation"]]
        assert cursor is not None
        assert "acme" not in cursor
        assert report_new(definitions, instance, cursor)[0] == []
        write_tenant("initech", {"sources": {"shop": SHOP}})
        assert report_new(build_definitions(settings), instance, cursor)[0] == [["initech", "isolation"]]


def test_each_test_of_a_tenant_is_an_event_of_its_isolation_asset(definitions: dg.Definitions) -> None:
    job = definitions.resolve_job_def("fabric__isolation").get_subset(asset_check_selection={get_check("acme")})
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, tags={"tenant": "acme"})
        (event,) = result.get_asset_materialization_events()
        (check,) = result.get_asset_check_evaluations()
        assert event.materialization.asset_key == dg.AssetKey(["acme", "isolation"])
        assert event.materialization.description == check.metadata["message"].value
        # The UI shows the check's result beside the latest event.
        latest = instance.get_latest_materialization_event(dg.AssetKey(["acme", "isolation"]))
        assert latest is not None
        assert check.target_materialization_data is not None
        assert check.target_materialization_data.run_id == latest.run_id
