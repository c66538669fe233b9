"""The rules for every run, however it was started: its tag, where it is shown, and that a failed check of severity error fails it."""

import json
import shutil
import uuid

import dagster as dg
import pytest

from fabric_assets.cli.headless import run_tenants
from fabric_assets.cli.run import get_exit_code, to_json
from fabric_assets.config.loader import load_fleet
from fabric_assets.factories.execution import execute_job
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.inbox.cursor import Launch
from fabric_assets.factories.inbox.sensors import _follow
from fabric_assets.factories.run_rules import run_executor
from fabric_assets.factories.run_tags import find_tenants
from fabric_assets.factories.tenant import build_tenant_definitions
from fabric_assets.transform.graph import ProjectGraph, SourceNode
from tests.conftest import ROOT
from tests.factories.shop import get_tenant

FAILING = {"raw/shop/orders": [{"type": "unique", "columns": ["customer"]}, {"type": "row_count", "min": 99, "severity": "warn"}]}
WARNING = {"raw/shop/orders": [{"type": "row_count", "min": 99, "severity": "warn"}]}


@pytest.fixture
def home(isolated_home, tmp_path, monkeypatch):
    """A DAGSTER_HOME with the project's own dagster.yaml, as `make dev` has it."""
    folder = tmp_path / "dagster_home"
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.get() as instance:
        yield instance


def run_acme(settings):
    (result,) = run_tenants(load_fleet(settings), ["acme"], settings=settings, on_event=lambda event: None)
    return result


def test_a_failed_check_of_severity_error_fails_the_run_everywhere_and_what_was_built_stays(prepared, write_tenant, shop_url, home):
    write_tenant("acme", get_tenant(checks=FAILING))
    result = run_acme(prepared)
    assert (result.status, to_json(result)["status"], get_exit_code([result])) == ("failure", "failure", 1)
    assert result.error == "acme/raw/shop/orders: check unique_customer failed: 1 value of customer is not unique"
    assert {asset.status for asset in result.assets} == {"success"}
    run = home.get_run_by_id(result.run_id)
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert (run.tags["fabric/failed_checks"], run.tags["dagster/failure_reason"], run.tags["dagster/will_retry"]) == ("1", "STEP_FAILURE", "false")
    events = home.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert [event.dagster_event.step_key for event in events] == ["acme__shop__load"]
    assert "'" not in json.dumps([event.user_message for event in events])  # values of rows are in the check's metadata alone


def test_a_failed_check_of_severity_warn_fails_nothing(prepared, write_tenant, shop_url, home):
    write_tenant("acme", get_tenant(checks=WARNING))
    result = run_acme(prepared)
    assert (result.status, get_exit_code([result]), result.error) == ("success", 0, None)
    assert home.get_run_by_id(result.run_id).is_success


def test_a_run_of_the_command_line_is_one_of_the_code_location_and_is_never_started_again(prepared, write_tenant, shop_url, home):
    write_tenant("acme", get_tenant(transform=None, schedules={}, checks={}))
    run = home.get_run_by_id(run_acme(prepared).run_id)
    assert run.remote_job_origin.location_name == "fabric"
    assert (run.remote_job_origin.repository_origin.repository_name, run.remote_job_origin.job_name) == ("__repository__", "__ASSET_JOB")
    assert (run.tags["tenant"], run.tags["dagster/max_retries"], run.tags["dagster/code_location"]) == ("acme", "0", "fabric")
    assert run.asset_selection


@pytest.fixture
def fleet_job(prepared, write_tenant, shop_url):
    for name in ("acme", "globex"):
        write_tenant(name, get_tenant(transform=None, schedules={}, checks={}))
    return build_definitions(prepared).resolve_implicit_global_asset_job_def()


ONE, BOTH = ["acme"], ["acme", "globex"]


@pytest.mark.parametrize(("tenants", "tag"), [(ONE, "acme"), (BOTH, "several tenants")])
def test_a_run_without_the_tag_gets_it_as_it_begins(fleet_job, home, tenants, tag):
    run = execute_job(
        fleet_job,
        [dg.AssetKey([name, "raw", "shop", "orders"]) for name in tenants],
        instance=home,
        location="fabric",
        run_id=str(uuid.uuid4()),
        tags={},
        run_config={},
    )
    assert run.success
    assert home.get_run_by_id(run.run_id).tags["tenant"] == tag


