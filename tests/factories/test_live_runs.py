"""A code server and a daemon as they are deployed: what a run that the UI's launchpad starts reads from `.env`, and its tag `tenant`."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.cli import execute_query

from tests.conftest import ROOT
from tests.faults.processes import heeding_interrupts, stop_group
from tests.support.lengths import AT_FULL_LENGTH

LAUNCH = """mutation ($job: JobOrPipelineSelector!) {
    launchRun(executionParams: {selector: $job, runConfigData: {}}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""

BACKFILL = """mutation ($backfill: LaunchBackfillParams!) {
    launchPartitionBackfill(backfillParams: $backfill) { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Deployment:
    """A code server in a folder of its own, and a daemon beside it, as on a server."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder, self.home, self.log = folder, folder / "home", folder / "log"
        self.home.mkdir(parents=True)
        shutil.copyfile(ROOT / "dagster.yaml", self.home / "dagster.yaml")
        self.environ = {**os.environ, **environ, "DAGSTER_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        self.workspace = folder / "workspace.yaml"
        self.socket = folder / "code.sock"
        self.workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": {"location_name": "fabric", "socket": str(self.socket)}}]}))
        dg.DagsterInstance.from_config(str(self.home)).dispose()
        self.server, self.daemon = self.serve(), self.start("dagster-daemon", "run", "-w", str(self.workspace))

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        program, *arguments = command
        with self.log.open("a") as log, heeding_interrupts():
            return subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments], cwd=self.folder, env=self.environ, stdout=log, stderr=log, start_new_session=True
            )

    def serve(self) -> "subprocess.Popen[bytes]":
        self.socket.unlink(missing_ok=True)
        server = self.start("dagster", "code-server", "start", "-m", "fabric_assets.definitions", "--socket", str(self.socket), "--location-name", "fabric")
        self.wait_for(self.socket.exists)
        return server

    def launch(self, *assets: str) -> str:
        """As the UI's launchpad does."""
        selector = {
            "repositoryLocationName": "fabric",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        }
        answer = self._ask(LAUNCH, job=selector)
        assert answer["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", answer
        return answer["data"]["launchRun"]["run"]["runId"]

    def launch_backfill(self, *assets: str) -> str:
        """As the UI does for assets of which some have partitions, and for others by its API."""
        answer = self._ask(BACKFILL, backfill={"partitionsByAssets": [{"assetKey": {"path": asset.split("/")}} for asset in assets]})
        assert answer["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer
        return answer["data"]["launchPartitionBackfill"]["backfillId"]

    def _ask(self, query: str, **variables: Any) -> Any:
        with (
            dg.DagsterInstance.from_config(str(self.home)) as instance,
            WorkspaceProcessContext(instance, WorkspaceFileTarget([str(self.workspace)])) as process,
        ):
            return execute_query(process, query, variables)

    def wait_for(self, happened: Callable[[], Any], seconds: float = 240) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := happened()):
            assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s:\n{self.log.read_text()[-6000:]}"
            time.sleep(0.5)
        return value

    def close(self) -> None:
        for process in (self.daemon, self.server):
            stop_group(process)


@pytest.fixture
def deploy(tmp_path: Path, settings_environ: Mapping[str, str]) -> Iterator[Callable[..., Deployment]]:
    with contextlib.ExitStack() as stack:

        def start(**environ: str) -> Deployment:
            deployment = Deployment(tmp_path / "server", {**settings_environ, **environ})
            stack.callback(deployment.close)
            return deployment

        yield start


@AT_FULL_LENGTH
@pytest.mark.timeout(600)
def test_each_run_reads_the_env_file_of_its_code_servers_folder_and_carries_its_tenant(
    deploy: Callable[..., Deployment], write_tenant: Callable[..., Path], shop_url: str, tmp_path: Path
) -> None:
    def build_source(variable: str) -> dict[str, Any]:
        return {"type": "sql_database", "url": {"env": variable}, "retries": {"max": 0}, "streams": {"orders": {"primary_key": "id"}}}

    write_tenant("acme", {"sources": {"shop": build_source("ACME_URL"), "other": build_source("OTHER_URL")}})
    env_file, wrong = tmp_path / "server" / ".env", "sqlite:////nowhere/that_is_not_there.db"
    env_file.parent.mkdir()
    env_file.write_text(f"ACME_URL={wrong}\nOTHER_URL={wrong}\n")
    fleet = deploy(OTHER_URL=shop_url)
    with dg.DagsterInstance.from_config(str(fleet.home)) as instance:

        def run(*assets: str) -> dg.DagsterRun:
            run_id = fleet.launch(*assets)

            def get_ended() -> dg.DagsterRun | None:
                found = instance.get_run_by_id(run_id)
                return found if found and found.is_finished else None

            return fleet.wait_for(get_ended)

        first = run("acme/raw/shop/orders")
        (failure,) = instance.all_logs(first.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert "that_is_not_there" in str(failure.dagster_event)
        # Read anew without a restart; a variable that is really set wins, and the platform's own are the first process's.
        env_file.write_text(f"ACME_URL={shop_url}\nOTHER_URL={wrong}\nFABRIC_TENANTS_DIR=/nowhere\n")
        second = run("acme/raw/shop/orders", "acme/raw/other/orders")
        assert [entry.dagster_event for entry in instance.all_logs(second.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)] == []
        assert second.is_success
        assert [found.tags["tenant"] for found in (first, second)] == ["acme", "acme"]


@pytest.mark.timeout(600)
def test_runs_of_a_schedule_and_of_a_backfill_carry_their_tenant(deploy: Callable[..., Deployment], write_tenant: Callable[..., Path], shop_url: str) -> None:
    source = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": {"orders": {"primary_key": "id"}}}
    write_tenant("acme", {"sources": {"shop": source}, "schedules": {"often": {"cron": "* * * * *", "target": ["raw/shop/orders"]}}})
    for tenant in ("globex", "initech"):
        write_tenant(tenant, {"sources": {"shop": source}})
    fleet = deploy(SHOP_URL=shop_url)
    one, both = fleet.launch_backfill("globex/raw/shop/orders"), fleet.launch_backfill("globex/raw/shop/orders", "initech/raw/shop/orders")
    with dg.DagsterInstance.from_config(str(fleet.home)) as instance:

        def find(**tags: str) -> list[dg.DagsterRun]:
            return [run for run in instance.get_runs(dg.RunsFilter(tags=tags)) if run.is_success]

        def find_tenants() -> list[list[str]]:
            wanted = ({"dagster/schedule_name": "acme__often"}, {"dagster/backfill": one}, {"dagster/backfill": both})
            return [sorted({run.tags["tenant"] for run in find(**tags)}) for tags in wanted]

        assert fleet.wait_for(lambda: all(find_tenants()) and find_tenants()) == [["acme"], ["globex"], ["several tenants"]]
        assert [run.run_id for run in instance.get_runs() if "tenant" not in run.tags] == []
