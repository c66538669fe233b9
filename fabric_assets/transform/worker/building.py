"""The request `build`: one tenant's models and tests -> built by one dbt call.

A failed test is reported when dbt is done, because its rows can be read only after dbt has closed the warehouse.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.own_faults import find_own_fault, report_own_fault
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.worker.adapters.adapter import Login, get_adapter
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.description import describe_models
from fabric_assets.transform.worker.findings import describe_failures
from fabric_assets.transform.worker.freshness import measure_freshness
from fabric_assets.transform.worker.manifest import MODEL_TYPES, SELECTED_TAG, get_owner, load_manifest
from fabric_assets.transform.worker.profiles import make_spill_folder, write_profile
from fabric_assets.transform.worker.relations import open_warehouse
from fabric_assets.transform.worker.sandbox import close_python
from fabric_assets.transform.worker.seed_files import copy_own_seeds
from fabric_assets.transform.worker.snapshot_records import list_snapshots, refuse_changed
from fabric_assets.transform.worker.unfinished import UnfinishedModels

Emit = Callable[[dict[str, Any]], None]

_OF_A_BATCH = "Exception on worker thread. "
_TEST_TYPES = {"test", "unit_test"}
_FAILED = {"error", "fail", "runtime error", "partial success"}


class BuildFailed(Exception):
    """A build that failed as a whole.

    Args:
        unreachable: whether the warehouse could not be reached, so that a later try may succeed.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def build(request: dict[str, Any], run: RunFolder, emit: Emit) -> None:
    """Build, and emit each test and each failed model as it ends. Emit built models, with columns, rows and lineage, after dbt is done.

    The ages of sources come first, as dbt's users measure them before a build. They hold nothing up.

    Raises:
        BuildFailed: dbt could not begin, or a hook of the project failed.
        ConfigurationError: the destination's url is wrong, or a tenant's own seed is no longer what was parsed.
    """
    destination = request["destination"]
    adapter = get_adapter(destination["type"])
    write_profile(run.path, destination)
    selected = {*request["models"], *request["tests"]}
    manifest = load_manifest(Path(request["file"]), tenant=request["tenant"], database=adapter.get_database(destination), selected=selected)
    left_out = _find_left_out(manifest, request)
    for unique_id in left_out:
        del manifest.unit_tests[unique_id]
        message = "left out: it reads the model's own table, which does not exist yet; the next run includes it"
        emit({"event": "test", "unique_id": unique_id, "status": "left_out", "message": message, "severity": "error"})
    close_python({owner for node in manifest.nodes.values() if (owner := get_owner(node.original_file_path))})
    copy_own_seeds(manifest, selected, project=Path(request["project_dir"]), folder=run.path)
    if snapshots := list_snapshots(manifest, selected):
        _check_snapshots(snapshots, destination, tenant=request["tenant"], folder=run.path)
    if sources := sorted(selected & manifest.sources.keys()):
        for event in measure_freshness(manifest, sources, request, folder=run.path, check=partial(_check_reached, folder=run.path)):
            emit(event)
        if selected <= manifest.sources.keys():
            adapter.release()
            return
    results = _Results(manifest, emit, hidden=run.path, unfinished=UnfinishedModels(Path(request["folder"]), manifest))
    outcome = call_dbt(
        *("build", "--select", f"tag:{SELECTED_TAG}", "--indirect-selection", "empty", "--vars", request["vars"]),
        *(["--full-refresh"] if request["full_refresh"] else []),
        project_dir=request["project_dir"],
        folder=run.path,
        manifest=manifest,
        on_event=results.receive,
    )
    adapter.release()
    if outcome.exception is not None:
        raise _build_failure(outcome.exception, run.path)
    spill = make_spill_folder(run.path)
    report = partial(report_own_fault, data_dir=Path(request["data_dir"]), tenant=request["tenant"])
    results.finish(outcome.result, lambda failed: describe_failures(manifest, failed, destination=destination, spill=spill, report=report))
    for model in describe_models(manifest, results.built, destination=destination, spill=spill, report=report):
        emit(model)


def _check_reached(problem: str | BaseException, *, folder: Path) -> None:
    """Raise an error that has kept dbt from all sources; the message of one source only if the warehouse cannot be reached."""
    failure = _build_failure(problem, folder)
    if failure.unreachable or isinstance(problem, BaseException):
        raise failure


def _check_snapshots(snapshots: list[Any], destination: Login, *, tenant: str, folder: Path) -> None:
    """Refuse the snapshots whose key or strategy has changed.

    Raises:
        BuildFailed: the records cannot be read or written.
    """
    try:
        with open_warehouse(destination, spill=make_spill_folder(folder), read_only=False) as warehouse:
            refuse_changed(snapshots, warehouse, tenant=tenant)
    except Exception as error:
        if find_own_fault(error, "the records of snapshots"):
            raise
        raise _build_failure(error, folder) from error


