"""What an API or the way to it does wrong: waits, tokens, pages, broken answers and addresses (scenarios 24, 25, 26 and 34).

Real servers on loopback; the engine reads what the connector gives. At the end each promise is taken away in turn, and its test must go red.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets.connectors.rest_api import auth as rest_auth
from fabric_assets.connectors.rest_api import failures as rest_failures
from fabric_assets.connectors.rest_api import pages as rest_pages
from fabric_assets.connectors.rest_api import session as rest_session
from fabric_assets.errors import FabricError, RefusedRequest, SourceError, SourceUnavailable
from fabric_assets.security import outgoing
from tests.connectors.rest_api.rest import Api, Reading, answer_json, read, skip_pauses

CANARY = "c4n4ry-t0k3n"
ROWS = [{"id": number, "name": f"name {number}"} for number in range(1, 8)]
BY_PAGE = {"path": "contacts", "primary_key": "id", "data": "data", "paginator": {"type": "page_number", "total": "pages"}}
BY_LINK = {"path": "contacts", "primary_key": "id", "data": "data", "paginator": {"type": "json_link", "next": "next"}}
BY_OFFSET = {"path": "contacts", "primary_key": "id", "data": "data", "paginator": {"type": "offset", "limit": 3}}
ALL = {"path": "contacts", "primary_key": "id"}
BEARER = {"type": "bearer", "token": {"env": "CRM_TOKEN"}}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[HTTPServer, HTTPServer]]:
    """The API's, and another host's at the same port."""
    with HTTPServer(host="127.0.0.1", threaded=True) as server, HTTPServer(host="127.0.0.2", port=server.port) as other:
        yield server, other


@pytest.fixture
def api(servers: tuple[HTTPServer, HTTPServer]) -> Api:
    servers[0].clear()
    return Api(servers[0])


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return skip_pauses(monkeypatch)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", CANARY)


def fetch(api: Api, stream: dict[str, Any], **source: Any) -> list[dict[str, Any]]:
    return read({"contacts": stream}, **{"base_url": api.url, **source}).get_rows("contacts")


def fail(api: Api | str, stream: dict[str, Any], kind: type[FabricError], **source: Any) -> str:
    with pytest.raises(kind) as caught:
        read({"contacts": stream}, **{"base_url": api if isinstance(api, str) else api.url, **source})
    assert isinstance(caught.value, kind)
    assert CANARY not in str(caught.value)
    return str(caught.value)


def get_page(request: Request) -> dict[str, Any]:
    page = int(request.args.get("page", 1))
    return {"data": ROWS[page * 3 - 3 : page * 3], "pages": 3}


# --- 24: servers that ask for patience


def fail_first(*answers: Response) -> Callable[[Request], Any]:
    left = list(answers)
    return lambda request: left.pop(0) if left else ROWS


@pytest.mark.parametrize("status", [202, 403, 429, 503])
def test_a_wait_in_seconds_is_kept(api: Api, no_waiting: list[float], status: int) -> None:
    waits = [answer_json({}, status, {"Retry-After": seconds}) for seconds in ("7", "7.5", " 7 ")]
    api.serve("/v1/contacts", fail_first(*waits))
    assert fetch(api, ALL) == ROWS
    assert no_waiting == [7, 7.5, 7]


@pytest.mark.parametrize("status", [202, 403, 429])
def test_a_wait_until_a_date_is_kept(api: Api, no_waiting: list[float], status: int) -> None:
    api.serve("/v1/contacts", fail_first(answer_json({}, status, {"Retry-After": formatdate(time.time() + 40, usegmt=True)})))
    assert fetch(api, ALL) == ROWS
    assert 35 < no_waiting[0] <= 40


@pytest.mark.parametrize("wait", ["soon", "-5", "0", "0.0", "7.5s", "Fri, 99 Foo", "Fri, 31 Dec 1999 23:59:59 GMT", "١٢"])
def test_an_invalid_wait_is_treated_as_missing(api: Api, no_waiting: list[float], wait: str) -> None:
    api.serve("/v1/contacts", fail_first(answer_json({}, 429, {"Retry-After": wait.encode().decode("latin-1")})))
    assert fetch(api, ALL) == ROWS
    assert 0.5 <= no_waiting[0] <= 1


@pytest.mark.parametrize("wait", ["1000000000", "Fri, 31 Dec 2100 23:59:59 GMT", "301"])
def test_a_wait_that_is_too_long_is_left_to_the_steps_own_retry(api: Api, no_waiting: list[float], wait: str) -> None:
    api.serve("/v1/contacts", answer_json({}, 429, {"Retry-After": wait}))
    assert f"was answered with 429, Retry-After: {wait}" in fail(api, ALL, SourceUnavailable)
    assert no_waiting == []
    assert len(api.requests) == 1


def test_a_wait_past_the_sources_timeout_is_not_begun(api: Api, no_waiting: list[float]) -> None:
    api.serve("/v1/contacts", answer_json({}, 429, {"Retry-After": "120"}))
    fail(api, ALL, SourceUnavailable, timeout="60s")
    assert no_waiting == []


@pytest.mark.parametrize("status", [202, 408, 425, 429, 500, 502, 503, 504])
def test_a_storm_is_met_five_times_each_time_later(api: Api, no_waiting: list[float], status: int) -> None:
    api.serve("/v1/contacts", answer_json({}, status))
    assert f"was answered with {status}" in fail(api, ALL, SourceUnavailable)
    assert len(api.requests) == 5
    assert all(longest / 2 <= pause <= longest for pause, longest in zip(no_waiting, [1, 2, 4, 8], strict=True))


def test_loads_do_not_come_back_all_at_once(api: Api, no_waiting: list[float]) -> None:
    api.serve("/v1/contacts", answer_json({}, 503))
    for _ in range(5):
        fail(api, ALL, SourceUnavailable)
    assert len(set(no_waiting)) == 20


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 405, 410, 422])
def test_what_will_not_pass_is_asked_once(api: Api, no_waiting: list[float], status: int) -> None:
    """The op repeats no SourceError either: that the error is one is what keeps the run from asking again."""
    api.serve("/v1/contacts", answer_json({}, status, {} if status == 403 else {"Retry-After": "1"}))
    fail(api, ALL, SourceError, auth=BEARER)
    assert len(api.requests) == 1
    assert no_waiting == []


def test_pauses_are_reported_when_they_begin(api: Api, no_waiting: list[float]) -> None:
    api.serve("/v1/contacts", fail_first(answer_json({}, 429, {"Retry-After": "7"})))
    messages = read({"contacts": ALL}, base_url=api.url).messages
    assert messages == [
        f"tenant acme, source crm, stream contacts: GET {api.url}/contacts was answered with 429, Retry-After: 7; it says: {{}}; tries again in 7 s (wait 1)"
    ]


def test_hundreds_of_waits_are_a_few_lines_with_their_query_and_their_count(api: Api, no_waiting: list[float]) -> None:
    """One line for each of 310 refusals hides what else a run says."""
    refused: set[str] = set()

    def answer(request: Request) -> Any:
        page = request.args["page"]
        if page not in refused:
            refused.add(page)
            return answer_json({}, 429, {"Retry-After": "1"})
        return {"data": [{"id": int(page)}], "pages": 310}

    api.serve("/v1/contacts", answer)
    reading = read({"contacts": {**BY_PAGE, "params": {"kind": "a & b"}}}, base_url=api.url)
    assert len(reading.get_rows("contacts")) == len(no_waiting) == 310
    first, *others = reading.messages
    assert first.endswith("query: ?kind=a & b&page=1; tries again in 1 s (wait 1)")
    assert others == [
        f"tenant acme, source crm, stream contacts: waits 2 to 310, 309 s in all (429: 309); the last: GET {api.url}/contacts?kind=a & b&page=310"
    ]


def test_a_long_wait_has_a_line_of_its_own_and_no_line_has_a_credential(api: Api, no_waiting: list[float]) -> None:
    link = f"{api.url}/contacts?access_token={CANARY}&page=2"
    pages = fail_first(answer_json({}, 429, {"Retry-After": "1"}), answer_json({}, 503, {"Retry-After": "1"}), answer_json({}, 429, {"Retry-After": "90"}))

    def answer(request: Request) -> Any:
        if "page" not in request.args:
            return {"data": ROWS[:1], "next": link}
        given = pages(request)
        return given if isinstance(given, Response) else {"data": ROWS[1:]}

    api.serve("/v1/contacts", answer)
    reading = read({"contacts": BY_LINK}, base_url=api.url)
    assert reading.get_rows("contacts") == ROWS
    assert [message.rpartition("; ")[2] for message in reading.messages] == [
        "tries again in 1 s (wait 1)",
        f"the last: GET {api.url}/contacts?access_token=***&page=2",
        "tries again in 90 s (wait 3)",
    ]
    assert CANARY not in "".join(reading.messages)


RESET = {"epoch": lambda: str(int(time.time()) + 40), "milliseconds": lambda: str(int(time.time() + 40) * 1000), "delta": lambda: "40"}


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize("prefix", ["X-RateLimit", "x-rate-limit", "RateLimit"])
@pytest.mark.parametrize("reset", RESET)
def test_a_rate_limit_that_is_used_up_is_waited_for(api: Api, no_waiting: list[float], status: int, prefix: str, reset: str) -> None:
    headers = {f"{prefix}-Remaining": "0", f"{prefix}-Reset": RESET[reset]()}
    api.serve("/v1/contacts", fail_first(answer_json({"message": "no"}, status, headers)))
    reading = read({"contacts": ALL}, base_url=api.url)
    assert reading.get_rows("contacts") == ROWS
    assert 38 <= no_waiting[0] <= 41
    assert "no request is left of the rate limit" in reading.messages[0]


@pytest.mark.parametrize("header", ['"default";r=0;t=40', "limit=10, remaining=0, reset=40"])
def test_a_rate_limit_in_one_header_is_waited_for(api: Api, no_waiting: list[float], header: str) -> None:
    api.serve("/v1/contacts", fail_first(answer_json({}, 403, {"RateLimit": header})))
    assert fetch(api, ALL) == ROWS
    assert no_waiting == [40]


def test_of_several_windows_the_one_that_is_used_up_counts(api: Api, no_waiting: list[float]) -> None:
    headers = {"X-RateLimit-Remaining-Minute": "0", "X-RateLimit-Reset-Minute": "20", "X-RateLimit-Remaining-Day": "10", "X-RateLimit-Reset-Day": "80000"}
    api.serve("/v1/contacts", fail_first(answer_json({}, 403, headers)))
    assert fetch(api, ALL) == ROWS
    assert no_waiting == [20]


@pytest.mark.parametrize("said", ["You have exceeded a secondary rate limit", "Too many requests, slow down"])
def test_a_rate_limit_in_words_alone_is_waited_for(api: Api, no_waiting: list[float], said: str) -> None:
    api.serve("/v1/contacts", fail_first(answer_json({"message": said}, 403)))
    reading = read({"contacts": ALL}, base_url=api.url)
    assert reading.get_rows("contacts") == ROWS
    assert "was answered with 403 (the API's rate limit is reached)" in reading.messages[0]


@pytest.mark.parametrize("headers", [{"X-RateLimit-Remaining": "57"}, {"X-RateLimit-Remaining": "0.5"}, {"X-RateLimit-Reset": "1"}])
def test_a_refusal_with_requests_left_is_one(api: Api, no_waiting: list[float], headers: dict[str, str]) -> None:
    api.serve("/v1/contacts", answer_json({"message": "no"}, 403, headers))
    assert "the login is known but may not read this" in fail(api, ALL, SourceError)
    assert len(api.requests) == 1


def test_a_rate_limit_that_lasts_too_long_is_named_and_left_to_the_steps_own_retry(api: Api, no_waiting: list[float]) -> None:
    api.serve("/v1/contacts", answer_json({}, 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3000"}))
    assert "the API limits how often it is asked" in fail(api, ALL, SourceUnavailable)
    assert len(api.requests) == 1


ERROR = {"message": f"too busy, {CANARY}", "code": 5}


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        ({"error": ERROR}, "data"),
        ({"error": ERROR}, None),
        ({"errors": [ERROR]}, None),
        ({"errors": [ERROR], "data": None}, "data"),
        ({"errors": [ERROR], "data": []}, "data"),
        ({"ok": False, "error": "ratelimited"}, None),
        ({"message": "busy"}, "data"),
    ],
)
@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_an_error_that_comes_as_a_success_is_not_taken_for_no_rows(api: Api, answer: Any, data: str | None, disposition: str) -> None:
    api.serve("/v1/contacts", answer)
    stream = {"path": "contacts", **({"primary_key": "id"} if disposition == "merge" else {}), **({"data": data} if data else {})}
    fail(api, stream, SourceError, auth=BEARER)


def test_an_error_on_a_later_page_does_not_count_as_the_last_page(api: Api) -> None:
    api.serve("/v1/contacts", lambda request: get_page(request) if request.args["page"] == "1" else {"error": "busy"})
    fail(api, BY_PAGE, SourceError)


# --- 25: tokens that end


class Office:
    """Gives out tokens, and an API that takes only the newest."""

    def __init__(self, api: Api, *, expires_in: int = 3600) -> None:
        self.api, self.given, self.refused = api, 0, set[str]()
        api.serve("/token", self._give)
        self.auth = {
            "type": "oauth2_client_credentials",
            "token_url": api.server.url_for("/token"),
            "client_id": "acme",
            "client_secret": {"env": "CRM_TOKEN"},
        }
        self.answer: Any = None
        self._expires_in = expires_in

    def _give(self, _: Request) -> Any:
        self.given += 1
        return self.answer if self.answer is not None and self.given > 1 else {"access_token": f"token-{self.given}", "expires_in": self._expires_in}

    def check(self, request: Request) -> Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return answer_json({"error": f"{token} has ended"}, 401) if token in self.refused else None


def test_a_token_that_ends_before_its_time_is_renewed_and_the_page_asked_for_again(api: Api, no_waiting: list[float]) -> None:
    office = Office(api)

    def answer(request: Request) -> Any:
        if request.args["page"] == "2":
            office.refused.add("token-1")
        return office.check(request) or get_page(request)

    api.serve("/v1/contacts", answer)
    assert fetch(api, BY_PAGE, auth=office.auth) == ROWS
    assert [query["page"] for query in api.get_queries("/v1/contacts")] == ["1", "2", "2", "3"]
    assert office.given == 2
    assert no_waiting == []


def test_a_second_refusal_of_a_page_ends_the_load(api: Api, no_waiting: list[float]) -> None:
    office = Office(api)
    office.refused |= {"token-1", "token-2", "token-3"}
    api.serve("/v1/contacts", lambda request: office.check(request) or get_page(request))
    error = fail(api, BY_PAGE, SourceError, auth=office.auth)
    assert "was answered with 401" in error
    assert "token-2" not in error
    assert (office.given, len(api.get_queries("/v1/contacts"))) == (2, 2)


@pytest.mark.parametrize(
    ("answer", "kind", "asked"),
    [(answer_json({"error": "gone"}, 400), SourceError, 1), (answer_json({}, 503), SourceUnavailable, 5), ({"access_token": None}, SourceError, 1)],
)
def test_a_token_that_cannot_be_renewed_ends_the_load_and_skips_no_page(
    api: Api, no_waiting: list[float], answer: Any, kind: type[FabricError], asked: int
) -> None:
    office = Office(api)
    office.answer = answer

    def serve(request: Request) -> Any:
        if request.args["page"] == "2":
            office.refused.add("token-1")
        return office.check(request) or get_page(request)

    api.serve("/v1/contacts", serve)
    assert "the token of its auth" in fail(api, BY_PAGE, kind, auth=office.auth)
    assert office.given == 1 + asked
    assert [query["page"] for query in api.get_queries("/v1/contacts")] == ["1", "2"]


def test_streams_side_by_side_renew_their_token_once(api: Api) -> None:
    office = Office(api)
    office.refused.add("token-1")
    both = threading.Barrier(2, timeout=10)

    def answer(request: Request) -> Any:
        refusal = office.check(request)
        if refusal:
            both.wait()
        return refusal or ROWS

    for path in ("/v1/contacts", "/v1/leads"):
        api.serve(path, answer)
    reading = Reading()
    reader = reading.open({"contacts": ALL, "leads": {**ALL, "path": "leads"}}, base_url=api.url, auth=office.auth, max_connections=2)
    assert reader.connections == 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(reading.collect, reader.groups))
    reader.close()
    assert (reading.get_rows("contacts"), reading.get_rows("leads")) == (ROWS, ROWS)
    assert office.given == 2


# --- 26: pages


def test_a_link_to_the_page_itself_is_found_out(api: Api) -> None:
    api.serve("/v1/contacts", lambda request: {"data": ROWS[:3], "next": request.url})
    fail(api, BY_LINK, SourceError)
    assert len(api.requests) == 2


def test_links_in_a_circle_are_found_out(api: Api) -> None:
    def answer(request: Request) -> Any:
        page = int(request.args.get("page", 0))
        return {"data": ROWS[page : page + 1], "next": f"?page={page % 3 + 1}"}

    api.serve("/v1/contacts", answer)
    assert "leads back to a page that was read already" in fail(api, BY_LINK, SourceError)
    assert len(api.requests) == 5


@pytest.mark.parametrize("stream", [BY_OFFSET, {**BY_PAGE, "paginator": {"type": "page_number"}}])
def test_a_server_that_gives_one_page_for_ever_is_found_out(api: Api, stream: dict[str, Any]) -> None:
    api.serve("/v1/contacts", lambda _: {"data": ROWS[:3], "at": len(api.requests)})
    assert "the same page again and again" in fail(api, stream, SourceError)
    assert len(api.requests) == 2


def test_empty_pages_with_a_link_are_no_end(api: Api) -> None:
    pages = [ROWS[:2], [], [], ROWS[2:], []]

    def answer(request: Request) -> Any:
        page = int(request.args.get("page", 0))
        return {"data": pages[page], "next": f"?page={page + 1}" if page < 4 else None}

    api.serve("/v1/contacts", answer)
    assert fetch(api, BY_LINK) == ROWS


COUNTED = [{"type": "offset", "limit": 3, "total": "total"}, {"type": "page_number", "total": "total"}]


@pytest.mark.parametrize("paginator", COUNTED)
def test_a_total_that_shrinks_leaves_no_row_out(api: Api, paginator: dict[str, Any]) -> None:
    """Rows 1 to 3 are deleted after the first page: the others move up, and the next page would begin behind three of them."""

    def answer(request: Request) -> Any:
        rows = ROWS if len(api.requests) == 1 else ROWS[3:]
        start = int(request.args["offset"]) if "offset" in request.args else int(request.args["page"]) * 3 - 3
        return {"data": rows[start : start + 3], "total": len(rows) if "offset" in request.args else -(-len(rows) // 3)}

    api.serve("/v1/contacts", answer)
    assert "while the pages were read" in fail(api, {**BY_PAGE, "paginator": paginator}, SourceUnavailable)


# --- 26: answers that break


class Wire:
    """A server of raw bytes.

    Args:
        answers: one per connection: what is sent before it is closed; at last the same for ever.
    """

    def __init__(self, *answers: bytes, every: float = 0.0) -> None:
        self.connections, self._answers, self._every, self._done = 0, list(answers), every, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._done.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._done.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if not self._every:
                    connection.sendall(answer)
                for byte in answer if self._every else b"":
                    connection.sendall(bytes([byte]))
                    if self._done.wait(self._every):
                        break


BODY = json.dumps(ROWS).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY
BROKEN = {
    "closed in the middle": HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:40],
    "closed after the first rows": HEAD + b"Connection: close\r\n\r\n" + BODY[: BODY.index(b"}") + 1],
    "length too large": HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 10) + BODY,
    "length too small": HEAD + b"Content-Length: 40\r\n\r\n" + BODY,
    "chunk cut off": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY[:40],
    "no last chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n",
    "within a letter": HEAD + b"Connection: close\r\n\r\n" + '[{"id": 1, "name": "Käthe"}]'.encode()[:21],
    "in the headers": HEAD,
    "at once": b"",
}


def test_a_clock_that_goes_wrong_does_not_change_the_wait(no_waiting: list[float]) -> None:
    """The end of the window is a time of the server's, and so is its Date."""
    then = 1_700_000_000
    head = (
        f"HTTP/1.1 403 No\r\nDate: {formatdate(then, usegmt=True)}\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: {then + 30}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    with Wire(head.encode(), WHOLE) as url:
        assert read({"contacts": ALL}, base_url=url).get_rows("contacts") == ROWS
    assert no_waiting == [31]


@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
def test_half_an_answer_is_asked_for_again(no_waiting: list[float], answer: bytes) -> None:
    with Wire(answer, answer, WHOLE) as url:
        assert read({"contacts": ALL}, base_url=url).get_rows("contacts") == ROWS
    assert len(no_waiting) == 2


@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
def test_half_an_answer_is_never_the_end_of_the_data(no_waiting: list[float], answer: bytes) -> None:
    wire = Wire(answer)
    with wire as url:
        fail(url, ALL, SourceUnavailable)
    assert wire.connections == 5


@pytest.mark.parametrize("lead", [0, len(WHOLE) - len(BODY)], ids=["from the first byte", "in the body"])
def test_a_byte_now_and_then_lasts_no_longer_than_the_sources_timeout(lead: int) -> None:
    with Wire(WHOLE[:lead] + b"x" * 10_000 if lead else WHOLE, every=0.02) as url:
        begun = time.monotonic()
        assert "the load took longer than the source's timeout" in fail(url, ALL, SourceUnavailable, timeout="2s")
        assert 1.5 < time.monotonic() - begun < 60


def test_a_refused_connection_is_retried(no_waiting: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "connection refused" in fail(f"http://127.0.0.1:{port}/v1", ALL, SourceUnavailable)
    assert len(no_waiting) == 4


# --- 34: addresses


@pytest.fixture
def other(servers: tuple[HTTPServer, HTTPServer]) -> HTTPServer:
    servers[1].clear()
    servers[1].expect_request("/v1/contacts").respond_with_json({"data": ROWS, "next": None})
    return servers[1]


def lead_away(api: Api, other: HTTPServer, way: str) -> dict[str, Any]:
    """Let the API lead to the other host; gives the stream that follows."""
    url = f"http://127.0.0.2:{other.port}/v1/contacts"
    if way == "redirect":
        api.serve("/v1/contacts", Response(status=302, headers={"Location": url, "Set-Cookie": "session=c4n4ry"}))
        return {**BY_LINK, "paginator": {"type": "single_page"}}
    api.serve("/v1/contacts", lambda _: answer_json({"data": [], "next": url}, headers={"Set-Cookie": "session=c4n4ry"}))
    return BY_LINK


@pytest.mark.parametrize("way", ["link", "redirect"])
@pytest.mark.parametrize("auth", [BEARER, {"type": "api_key", "key": {"env": "CRM_TOKEN"}}])
def test_no_way_leads_to_another_host(api: Api, other: HTTPServer, way: str, auth: dict[str, Any]) -> None:
    assert "it was not followed" in fail(api, lead_away(api, other, way), SourceError, auth=auth)
    assert other.log == []


@pytest.mark.parametrize("way", ["link", "redirect"])
@pytest.mark.parametrize("auth", [BEARER, {"type": "api_key", "key": {"env": "CRM_TOKEN"}}])
def test_a_listed_host_gets_neither_login_nor_cookies_nor_headers(api: Api, other: HTTPServer, way: str, auth: dict[str, Any]) -> None:
    stream = lead_away(api, other, way)
    rows = fetch(api, stream, auth=auth, headers={"X-Shop": "c4n4ry"}, allowed_origins=[f"http://127.0.0.2:{other.port}"])
    assert rows == ROWS
    assert "c4n4ry" not in str(other.log[0][0].headers)
    assert "c4n4ry" in str(api.requests[0].headers)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1", "http://localhost", "http://0x7f000001", "http://2130706433", "http://[::1]", "http://[::ffff:127.0.0.1]"),
        *("http://169.254.169.254", "http://2852039166", "http://[fd00:ec2::254]", "http://10.0.0.1", "http://100.64.0.1", "http://0.0.0.0"),
    ],
)
def test_an_address_inside_is_not_connected_to_unless_the_source_may(api: Api, no_waiting: list[float], url: str) -> None:
    api.serve("/v1/contacts", ROWS)
    assert "it was not connected to" in fail(f"{url}:{api.server.port}/v1", ALL, SourceError, allow_private_network=False)
    assert api.requests == []
    assert no_waiting == []


