"""A lock on a file that two processes share; each opens the file itself."""

from pathlib import Path

import pytest

from fabric_assets.private_files import FileLock


def test_a_waiting_process_learns_who_holds_the_lock_and_gets_it_next(tmp_path: Path) -> None:
    file, seen = tmp_path / "lock", list[str]()
    holder = FileLock(file)
    holder.note("a longer text than the next")
    holder.note("4711")

    def wait(holds: str) -> None:
        seen.append(holds)
        if len(seen) == 2:
            holder.release()

    with FileLock(file, on_held=wait), pytest.raises(BlockingIOError):
        FileLock(file, wait=False)
    assert seen == ["4711", "4711"]
    FileLock(file, wait=False).release()


def test_a_lock_file_that_is_deleted_during_a_wait_is_not_created_again(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    holder = FileLock(file)

    def wait(_: str) -> None:
        file.unlink()
        holder.release()

    with FileLock(file, on_held=wait):
        assert not file.exists()


def test_a_process_that_stops_waiting_leaves_the_lock_to_its_holder(tmp_path: Path) -> None:
    def give_up(_: str) -> None:
        raise TimeoutError

    with FileLock(tmp_path / "lock"):
        with pytest.raises(TimeoutError):
            FileLock(tmp_path / "lock", on_held=give_up)
        with pytest.raises(BlockingIOError):
            FileLock(tmp_path / "lock", wait=False)
