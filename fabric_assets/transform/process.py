"""A worker process as its parent sees it: one request line in, lines of events out, and no way to outlive either side.

The worker's environment is an allow-list: what a model can read with env_var() is what stands here, so neither a tenant's secrets nor ours are in it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Thread, Timer
from typing import IO, Any, cast

from fabric_assets.errors import TransformError

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
_KEPT_LINES = 40
_GRACE_SECONDS = 5


def build_environment() -> dict[str, str]:
    """The whole environment of a worker."""
    return {name: os.environ[name] for name in _ALLOWED if name in os.environ} | _FIXED


class WorkerProcess:
    """A started `fabric_assets.transform.worker`, which serves one request.

    Args:
        arguments: the kind of warehouse to get ready for; then the dbt project's folder and its prepared manifest, to rehearse on.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        # -P keeps the current folder off the import path; a session of its own lets a time-out end its children too.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fabric_assets.transform.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=build_environment(),
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        self._stdin, self._stdout, self._stderr = (cast("IO[str]", pipe) for pipe in (self._process.stdin, self._process.stdout, self._process.stderr))
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._drain = Thread(target=self._read_log, name="dbt-log", daemon=True)
        self._drain.start()
        self._timed_out = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for the imports to be done; only measuring needs it."""
        for line in self._stdout:
            if json.loads(line)["event"] == "ready":
                return

    def request(self, request: dict[str, Any], *, timeout_seconds: float | None = None) -> Iterator[dict[str, Any]]:
        """Send the one request and yield its events until `done`.

        Raises:
            TransformError: the process ended early, or was ended by the time-out; with the last lines it logged.
        """
        timer = Timer(timeout_seconds, self._end_late) if timeout_seconds else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            # stdin stays open: its end tells the worker that its parent is gone.
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
        """End the process, whatever it is doing."""
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._drain.join(_GRACE_SECONDS)
        self._stderr.close()

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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read_log(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self._stderr:
                self._log.append(line.rstrip())
