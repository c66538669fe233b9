"""*Materialize all* over a fleet, pressed in a real browser: a run for each tenant, one at a time. The first run holds no slot."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import yaml
from playwright.sync_api import Page, expect

from fabric_assets.demo.data import prepare_demo
from tests.browser.server import keep, serve_ui
from tests.conftest import ROOT
from tests.support.lengths import AT_FULL_LENGTH

TENANTS = ["acme", "globex", "initech", "stark", "umbrella"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tenants over the demo's shop, and a DAGSTER_HOME with one slot."""
    folder = tmp_path_factory.mktemp("fleet")
    prepare_demo(folder / "data", max_orders=50)
    source = {"type": "sql_database", "url": {"file": "demo/shop_url"}, "streams": {"stores": {"primary_key": "id"}, "products": {"primary_key": "sku"}}}
    (folder / "tenants").mkdir()
    for tenant in TENANTS:
        (folder / "tenants" / f"{tenant}.yaml").write_text(yaml.safe_dump({"version": 1, "tenant": tenant, "sources": {"shop": source}}))
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config["concurrency"]["runs"]["max_concurrent_runs"] = 1
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def ui(folder: Path) -> Iterator[str]:
    with serve_ui(folder / "data", FABRIC_TENANTS_DIR=str(folder / "tenants"), DAGSTER_HOME=str(folder / "home")) as address:
        yield address


@AT_FULL_LENGTH
@pytest.mark.timeout(600)
def test_the_button_over_five_tenants_starts_a_run_for_each_one_at_a_time(ui: str, page: Page, folder: Path) -> None:
    page.goto(f"{ui}/asset-groups")
    expect(page.get_by_role("button", name=re.compile(r"Materialize all \(10\)"))).to_be_visible()
    # Each tenant's two streams are missing; its isolation, which no run materialises, is not.
    expect(page.get_by_text("umbrella").last).to_be_visible()
    page.get_by_role("button", name=re.compile("Materialize all")).first.click()
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        first, runs, most = follow(page, instance)
        assert (first.status, first.tags["tenant"], first.tags["dagster/from_ui"]) == (dg.DagsterRunStatus.CANCELED, "several tenants", "true")
        assert [run.tags["tenant"] for run in runs] == TENANTS
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert {run.tags["fabric/split_from"] for run in runs} == {first.run_id}
        assert all({key.path[0] for key in run.asset_selection or ()} == {run.tags["tenant"]} for run in runs)
        records = [instance.get_run_record_by_id(run.run_id) for run in runs]
    times = [(record.start_time or 0, record.end_time or 0) for record in records if record]
    assert all(end <= start for (_, end), (start, _) in pairwise(times)), "one at a time, in the order of their names"
    assert most == 1

    page.goto(f"{ui}/runs/{first.run_id}")
    expect(page.get_by_text("Canceled", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile("5 runs do the work, one for each tenant"))).to_be_visible()
    expect(page.get_by_text("This run ends here")).to_be_visible()
    keep(page, "split")
    page.get_by_text(runs[0].run_id).first.click()
    expect(page).to_have_url(re.compile(f"/runs/{runs[0].run_id}"))
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.goto(f"{ui}/asset-groups")
    for tenant in TENANTS:
        expect(page.get_by_text(tenant, exact=True).last).to_be_visible()
    # A green 3 in each box, and no amber: the two streams and the isolation.
    expect(page.get_by_text("3", exact=True)).to_have_count(5)
    keep(page, "fleet")


def follow(page: Page, instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, list[dg.DagsterRun], int]:
    """Wait for the run that the button starts, and for those of the tenants. The last value is the most runs that were under way at once."""
    deadline, most = time.monotonic() + 400, 0
    while time.monotonic() < deadline:
        runs = instance.get_runs()
        if runs:
            # A graph that is drawn anew at each event, without a graphics card, takes a core from the runs that it shows.
            page.goto("about:blank")
        under_way = [run for run in runs if run.status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)]
        most = max(most, len(under_way))
        if len(runs) == len(TENANTS) + 1 and all(run.is_finished for run in runs):
            split = sorted((run for run in runs if "fabric/split_from" in run.tags), key=lambda run: run.tags["tenant"])
            (first,) = [run for run in runs if run not in split]
            return first, split, most
        time.sleep(0.2)
    pytest.fail(f"the runs did not end in 400 s: {[(run.tags, run.status) for run in instance.get_runs()]}")