def test_a_tokens_address_is_guarded_likewise(api: Api) -> None:
    office = Office(api)
    error = fail("https://api.example.com/v1", ALL, SourceError, auth=office.auth, allow_private_network=False)
    assert "the token of its auth: 127.0.0.1 is a loopback address" in error
    assert office.given == 0


def test_a_tokens_request_goes_nowhere_else_not_even_to_a_listed_host(api: Api, other: HTTPServer) -> None:
    office = Office(api)
    api.serve("/moved", Response(status=307, headers={"Location": f"http://127.0.0.2:{other.port}/v1/contacts"}))
    auth = {**office.auth, "token_url": api.server.url_for("/moved")}
    assert "it was not followed" in fail(api, ALL, SourceError, auth=auth, allowed_origins=[f"http://127.0.0.2:{other.port}"])
    assert other.log == []


# --- what hangs together, and what does not


CHILDREN = {
    "orders": {"path": "orders", "primary_key": "id", "paginator": {"type": "page_number", "total": "pages"}, "data": "data"},
    "items": {"path": "orders/{orders.id}/items", "primary_key": ["_orders_id", "line"], "include_from_parent": ["id"]},
    "parts": {"path": "lines/{items.line}/parts", "primary_key": "part"},
    "notes": {"path": "orders/{orders.id}/notes", "primary_key": "note"},
}


