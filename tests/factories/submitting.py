"""Submit a run that waits in Dagster's storage, from a process of its own that a test may kill: `python -m tests.factories.submitting RUN_ID WORKSPACE`."""

import sys

import dagster as dg
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, WorkspaceFileTarget([sys.argv[2]])) as process:
        run = instance.get_run_by_id(sys.argv[1])
        assert run is not None
        instance.run_coordinator.submit_run(SubmitRunContext(run, process.create_request_context()))
