"""The whole platform as deploy/ describes it: webserver, daemon and two code servers, started by the units' own lines.

The tests replace systemd. Each process gets only its unit's environment, umask and folders; /opt, /run and /var become the
checkout and a test's own folder.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.deploy.units import DEPLOY, FLEETS, Unit, read_env_file, read_unit
from tests.support.services import get_free_port

_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    ... on PythonError { message } ... on RepositoryLocation { repositories {
        name assetNodes { assetKey { path } } schedules { name scheduleState { status } } } }
} } } } }"""
_LAUNCH = """mutation ($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
    launchRun(executionParams: {selector: $selector, runConfigData: {}, executionMetadata: {tags: $tags}}) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    } }"""
_RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"


class Fleet:
    """The platform's processes, in a folder of their own.

    Args:
        dagster_url: the URL of Dagster's database.
        variables: the variables of each part of the fleet, in addition to those of its example file.
    """

    def __init__(self, dagster_url: str, tenants: Path, variables: Mapping[str, Mapping[str, str]]) -> None:
        # A socket's path may have some hundred characters, and pytest's folders are long.
        self.folder = Path(tempfile.mkdtemp(prefix="fabric-fleet-"))
        self.port = get_free_port()
        self._tenants, self._variables = tenants, variables
        self._environment = {name: self.adapt(value) for name, value in read_env_file(DEPLOY / "example.env").items()} | {"DAGSTER_POSTGRES_URL": dagster_url}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (self.folder / "lib" / "dagster").mkdir(parents=True)
        for fleet in FLEETS:
            (self.folder / "lib" / fleet).mkdir(mode=0o700)
            (self.folder / "run" / fleet).mkdir(parents=True, mode=0o750)

    def adapt(self, text: str) -> str:
        """Replace the paths of the units by those of this test."""
        changes = {
            "/opt/etl-fabric/.venv/bin": str(Path(sys.executable).parent),
            "/opt/etl-fabric": str(ROOT),
            "/etc/etl-fabric/tenants": str(self._tenants),
            "/var/lib/etl-fabric": str(self.folder / "lib"),
            "/run/etl-fabric": str(self.folder / "run"),
            "3000": str(self.port),
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    def read(self, name: str) -> Unit:
        """Read the unit of a process.

        Args:
            name: `web`, `daemon`, or a part of the fleet.
        """
        return (
            read_unit(DEPLOY / "systemd" / "etl-fabric-code@.service", name) if name in FLEETS else read_unit(DEPLOY / "systemd" / f"etl-fabric-{name}.service")
        )

    def get_environment(self, name: str) -> dict[str, str]:
        """Build the complete environment of a process, as systemd does."""
        own = {**read_env_file(DEPLOY / "example.fleet.env"), **self._variables[name]} if name in FLEETS else {}
        unit = {key: self.adapt(value) for key, value in self.read(name).get_environment().items()}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", **unit, **self._environment, **own}

    def start(self, name: str) -> None:
        unit = self.read(name)
        *before, command = [[self.adapt(word) for word in command] for command in unit.get_commands()]
        options: dict[str, Any] = {"env": self.get_environment(name), "cwd": self.adapt(unit.get("WorkingDirectory")), "umask": int(unit.get("UMask"), 8)}
        for step in before:
            subprocess.run(step, check=True, capture_output=True, **options)
        with self.get_log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options)

    def kill(self, name: str) -> None:
        """Kill a process, and end the rest of its unit as systemd does."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def run(self, fleet: str, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command with deploy/in-fleet, with the test's folders."""
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        for name, values in (("dagster", self._environment), (fleet, {**read_env_file(DEPLOY / "example.fleet.env"), **self._variables[fleet]})):
            (etc / f"{name}.env").write_text("# as systemd reads it\n" + "".join(f"{key}={value}\n" for key, value in values.items()))
        if not (etc / "tenants").exists():
            (etc / "tenants").symlink_to(self._tenants)
        folders = {"ETL_FABRIC_ROOT": str(ROOT), "ETL_FABRIC_ETC": str(etc), "ETL_FABRIC_LIB": str(self.folder / "lib"), "ETL_FABRIC_USER": getpass.getuser()}
        return subprocess.run(
            [str(DEPLOY / "in-fleet"), fleet, *command],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", **folders, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def get_socket(self, fleet: str) -> Path:
        return Path(self._environment[f"DAGSTER_{fleet.upper()}_SOCKET"])

    def get_log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def close(self) -> None:
        for process in self._processes.values():
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what the webserver says

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def get_locations(self) -> dict[str, Any]:
        """Map each code location to its one repository; the mapping is empty while the location is not loaded."""
        try:
            entries = self.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return {}
        return {entry["name"]: ((entry["locationOrLoadError"] or {}).get("repositories") or [{}])[0] for entry in entries}

    def launch(self, fleet: str, tenant: str, *keys: str) -> str:
        """Queue a run of a tenant's assets, as the UI's button does.

        Args:
            keys: below the tenant.
        """
        selector = {
            # While the webserver looks at the locations anew, one may be there without its repository.
            "repositoryName": self.wait_for(lambda: self.get_locations().get(fleet, {}).get("name")),
            "repositoryLocationName": fleet,
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": [tenant, *key.split("/")]} for key in keys],
        }
        launched = self.ask(_LAUNCH, selector=selector, tags=[{"key": "tenant", "value": tenant}])["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def get_status(self, run_id: str) -> str:
        return self.ask(_RUN, id=run_id)["runOrError"]["status"]

    def wait_for(self, happened: Callable[[], Any], seconds: float = 120) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := happened()):
            assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s:\n" + "\n".join(
                f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in sorted(self.folder.glob("*.log"))
            )
            time.sleep(0.3)
        return value

    def wait_for_run(self, run_id: str) -> None:
        self.wait_for(lambda: self.get_status(run_id) in {"SUCCESS", "FAILURE", "CANCELED"})
        assert self.get_status(run_id) == "SUCCESS", self.get_failures(run_id)

    def get_failures(self, run_id: str) -> str:
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on ErrorEvent { error { message causes { message } } }
            ... on MessageEvent { message } } } } }"""
        return json.dumps(self.ask(query, id=run_id), indent=1)[-6000:]
