"""A handle of a worker process in its owner: it sends one line with a request and reads lines with events. The worker ends with its owner.

The worker's environment is an allow-list. A model can read it with env_var(), so it holds neither tenants' secrets nor the platform's.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Thread, Timer
from typing import IO, Any

from fabric_assets.errors import TransformError
from fabric_assets.transform.fork_server import IS_AVAILABLE, ForkedProcess, ServerEnded, get_server

# Credentials are sent over stdin; HOME becomes the run's own folder.
_ALLOWED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH")
_FIXED = {
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    "HOME": "/nonexistent",
    # dbt 1.12 reads `.env` of its folder or of one above: the platform's own secrets.
    "PYTHON_DOTENV_DISABLED": "1",
    "PYTHONUNBUFFERED": "1",
    # The machine's own password or time zone must not get into a tenant's connection.
    "PGPASSFILE": os.devnull,
    "PGSERVICEFILE": os.devnull,
    "PGTZ": "UTC",
    "TZ": "UTC",
}
_KEPT_LINES, _KEPT_CHARACTERS = 40, 10_000
_GRACE_SECONDS = 5


def build_environment() -> dict[str, str]:
    """Build the whole environment of a worker."""
    return {name: os.environ[name] for name in _ALLOWED if name in os.environ} | _FIXED


_logger = logging.getLogger(__name__)
Streams = tuple[int, int, int]


def _fork(arguments: Sequence[str], streams: Streams) -> ForkedProcess:
    try:
        server = get_server(build_environment())
    except OSError as error:  # no process, memory or descriptor for it
        raise ServerEnded from error
    return server.start(arguments, streams)


def _spawn(arguments: Sequence[str], streams: Streams) -> "subprocess.Popen[bytes]":
    # -P keeps the current folder out of the import path. With a session of its own, a time-out ends its children too.
    stdin, stdout, stderr = streams
    command = [sys.executable, "-P", "-m", "fabric_assets.transform.worker", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=build_environment(), start_new_session=True)


class WorkerProcess:
    """A `fabric_assets.transform.worker`, which serves one request. This process's fork server forks it; if that has ended, it is started directly.

    Args:
        arguments: the kind of warehouse to prepare for; then the dbt project's folder and its prepared manifest, for a trial run.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._timed_out = False
        try:
            self._start(_fork if IS_AVAILABLE else _spawn)
        except ServerEnded:
            self._start_alone()

    @property
    def pid(self) -> int:
        self._make_sure_of_start()
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the imports are done. Only benchmarks need this."""
        self._make_sure_of_start()
        for line in self._stdout:
            if json.loads(line)["event"] == "ready":
                return

    def request(self, request: dict[str, Any], *, timeout_seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """Send the one request and yield its events until `done`.

        Raises:
            TransformError: the process ended early, or the time-out ended it. The message has its last lines of log.
        """
        self._make_sure_of_start()
        timer = Timer(timeout_seconds, self._end_late) if timeout_seconds else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            # stdin stays open: the worker ends when it is closed, which means that its owner is gone.
            with contextlib.suppress(BrokenPipeError):
                self._stdin.write(json.dumps(request) + "\n")
                self._stdin.flush()
            for line in self._stdout:
                event = json.loads(line)
                if event["event"] == "done":
                    return
                if event["event"] != "ready":
                    yield event
        finally:
            if timer:
                timer.cancel()
        self._raise_ended(timeout_seconds)

    def close(self) -> None:
        """Kill the process, even while it builds. One that is not forked yet ends as soon as it starts."""
        self._close_pipes()
        if isinstance(self._process, ForkedProcess) and not self._process.is_forked():
            self._process.close()
            return
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._drain.join(_GRACE_SECONDS)

    def _start(self, start: Callable[[Sequence[str], Streams], "subprocess.Popen[bytes] | ForkedProcess"]) -> None:
        """Start the process with pipes to it.

        Raises:
            ServerEnded: the fork server is gone.
            TransformError: the machine has no room for another process.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                stdin, to_stdin = _open_pipe(theirs, ours)
                from_stdout, stdout = _open_pipe(ours, theirs)
                from_stderr, stderr = _open_pipe(ours, theirs)
                self._process = start(self._arguments, (stdin, stdout, stderr))
            except OSError as error:
                raise TransformError(
                    f"no process can be started for dbt: {error.strerror}",
                    remedy="let this user have more processes, open files (ulimit -u, ulimit -n) or memory, or run fewer tenants at the same time",
                ) from error
            ours.pop_all()
        self._stdin = os.fdopen(to_stdin, "w", encoding="utf-8", errors="replace")
        self._stdout = os.fdopen(from_stdout, encoding="utf-8", errors="replace")
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._drain = Thread(target=_read_log, args=(os.fdopen(from_stderr, encoding="utf-8", errors="replace"), self._log), name="dbt-log", daemon=True)
        self._drain.start()

    def _make_sure_of_start(self) -> None:
        """Wait for the fork. If the server ended before it, start a process without the server."""
        if isinstance(self._process, subprocess.Popen) or self._process.wait_until_forked():
            return
        self._close_pipes()
        self._process.close()
        self._start_alone()

    def _start_alone(self) -> None:
        _logger.warning("dbt's fork server has ended or does not answer: a worker starts without it")
        self._start(_spawn)

    def _close_pipes(self) -> None:
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _raise_ended(self, timeout_seconds: float | None) -> None:
        code = self._process.wait()
        self._drain.join(_GRACE_SECONDS)
        tail = "\n".join(self._log) or "(it logged nothing)"
        if self._timed_out:
            raise TransformError(
                f"dbt was ended: it took longer than {timeout_seconds:g} seconds; its last lines:\n{tail}",
                remedy="find the slow model in the lines above, or give the transformation more time",
            )
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise TransformError(
            f"the dbt process ended early, {how}; its last lines:\n{tail}", remedy="run it again; if it ends the same way, the lines above say where"
        )

    def _end_late(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        if isinstance(self._process, ForkedProcess):
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _open_pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Open a pipe, whose ends these two exit stacks close."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _read_log(stderr: IO[str], log: deque[str]) -> None:
    """Keep the last lines. Of a line without an end, keep only its last part."""
    with stderr:
        while line := stderr.readline(_KEPT_CHARACTERS):
            log.append(line.rstrip())
