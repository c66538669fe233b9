"""Runs of `fabric run` whose process was killed -> recorded as failed by the next `fabric run`.

The daemon watches the runs that it has launched, but not those of `fabric run`. A killed one would stay "started" in the UI, and keep the tenant's pool for
ever. So each run has a file that its process keeps locked: a file without a lock belongs to a dead run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from fabric_assets import naming
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.settings import Settings

# A mark of an unknown run is kept so long.
_UNKNOWN_SECONDS = 30 * 86_400


@contextmanager
def mark_run(run_id: str, settings: Settings) -> Iterator[None]:
    """Mark the run as alive during the block; where the block raises, the next call checks whether the run's end is recorded."""
    folder = make_private_folder(naming.run_marks_dir(settings.data_dir))
    # Under the folder's lock, since a new mark that is not locked yet would look like that of a dead run.
    with FileLock(folder / ".lock"):
        mark = FileLock(folder / run_id)
    try:
        yield
        (folder / run_id).unlink(missing_ok=True)
    finally:
        mark.release()


def is_marked(run_id: str, settings: Settings) -> bool:
    """Whether a live `fabric run` has the run."""
    file = naming.run_marks_dir(settings.data_dir) / run_id
    if not file.exists():
        return False
    try:
        FileLock(file, wait=False).release()
    except BlockingIOError:
        return True
    return False


def end_dead_runs(instance: dg.DagsterInstance, settings: Settings) -> list[dg.DagsterRun]:
    """Record as failed the runs that killed processes have left started, free their pools, and return them."""
    folder = make_private_folder(naming.run_marks_dir(settings.data_dir))
    ended = list[dg.DagsterRun]()
    with FileLock(folder / ".lock"):
        for file in folder.iterdir():
            if file.name == ".lock":
                continue
            try:
                mark = FileLock(file, wait=False)
            except BlockingIOError:
                continue
            # A run that this instance does not know belongs to another DAGSTER_HOME, or was never recorded.
            run = instance.get_run_by_id(file.name)
            if run is not None:
                if not run.is_finished:
                    what = "The process of this run was killed, or lost Dagster's database. Nothing is lost or doubled: the next run goes on from there."
                    instance.report_run_failed(run, message=what)
                    ended.append(run)
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            if run is not None or time.time() - file.stat().st_mtime > _UNKNOWN_SECONDS:
                file.unlink()
            mark.release()
    return ended
