"""`python -m fabric_assets.transform.worker.server`: imports dbt, then forks a worker per order, until its owner ends or orders none for a while.

Standard input is the socket. An order is a message with the worker's arguments and current folder, and four descriptors: its standard streams, and the pipe
for the worker's process id and exit code.
"""

import contextlib
import json
import os
import selectors
import socket
import time
from pathlib import Path
from typing import Any

from fabric_assets.drivers.duckdb_files import close_default_connection
from fabric_assets.importing import collect_nothing
from fabric_assets.transform.fork_server import IDLE_SECONDS, LARGEST_ORDER, NUMBER
from fabric_assets.transform.worker import __main__ as worker
from fabric_assets.transform.worker import warming

_POLL_SECONDS = 1.0


def main() -> None:
    owner = os.getppid()
    orders = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arguments = _serve(orders, owner)
    if arguments is None:
        os._exit(0)  # nothing is left to close
    worker.main(arguments)


def _serve(orders: socket.socket, owner: int) -> list[str] | None:
    """Fork a worker per order. Gives the arguments in a worker; None in the server, once it takes no more orders and no worker is left.

    It outlives its last worker, because workers end with their parent.
    """
    events = selectors.PollSelector()
    events.register(orders, selectors.EVENT_READ)
    served: frozenset[tuple[str, bool]] = frozenset()
    last = time.monotonic()
    while events.get_map():
        for key, _ in events.select(_POLL_SECONDS):
            last = time.monotonic()
            if key.fileobj is not orders:
                events.unregister(key.fileobj)
                _report_end(*key.data, handle=key.fd)
                continue
            message, handles, _, _ = socket.recv_fds(orders, LARGEST_ORDER, 4)
            if not message:
                events.unregister(orders)
                continue
            order, (*streams, report) = json.loads(message), handles
            served = _prepare_fork(order["arguments"], served)
            _assert_alone()
            pid = os.fork()
            if not pid:
                others = [handle for other in events.get_map().values() if other.data for handle in (other.fd, other.data[1])]
                orders.close()
                return _become_worker(order, streams, [report, *others])
            for stream in streams:
                os.close(stream)
            _write_number(report, pid)
            events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))
        is_idle = len(events.get_map()) == 1 and time.monotonic() - last > IDLE_SECONDS
        if orders in events.get_map() and (is_idle or os.getppid() != owner):
            events.unregister(orders)
    return None


def _prepare_fork(arguments: list[str], served: frozenset[tuple[str, bool]]) -> frozenset[tuple[str, bool]]:
    """Do what each of several workers would do first. Gives the kinds of workers that were ordered: adapter, and whether it parses the project.

    A first worker makes only the schemas that it needs; who orders a second one of its kind will order more.
    """
    adapter, parses = arguments[0], len(arguments) == 1
    with collect_nothing():
        warming.import_dbt(adapter)
        if (adapter, parses) in served:
            warming.make_setting_schemas(adapter)
            if parses:
                warming.make_file_schemas()
    return served | {(adapter, parses)}


def _assert_alone() -> None:
    """A fork takes along no thread but its own: a lock that another thread holds stays locked for ever."""
    close_default_connection()
    threads = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    assert len(threads) == 1, f"dbt's imports have started threads: {threads}"


def _become_worker(order: dict[str, Any], streams: list[int], others: list[int]) -> list[str]:
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for handle in (*streams, *others):
        os.close(handle)
    os.chdir(order["folder"])
    return order["arguments"]


def _report_end(pid: int, report: int, *, handle: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(handle)
    _write_number(report, code)
    os.close(report)


def _write_number(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody asks any more
        os.write(report, NUMBER.pack(number))


if __name__ == "__main__":
    main()
