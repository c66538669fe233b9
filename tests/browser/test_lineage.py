"""`make dev` as its user sees it: one graph from raw to marts, Materialize pressed in a real browser, the run green, checks on the mart.

FABRIC_TEST_SCREENSHOTS=docs/images keeps the pictures that README.md and docs/ show.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page, expect

from fabric_assets.demo.data import prepare_demo
from tests.browser.server import keep, serve_ui
from tests.support.lengths import IS_FULL

TENANT = "demo_database"
MART = dg.AssetKey([TENANT, "marts", "daily_revenue"])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Path:
    data = tmp_path_factory.mktemp("dev") / "data"
    prepare_demo(data, max_orders=500)
    shutil.copytree(prepared_data, data / "dbt" / "prepared")
    return data


@pytest.fixture(scope="module")
def ui(data_dir: Path) -> Iterator[str]:
    """The address of Dagster's UI."""
    with serve_ui(data_dir) as address:
        yield address


@pytest.mark.timeout(600)
def test_a_tenant_is_materialised_from_the_browser_and_its_checks_are_green(ui: str, page: Page, data_dir: Path) -> None:
    lineage = f"{ui}/locations/fabric/asset-groups/{TENANT}/lineage"
    page.goto(lineage)
    for asset in ("orders", "stg_shop__orders", "daily_revenue"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    with dg.DagsterInstance.from_config(str(data_dir / "dagster")) as instance:
        runs = [materialise_part(page, instance)] if IS_FULL else []
        page.goto(lineage)
        expect(page.get_by_text("stg_shop__customers", exact=True)).to_be_visible()
        run = materialise(page, instance)
        assert dg.AssetKey([TENANT, "marts", "customers"]) in get_materialised(instance)
        assert all(check.passed for ran in (*runs, run) for check in get_checks(instance, ran))
        assert any(check.asset_key == MART for check in get_checks(instance, run))
        mart = instance.get_latest_materialization_event(MART)
    assert mart is not None
    assert mart.asset_materialization is not None

    page.goto(lineage)
    expect(page.get_by_text("stg_customers", exact=True)).to_be_visible()
    search(page, 'not tag:"deprecated"="true"')
    expect(page.get_by_role("button", name="Materialize all (19)")).to_be_visible()
    page.set_viewport_size({"width": 1800, "height": 1300})  # a whole graph, not its middle
    page.reload()  # which fits the graph into the window
    expect(page.get_by_text("10 / 10 Passed")).to_have_count(2)
    keep(page, "lineage")
    page.set_viewport_size({"width": 1800, "height": 1000})
    page.goto(f"{ui}/runs/{run.run_id}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.goto(f"{ui}/assets/{TENANT}/marts/daily_revenue?view=checks")
    expect(page.get_by_text("not_null_daily_revenue_store_id").first).to_be_visible()
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(6)
    keep(page, "checks")
    page.goto(f"{ui}/assets/{TENANT}/marts/daily_revenue")
    rows = mart.asset_materialization.metadata["dagster/row_count"].value
    expect(page.get_by_text(str(rows), exact=True).first).to_be_visible()
    expect(page.get_by_text("gross_profit").first).to_be_visible()
    expect(page.get_by_text("One row per store and day with at least one order.")).to_be_visible()
    expect(page.get_by_text("2 schedules")).to_be_visible()
    keep(page, "mart")


def materialise_part(page: Page, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Materialise one mart and what it is built on, chosen by the graph's own selection."""
    search(page, f'+key:"{TENANT}/marts/daily_revenue"')
    expect(page.get_by_text("stg_shop__customers", exact=True)).to_have_count(0)
    part = materialise(page, instance)
    assert {MART, dg.AssetKey([TENANT, "raw", "shop", "orders"])} <= get_materialised(instance)
    assert dg.AssetKey([TENANT, "marts", "customers"]) not in get_materialised(instance)
    return part


def search(page: Page, selection: str) -> None:
    """Narrow the graph to a selection."""
    page.locator(".CodeMirror").first.click()
    page.keyboard.type(selection)
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")


def materialise(page: Page, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Press the button over the graph, and wait for the run that it starts."""
    before = {run.run_id for run in instance.get_runs()}
    page.get_by_role("button", name=re.compile("Materialize all")).first.click()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        for run in instance.get_runs():
            if run.run_id not in before:
                # A graph that is drawn anew at each event, without a graphics card, takes a core from the run that it shows.
                page.goto("about:blank")
                if run.is_finished:
                    assert run.status == dg.DagsterRunStatus.SUCCESS
                    return run
        time.sleep(1)
    pytest.fail(f"no run ended in 240 s: {instance.get_runs()}")


def get_materialised(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    return {key for key in instance.get_asset_keys() if instance.get_latest_materialization_event(key)}


def get_checks(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.AssetCheckEvaluation]:
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    return [record.event_log_entry.dagster_event.asset_check_evaluation_data for record in records if record.event_log_entry.dagster_event]
