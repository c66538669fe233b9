"""The processes below this one: how much they use, and their end. Only the standard library is imported, because the supervisor imports this module."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat after the name, which may contain spaces: user and system time, and those of its ended children.
_TIMES = slice(11, 15)


class Use(NamedTuple):
    """What all descendants use together.

    Args:
        memory: resident bytes.
        cpu: seconds of processor time, those of ended processes included.
    """

    processes: int
    memory: int
    cpu: float


def list_descendants() -> list[int]:
    """List the living processes below this one, by their ids."""
    found, open_ = list[int](), [os.getpid()]
    while open_:
        children = _list_children(open_.pop())
        found += children
        open_ += children
    return found


def measure() -> Use:
    """Measure all descendants."""
    memory, cpu, ids = 0, 0.0, list_descendants()
    for process in ids:
        # A process may end in between.
        with contextlib.suppress(OSError, IndexError, ValueError):
            memory += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
            cpu += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[_TIMES])) / _TICKS
    ended = os.times()
    return Use(len(ids), memory, cpu + ended.children_user + ended.children_system)


def end_all() -> None:
    """Kill all descendants, also those that left their session: as a child subreaper, this process gets each orphan."""
    while True:
        for process in list_descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            # An exit is reaped here, so a loop without children ends.
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _list_children(process: int) -> list[int]:
    children = list[int]()
    # The process or its thread may have ended.
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children
