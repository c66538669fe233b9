"""Offboardings that are killed at every step and at random moments, and finished by the next call. The proof finds what a build forgets to delete."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.faults.breakages import FORGOTTEN
from tests.faults.processes import Case, Process, wait_until
from tests.offboarding.world import NAMED, canary, copy_world, find_traces, get_environ, get_files_of_others, get_records_of_others, read_records
from tests.support.lengths import choose, choose_seeds

Start = Callable[..., Process]
STEPS = ("journal.before:1", "journal.after:1", "journal.after:2", "destination.after", "journal.after:3", "files.after:4", "history.after", "rename.after",
         "search.before", "journal.after:4", "files.after:7", "certificate.before", "certificate.after")  # fmt: skip
# One call takes about so long, once all is imported.
SECONDS = 2.0
# With test_offboarding.py one worker's: the world that all of them begin with takes longer to make than a test.
pytestmark = pytest.mark.xdist_group("offboarding")


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    return ("offboard", "acme", "--yes", "--json", "--export", str(tmp_path / "out"))


def get_certificate(process: Process) -> dict:
    """Without what must differ from one call to the next."""
    certificate = json.loads("".join(process.output))
    certificate.pop("begun")
    certificate.pop("ended_at")
    export = certificate.pop("export")
    certificate["proof"].pop("searched")
    certificate["deleted"]["files"]["locks"].pop("bytes")  # a process's id, of four digits or five
    certificate["exported"] = {entry["file"]: (entry["rows"], entry["columns"]) for entry in export["files"]}
    return certificate


@pytest.fixture(scope="session")
def whole(past: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The certificate of a call that was not killed."""
    folder = tmp_path_factory.mktemp("whole")
    command = ("offboard", "acme", "--yes", "--json", "--export", str(folder / "out"))
    process = Process(Case(command=command), environ=get_environ(copy_world(past, folder)))
    try:
        assert process.wait() == 0, process.log
        return get_certificate(process)
    finally:
        process.close()


def check_finished(world: Settings, process: Process, whole: dict) -> None:
    assert process.wait() == 0, process.log
    assert get_certificate(process) == whole
    assert find_traces(world, canary("acme"), "acme__", "acme_raw_", '["acme"') == []
    assert [row for row in read_records(world) if any(canary("acme") in cell or NAMED.search(cell) for cell in row)] == []


@pytest.mark.parametrize("step", choose(STEPS, 4))
def test_a_call_that_was_killed_at_a_step_is_finished_by_the_next(world: Settings, start: Start, command: tuple[str, ...], whole: dict, step: str) -> None:
    killed = start(Case(command=command, kill=step), environ=get_environ(world))
    assert killed.wait() == -signal.SIGKILL, killed.log
    check_finished(world, start(Case(command=command), environ=get_environ(world)), whole)


@pytest.mark.parametrize("seed", choose_seeds(2))
def test_a_call_that_was_killed_at_any_moment_is_finished_by_the_next(world: Settings, start: Start, command: tuple[str, ...], whole: dict, seed: int) -> None:
    files, records = get_files_of_others(world), get_records_of_others(world)
    killed = start(Case(command=command, within=SECONDS, seed=seed), environ=get_environ(world))
    code = killed.wait()
    assert code in (0, -signal.SIGKILL), killed.log
    if code:
        check_finished(world, start(Case(command=command), environ=get_environ(world)), whole)
    assert get_files_of_others(world) == files
    assert get_records_of_others(world) >= records


@pytest.mark.parametrize("forgotten", choose(FORGOTTEN, 4))
def test_the_proof_finds_what_a_build_forgets_to_delete(world: Settings, start: Start, forgotten: str) -> None:
    command = ("offboard", "acme", "--yes", "--json")
    forgetful = start(Case(command=command, broken=f"forget_{forgotten}"), environ=get_environ(world))
    assert forgetful.wait() == 1, forgetful.log
    left = json.loads("".join(forgetful.output))["proof"]["left"]
    assert any(forgotten.removeprefix("job_") in entry for entry in left), left
    assert canary("acme") not in "".join(left) or forgotten == "inbox"
    if forgotten == FORGOTTEN[0]:
        # What was named is taken away by a build that forgets nothing.
        sound = start(Case(command=command), environ=get_environ(world))
        assert sound.wait() == 0, sound.log


def test_a_run_that_goes_on_is_waited_for_and_leaves_nothing(world: Settings, start: Start) -> None:
    (world.data_dir / "inbox" / "acme" / "ads" / "new.csv").write_text("day,note\n2026-01-03,b\n")
    (world.data_dir / "inbox" / "acme" / "ads" / "new.csv.done").touch()
    # So long that the other command has begun its work by then, on a busy machine too.
    run = start(Case(command=("run", "acme", "--json"), hold=5.0), environ=get_environ(world))
    wait_until(lambda: run.is_committing)
    gone = start(Case(command=("offboard", "acme", "--yes", "--json")), environ=get_environ(world))
    assert gone.wait() == 0, gone.log
    assert "ending run" in gone.log
    # The step that was under way could commit; the one after it was refused.
    assert run.wait() == 1
    assert "is being offboarded" in "".join(run.output)
    assert find_traces(world, canary("acme"), "acme__", "acme_raw_", '["acme"') == []
