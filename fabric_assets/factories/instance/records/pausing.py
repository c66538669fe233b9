"""A tenant in Dagster -> its schedules and sensors stopped and its runs ended, with their processes, before anything is deleted."""

import time
from collections.abc import Callable, Sequence

import dagster as dg

from fabric_assets.errors import LeaseHeld
from fabric_assets.factories.instance.records.databases import Database
from fabric_assets.factories.instance.records.runs import find_unfinished
from fabric_assets.factories.instance.run_marks import is_marked
from fabric_assets.settings import Settings

_POLL_SECONDS = 0.25


def stop_instigators(instance: dg.DagsterInstance, tenant: str) -> None:
    """Stop every schedule and sensor of the tenant for which Dagster has a state. The runs of the others are refused."""
    for state in instance.all_instigator_state():
        if state.instigator_name.startswith(f"{tenant}__") and state.is_running:
            stop = instance.stop_schedule if state.instigator_type.value == "SCHEDULE" else instance.stop_sensor
            stop(state.instigator_origin_id, state.selector_id, None)


def end_runs(
    instance: dg.DagsterInstance, databases: Sequence[Database], runs: Sequence[str], settings: Settings, *, seconds: float, report: Callable[[str], None]
) -> None:
    """Cancel queued runs, end running ones, and wait until they have ended.

    Args:
        seconds: longest wait. A run that has not ended by then, and has no live `fabric run` on this machine, is left to `close_dead_runs`.

    Raises:
        LeaseHeld: a `fabric run` is still running.
    """
    for run in find_unfinished(databases, runs):
        report(f"ending run {run}")
        instance.run_coordinator.cancel_run(run)
    deadline = time.monotonic() + seconds
    while True:
        marked = [run for run in runs if is_marked(run, settings)]
        if not marked and not find_unfinished(databases, runs):
            return
        if time.monotonic() > deadline:
            if marked:
                raise LeaseHeld(
                    f"`fabric run` goes on in another process, with run {', '.join(marked)}; waited {seconds:g} s",
                    remedy="it ends with its next step; then call this again, which goes on from here",
                )
            return
        time.sleep(_POLL_SECONDS)


def close_dead_runs(instance: dg.DagsterInstance, databases: Sequence[Database], runs: Sequence[str]) -> None:
    """Record runs as canceled that still count as running although nobody holds the tenant's lease: their processes have died."""
    for run in map(instance.get_run_by_id, find_unfinished(databases, runs)):
        if run:
            instance.report_run_canceled(run, message="The tenant is being offboarded, and no process of this run is alive.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
