"""What goes wrong at an API ends in one message: where, why, what next; and never in a secret or a query."""

import socket
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets.errors import FabricError, SourceError, SourceUnavailable
from tests.connectors.rest_api.rest import Api, Warehouse, answer_json

CANARY = "c4n4ry-t0k3n"
QUERY = "qu3ry-v4lu3"
ROWS = [{"id": 1}, {"id": 2}]
STREAM = {"path": "contacts", "primary_key": "id", "params": {"filter": QUERY}}
AUTH = {"type": "bearer", "token": {"env": "CRM_TOKEN"}}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", CANARY)


@pytest.fixture
def other() -> Iterator[HTTPServer]:
    """A server that is not the API's: whatever it is asked is a leak."""
    with HTTPServer(host="127.0.0.1") as server:
        server.expect_request("/v1/contacts").respond_with_json(ROWS)
        yield server


def load(warehouse: Warehouse, stream: dict[str, Any] | None = None, **source: Any) -> None:
    warehouse.load({"contacts": {**STREAM, **(stream or {})}}, **{"auth": AUTH, **source})


def fail(warehouse: Warehouse, stream: dict[str, Any] | None = None, **source: Any) -> FabricError:
    """Load, and give the error; nothing of it, its causes or the working folder may hold a secret or the query."""
    with pytest.raises(FabricError) as caught:
        load(warehouse, stream, **source)
    error: BaseException | None = caught.value
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = "".join(traceback.format_exception_only(error))
        assert CANARY not in text
        assert QUERY not in text
        error = error.__cause__ or error.__context__
    for file in warehouse.settings.data_dir.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_a_refusal_is_reported_once_and_not_retried(api: Api, warehouse: Warehouse, status: int) -> None:
    api.serve("/v1/contacts", answer_json({"error": "no"}, status))
    error = fail(warehouse)
    assert isinstance(error, SourceError)
    assert error.message == f'tenant acme, source crm, stream contacts: GET {api.url}/contacts was answered with {status}; it says: {{"error": "no"}}'
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_five_times(api: Api, warehouse: Warehouse, no_waiting: list[float], status: int) -> None:
    api.serve("/v1/contacts", answer_json({}, status))
    error = fail(warehouse)
    assert isinstance(error, SourceUnavailable)
    assert f"was answered with {status}" in error.message
    assert len(api.requests) == 5


def test_a_server_that_recovers_loses_no_page(api: Api, warehouse: Warehouse, no_waiting: list[float]) -> None:
    failures = [429, 503, 500]

    def answer(request: Request) -> Any:
        if request.args["page"] == "2" and failures:
            return answer_json({}, failures.pop(), {"Retry-After": "7"})
        page = int(request.args["page"])
        return [{"id": page}] if page < 4 else []

    api.serve("/v1/contacts", answer)
    load(warehouse, {"paginator": {"type": "page_number"}})
    assert warehouse.read("select id from contacts order by id") == [(1,), (2,), (3,)]
    assert no_waiting == [7, 7, 7]


