"""The supervisor: a small process between a load and a connector. It confines the connector, watches its limits, and ends all that it has started.

A load is no child subreaper itself: it would get the orphans of all its other children. The load writes the request into a pipe, whose end tells the
supervisor that the load is gone. The supervisor is two processes: should one be killed, the other one ends what the connector has started. Only the standard
library and modules without other imports are imported, so that it starts in some 60 ms.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fabric_assets.connectors.bridge.process import descendants, landlock, system_calls
from fabric_assets.connectors.bridge.process.proxy import USER, Proxy

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WATCH_SECONDS = 1.0
# Exit code of a child that could not become the connector.
NOT_STARTED = 126


@dataclass(frozen=True)
class Request:
    """What a load asks for.

    Args:
        command: the program and its arguments.
        environ: the connector's whole environment; the addresses of the proxy are added.
        folder: the connector's private folder, which is its HOME and working folder.
        descriptors: open files that the connector inherits.
        is_confined: False for a connector that the operators trust.
        memory: bytes that all its processes may hold.
        cpu: seconds of processor time of all its processes.
        seconds: the longest time that it may run.
        processes: how many processes it may have at a time.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    folder: str
    readable: Sequence[str]
    writable: Sequence[str]
    descriptors: Sequence[int]
    token: str
    is_confined: bool
    allow_private_network: bool
    memory: int
    cpu: float
    seconds: float
    processes: int


@dataclass(frozen=True)
class Ending:
    """How a connector ended.

    Args:
        code: its exit code; negative for a signal.
        limit: the limit that it exceeded; empty if none: memory, cpu, seconds, processes.
        problem: why it could not be started.
        refused: addresses that the proxy did not connect to.
    """

    code: int
    limit: str = ""
    problem: str = ""
    memory: int = 0
    cpu: float = 0.0
    refused: Sequence[str] = ()


def main() -> None:
    """Read the request, run the connector, and write its `Ending`. The arguments are the numbers of two descriptors: to read from, and to write to."""
    lifeline, answer = map(int, sys.argv[1:3])
    guard = _fork_from_guard()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    request = _read_request(lifeline)
    if request is None:
        return
    proxy = Proxy(request.token, allow_private_network=request.allow_private_network)
    faults, fault = os.pipe()
    # The child is forked while this process has one thread.
    own = os.getpid()
    child = os.fork()
    if child == 0:
        _become(request, proxy.port, fault, parent=own)
    os.close(fault)
    # What the connector writes ends with the connector, not with this process.
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    proxy.start()
    ending = _watch(child, (lifeline, guard), request, proxy)
    if ending is None:
        descendants.end_all()
        return
    with os.fdopen(faults) as told:
        problem = told.read()
    with os.fdopen(answer, "w") as end:
        json.dump(asdict(ending) | {"problem": problem}, end)


def _fork_from_guard() -> int:
    """Go on in a child. The parent is its guard: a child subreaper that waits for its end, and then ends what it has left.

    Returns:
        a descriptor that gets readable when the guard ends.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guard, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        return guard
    # What the connector writes ends without the guard, and the load's pipes do.
    os.dup2(held, 0)
    os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    os.waitpid(child, 0)
    descendants.end_all()
    os._exit(0)


def _read_request(lifeline: int) -> Request | None:
    """Read the request's line; None if the load ended before it was written."""
    data = b""
    while not data.endswith(b"\n"):
        block = os.read(lifeline, 65536)
        if not block:
            return None
        data += block
    return Request(**json.loads(data))


def _watch(child: int, lifelines: Sequence[int], request: Request, proxy: Proxy) -> Ending | None:
    """Wait for the connector's end, and end all that it leaves behind.

    Args:
        lifelines: descriptors that get readable when the load or the guard is gone.

    Returns:
        None if one of them is gone.
    """
    ends, watched, peak = time.monotonic() + request.seconds, 0.0, descendants.Use(0, 0, 0.0)
    limit, code = "", None
    # It gets readable when the connector ends.
    ended = os.pidfd_open(child)
    while code is None:
        # Data after the request is not expected: the pipe gets readable when the load closes it, or ends.
        if {*select.select([*lifelines, ended], [], [], _WATCH_SECONDS)[0]} - {ended}:
            return None
        if (now := time.monotonic()) >= watched:
            watched, use = now + _WATCH_SECONDS, descendants.measure()
            peak = use._replace(memory=max(use.memory, peak.memory))
            limit = _find_limit(use, request) or ("seconds" if now > ends else "")
            if limit:
                break
        code = _reap(child)
    descendants.end_all()
    used = os.times()
    return Ending(
        code=-signal.SIGKILL if code is None else code, limit=limit, memory=peak.memory, cpu=used.children_user + used.children_system, refused=proxy.refused
    )


def _reap(child: int) -> int | None:
    """Reap ended descendants; return the connector's exit code once it has ended."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == child:
            return os.waitstatus_to_exitcode(status)
        if not ended:
            return None


def _find_limit(use: descendants.Use, request: Request) -> str:
    if use.memory > request.memory:
        return "memory"
    if use.cpu > request.cpu:
        return "cpu"
    return "processes" if use.processes > request.processes else ""


def _become(request: Request, port: int, fault: int, *, parent: int) -> None:
    """Turn this forked child into the connector. Does not return."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)  # the supervisor died before the signal was set
        os.umask(0o077)
        os.chdir(request.folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # A process may reach the limit between two looks at it.
        seconds = int(request.cpu) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        for number in request.descriptors:
            os.set_inheritable(number, True)
        if request.is_confined:
            system_calls.drop_privileges()
            landlock.restrict(readable=map(Path, request.readable), writable=map(Path, request.writable), port=port)
            system_calls.restrict()
        address = f"http://{USER}:{request.token}@127.0.0.1:{port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = {name: address for each in names for name in (each, each.lower())}
        os.execve(request.command[0], list(request.command), {**request.environ, **proxies})  # noqa: S606
    except BaseException as error:  # noqa: BLE001 - told to the load, which has this process's parent only
        os.write(fault, f"{type(error).__name__}: {error}".encode())
    os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()
