"""What `make dev` leaves behind: nothing, even where a part of Dagster does not heed its signals."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import dev
from tests.faults.processes import wait_until

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
LEADER = (
    f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {DEAF!r}], stdout=subprocess.PIPE); child.stdout.readline(); print(child.pid)"
)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_group_of_a_dagster_that_has_ended_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "_TERMINATE_SECONDS", 0.5)
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, process_group=0)
    output, _ = leader.communicate(timeout=60)
    child = int(output)
    assert is_running(child), "the control: it outlives its parent, and a SIGTERM"
    dev.end_group(leader.pid)
    wait_until(lambda: not is_running(child))
    assert leader.returncode != -signal.SIGKILL
