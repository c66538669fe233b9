"""One tenant's models and tests, built by one dbt call: what the request `build` does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.description import describe_models
from fabric_assets.transform.worker.manifest import SELECTED_TAG, get_owner, load_manifest
from fabric_assets.transform.worker.profiles import get_database, make_spill_folder, write_profile
from fabric_assets.transform.worker.relations import release_warehouse
from fabric_assets.transform.worker.sandbox import close_python

Emit = Callable[[dict[str, Any]], None]

_TEST_TYPES = {"test", "unit_test"}
_FAILED = {"error", "fail", "runtime error", "partial success"}


class BuildFailed(Exception):
    """dbt gave up as a whole.

    Args:
        unreachable: the warehouse was, so a later try may do.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def build(request: dict[str, Any], run: RunFolder, emit: Emit) -> None:
    """Build, emitting each test and each failed model as it ends, and each built model with its columns, rows and lineage after dbt is done.

    Raises:
        BuildFailed: dbt could not begin, or a hook of the project failed.
        ConfigurationError: the destination's url.
    """
    destination = request["destination"]
    write_profile(run.path, destination)
    manifest = load_manifest(
        Path(request["file"]), tenant=request["tenant"], database=get_database(destination), selected={*request["models"], *request["tests"]}
    )
    close_python({owner for node in manifest.nodes.values() if (owner := get_owner(node.original_file_path))})
    results = _Results(manifest, emit, hidden=run.path)
    outcome = call_dbt(
        *("build", "--select", f"tag:{SELECTED_TAG}", "--indirect-selection", "empty", "--vars", request["vars"]),
        *(["--full-refresh"] if request["full_refresh"] else []),
        project_dir=request["project_dir"],
        folder=run.path,
        manifest=manifest,
        on_event=results.receive,
    )
    release_warehouse(destination)
    if outcome.exception is not None:
        raise _build_failure(outcome.exception, run.path)
    results.finish(outcome.result)
    for model in describe_models(manifest, results.built, destination=destination, spill=make_spill_folder(run.path)):
        emit(model)


class _Results:
    """Turns dbt's events into ours."""

    def __init__(self, manifest: Manifest, emit: Emit, *, hidden: Path) -> None:
        self._manifest, self._emit, self._hidden = manifest, emit, hidden
        self._failed: set[str] = set()
        self._skipped: list[str] = []
        self.built: dict[str, dict[str, Any]] = {}

    def receive(self, event: Any) -> None:
        """Take one of dbt's log events; called from dbt's threads."""
        if event.info.name != "NodeFinished":
            return
        unique_id, result = event.data.node_info.unique_id, event.data.run_result
        kind = event.data.node_info.resource_type
        message = clean_message(result.message, hidden=self._hidden)
        seconds = round(result.execution_time, 3)
        if result.status == "skipped":
            self._skipped.append(unique_id)
        elif kind in _TEST_TYPES:
            self._receive_test(unique_id, result, message, seconds)
        elif kind == "model":
            if result.status == "success":
                self.built[unique_id] = {"seconds": seconds}
            else:
                self._failed.add(unique_id)
                self._emit({"event": "model", "unique_id": unique_id, "status": "error", "message": message, "seconds": seconds})

    def finish(self, results: Any) -> None:
        """Report what was skipped, with the reason; raise what no model and no test reported."""
        for result in results or ():
            if result.node.resource_type == "operation" and str(result.status) in _FAILED:
                raise BuildFailed(f"the hook {result.node.name} of dbt_project.yml failed:\n{clean_message(result.message, hidden=self._hidden)}")
        for unique_id in self._skipped:
            causes = sorted(_get_name(self._get_node(cause)) for cause in self._find_causes(unique_id))
            message = f"not built: {', '.join(causes)} failed" if causes else "not built: something before it failed"
            event = {"unique_id": unique_id, "status": "skipped", "message": message, "seconds": 0.0}
            if unique_id.startswith("model."):
                self._emit({"event": "model", **event})
            else:
                self._emit({"event": "test", **event, "severity": self._get_severity(unique_id)})

    def _receive_test(self, unique_id: str, result: Any, message: str, seconds: float) -> None:
        status = {"pass": "pass", "fail": "fail", "warn": "warn"}.get(result.status, "error")
        if status in {"fail", "error"}:
            self._failed.add(unique_id)
        failures = None if status == "error" else result.num_failures
        event = {"unique_id": unique_id, "status": status, "message": message, "seconds": seconds, "failures": failures}
        self._emit({"event": "test", **event, "severity": self._get_severity(unique_id)})

    def _find_causes(self, unique_id: str) -> set[str]:
        """The failures above a skipped node: models, and tests of models."""
        above: set[str] = set()
        waiting = [unique_id]
        while waiting:
            node = self._get_node(waiting.pop())
            fresh = set(getattr(node, "depends_on_nodes", [])) - above
            above |= fresh
            waiting += fresh
        units = {key for key, test in self._manifest.unit_tests.items() if test.depends_on_nodes[0] in {*above, unique_id}}
        tests = {key for key in self._failed if key.startswith("test.") and set(self._get_node(key).depends_on_nodes) & above}
        return (self._failed & (above | units)) | tests

    def _get_severity(self, unique_id: str) -> str:
        severity = getattr(self._get_node(unique_id).config, "severity", "error")  # a unit test has none
        return "warn" if severity.lower() == "warn" else "error"

    def _get_node(self, unique_id: str) -> Any:
        return self._manifest.nodes.get(unique_id) or self._manifest.unit_tests.get(unique_id) or self._manifest.sources.get(unique_id)


def _get_name(node: Any) -> str:
    return f"test {node.name}" if node.resource_type in _TEST_TYPES else node.alias


def _build_failure(exception: BaseException, hidden: Path) -> BuildFailed:
    message = clean_message(str(exception), hidden=hidden)
    unreachable = type(exception).__name__ == "FailedToConnectError" or "Could not set lock on file" in message or "connection to server" in message
    return BuildFailed(message, unreachable=unreachable)