def test_a_child_that_fails_is_read_no_further_and_the_others_are(api: Api) -> None:
    api.serve("/v1/orders", lambda request: {"data": [{"id": int(request.args["page"])}], "pages": 3})
    for order in (1, 2, 3):
        api.serve(f"/v1/orders/{order}/items", [{"line": order * 10}] if order != 2 else answer_json({}, 404))
        api.serve(f"/v1/orders/{order}/notes", [{"note": order}])
        api.serve(f"/v1/lines/{order * 10}/parts", [{"part": order}])
    reading = read(CHILDREN, base_url=api.url)
    assert {name: type(error) for name, error in reading.failures.items()} == {"items": RefusedRequest, "parts": RefusedRequest}
    assert str(reading.failures["parts"]) == "tenant acme, source crm, stream parts: not loaded, because its parent items failed"
    assert reading.get_rows("orders") == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert reading.get_rows("notes") == [{"note": 1}, {"note": 2}, {"note": 3}]
    assert "/v1/orders/3/items" not in api.get_paths()
    assert [batch.origin for batch in reading.batches if batch.stream in {"orders", "notes"}][:2] == ["page 1", "orders.id 1, page 1"]


def test_a_parent_that_fails_fails_with_all_below_it(api: Api) -> None:
    api.serve("/v1/orders", lambda request: {"data": [{"id": 1}], "pages": 2} if request.args["page"] == "1" else answer_json({}, 404))
    api.serve("/v1/orders/1/items", [{"line": 1}])
    with pytest.raises(SourceError, match="stream orders: GET"):
        read({name: CHILDREN[name] for name in ("orders", "items")}, base_url=api.url)