REPORT, LEADS = dg.AssetKey(["reports", "weekly"]), dg.AssetKey(["crm", "leads"])


@dg.asset(key=REPORT)
def weekly_report() -> None: ...


@dg.asset(key=LEADS, tags={"tenant": "acme"})
def leads() -> None: ...


@pytest.mark.parametrize(
    ("selected", "steps", "tenants"),
    [
        ({"acme/raw/shop/orders"}, [], {"acme"}),
        ({"acme/raw/shop/orders", "globex/raw/shop/orders"}, [], {"acme", "globex"}),
        ({"globex/isolation:isolation"}, [], {"globex"}),
        ({"initech/raw/shop/orders"}, [], {"initech"}),  # of a tenant that has left meanwhile
        ({"reports/weekly"}, ["reports__weekly"], set()),
        ({"reports/weekly", "crm/leads"}, [], {"acme"}),
        (set(), ["acme__shop__load", "globex__isolation", "fabric__isolation"], {"acme", "globex"}),
        (set(), ["reports__weekly", "load"], set()),  # of a job of the operators' own
    ],
)
def test_the_tenants_of_a_run_are_those_of_its_assets_by_their_tag(prepared, write_tenant, shop_url, selected, steps, tenants):
    for name in ("acme", "globex"):
        write_tenant(name, get_tenant(transform=None, schedules={}, checks={}))
    graph = dg.Definitions.merge(build_definitions(prepared), dg.Definitions(assets=[weekly_report, leads])).resolve_asset_graph()
    keys = {dg.AssetKey(key.split("/")) for key in selected if ":" not in key}
    checks = {dg.AssetCheckKey(dg.AssetKey(key.partition(":")[0].split("/")), key.partition(":")[2]) for key in selected if ":" in key}
    run = dg.DagsterRun(job_name="job", asset_selection=frozenset(keys) or None, asset_check_selection=frozenset(checks) or None)
    assert find_tenants(run, lambda: steps, graph) == tenants


@pytest.mark.parametrize(("tags", "is_over"), [({"fabric/failed_checks": "1"}, True), ({}, False)])
def test_an_inbox_does_not_relaunch_a_run_of_which_only_checks_failed(fleet_job, home, tags, is_over):
    home.create_run_for_job(fleet_job, status=dg.DagsterRunStatus.FAILURE, tags={"fabric/import_batch": "b", **tags})
    failed_at, is_running = _follow(home, Launch("b", 1, ("orders",), "2026-01-01T00:00:00+00:00"))
    assert (failed_at is None, is_running) == (is_over, False)


def test_values_of_a_sensitive_column_are_in_no_event_and_those_of_others_in_the_checks_metadata_alone(prepared, write_tenant, shop_url, home):
    declared = [{"type": "unique", "columns": ["customer"]}, {"type": "accepted_values", "column": "store_id", "values": ["s9"]}]
    write_tenant("acme", get_tenant(transform=None, schedules={}, checks={"raw/shop/orders": declared}))
    node = SourceNode("source.fabric.shop.orders", "shop", "orders", ("fabric",), "models/sources.yml", sensitive=("customer",))
    definitions = build_tenant_definitions(load_fleet(prepared).tenants["acme"], ProjectGraph({}, {node.unique_id: node}), settings=prepared)
    job = dg.Definitions(assets=definitions.assets, executor=run_executor).resolve_implicit_global_asset_job_def()
    key, run_id = dg.AssetKey(["acme", "raw", "shop", "orders"]), str(uuid.uuid4())
    assert not execute_job(job, [key], instance=home, location="fabric", run_id=run_id, tags={}, run_config={}).success
    events = [(entry.dagster_event_type, entry.user_message + dg.serialize_value(entry)) for entry in home.all_logs(run_id)]
    told = "".join(text for _, text in events)
    assert "1 value of customer is not unique" in told
    assert "'c1'" not in told
    assert {kind for kind, text in events if "'s1'" in text} == {dg.DagsterEventType.ASSET_CHECK_EVALUATION}
