"""A proxy that adds TLS to a Postgres that was built without it, as a connection pooler does. To a client it is a server that accepts only TLS.

A connection that does not ask for TLS first is closed, so whatever comes through has been encrypted.
"""

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Self

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class TlsFront:
    """Args:
    target: the port on 127.0.0.1 that it stands in front of.
    identity: the server's certificate and key.
    clients: the authority whose certificate each client must show; None asks for none.
    """

    def __init__(self, target: int, identity: tuple[Path, Path], *, clients: Path | None = None) -> None:
        self._target, self._context = target, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*identity)
        if clients:
            self._context.load_verify_locations(clients)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()

    def get_url(self, database: str, *, host: str = "localhost", **parameters: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://postgres:postgres@{host}:{self.port}/{database}?{query}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if client.recv(8) != _SSL_REQUEST:
                return
            client.sendall(b"S")
            with self._context.wrap_socket(client, server_side=True) as trusted, socket.create_connection(("127.0.0.1", self._target)) as server:
                self._pump(trusted, server)

    def _pump(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Both ways in one thread: OpenSSL's connections may not be read and written at once."""
        client.setblocking(False)
        server.setblocking(False)
        from_client, from_server = bytearray(), bytearray()
        while True:
            self._wait(client, server, wants=bool(from_server), has=bool(from_client))
            for source, waiting in ((client, from_client), (server, from_server)):
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    received = source.recv(1 << 16)
                    if not received:
                        return
                    waiting.extend(received)
            for sink, waiting in ((server, from_client), (client, from_server)):
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    if waiting:
                        del waiting[: sink.send(waiting)]

    def _wait(self, client: ssl.SSLSocket, server: socket.socket, *, wants: bool, has: bool) -> None:
        import select

        if not client.pending():
            select.select([client, server], [*([client] if wants else []), *([server] if has else [])], [])
