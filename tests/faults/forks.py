"""A process that has imported what cases need, and forks a process for each case: starting Python and importing it all again takes seconds.

    python -m tests.faults.forks

A forked process behaves as a started one. It has its own session, standard streams, environment and current folder, and nothing of pytest's. No thread is lost
in the fork, because the server has only one. It ends as an interpreter does, or by the signal that kills it.
"""

import atexit
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

# What a case imports otherwise by itself, when it needs it.
_PRELOADED = (
    "tests.faults.runner",
    "fabric_assets.cli.app",
    "fabric_assets.factories.instance.event_log",
    "fabric_assets.factories.runs",
    "fabric_assets.factories.instance.opening",
    "fabric_assets.offboarding.neighbours",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "fabric_assets.connectors.csv_import.source",
    "fabric_assets.connectors.files.source",
    "fabric_assets.connectors.rest_api.source",
    "fabric_assets.connectors.sql_database.source",
    "fabric_assets.warehouse.duckdb",
    "fabric_assets.warehouse.postgres",
    "dlt.common.normalizers.naming.snake_case",
    "psycopg2",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
)
# OpenBLAS and pyarrow's allocator would each start a thread as they are imported.
_WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
_NUMBER = struct.Struct("i")
_LARGEST_ORDER = 1 << 17


class ForkServer:
    """Args:
    prefix: a command that changes the rights of the process that it runs, and so of all that are forked.
    """

    def __init__(self, *prefix: str) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # In a session of its own: a Ctrl-C is meant for the tests. When they hang up, it ends.
        with theirs:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.faults.forks"],
                cwd=ROOT,
                env={**os.environ, **_WITHOUT_THREADS},
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._orders.close()
        self._process.wait()

    def start(self, file: Path, environ: Mapping[str, str], streams: tuple[int, int, int]) -> "Fork":
        """Run the case in a file.

        Args:
            streams: standard input, output and error of the process; the caller closes its own copies.
        """
        said, says = os.pipe()
        try:
            order = json.dumps({"file": str(file), "environ": dict(environ)}).encode()
            socket.send_fds(self._orders, [order], [*streams, says])
        finally:
            os.close(says)
        return Fork(said)


_servers: dict[tuple[str, ...], ForkServer] = {}
_starting = threading.Lock()


def get_server(*prefix: str) -> ForkServer:
    """This pytest worker's server for these rights."""
    with _starting:
        if prefix not in _servers:
            _servers[prefix] = ForkServer(*prefix)
        return _servers[prefix]


class Fork:
    """A process that the server has forked.

    Args:
        said: where the server says its number, and how it ended.
    """

    def __init__(self, said: int) -> None:
        self._said = said
        self._code: int | None = None
        self.pid = self._read_number()

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code (negative for the signal that ended it), or None when it still runs after so many seconds."""
        if self._code is None and select.select([self._said], [], [], seconds)[0]:
            self._code = self._read_number()
            os.close(self._said)
        return self._code

    def _read_number(self) -> int:
        said = os.read(self._said, _NUMBER.size)
        assert said, "the fork server died; it says why on standard error"
        return _NUMBER.unpack(said)[0]


# --- in the server


def main() -> int:
    # A process inherits what its parent ignores. Where pytest runs in a shell's background it ignores SIGINT, and Dagster makes SIGTERM do what SIGINT does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in _PRELOADED:
        import_module(name)
    import duckdb

    # Importing it opens a connection, which has threads.
    duckdb.default_connection().close()
    from tests.faults import runner

    file = _serve(socket.socket(fileno=os.dup(0)))
    return runner.main(file) if file else 0


def assert_alone() -> None:
    """A fork takes along no thread but the one that asks for it: whatever another one holds stays locked for ever."""
    threads = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    assert len(threads) == 1, f"the fork server has threads: {threads}"


def _serve(orders: socket.socket) -> Path | None:
    """Fork a process per order until the tests hang up; gives each of these processes its case's file."""
    events = selectors.PollSelector()
    events.register(orders, selectors.EVENT_READ)
    while True:
        for key, _ in events.select():
            if key.fileobj is not orders:
                events.unregister(key.fileobj)
                _report_end(*key.data, handle=key.fd)
                continue
            order, handles, _, _ = socket.recv_fds(orders, _LARGEST_ORDER, 4)
            if not order:
                return None
            assert_alone()
            pid = os.fork()
            if not pid:
                others = [handle for other in events.get_map().values() if other.data for handle in (other.fd, other.data[1])]
                orders.close()
                return _become(json.loads(order), handles, others)
            *streams, says = handles
            for stream in streams:
                os.close(stream)
            os.write(says, _NUMBER.pack(pid))
            events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, says))


def _become(order: dict[str, Any], handles: list[int], others: list[int]) -> Path:
    """Make the forked process one of its own."""
    os.setsid()
    for number in range(3):
        os.dup2(handles[number], number)
    for handle in (*handles, *others):
        os.close(handle)
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    return Path(order["file"])


def _report_end(pid: int, says: int, *, handle: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(handle)
    with contextlib.suppress(BrokenPipeError):  # nobody asks any more
        os.write(says, _NUMBER.pack(code))
    os.close(says)


if __name__ == "__main__":
    sys.exit(main())