def _find_left_out(manifest: Manifest, request: dict[str, Any]) -> list[str]:
    """Find the unit tests that cannot run before their model's table exists: dbt takes the columns of the input `this` from that table.

    dbt would fail the test, and so never build the model whose table the test needs.
    """
    models = {key: manifest.nodes[test.depends_on.nodes[0]] for key, test in manifest.unit_tests.items() if _reads_itself(test)}
    if not models:
        return []
    with open_warehouse(request["destination"], spill=make_spill_folder(Path.cwd())) as warehouse:
        tables = warehouse.get_columns(model.schema for model in models.values())
    return [key for key, model in models.items() if (model.schema, model.alias) not in tables]


def _reads_itself(test: Any) -> bool:
    return any(given.input.strip() == "this" for given in test.given)


class _Results:
    """A translator of dbt's events into the worker's."""

    def __init__(self, manifest: Manifest, emit: Emit, *, hidden: Path, unfinished: UnfinishedModels) -> None:
        self._manifest, self._emit, self._hidden, self._unfinished = manifest, emit, hidden, unfinished
        self._failed: set[str] = set()
        self._found: dict[str, dict[str, Any]] = {}
        self._skipped: dict[str, None] = {}
        self._reasons: dict[str, str] = {}
        self.built: dict[str, dict[str, Any]] = {}

    def receive(self, event: Any) -> None:
        """Handle one of dbt's log events. dbt's threads call this."""
        if event.info.name == "GenericExceptionOnRun":  # why a batch failed: its result says ERROR
            self._reasons.setdefault(event.data.unique_id, clean_message(event.data.exc, hidden=self._hidden).removeprefix(_OF_A_BATCH))
        if event.info.name == "NodeStart":
            self._unfinished.begin(event.data.node_info.unique_id)
        if event.info.name != "NodeFinished":
            return
        unique_id, result = event.data.node_info.unique_id, event.data.run_result
        kind = event.data.node_info.resource_type
        message = clean_message(result.message, hidden=self._hidden)
        seconds = round(result.execution_time, 3)
        if result.status == "skipped":
            self._skipped[unique_id] = None
        elif kind in _TEST_TYPES:
            self._receive_test(unique_id, result, message, seconds)
        elif kind in MODEL_TYPES:
            self._receive_model(unique_id, result.status, message, seconds)

    def finish(self, results: Any, describe: Callable[[dict[str, tuple[Any, int]]], Iterable[tuple[str, dict[str, str]]]]) -> None:
        """Report failed tests and skipped models with the reason, and raise an error that no model and no test has reported.

        Args:
            describe: describes what failed tests found.
        """
        for unique_id in self.built:
            self._unfinished.finish(unique_id)
        nodes = {result.node.unique_id: result.node for result in results or ()}
        failed = {key: (nodes[key], event["failures"]) for key, event in self._found.items() if key in nodes and nodes[key].resource_type == "test"}
        words = dict(describe(failed))
        for unique_id, event in self._found.items():
            self._emit(event | words.get(unique_id, {}))
        for result in results or ():
            if result.node.resource_type == "operation" and str(result.status) in _FAILED:
                raise BuildFailed(f"the hook {result.node.name} of dbt_project.yml failed:\n{clean_message(result.message, hidden=self._hidden)}")
        for unique_id in self._skipped:
            if unique_id in self._failed or unique_id in self.built:  # a batch of a microbatch model
                continue
            causes = sorted(_get_name(self._get_node(cause)) for cause in self._find_causes(unique_id))
            message = f"not built: {', '.join(causes)} failed" if causes else "not built: something before it failed"
            event = {"unique_id": unique_id, "status": "skipped", "message": message, "seconds": 0.0}
            if self._get_node(unique_id).resource_type in MODEL_TYPES:
                self._emit({"event": "model", **event})
            else:
                self._emit({"event": "test", **event, "severity": self._get_severity(unique_id)})

    def _receive_model(self, unique_id: str, status: str, message: str, seconds: float) -> None:
        """Handle a model's result, or that of a batch: each batch of a microbatch model has its own, and the first failure gives the reason."""
        if status == "success" and unique_id not in self._failed:
            self.built[unique_id] = {"seconds": seconds}
        elif status != "success":
            self.built.pop(unique_id, None)
            if unique_id not in self._failed:
                self._failed.add(unique_id)
                reason = self._reasons.get(unique_id, message)
                self._emit({"event": "model", "unique_id": unique_id, "status": "error", "message": reason, "seconds": seconds})

    def _receive_test(self, unique_id: str, result: Any, message: str, seconds: float) -> None:
        status = {"pass": "pass", "fail": "fail", "warn": "warn"}.get(result.status, "error")
        if status in {"fail", "error"}:
            self._failed.add(unique_id)
        failures = None if status == "error" else result.num_failures
        event = {"unique_id": unique_id, "status": status, "message": message, "seconds": seconds, "failures": failures}
        event |= {"event": "test", "severity": self._get_severity(unique_id)}
        if failures and status in {"fail", "warn"}:
            self._found[unique_id] = event
        else:
            self._emit(event)

    def _find_causes(self, unique_id: str) -> set[str]:
        """Find the failed models and tests because of which a node was skipped."""
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


def _build_failure(exception: str | BaseException, hidden: Path) -> BuildFailed:
    message = clean_message(str(exception), hidden=hidden)
    unreachable = type(exception).__name__ == "FailedToConnectError" or "is open in another program" in message or "connection to server" in message
    return BuildFailed(message, unreachable=unreachable)