def test_a_key_that_no_row_has_fails_its_own_stream_alone(api: Api) -> None:
    api.serve("/v1/orders", {"data": [{"id": 1}], "pages": 1})
    api.serve("/v1/orders/1/notes", [{"note": 1}])
    reading = read({"orders": {**CHILDREN["orders"], "primary_key": "number"}, "notes": CHILDREN["notes"]}, base_url=api.url)
    assert "the source has no primary_key column 'number'" in str(reading.failures["orders"])
    assert reading.get_rows("notes") == [{"note": 1}]


# --- each promise taken away: its test must go red


def check_red(test: Callable[[], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, FabricError)):
        test()


def test_without_renewal_the_token_test_goes_red(api: Api, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_auth._ClientLogin, "renew", lambda self, refused: False)
    check_red(lambda: test_a_token_that_ends_before_its_time_is_renewed_and_the_page_asked_for_again(api, no_waiting))


def test_with_permanent_failures_repeated_the_count_of_requests_goes_red(api: Api, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_session.Failure, "passing", property(lambda self: True, lambda self, value: None), raising=False)
    check_red(lambda: test_what_will_not_pass_is_asked_once(api, no_waiting, 404))


def test_with_waits_unread_the_retry_after_test_goes_red(api: Api, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_failures, "find_patience", lambda response: None)
    check_red(lambda: test_a_wait_in_seconds_is_kept(api, no_waiting, 429))