def test_an_address_without_a_server_is_retried(warehouse: Warehouse, no_waiting: list[float]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = fail(warehouse, base_url=f"http://127.0.0.1:{port}/v1")
    assert isinstance(error, SourceUnavailable)
    assert error.message == f"tenant acme, source crm, stream contacts: GET http://127.0.0.1:{port}/v1/contacts failed: connection refused"
    assert len(no_waiting) == 4


def test_an_unknown_host_is_named(warehouse: Warehouse, no_waiting: list[float]) -> None:
    error = fail(warehouse, base_url="http://no-such-host.invalid/v1")
    assert isinstance(error, SourceUnavailable)
    assert "GET http://no-such-host.invalid/v1/contacts failed: the host's name is unknown" in error.message


def test_an_untrusted_certificate_is_reported_and_not_retried(api: Api, warehouse: Warehouse, no_waiting: list[float]) -> None:
    error = fail(warehouse, base_url=api.url.replace("http://", "https://"))
    assert isinstance(error, SourceError)
    assert "no trusted TLS connection to https://localhost" in error.message
    assert no_waiting == []


@pytest.mark.parametrize("body", [b"<html>oops</html>", b"", b"[" * 100_000, b"\xff\xfe\x00"])
def test_an_answer_that_is_not_json_is_reported(api: Api, warehouse: Warehouse, body: bytes) -> None:
    api.serve("/v1/contacts", Response(body, content_type="text/html"))
    error = fail(warehouse)
    assert isinstance(error, SourceError)
    assert error.message == f"tenant acme, source crm, stream contacts: the answer of {api.url}/contacts is not JSON, but text/html"


def test_an_answer_that_breaks_off_is_not_the_end_of_the_data(warehouse: Warehouse, no_waiting: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(5):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[{"id": 1}]')

        thread = threading.Thread(target=answer)
        thread.start()
        error = fail(warehouse, base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        thread.join()
    assert isinstance(error, SourceUnavailable)


def test_what_the_server_says_is_shown_without_secrets_and_short(api: Api, warehouse: Warehouse) -> None:
    text = f"bad token {CANARY} in http://u:{CANARY}@x/ for {QUERY}"
    api.serve("/v1/contacts", lambda request: Response(f"{text} {request.query_string.decode()}\n" + "x" * 5000, status=400, content_type="text/plain"))
    with pytest.raises(SourceError) as caught:
        load(warehouse)
    assert "it says: bad token *** in http://***@x/ for" in caught.value.message
    assert CANARY not in str(caught.value)
    assert f"filter={QUERY}" not in str(caught.value)
    assert len(caught.value.message) < 400


def test_a_page_of_html_is_not_shown(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", Response("<html>secret page</html>", status=403, content_type="text/html"))
    assert "secret page" not in fail(warehouse).message


# --- nothing leaves the API's own origin


@pytest.mark.parametrize("spelling", ["http://{}/v1/contacts?page=2", "//{}/v1/contacts", "HTTP://{}/v1/contacts", "http://localhost@{}/v1/contacts"])
@pytest.mark.parametrize("where", ["json", "header"])
def test_a_link_to_another_host_is_not_followed(api: Api, warehouse: Warehouse, other: HTTPServer, where: str, spelling: str) -> None:
    link = spelling.format(f"127.0.0.1:{other.port}")
    api.serve("/v1/contacts", lambda _: answer_json({"data": ROWS, "next": link if where == "json" else None}, headers={"Link": f'<{link}>; rel="next"'}))
    paginator = {"type": "json_link", "next": "next"} if where == "json" else {"type": "header_link"}
    error = fail(warehouse, {"data": "data", "paginator": paginator})
    assert isinstance(error, SourceError)
    assert f"the API leads to http://127.0.0.1:{other.port}/v1/contacts, which is not at http://localhost:{api.server.port}" in error.message
    assert other.log == []
    assert warehouse.list_tables() == []


@pytest.mark.parametrize(
    "link", ["file:///etc/passwd", "ftp://localhost/x", "https://localhost/v1", "http://localhost:1/v1", "http://[::1/x", "http://localhost:x/"]
)
def test_a_link_to_another_scheme_or_port_is_not_followed(api: Api, warehouse: Warehouse, link: str) -> None:
    api.serve("/v1/contacts", {"data": ROWS, "next": link})
    assert isinstance(fail(warehouse, {"data": "data", "paginator": {"type": "json_link", "next": "next"}}), SourceError)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(api: Api, warehouse: Warehouse, other: HTTPServer, status: int) -> None:
    api.serve("/v1/contacts", Response(status=status, headers={"Location": f"http://127.0.0.1:{other.port}/v1/contacts"}))
    for auth in (AUTH, {"type": "api_key", "key": {"env": "CRM_TOKEN"}}):
        error = fail(warehouse, auth=auth)
        assert isinstance(error, SourceError)
        assert "it was not followed" in error.message
    assert other.log == []


def test_a_redirect_in_a_circle_ends(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", Response(status=302, headers={"Location": "/v1/contacts"}))
    assert "is redirected without end" in fail(warehouse).message


def test_the_token_of_a_client_goes_to_its_own_address_alone(api: Api, warehouse: Warehouse, other: HTTPServer) -> None:
    api.serve("/token", Response(status=307, headers={"Location": f"http://127.0.0.1:{other.port}/v1/contacts"}))
    auth = {"type": "oauth2_client_credentials", "token_url": api.server.url_for("/token"), "client_id": "x", "client_secret": {"env": "CRM_TOKEN"}}
    assert "it was not followed" in fail(warehouse, auth=auth).message
    assert other.log == []


def test_links_in_a_circle_are_found_out(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", lambda request: {"data": [{"id": int(request.args.get("page", 0))}], "next": f"?page={1 - int(request.args.get('page', 0))}"})
    error = fail(warehouse, {"data": "data", "paginator": {"type": "json_link", "next": "next"}})
    assert "leads back to a page that was read already" in error.message


def test_a_pagination_cursor_that_does_not_advance_is_refused(api: Api, warehouse: Warehouse) -> None:
    served: list[int] = []

    def answer(_: Request) -> Any:
        served.append(len(served))
        return {"data": [{"id": len(served)}], "next": "abc"}

    api.serve("/v1/contacts", answer)
    error = fail(warehouse, {"data": "data", "paginator": {"type": "cursor", "next": "next"}})
    assert "leads back to a page that was read already" in error.message


def test_pages_without_end_are_ended_by_the_sources_timeout(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", lambda request: [{"id": int(request.args["page"])}])
    error = fail(warehouse, {"paginator": {"type": "page_number"}}, timeout="1s")
    assert isinstance(error, SourceUnavailable)
    assert "the load took longer than" in error.message
