"""A process that has imported dbt -> a worker per request, forked from it. So each process imports dbt once, however many builds it starts.

The server ends with the process that started it. It holds no data of a tenant: a worker gets its request over its own pipe, after the fork.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NUMBER = struct.Struct("i")
# A process that is idle for days, as a code server, should not keep dbt in memory.
IDLE_SECONDS = 20
# Far more time than the imports need on a busy machine.
_START_SECONDS = 120
# A server reports a worker's end at once, unless it is stopped or dead.
_REPORT_SECONDS = 2
LARGEST_ORDER = 1 << 17
# Only on Linux does the kernel offer descriptors that report a process's end, and pipes that keep the bounds of messages.
IS_AVAILABLE = sys.platform == "linux"


class ServerEnded(Exception):
    """The server ended before it forked the worker."""


class ForkServer:
    """A handle of the server in the process that started it.

    Args:
        environment: the whole environment of the server and its workers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._owner = os.getpid()
        self._is_retired = False
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fabric_assets.transform.worker.server"],
                env=dict(environment),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_usable(self) -> bool:
        """Whether this process started the server, and it runs and answers."""
        return self._owner == os.getpid() and not self._is_retired and self.is_running()

    def is_running(self) -> bool:
        """Whether this process may have workers of it."""
        return self._process.poll() is None

    def retire(self) -> None:
        """Request no more workers of a server that does not answer. It runs on for its present workers."""
        self._is_retired = True

    def start(self, arguments: Sequence[str], streams: Sequence[int]) -> "ForkedProcess":
        """Request a worker. The server forks it once it has imported dbt.

        Args:
            streams: standard input, output and error of the worker; the caller closes its own copies.

        Raises:
            ServerEnded: the server is gone.
        """
        read, write = os.pipe()
        try:
            order = json.dumps({"arguments": list(arguments), "folder": str(Path.cwd())}).encode()
            socket.send_fds(self._orders, [order], [*streams, write])
        except OSError as error:
            os.close(read)
            self.retire()
            raise ServerEnded from error
        finally:
            os.close(write)
        return ForkedProcess(read, retire=self.retire)

    def kill(self) -> None:
        """Kill the server and its workers. In a process that did not start it, only close the handle."""
        self._orders.close()
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()


class ForkedProcess:
    """A worker that the server forks, with the interface of `subprocess.Popen`.

    It watches for the worker's end itself: a stopped server reports none, and a killed one leaves workers that end some time later.

    Args:
        report: the descriptor to which the server writes the worker's process id, then its exit code.
        retire: called where the server does not answer in time.
    """

    def __init__(self, report: int, *, retire: Callable[[], None]) -> None:
        self._report: int | None = report
        self._retire = retire
        self._pid: int | None = None
        self._handle: int | None = None
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Wait for the worker's process id, and give it.

        Raises:
            ServerEnded: the worker was not forked.
        """
        if not self.wait_until_forked() or self._pid is None:
            raise ServerEnded
        return self._pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code, which is negative for a signal that ended the worker. If the server does not report it, give SIGKILL's.

        Raises:
            ServerEnded: the worker was not forked.
            subprocess.TimeoutExpired: the worker still runs.
        """
        pid = self.pid
        if self._code is None:
            if not _wait_for_input(timeout, self._report, self._handle):
                raise subprocess.TimeoutExpired(str(pid), timeout or 0)
            code = self._read_number() if _wait_for_input(_REPORT_SECONDS, self._report) else None
            if code is None:
                self.kill()
                _wait_for_input(None, self._handle)
            self._code = -signal.SIGKILL if code is None else code
            self.close()
        return self._code

    def kill(self) -> None:
        """Kill the worker and its children. Nothing is done if it has ended already, since its number may be another process's."""
        if self._pid is None or self._handle is None or _wait_for_input(0, self._handle):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # a worker that was forked just now has no group yet
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def is_forked(self, timeout: float = 0) -> bool:
        """Whether there is a worker.

        Args:
            timeout: seconds to wait for the server's word.
        """
        if self._pid is None and _wait_for_input(timeout, self._report):
            self._pid = self._read_number()
            if self._pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended, and the server has reported it
                    self._handle = os.pidfd_open(self._pid)
        return self._pid is not None

    def wait_until_forked(self) -> bool:
        """Wait for the server's answer, and say whether there is a worker. A server that does not answer is retired."""
        if not self.is_forked(_START_SECONDS) and self._report is not None and not _wait_for_input(0, self._report):
            self._retire()
        return self._pid is not None

    def close(self) -> None:
        """Stop waiting for the worker."""
        for handle in (self._report, self._handle):
            if handle is not None:
                os.close(handle)
        self._report = self._handle = None

    def _read_number(self) -> int | None:
        assert self._report is not None
        written = os.read(self._report, NUMBER.size)
        return NUMBER.unpack(written)[0] if written else None


def _wait_for_input(timeout: float | None, *handles: int | None) -> bool:
    """Wait until one of these descriptors has something to read, or its other end is closed. Give False at a time-out, and at once without a descriptor."""
    # Not by select(), which accepts no descriptor above 1023.
    poll = select.poll()
    known = [handle for handle in handles if handle is not None]
    for handle in known:
        poll.register(handle, select.POLLIN)
    return bool(known and poll.poll(None if timeout is None else timeout * 1000))


_servers: dict[tuple[tuple[str, str], ...], ForkServer] = {}
# They run on for their present workers.
_retired: list[ForkServer] = []
_starting = threading.Lock()


def get_server(environment: Mapping[str, str]) -> ForkServer:
    """Give this process's server for an environment; a new one if the last one has ended."""
    key = tuple(sorted(environment.items()))
    with _starting:
        server = _servers.get(key)
        if server is not None and server.is_usable():
            return server
        if server is not None and server.is_running():
            _retired.append(server)
        elif server is not None:
            server.kill()
        server = _servers[key] = ForkServer(environment)
        return server


def _kill_servers() -> None:
    for server in (*_servers.values(), *_retired):
        server.kill()


atexit.register(_kill_servers)
