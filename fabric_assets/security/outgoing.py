"""HTTP requests to addresses that a tenant or its source names. They stay at the source's origin and out of the platform's own network.

The connection itself checks its address: a name is resolved once, all its addresses are checked, and the connection goes to one of these. If a check before
the request resolved the name, the request could resolve it again to another address.
"""

import os
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPResponse, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import Timeout
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError

from fabric_assets.errors import SourceError
from fabric_assets.private_parts import is_verified
from fabric_assets.security.addresses import find_objection

Origin = tuple[str, str, int | None]

CONNECT_SECONDS, READ_SECONDS = 10, 60
# Bytes of an unpacked answer: a page is held in memory as a whole.
LONGEST_ANSWER = 256 * 2**20

_DEFAULT_PORTS = {"http": 80, "https": 443}


class TooLate(Timeout):
    """An answer that did not end in time, although data kept arriving."""


def get_origin(url: str) -> Origin:
    """Scheme, host and port of a URL, spelled one way.

    Raises:
        ValueError: the port is not a number.
    """
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())


def show_url(url: str) -> str:
    """Write a URL for messages, without userinfo and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Guard:
    """The origins and addresses that one source's requests may go to.

    Args:
        where: tenant, source and stream, for messages.
        url: any URL of the source's own origin.
        others: origins that links and redirects may lead to; they get neither the source's login nor its headers.
    """

    def __init__(self, where: str, *, url: str, others: Iterable[str] = (), allow_private_network: bool = False) -> None:
        self.where, self._allow_private_network = where, allow_private_network
        self._own, self._others = get_origin(url), frozenset(map(get_origin, others))

    def is_own(self, url: str) -> bool:
        """Whether a URL is at the source's own origin, and not at one of the others.

        Raises:
            SourceError: it is at neither.
        """
        origin = get_origin(url)
        if origin not in self._others and origin != self._own:
            scheme, host, port = self._own
            raise SourceError(
                f"{self.where}: the API leads to {show_url(url)}, which is not at {scheme}://{host}:{port}; it was not followed, for it would get the login",
                remedy="if the other address is right, put it into base_url, or its origin under allowed_origins",
            )
        return origin == self._own

    def resolve(self, host: str, port: int) -> list[str]:
        """Resolve a host's addresses.

        Raises:
            SourceError: one of them is refused. The message does not name it, because a tenant must not learn about the platform's network.
            OSError: the name is unknown.
        """
        addresses = list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)))
        for address in addresses:
            if kind := find_objection(address, allow_private_network=self._allow_private_network):
                allowed = find_objection(address, allow_private_network=True) is None
                raise SourceError(
                    f"{self.where}: {host} is {kind} address; it was not connected to",
                    remedy="if the source is in your own network, add allow_private_network: true to it" if allowed else "name a host of the source's own",
                )
        return addresses


class Outgoing:
    """A client for one thread's requests. It goes only where the guard allows, and reads each answer in bounded time and memory.

    It uses no proxy of the machine's: a proxy would choose the address itself, unseen by the guard.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.socket: socket.socket | None = None
        self._adapter = HTTPAdapter()
        self._adapter.poolmanager.pool_classes_by_scheme = _build_pool_classes(self)

    def close(self) -> None:
        self._adapter.close()

    def fetch(self, request: PreparedRequest, *, seconds: float) -> Response:
        """Send a request and read all of its answer.

        Args:
            seconds: limit for the whole request, even if single bytes keep arriving.

        Raises:
            SourceError: the guard refuses the address, or the answer is larger than `LONGEST_ANSWER`.
            TooLate: the answer is not complete in time.
            RequestException: anything else that went wrong.
        """
        self.guard.is_own(request.url or "")
        late = threading.Event()
        self.socket = None
        timer = threading.Timer(seconds, self._hang_up, (late,))
        timer.daemon = True
        timer.start()
        response = None
        try:
            response = self._adapter.send(request, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), verify=_get_certificates())
            self._read(response)
        except Exception:
            # The error of the closed connection does not say the reason.
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if response is None or late.is_set():
            raise TooLate
        return response

    def _read(self, response: Response) -> None:
        pieces, size = [], 0
        try:
            for piece in response.iter_content(2**16):
                size += len(piece)
                if size > LONGEST_ANSWER:
                    raise SourceError(
                        f"{self.guard.where}: the answer of {show_url(response.url)} is larger than {LONGEST_ANSWER // 2**20} MiB",
                        remedy="declare a paginator, or ask for fewer rows in params",
                    )
                pieces.append(piece)
        finally:
            # An answer that was read to its end gives its connection back; else it is closed.
            response.close()
        # Where requests keeps what it has read.
        response._content = b"".join(pieces)

    def _hang_up(self, late: threading.Event) -> None:
        late.set()
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


def _get_certificates() -> str | bool:
    """Give the operator's bundle of certificates, from the variables that requests knows, else the public ones."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


class _Response(HTTPResponse):
    """An answer whose headers must be complete.

    The standard library accepts headers that break off. The lost ones can be the answer's length, or the link to the next page.
    """

    def begin(self) -> None:
        if self.headers is not None:
            return
        lines = _Lines(self.fp)
        self.fp = lines  # type: ignore[assignment]
        super().begin()
        if self.fp is lines:
            self.fp = lines.file
        if not lines.last.endswith(b"\n"):
            self.close()
            raise RemoteDisconnected("the headers broke off")


class _Lines:
    """A file that keeps its last line."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def close(self) -> None:
        self.file.close()

    def flush(self) -> None:
        self.file.flush()


def _build_pool_classes(outgoing: Outgoing) -> dict[str, type[HTTPConnectionPool]]:
    """Build classes of pools whose connections ask the guard: urllib3 wants classes here, not objects."""
    is_verified("urllib3")

    class Guarded(HTTPConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            name = self._dns_host
            try:
                addresses = outgoing.guard.resolve(name, self.port)
            except (OSError, UnicodeError) as error:
                raise NameResolutionError(self.host, self, error) from None  # type: ignore[arg-type]
            for address in addresses:
                # Host header, SNI and certificate go by the name, which is put back before they are asked for.
                self._dns_host = address
                try:
                    return super()._new_conn()
                except Exception:
                    if address == addresses[-1]:
                        raise
                finally:
                    self._dns_host = name
            raise AssertionError("a name has an address, or getaddrinfo raises")

        def getresponse(self) -> Any:
            # A connection that ends with its answer is closed at once, while the socket is still read.
            outgoing.socket = self.sock
            return super().getresponse()

    class GuardedTLS(Guarded, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Guarded  # pyright: ignore[reportAssignmentType]

    class PoolTLS(HTTPSConnectionPool):
        ConnectionCls = GuardedTLS  # pyright: ignore[reportAssignmentType]

    return {"http": Pool, "https": PoolTLS}
