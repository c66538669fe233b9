"""A worker process as its owner sees it: one request line in, lines of events out, and no way to outlive either side.

The worker's environment is an allow-list: what a model can read with env_var() is what stands here, so neither a tenant's secrets nor ours are in it.
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

# Credentials come over stdin; HOME becomes the run's own folder.
_ALLOWED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH")
_FIXED = {
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    "HOME": "/nonexistent",
    "PYTHONUNBUFFERED": "1",
    # A password or a time zone of the machine's own must not slip into a tenant's connection.
    "PGPASSFILE": os.devnull,
    "PGSERVICEFILE": os.devnull,
    "PGTZ": "UTC",
    "TZ": "UTC",
}
_KEPT_LINES, _KEPT_CHARACTERS = 40, 10_000
_GRACE_SECONDS = 5


def build_environment() -> dict[str, str]:
    """The whole environment of a worker."""
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
    # -P keeps the current folder off the import path; a session of its own lets a time-out end its children too.
    stdin, stdout, stderr = streams
    command = [sys.executable, "-P", "-m", "fabric_assets.transform.worker", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=build_environment(), start_new_session=True)


class WorkerProcess:
    """A `fabric_assets.transform.worker`, which serves one request: forked by this process's fork server, or started where that has ended.

    Args:
        arguments: the kind of warehouse to get ready for; then the dbt project's folder and its prepared manifest, to rehearse on.
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
        """Wait for the imports to be done; only measuring needs it."""
        self._make_sure_of_start()
        for line in self._stdout:
            if json.loads(line)["event"] == "ready":
                return

    def request(self, request: dict[str, Any], *, timeout_seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """Send the one request and yield its events until `done`.

        Raises:
            TransformError: the process ended early, or was ended by the time-out; with the last lines it logged.
        """
        self._make_sure_of_start()
        timer = Timer(timeout_seconds, self._end_late) if timeout_seconds else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            # stdin stays open: its end tells the worker that its owner is gone.
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
        """End the process, whatever it is doing; one that is not forked yet ends as it begins."""
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
        """Wait for the fork; where the server has ended before it, start a process without it."""
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
    """A pipe, whose ends are closed by these."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _read_log(stderr: IO[str], log: deque[str]) -> None:
    """Keep the last lines; of a line without an end, no more than its last part."""
    with stderr:
        while line := stderr.readline(_KEPT_CHARACTERS):
            log.append(line.rstrip())
