"""A TCP proxy on loopback that forwards until it is told to fail: a black hole, a reset, a commit whose answer never arrives.

Threads and blocking sockets: a connection that must hang is then one that waits for an event.
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_COMMIT = re.compile(rb"^Q.{4}\s*commit", re.IGNORECASE | re.DOTALL)


@dataclass
class _Link:
    """Args:
    copied: the rows in question were sent on it.
    answer_lost: what the server says from now on is thrown away.
    """

    client: socket.socket
    server: socket.socket
    copied: bool = False
    answer_lost: bool = False


class Proxy:
    """Args:
    target: the port on 127.0.0.1 that it stands in front of.
    """

    def __init__(self, target: int) -> None:
        self._target, self._links = target, list[_Link]()
        self._flows = threading.Event()
        self._flows.set()
        self._copy: re.Pattern[bytes] | None = None
        self._passed = self._limit = 0
        self._action: Callable[[], None] | None = None
        self.lost_answers = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = list[threading.Thread]()
        self._run(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        self._flows.set()
        for thread in self._threads:
            thread.join()

    @property
    def flows(self) -> bool:
        return self._flows.is_set()

    def hole(self) -> None:
        """Forward nothing more and say so to nobody; connections stay open, new ones are taken and hang."""
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()

    def reset(self) -> None:
        """End every connection by RST."""
        for link in [*self._links]:  # none that is made meanwhile
            _reset(link.client)
            _reset(link.server)

    def end(self) -> None:
        """End every connection by FIN: over TLS without the word that says so."""
        for link in [*self._links]:  # none that is made meanwhile
            _shut(link.client)
            _shut(link.server)

    def lose_commit(self, table: str) -> None:
        """Of the next connection that commits rows sent to a table by COPY: let the COMMIT through, throw the answer away, then reset it."""
        self._copy = re.compile(rb"copy [^;]*\b%s\b[^;]* from stdin" % table.encode(), re.IGNORECASE)

    def after(self, count: int, action: Callable[[], None]) -> None:
        """Call `action` once as many more bytes have passed, both ways and on all connections."""
        self._limit, self._action = self._passed + count, action

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                link = _Link(client, socket.create_connection(("127.0.0.1", self._target)))
            except OSError:
                _reset(client)
                continue
            self._links.append(link)
            self._run(self._pump, link, True)
            self._run(self._pump, link, False)

    def _pump(self, link: _Link, up: bool) -> None:
        source, sink = (link.client, link.server) if up else (link.server, link.client)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                if up:
                    self._look_for_commit(link, data)
                elif link.answer_lost:
                    self.lost_answers += 1
                    break
                sink.sendall(data)
                self._passed += len(data)
                if self._action and self._passed >= self._limit:
                    action, self._action = self._action, None
                    action()
        for end in (link.client, link.server):
            _reset(end) if link.answer_lost else _shut(end)

    def _look_for_commit(self, link: _Link, data: bytes) -> None:
        if self._copy is None:
            return
        link.copied = link.copied or bool(self._copy.search(data))
        if link.copied and _COMMIT.search(data):
            self._copy, link.answer_lost = None, True


def reroute(url: str, proxy: Proxy) -> str:
    """The same database, by way of the proxy."""
    head, _, database = url.rpartition("/")
    return f"{head.rpartition(':')[0]}:{proxy.port}/{database}"


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    end.close()
