"""Requests reach checked addresses alone, at origins that are named, in bounded time and space; whatever names and servers say."""

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_httpserver import HTTPServer
from requests import Request, Response
from requests.exceptions import RequestException, SSLError
from werkzeug import Response as Answer

from fabric_assets.errors import SourceError
from fabric_assets.security import outgoing
from fabric_assets.security.addresses import find_objection
from fabric_assets.security.outgoing import Guard, Outgoing, TooLate

PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fd12:3456::1", "::ffff:10.0.0.1"),
]
NEVER = [
    *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "::ffff:169.254.169.254", "::169.254.169.254"),
    *("fe80::1", "fe80::1%2", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "240.0.0.1", "255.255.255.255", "fec0::1", "2002:a9fe:a9fe::"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_open(address: str) -> None:
    assert find_objection(address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_need_a_permission(address: str) -> None:
    assert find_objection(address) in {"a loopback", "a private"}
    assert find_objection(address, allow_private_network=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_no_permission_opens_metadata_addresses_and_those_of_no_single_host(address: str) -> None:
    assert find_objection(address)
    assert find_objection(address, allow_private_network=True)


# --- the connection


@pytest.fixture(scope="module")
def shared() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1") as server:
        yield server


@pytest.fixture
def server(shared: HTTPServer) -> HTTPServer:
    shared.clear()
    shared.expect_request("/x").respond_with_data("answer")
    return shared


def build(url: str, **guard: Any) -> Outgoing:
    return Outgoing(Guard("tenant acme", url=url, **guard))


def fetch(url: str, *, seconds: float = 30, **guard: Any) -> Response:
    line = build(url, **guard)
    try:
        return line.fetch(Request("GET", url).prepare(), seconds=seconds)
    finally:
        line.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "LOCALHOST"])
def test_a_host_of_this_machine_is_refused_however_it_is_spelled(server: HTTPServer, host: str) -> None:
    with pytest.raises(SourceError, match="is a loopback address; it was not connected to\n  remedy: .*allow_private_network: true"):
        fetch(f"http://{host}:{server.port}/x")
    assert server.log == []
    if "[" not in host:
        assert fetch(f"http://{host}:{server.port}/x", allow_private_network=True).text == "answer"


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
def test_metadata_is_refused_whatever_the_source_allows(host: str) -> None:
    with pytest.raises(SourceError, match="it was not connected to") as caught:
        fetch(f"http://{host}/latest/meta-data", allow_private_network=True)
    assert "allow_private_network" not in caught.value.remedy


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let the names below .test have these addresses, another list at each look-up; gives the names that were looked up."""
    real = socket.getaddrinfo

    def begin(*answers: list[str]) -> list[str]:
        asked: list[str] = []

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            if not host.rstrip(".").endswith(".test"):
                return real(host, port, *args, **kwargs)
            asked.append(host)
            return [real(address, port, *args, **kwargs)[0] for address in answers[min(len(asked), len(answers)) - 1]]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return begin


def test_the_address_that_is_checked_is_the_one_that_is_connected_to(server: HTTPServer, resolve: Callable[..., list[str]]) -> None:
    """A name that changes its answer, as an attacker's own DNS server can: the second address would be the one connected to."""
    with HTTPServer(host="127.0.0.2", port=server.port) as inner:
        inner.expect_request("/x").respond_with_data("secret")
        asked = resolve(["127.0.0.1"], ["127.0.0.2"])
        response = fetch(f"http://api.test:{server.port}/x", allow_private_network=True)
        assert response.text == "answer"
        assert asked == ["api.test"]
        assert inner.log == []
        assert server.log[0][0].headers["Host"] == f"api.test:{server.port}"


@pytest.mark.parametrize("name", ["api.test", "api.test.", "API.test"])
def test_a_name_that_leads_inside_is_refused_without_telling_where(server: HTTPServer, resolve: Callable[..., list[str]], name: str) -> None:
    resolve(["127.0.0.1"])
    with pytest.raises(SourceError, match=r"^tenant acme: api\.test\.? is a loopback address; it was not connected to") as caught:
        fetch(f"http://{name}:{server.port}/x")
    assert "127.0.0.1" not in str(caught.value)
    assert server.log == []


def test_one_inner_address_among_a_names_spoils_it(server: HTTPServer, resolve: Callable[..., list[str]]) -> None:
    resolve(["93.184.215.14", "127.0.0.1"])
    with pytest.raises(SourceError, match="is a loopback address"):
        fetch(f"http://api.test:{server.port}/x")
    assert server.log == []


def test_the_next_address_is_tried_where_the_first_does_not_answer(server: HTTPServer, resolve: Callable[..., list[str]]) -> None:
    resolve(["127.0.0.3", "127.0.0.1"])
    assert fetch(f"http://api.test:{server.port}/x", allow_private_network=True).text == "answer"


def test_an_unknown_name_and_an_invalid_one_are_request_errors() -> None:
    for host in ("no-such-host.invalid", f"{'a' * 64}.example.com"):
        with pytest.raises(RequestException):
            fetch(f"http://{host}/x")


def test_the_machines_proxy_is_not_asked(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would choose the address itself, out of the guard's sight."""
    with HTTPServer(host="127.0.0.1") as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://operator:pw@127.0.0.1:{proxy.port}")
        assert fetch(f"http://127.0.0.1:{server.port}/x", allow_private_network=True).text == "answer"
        assert proxy.log == []


# --- TLS goes by the name


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str | None]]]:
    """A server for api.test whose certificate the machine trusts: its port, and the names that clients asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, tmp_path / "key.pem")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with HTTPServer(host="127.0.0.1", ssl_context=context) as server:
        server.expect_request("/x").respond_with_data("answer")
        yield server.port, asked


def test_a_certificate_is_checked_by_the_name_though_the_connection_goes_to_an_address(
    tls: tuple[int, list[str | None]], resolve: Callable[..., list[str]]
) -> None:
    port, asked = tls
    resolve(["127.0.0.1"])
    assert fetch(f"https://api.test:{port}/x", allow_private_network=True).text == "answer"
    with pytest.raises(SSLError, match="certificate verify failed"):
        fetch(f"https://other.test:{port}/x", allow_private_network=True)
    assert asked == ["api.test", "other.test"]


# --- origins


@pytest.mark.parametrize(
    "url",
    ["https://cdn.test/x", "http://api.test/x", "https://api.test:8443/x", "https://api.test.evil.test/", "https://api.test@evil.test/", "file:///etc/passwd"],
)
def test_another_origin_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="which is not at https://api.test:443; it was not followed, for it would get the login"):
        Guard("tenant acme", url="https://api.test/v1").is_own(url)


def test_a_listed_origin_is_open_and_not_the_sources_own() -> None:
    guard = Guard("tenant acme", url="https://api.test/v1", others=["https://cdn.test"])
    assert [guard.is_own(url) for url in ("https://api.test:443/x", "HTTPS://API.test", "https://cdn.test/x")] == [True, True, False]


def test_a_fetch_asks_the_guard(server: HTTPServer) -> None:
    line = build("http://127.0.0.1:1", allow_private_network=True)
    with pytest.raises(SourceError, match="it was not followed"):
        line.fetch(Request("GET", f"http://127.0.0.1:{server.port}/x").prepare(), seconds=5)
    assert server.log == []


# --- time and space


@contextlib.contextmanager
def drip(before: bytes, *, every: float = 0.05) -> Iterator[int]:
    """A server that sends a beginning at once, and the rest byte by byte without end; gives its port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(before)
                    while not done.wait(every):
                        connection.sendall(b"1")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 ",
    ],
    ids=["body", "body that ends with the connection", "header", "status"],
)
def test_a_byte_now_and_then_does_not_keep_a_request_alive(before: bytes) -> None:
    with drip(before) as port, pytest.raises(TooLate):
        fetch(f"http://127.0.0.1:{port}/x", seconds=0.5, allow_private_network=True)


def test_an_answer_in_time_gives_its_connection_back(server: HTTPServer) -> None:
    url = f"http://127.0.0.1:{server.port}/x"
    line = build(url, allow_private_network=True)
    assert [line.fetch(Request("GET", url).prepare(), seconds=5).text for _ in range(3)] == ["answer"] * 3
    line.close()


def test_an_answer_larger_than_memory_is_not_read_to_its_end(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "LONGEST_ANSWER", 2**20)
    bomb = gzip.compress(b"0" * 2**22)
    server.expect_request("/bomb").respond_with_response(Answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert len(bomb) < 2**14
    with pytest.raises(SourceError, match=r"tenant acme: the answer of http://127\.0\.0\.1:\d+/bomb is larger than 1 MiB"):
        fetch(f"http://127.0.0.1:{server.port}/bomb", allow_private_network=True)
