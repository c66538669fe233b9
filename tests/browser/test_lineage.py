"""`make dev` as its user sees it: one graph from raw to marts, Materialize pressed in a real browser, the run green, checks on the mart.

FABRIC_TEST_SCREENSHOTS=docs/images keeps the pictures that README.md shows.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from fabric_assets.demo.data import prepare_demo
from tests.conftest import ROOT
from tests.support.lengths import IS_FULL
from tests.support.services import get_free_port

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
    """The address of Dagster's UI, served by the very script that `make dev` calls."""
    port = get_free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("FABRIC_", "DAGSTER_"))}
    environ |= {"FABRIC_DATA_DIR": str(data_dir), "PORT": str(port), "PYTHONWARNINGS": "default"}
    log = data_dir.parent / "dev.log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "scripts/dev.py"], cwd=ROOT, env=environ, stdout=output, stderr=output, process_group=0)
        try:
            wait_for(f"http://127.0.0.1:{port}/server_info", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(90)
    assert not (left := find_processes(str(data_dir))), f"`make dev` has ended and left behind: {left}"


def find_processes(data_dir: str) -> list[str]:
    """The command lines of processes whose environment names the data folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"FABRIC_DATA_DIR={data_dir}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    pytest.fail(f"the UI did not come up in 120 s:\n{log.read_text()}")


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"])
        tab = browser.new_page(viewport={"width": 1800, "height": 1000})
        tab.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield tab
        browser.close()


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("FABRIC_TEST_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png")


@pytest.mark.timeout(600)
def test_a_tenant_is_materialised_from_the_browser_and_its_checks_are_green(ui: str, page: Page, data_dir: Path) -> None:
    lineage = f"{ui}/locations/fabric/asset-groups/{TENANT}/lineage"
    page.goto(lineage)
    for asset in ("orders", "stg_orders", "daily_revenue"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    with dg.DagsterInstance.from_config(str(data_dir / "dagster")) as instance:
        runs = [materialise_part(page, instance)] if IS_FULL else []
        page.goto(lineage)
        expect(page.get_by_text("stg_customers", exact=True)).to_be_visible()
        run = materialise(page, instance)
        assert dg.AssetKey([TENANT, "marts", "customers"]) in get_materialised(instance)
        assert all(check.passed for ran in (*runs, run) for check in get_checks(instance, ran))
        assert any(check.asset_key == MART for check in get_checks(instance, run))
        mart = instance.get_latest_materialization_event(MART)
    assert mart is not None
    assert mart.asset_materialization is not None

    page.goto(lineage)
    expect(page.get_by_text("10 / 10 Passed")).to_have_count(2)
    keep(page, "lineage")
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
    keep(page, "mart")


def materialise_part(page: Page, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Materialise one mart and what it is built on, chosen by the graph's own selection."""
    page.locator(".CodeMirror").first.click()
    page.keyboard.type(f'+key:"{TENANT}/marts/daily_revenue"')
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.get_by_text("stg_customers", exact=True)).to_have_count(0)
    part = materialise(page, instance)
    assert {MART, dg.AssetKey([TENANT, "raw", "shop", "orders"])} <= get_materialised(instance)
    assert dg.AssetKey([TENANT, "marts", "customers"]) not in get_materialised(instance)
    return part


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
