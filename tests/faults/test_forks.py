"""A forked process is one of its own, and its server has no thread that could hold anything at the fork."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.forks import ForkServer, assert_alone
from tests.faults.processes import Case, Process, describe_threads, wait_until

Start = Callable[..., Process]


def get_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_cases_of_one_server_have_sessions_of_their_own_and_die_alone(start: Start) -> None:
    one, other = start(Case(wait=True)), start(Case(wait=True))
    assert get_parent(one.pid) == get_parent(other.pid) != os.getpid()
    assert [os.getsid(process.pid) for process in (one, other)] == [one.pid, other.pid]
    one.send(signal.SIGKILL)
    assert one.wait() == -signal.SIGKILL
    assert other.is_alive


def test_rights_that_are_taken_from_a_case_are_its_servers(start: Start) -> None:
    plain, heeding = start(Case(wait=True)), start(Case(wait=True), heed_modes=True)
    assert (get_parent(plain.pid) != get_parent(heeding.pid)) == (os.geteuid() == 0)


def test_a_case_is_ended_by_signals_that_the_tests_process_ignores(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        server = ForkServer()
    finally:
        signal.signal(signal.SIGTERM, before)
    reader, writer = os.pipe()
    try:
        file = tmp_path / "case.json"
        file.write_text(json.dumps(asdict(Case(wait=True))))
        with (tmp_path / "log").open("w+b") as log:
            fork = server.start(file, dict(os.environ), (reader, log.fileno(), log.fileno()))
        os.kill(fork.pid, signal.SIGTERM)
        assert fork.wait(60) == -signal.SIGTERM
    finally:
        os.close(writer)
        os.close(reader)
        server.close()


def test_a_server_with_a_second_thread_forks_nothing() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        with pytest.raises(AssertionError, match="has threads"):
            assert_alone()
    finally:
        end.set()
        thread.join()


def test_of_a_case_that_does_not_end_the_state_and_signals_are_known(start: Start) -> None:
    process = start(Case(wait=True))
    wait_until(lambda: "State=S (sleeping)" in describe_threads(process.pid))
    (thread,) = describe_threads(process.pid).splitlines()
    assert thread.startswith(f"{process.pid} ")
    with pytest.raises(AssertionError, match=r"still running after 0\.1 s; its threads:\n\d+ .* SigBlk=0"):
        process.wait(0.1)
