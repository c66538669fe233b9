"""A run over several tenants that somebody submits: one run for each tenant, none lost and none twice, also after a kill."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._record import copy

from fabric_assets.factories.execution import build_origin
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.run_tags import TenantRunCoordinator
from fabric_assets.factories.tenant_runs import find_parts
from fabric_assets.settings import Settings
from tests.conftest import ROOT

TENANTS = ["acme", "globex", "initech", "umbrella"]
SHOP = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": {"primary_key": "id"}, "stores": {"primary_key": "id"}}}
ORDERS = dg.AssetCheckKey(dg.AssetKey(["acme", "raw", "shop", "orders"]), "row_count")


@pytest.fixture
def home(isolated_home: object, settings: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]) -> Iterator[dg.DagsterInstance]:
    """A DAGSTER_HOME with the project's own dagster.yaml, beside a fleet of four tenants."""
    for name in TENANTS:
        write_tenant(name, {"sources": {"shop": SHOP}, "checks": {"raw/shop/orders": [{"type": "row_count", "min": 1}]}})
    shutil.copy(ROOT / "dagster.yaml", os.environ["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def workspace(home: dg.DagsterInstance) -> Iterator[BaseWorkspaceRequestContext]:
    """What a webserver knows of the fleet's code server, a process of its own."""
    with WorkspaceProcessContext(home, WorkspaceFileTarget([str(ROOT / "workspace.yaml")])) as process:
        yield process.create_request_context()
    # Dagster tells the server to end, and does not wait: Python warns of that in the middle of another test.
    process._grpc_server_registry.wait_for_processes()


@pytest.fixture
def create(home: dg.DagsterInstance, settings: Settings) -> Callable[..., dg.DagsterRun]:
    """As the UI does for assets that somebody selects."""
    job = build_definitions(settings).resolve_implicit_global_asset_job_def()

    def create(tenants: Iterable[str], *, streams: Iterable[str] = ("orders", "stores"), tags: Mapping[str, str] | None = None) -> dg.DagsterRun:
        keys = {dg.AssetKey([tenant, "raw", "shop", stream]) for tenant in tenants for stream in streams}
        origin = build_origin(job.name, "fabric")
        return home.create_run_for_job(job, asset_selection=keys, status=dg.DagsterRunStatus.NOT_STARTED, tags=dict(tags or {}), remote_job_origin=origin)

    return create


def submit(home: dg.DagsterInstance, run: dg.DagsterRun, workspace: BaseWorkspaceRequestContext) -> dg.DagsterRun:
    return home.run_coordinator.submit_run(SubmitRunContext(run, workspace))


def find_split(home: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, dg.DagsterRun]:
    found = home.get_runs(dg.RunsFilter(tags={"fabric/split_from": run.run_id}))
    assert len({run.tags["tenant"] for run in found}) == len(found)
    return {run.tags["tenant"]: run for run in found}


def count_enqueued(home: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    return len(home.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_ENQUEUED))


@pytest.mark.timeout(300)
def test_a_run_over_several_tenants_becomes_one_for_each_with_the_same_selection_and_tags(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    first = create(["globex", "acme"], tags={"dagster/priority": "7", "team": "data"})
    ended = submit(home, first, workspace)
    assert (ended.status, ended.tags["tenant"], ended.tags["fabric/split_into"]) == (dg.DagsterRunStatus.CANCELED, "several tenants", "2")
    assert count_enqueued(home, ended) == 0  # it has never waited for a slot
    found = find_split(home, first)
    assert {tenant: run.asset_selection for tenant, run in found.items()} == {
        tenant: {dg.AssetKey([tenant, "raw", "shop", stream]) for stream in ("orders", "stores")} for tenant in ("acme", "globex")
    }
    for tenant, run in found.items():
        assert (run.status, run.job_name, count_enqueued(home, run)) == (dg.DagsterRunStatus.QUEUED, "__ASSET_JOB", 1)
        assert (run.tags["dagster/priority"], run.tags["team"], run.tags["dagster/code_location"]) == ("7", "data", "fabric")
        assert run.tags.keys().isdisjoint({"fabric/split_into", "dagster/max_retries"})
        assert [step.key for step in home.get_execution_plan_snapshot(run.execution_plan_snapshot_id).steps] == [f"{tenant}__shop__load"]
    events = [entry.dagster_event for entry in home.all_logs(first.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)]
    (links,) = [event.event_specific_data.metadata for event in events]
    assert {name: link.value for name, link in links.items()} == {f"tenant {tenant}": run.run_id for tenant, run in found.items()}


@pytest.mark.timeout(300)
def test_a_run_that_stays_whole_is_tagged_before_it_waits(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    assert isinstance(home.run_coordinator, TenantRunCoordinator)
    assert home.get_concurrency_config().run_queue_config.max_concurrent_runs == 4
    for first, tag in ((create(["acme"]), "acme"), (create(["acme", "globex"], tags={"dagster/backfill": "b"}), "several tenants")):
        submit(home, first, workspace)
        queued = home.get_run_by_id(first.run_id)
        assert (queued.tags["tenant"], queued.status) == (tag, dg.DagsterRunStatus.QUEUED)


@pytest.mark.timeout(300)
def test_the_selection_of_checks_is_split_as_well(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    selected = copy(create(["acme", "globex"], streams=["orders"]), asset_check_selection=frozenset({ORDERS}))
    assert {tenant: part.checks for tenant, part in find_parts(selected, workspace).items()} == {"acme": {ORDERS}, "globex": frozenset()}
    walls = frozenset(dg.AssetCheckKey(dg.AssetKey([tenant, "isolation"]), "isolation") for tenant in ("acme", "globex"))
    parts = find_parts(copy(selected, asset_selection=None, asset_check_selection=walls), workspace)
    assert {tenant: (part.assets, {check.asset_key.path[0] for check in part.checks or ()}) for tenant, part in parts.items()} == {
        tenant: (frozenset(), {tenant}) for tenant in ("acme", "globex")
    }
    everything = find_parts(copy(selected, asset_selection=None, asset_check_selection=None), workspace)
    assert {tenant: (len(part.assets), part.checks) for tenant, part in everything.items()} == dict.fromkeys(TENANTS, (2, None))


@pytest.mark.timeout(300)
def test_a_run_that_is_no_selection_of_tenants_assets_stays_whole(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    both = create(["acme", "globex"])
    assert sorted(find_parts(both, workspace)) == ["acme", "globex"]
    report = dg.AssetKey(["reports", "weekly"])
    whole = {
        "of one tenant": create(["acme"]),
        "of a job": copy(both, job_name="weekly"),
        "of a backfill": copy(both, tags={"dagster/backfill": "abc"}),
        "from the step that failed": copy(both, tags={"dagster/is_resume_retry": "true"}),
        "of an asset without a tenant": copy(both, asset_selection=frozenset({*(both.asset_selection or ()), report})),
    }
    assert {name: find_parts(run, workspace) for name, run in whole.items()} == {name: {} for name in whole}


@pytest.mark.timeout(300)
def test_a_webserver_answers_while_the_runs_are_submitted(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    first = create(TENANTS)

    async def answer() -> dg.DagsterRun:
        return submit(home, first, workspace)

    assert asyncio.run(answer()).status == dg.DagsterRunStatus.NOT_STARTED
    wait_for(lambda: home.get_run_by_id(first.run_id).status == dg.DagsterRunStatus.CANCELED)
    assert {tenant: run.status for tenant, run in find_split(home, first).items()} == dict.fromkeys(TENANTS, dg.DagsterRunStatus.QUEUED)


@pytest.mark.timeout(300)
def test_runs_that_cannot_be_submitted_are_named_and_nothing_starts_them_again(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    first = copy(create(["acme", "globex"]), job_name="__ASSET_JOB_9")  # of an older Dagster: the code server does not know it
    ended = submit(home, first, workspace)
    (event,) = home.all_logs(first.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert (ended.status, ended.tags["dagster/max_retries"]) == (dg.DagsterRunStatus.FAILURE, "0")
    assert "Without a run: tenant acme, tenant globex." in event.message
    assert find_split(home, first) == {}


@pytest.mark.timeout(600)
def test_a_process_that_is_killed_between_two_runs_loses_none_and_doubles_none(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    first = create(TENANTS, tags={"team": "data"})
    command = [sys.executable, "-m", "tests.factories.submitting", first.run_id, str(ROOT / "workspace.yaml")]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True) as process:
        wait_for(lambda: find_split(home, first) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGKILL)
    begun = find_split(home, first)
    assert 0 < len(begun) < len(TENANTS)
    assert home.get_run_by_id(first.run_id).status == dg.DagsterRunStatus.NOT_STARTED

    # The process could still be alive, on another machine: nobody else touches its runs for ten minutes.
    submit(home, create(["acme"]), workspace)
    assert find_split(home, first).keys() == begun.keys()
    age(home, minutes=11)
    submit(home, create(["acme"]), workspace)
    found = find_split(home, first)
    assert {tenant: (run.status, count_enqueued(home, run)) for tenant, run in found.items()} == dict.fromkeys(TENANTS, (dg.DagsterRunStatus.QUEUED, 1))
    assert {tenant: run.run_id for tenant, run in found.items()}.items() >= {tenant: run.run_id for tenant, run in begun.items()}.items()
    assert {run.tags["team"] for run in found.values()} == {"data"}
    assert home.get_run_by_id(first.run_id).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.timeout(300)
def test_a_run_whose_process_was_killed_fails_if_its_assets_have_gone(
    home: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext, create: Callable[..., dg.DagsterRun]
) -> None:
    first = create(["acme", "globex"], tags={"tenant": "several tenants", "fabric/split_into": "2"})
    with contextlib.closing(sqlite3.connect(get_runs_file(home))) as database, database:
        database.execute("update runs set run_body = replace(run_body, '\"globex\"', '\"gone\"') where run_id = ?", (first.run_id,))
    age(home, minutes=11)
    submit(home, create(["acme"]), workspace)
    (event,) = home.all_logs(first.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert event.message.startswith("The selected assets have changed since the run was started")


def wait_for(happened: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get_runs_file(home: dg.DagsterInstance) -> Path:
    return Path(os.environ["DAGSTER_HOME"]) / "history" / "runs.db"


def age(home: dg.DagsterInstance, *, minutes: int) -> None:
    """Make all runs so much older."""
    with contextlib.closing(sqlite3.connect(get_runs_file(home))) as database, database:
        database.execute("update runs set create_timestamp = datetime(create_timestamp, ?)", (f"-{minutes} minutes",))
