"""`python -m fabric_assets.transform.worker.server`: imports dbt, then forks a worker per order, until its owner ends or sends no order for a while.

Standard input is the socket. An order is a message with the worker's arguments and current folder. It comes with four descriptors: the worker's standard
streams, and the pipe for its process id and exit code.
"""

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fabric_assets.drivers.duckdb_files import close_default_connection
from fabric_assets.importing import without_garbage_collection
from fabric_assets.transform.fork_server import IDLE_SECONDS, LARGEST_ORDER, NUMBER
from fabric_assets.transform.worker import __main__ as worker
from fabric_assets.transform.worker import warming

_POLL_SECONDS = 1.0
# Standard input, output and error of a worker, and its report.
_HANDLES = 4


def main() -> None:
    owner = os.getppid()
    orders = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    arguments = _serve(orders, owner)
    if arguments is None:
        os._exit(0)  # nothing is left to close
    worker.main(arguments)


def _serve(orders: socket.socket, owner: int) -> list[str] | None:
    """Fork a worker per order. In a worker this gives the arguments. In the server it gives None, once no order can come and no worker is left.

    The server outlives its last worker, because workers end with their parent. It drops an order that it cannot serve: the owner sees the end of the report.
    """
    events = selectors.PollSelector()
    events.register(orders, selectors.EVENT_READ)
    served: frozenset[tuple[str, bool]] = frozenset()
    last = time.monotonic()
    is_open = True
    while events.get_map():
        ready = events.select(_POLL_SECONDS)
        for key, _ in ready:
            if key.fileobj is not orders:
                events.unregister(key.fileobj)
                _report_end(*key.data, handle=key.fd)
                continue
            message, handles, _, _ = socket.recv_fds(orders, LARGEST_ORDER, _HANDLES)
            is_open = bool(message)
            if len(handles) < _HANDLES:  # the owner is gone, or this process may open no more files
                _close(handles)
                continue
            order, (*streams, report) = json.loads(message), handles
            served = _prepare_fork(order["arguments"], served)
            is_open = _is_alone()
            pid = _fork() if is_open else None
            if pid == 0:
                others = [handle for other in events.get_map().values() if other.data for handle in (other.fd, other.data[1])]
                orders.close()
                return _become_worker(order, streams, [report, *others])
            _close(streams)
            if pid is None:
                os.close(report)
                continue
            events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))
            _write_number(report, pid)
        if ready:  # only now: the imports for an order may take longer than a server may be idle
            last = time.monotonic()
        is_idle = len(events.get_map()) == 1 and time.monotonic() - last > IDLE_SECONDS
        if orders.fileno() != -1 and (not is_open or is_idle or os.getppid() != owner):
            events.unregister(orders)
            orders.close()  # ends the reports of orders that are still in it
    return None


def _fork() -> int | None:
    """Fork, and give the process id, which is 0 in the worker; None if there is no memory or process left for a worker."""
    try:
        return os.fork()
    except OSError:
        return None


def _prepare_fork(arguments: list[str], served: frozenset[tuple[str, bool]]) -> frozenset[tuple[str, bool]]:
    """Do what each of several workers would do first. Give the kinds of workers that were ordered: the adapter, and whether it parses the project.

    A first worker builds only the schemas that it needs. After a second order of a kind, more are likely, so all schemas are built here. What fails here fails
    in the worker too, which reports it; workers of another kind go on.
    """
    adapter, parses = arguments[0], len(arguments) == 1
    with without_garbage_collection(), contextlib.suppress(Exception):
        warming.import_dbt(adapter)
        if (adapter, parses) in served:
            warming.make_setting_schemas(adapter)
            if parses:
                warming.make_file_schemas()
    return served | {(adapter, parses)}


def _is_alone() -> bool:
    """Whether this process has no other thread: a lock that another thread holds would stay locked forever in the fork."""
    close_default_connection()
    return sum(1 for _ in Path("/proc/self/task").iterdir()) == 1


def _become_worker(order: dict[str, Any], streams: list[int], others: list[int]) -> list[str]:
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    _close([*streams, *others])
    os.chdir(order["folder"])
    return order["arguments"]


def _report_end(pid: int, report: int, *, handle: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(handle)
    _write_number(report, code)
    os.close(report)


def _close(handles: Iterable[int]) -> None:
    for handle in handles:
        os.close(handle)


def _write_number(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner has stopped reading
        os.write(report, NUMBER.pack(number))


if __name__ == "__main__":
    main()
