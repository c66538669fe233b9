"""Dagster's webserver in a process of its own, asked as a browser does."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.support.services import get_free_port


class Webserver:
    """Dagster's own, with the code location of this project; runs begin at once, without a daemon."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fabric-dagster-"))
        config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
        config = {key: config[key] for key in ("telemetry", "code_servers")} | {
            "concurrency": {"pools": config["concurrency"]["pools"]},
            "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"},
        }
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(config))
        self.port = get_free_port()
        self.log = self.home / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port), "-m", "fabric_assets.definitions"],
                env={**os.environ, **environ, "DAGSTER_HOME": str(self.home)},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("{ version }"))
        return False

    def launch(self, paths: Iterable[Sequence[str]]) -> str:
        """Start a run of these assets; gives its id."""
        locations = self.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }")
        (node,) = locations["repositoriesOrError"]["nodes"]
        launched = self.ask(
            """mutation ($selector: JobOrPipelineSelector!) {
                launchRun(executionParams: {selector: $selector, runConfigData: {}}) {
                    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                } }""",
            selector={
                "repositoryName": node["name"],
                "repositoryLocationName": node["location"]["name"],
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": path} for path in paths],
            },
        )["launchRun"]
        return launched["run"]["runId"]

    def get_status(self, run_id: str) -> str:
        return self.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)["runOrError"]["status"]

    def terminate(self, run_id: str) -> None:
        self.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            shutil.rmtree(self.home, ignore_errors=True)