def test_with_half_answers_believed_the_test_of_broken_answers_goes_red(no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_session, "_is_cut_off", lambda response, written: False)
    check_red(lambda: test_half_an_answer_is_asked_for_again(no_waiting, BROKEN["closed after the first rows"]))


def test_without_a_look_at_error_bodies_an_error_becomes_no_rows(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_pages._Client, "extract_response", lambda self, response, selector: self._find_rows(response, selector, response.json()))
    check_red(lambda: test_an_error_that_comes_as_a_success_is_not_taken_for_no_rows(api, {"errors": [ERROR], "data": None}, "data", "merge"))


def test_without_a_look_at_totals_rows_are_left_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_pages.PageReader, "_get_total", lambda self, response: None)
    check_red(lambda: test_a_total_that_shrinks_leaves_no_row_out(api, COUNTED[1]))


def test_without_an_end_to_answers_a_slow_one_outlasts_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing.Outgoing, "_hang_up", lambda self, late: None)
    check_red(lambda: test_a_byte_now_and_then_lasts_no_longer_than_the_sources_timeout(len(WHOLE) - len(BODY)))


def test_without_the_guard_of_origins_the_token_arrives_elsewhere(api: Api, other: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing.Guard, "is_own", lambda self, url: True)
    check_red(lambda: test_no_way_leads_to_another_host(api, other, "link", BEARER))
    assert other.log[0][0].headers["Authorization"] == f"Bearer {CANARY}"


def test_without_the_guard_of_addresses_the_inside_is_reached(api: Api, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "find_objection", lambda address, **_: None)
    check_red(lambda: test_an_address_inside_is_not_connected_to_unless_the_source_may(api, no_waiting, "http://0x7f000001"))
    assert api.get_paths() == ["/v1/contacts"]
