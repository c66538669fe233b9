"""An HTTP proxy on loopback: a connector's only way to the network, which connects to allowed addresses alone.

It resolves a name once, checks all its addresses, and connects to one of these. Callers show a token, so that no other process of the machine gains by it.
Only the standard library is imported, because the supervisor imports this module.
"""

import base64
import contextlib
import hmac
import select
import socket
import threading
from urllib.parse import urlsplit

from fabric_assets.security.addresses import find_objection

USER = "connector"
_BLOCK, _LONGEST_HEAD = 64 * 1024, 64 * 1024
_CONNECT_SECONDS, _HEAD_SECONDS, _IDLE_SECONDS = 10, 30, 600
_MOST_CONNECTIONS = 256


class Proxy:
    """A listening proxy with a thread per connection.

    Args:
        token: the password of its callers.
        refused: gets a line for each refused address, in the order of the requests.
    """

    def __init__(self, token: str, *, allow_private_network: bool) -> None:
        self._allow_private_network = allow_private_network
        self._expected = b"Basic " + base64.b64encode(f"{USER}:{token}".encode())
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self.port: int = self._server.getsockname()[1]
        self.refused: list[str] = []

    def start(self) -> None:
        """Answer in threads of its own, until the process ends."""
        threading.Thread(target=self._serve, daemon=True, name="proxy").start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            self._free.acquire()
            threading.Thread(target=self._answer, args=(client,), daemon=True, name="proxied connection").start()

    def _answer(self, client: socket.socket) -> None:
        try:
            # Either side may go at any moment: that ends this connection, and concerns no other.
            with contextlib.suppress(OSError, ValueError), client:
                self._handle(client)
        finally:
            self._free.release()

    def _handle(self, client: socket.socket) -> None:
        client.settimeout(_HEAD_SECONDS)
        head, rest = _read_head(client)
        method, target, _ = head[0].split(b" ", 2)
        headers = [line for line in head[1:] if not line.lower().startswith((b"proxy-", b"connection:"))]
        shown = next((line.split(b":", 1)[1].strip() for line in head[1:] if line.lower().startswith(b"proxy-authorization:")), b"")
        if not hmac.compare_digest(shown, self._expected):
            _refuse(client, 407, "the proxy of the load asks for the token in HTTPS_PROXY")
        elif method == b"CONNECT":
            host, _, port = target.decode().rpartition(":")
            self._forward(client, host, int(port), rest, answer=b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            url = urlsplit(target.decode())
            if url.scheme != "http" or not url.hostname:
                _refuse(client, 400, "the proxy of the load forwards http:// addresses and CONNECT")
                return
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            lines = [b"%s %s HTTP/1.1" % (method, path.encode()), *headers, b"Connection: close", b"", b""]
            self._forward(client, url.hostname, url.port or 80, b"\r\n".join(lines) + rest)

    def _forward(self, client: socket.socket, host: str, port: int, first: bytes, *, answer: bytes = b"") -> None:
        host = host.strip("[]")
        try:
            addresses = list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as error:
            _refuse(client, 502, f"{host}: {error.strerror}")
            return
        for address in addresses:
            if kind := find_objection(address, allow_private_network=self._allow_private_network):
                # The address itself is not told: a tenant must not learn about the platform's network.
                self.refused.append(f"{host}:{port} is {kind} address")
                _refuse(client, 403, f"{host} is {kind} address; the load does not connect to it")
                return
        try:
            server = _connect(addresses, port)
        except OSError as error:
            _refuse(client, 502, f"{host}:{port}: {error.strerror or error}")
            return
        with server:
            client.sendall(answer)
            server.sendall(first)
            _relay(client, server)


def _read_head(client: socket.socket) -> tuple[list[bytes], bytes]:
    """Read a request's lines up to the empty one, and what was sent after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = client.recv(_BLOCK)
        data += block
        if not block or len(data) > _LONGEST_HEAD:
            raise ValueError("no request")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), rest


def _connect(addresses: list[str], port: int) -> socket.socket:
    """Connect to the first address that answers."""
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_CONNECT_SECONDS)
        except OSError as error:
            failure = error
    raise failure


def _refuse(client: socket.socket, status: int, reason: str) -> None:
    body = f"{reason}\n".encode()
    challenge = b"Proxy-Authenticate: Basic\r\n" if status == 407 else b""
    client.sendall(
        b"HTTP/1.1 %d Refused\r\n%sContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, challenge, len(body), body)
    )


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Pass bytes both ways until both sides have ended, or neither sends anything for long."""
    others = {client: server, server: client}
    for each in others:
        each.settimeout(_IDLE_SECONDS)
    while others:
        ready, _, _ = select.select(list(others), [], [], _IDLE_SECONDS)
        if not ready:
            return
        for side in ready:
            other = server if side is client else client
            if block := side.recv(_BLOCK):
                other.sendall(block)
            else:
                del others[side]
                other.shutdown(socket.SHUT_WR)
