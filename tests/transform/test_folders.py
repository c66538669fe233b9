"""Runs' folders: the next run clears away what a dead one left."""

import contextlib
import itertools
import stat
import threading
from pathlib import Path

from fabric_assets.transform.folders import RunFolder, sweep_folders


def test_a_new_run_removes_the_folders_of_dead_runs_and_leaves_those_of_living_ones(tmp_path: Path) -> None:
    living = RunFolder(tmp_path / "dbt" / "acme", "one")
    dead = tmp_path / "dbt" / "acme" / "run-dead"
    dead.mkdir()
    (dead / "profiles.yml").write_text("left behind")
    RunFolder(tmp_path / "dbt" / "acme", "two").remove()
    assert living.path.is_dir()
    assert not dead.exists()
    living.remove()
    assert [path.name for path in (tmp_path / "dbt" / "acme").iterdir()] == [".lock"]


def test_a_run_id_cannot_lead_out_of_the_tenants_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "../../etc/x")
    assert run.path.parent == tmp_path
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_sweeping_a_folder_in_which_nothing_ever_ran_does_nothing(tmp_path: Path) -> None:
    sweep_folders(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_thread_still_writes_to_is_removed(tmp_path: Path) -> None:
    run, end = RunFolder(tmp_path / "dbt" / "acme"), threading.Event()
    begun = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if end.is_set():
                return
            with contextlib.suppress(OSError):
                (run.path / f"{number}.log").write_text("a line")
            if number == 2_000:
                begun.set()
            # dbt writes for a moment, and then waits for the warehouse.
            if number == 20_000:
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        run.remove()
        assert not run.path.exists()
    finally:
        end.set()
        writer.join()


def test_a_second_removal_leaves_another_files_descriptor_open(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "dbt" / "acme")
    run.remove()
    with (tmp_path / "other").open("w") as other:  # gets the number of the lock's descriptor
        run.remove()
        other.write("a line")
    assert (tmp_path / "other").read_text() == "a line"
