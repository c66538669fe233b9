"""Pages follow each other as the API says, and none of them is left out in silence."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets.connectors.rest_api.links import find_link
from fabric_assets.errors import RefusedRequest, SourceError
from tests.connectors.rest_api.rest import Api, Handler, answer_json, read

URL = "http://api.example/v1/contacts?kind=all"
TWO = "http://api.example/v1/two"
ROWS = [{"id": number} for number in range(1, 8)]


def fetch(api: Api, stream: dict[str, Any], **source: Any) -> list[dict[str, Any]]:
    return read({"contacts": {"path": "contacts", "primary_key": "id", **stream}}, base_url=api.url, **source).get_rows("contacts")


def fail(api: Api, stream: dict[str, Any]) -> str:
    with pytest.raises(SourceError) as caught:
        fetch(api, stream)
    return str(caught.value)


# --- the Link header


@pytest.mark.parametrize(
    "header",
    [
        '</v1/two>; rel="next"',
        "</v1/two>; rel=next",
        "</v1/two>;rel='next'",
        '</v1/two>; rel="next last"',
        '</v1/two>; rel="last  NEXT"',
        '</v1/two>; REL="next"',
        '</v1/two>; rel="https://api.example/rels/more next"',
        '</v1/two> ;\trel\t=  "next" ',
        '</v1/one>; rel="prev", </v1/two>; rel="next"',
        '</v1/one>; rel="prev",</v1/two>; rel="next",</v1/last>; rel="last"',
        ', ,</v1/two>; rel="next", ,',
        '</v1/two>; title="a, b; c=\\"d\\", <x>; rel=prev"; rel="next"',
        "</v1/two>; title*=UTF-8''n%c3%a4chste%2c; rel=\"next\"",
        '</v1/two>; crossorigin; rel="next"',
        '</v1/two>; rel="next"; rel="prev"',
        '</v1/one>; rel="next"; anchor="#other", </v1/two>; rel="next"',
        '</v1/two>; rel="next"; anchor="/v1/contacts?kind=all"',
        '</v1/page.html>; rel="next"; type="text/html", </v1/two>; rel="next"; type="application/json"',
        '</v1/two>; rel="next"; type="application/hal+json"',
        "<two>; rel=next",
        "<//api.example/v1/two>; rel=next",
        "<http://api.example/v1/two>; rel=next",
    ],
)
def test_a_link_is_found_in_every_form_of_rfc_8288(header: str) -> None:
    assert find_link(header, rel="next", url=URL) == TWO


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("?page=2&ids=1,2;3", "http://api.example/v1/contacts?page=2&ids=1,2;3"),
        ("/v1;session=1A/two?a=(b)", "http://api.example/v1;session=1A/two?a=(b)"),
        ("/v1/kä?page=2", "http://api.example/v1/kä?page=2"),
        (" /v1/two ", TWO),
    ],
)
def test_the_whole_address_of_a_link_is_used(target: str, found: str) -> None:
    header = f'<{target}>; rel="next"'.encode().decode("latin-1")
    assert find_link(header, rel="next", url=URL) == found


@pytest.mark.parametrize(
    "header",
    ["", '</v1/two>; rel="prev"', "</v1/two>", "</v1/two>; rel", '</v1/two>; rel="prev"; rel="next"', '</v1/two>; rel="nextish"', '<x>; title="rel=next"'],
)
def test_a_header_without_the_relation_has_no_link(header: str) -> None:
    assert find_link(header, rel="next", url=URL) is None


@pytest.mark.parametrize("header", ["next", '</v1/two; rel="next"', '</v1/two>; rel="next', '</v1/two>; rel="next" x', "http://x/; rel=next"])
def test_an_invalid_link_header_is_not_the_end(api: Api, header: str) -> None:
    api.serve("/v1/contacts", answer_json(ROWS, headers={"Link": header}))
    for stream in ({"paginator": {"type": "header_link"}}, {}):
        assert "the Link header is not valid" in fail(api, stream)


@pytest.mark.parametrize("declared", [True, False])
def test_links_lead_through_all_pages_also_from_several_lines(api: Api, declared: bool) -> None:
    def answer(request: Request) -> Response:
        page = int(request.args.get("page", 0))
        response = answer_json(ROWS[page : page + 1])
        response.headers.add("Link", '</v1/contacts>; rel="first"')
        if page < 6:
            response.headers.add("Link", f'<?page={page + 1}>; title="page {page + 1}; of 6"; REL="Next last"')
        return response

    api.serve("/v1/contacts", answer)
    assert fetch(api, {"paginator": {"type": "header_link"}} if declared else {}) == ROWS


@pytest.mark.parametrize("link", ["header", "json"])
def test_a_relative_link_goes_by_the_address_that_answered(api: Api, link: str) -> None:
    """After a redirect that is another one than was asked for."""
    api.serve("/v1/contacts", Response(status=302, headers={"Location": "/v2/people/"}))
    api.serve("/v2/people/", lambda _: answer_json({"data": ROWS[:3], "next": "more"}, headers={"Link": "<more>; rel=next"}))
    api.serve("/v2/people/more", {"data": ROWS[3:], "next": None})
    paginator = {"type": "header_link"} if link == "header" else {"type": "json_link", "next": "next"}
    assert fetch(api, {"data": "data", "paginator": paginator}) == ROWS


# --- answers that say which page is the last


def serve_pages(api: Api, build: Callable[[int], Any], *, size: int = 3) -> None:
    def answer(request: Request) -> Any:
        start = int(request.args.get("offset", request.args.get("after", (int(request.args.get("page", 1)) - 1) * size)))
        return build(start)

    api.serve("/v1/contacts", answer)


MORE = [True, "true", "1", 1]
LAST = [False, "false", "0", 0]
PAGINATORS = [
    {"type": "page_number"},
    {"type": "offset", "limit": 3},
    {"type": "cursor", "next": "data[-1].id", "param": "after"},
    {"type": "json_link", "next": "next"},
]


@pytest.mark.parametrize(("more", "last"), list(zip(MORE, LAST, strict=True)))
@pytest.mark.parametrize("paginator", PAGINATORS)
def test_has_more_ends_the_pages_without_another_request(api: Api, paginator: dict[str, Any], more: Any, last: Any) -> None:
    serve_pages(api, lambda start: {"data": ROWS[start : start + 3], "meta": {"more": more if start + 3 < 7 else last}, "next": f"?after={start + 3}"})
    assert fetch(api, {"data": "data", "paginator": {**paginator, "has_more": "meta.more"}}) == ROWS
    assert len(api.requests) == 3


@pytest.mark.parametrize("paginator", PAGINATORS)
def test_done_ends_the_pages_without_another_request(api: Api, paginator: dict[str, Any]) -> None:
    """Zendesk gives a link to the next page on the last one, too."""
    serve_pages(api, lambda start: {"data": ROWS[start : start + 3], "end_of_stream": start + 3 >= 7, "next": f"?after={start + 3}"})
    assert fetch(api, {"data": "data", "paginator": {**paginator, "done": "end_of_stream"}}) == ROWS
    assert len(api.requests) == 3


@pytest.mark.parametrize("value", [None, "maybe", 2, {}, "absent"])
@pytest.mark.parametrize("paginator", PAGINATORS)
def test_an_answer_that_does_not_name_the_end_is_not_the_end(api: Api, paginator: dict[str, Any], value: Any) -> None:
    more = {} if value == "absent" else {"more": value}
    serve_pages(api, lambda start: {"data": ROWS[start : start + 3], "next": f"?after={start + 3}", **more})
    assert "does not say how to go on in `more`" in fail(api, {"data": "data", "paginator": {**paginator, "has_more": "more"}})


def test_an_empty_page_before_the_last_one_is_not_the_end(api: Api) -> None:
    pages = {"1": ROWS[:3], "2": [], "3": ROWS[3:]}
    api.serve("/v1/contacts", lambda request: {"data": pages[request.args["page"]], "more": request.args["page"] != "3"})
    assert fetch(api, {"data": "data", "paginator": {"type": "page_number", "has_more": "more"}}) == ROWS


@pytest.mark.parametrize("paginator", [{"type": "cursor", "next": "nxt"}, {"type": "json_link", "next": "nxt"}, {"type": "header_link"}])
@pytest.mark.parametrize("more", ["has_more", "hasMore", "hasNextPage"])
def test_more_pages_without_a_way_to_them_are_refused(api: Api, paginator: dict[str, Any], more: str) -> None:
    """A word misspelt in the YAML would load the first page as a success."""
    api.serve("/v1/contacts", {"data": ROWS[:3], "paging": {more: True}, "next": "x"})
    assert f"the answer says `{more}: true`, and not how to ask for the next page" in fail(api, {"data": "data", "paginator": paginator})
    if paginator["type"] != "header_link":
        declared = {**paginator, "has_more": f"paging.{more}"}
        assert "the answer says that there are more pages, and not how to ask" in fail(api, {"data": "data", "paginator": declared})


def test_a_row_with_a_field_has_more_is_data(api: Api) -> None:
    row = {"id": 1, "posts": {"has_more": True, "total": 9}}
    api.serve("/v1/contacts", {"contact": row})
    assert fetch(api, {"data": "contact", "paginator": {"type": "json_link", "next": "next"}}) == [row]
    assert fetch(api, {"data": "contact"}) == [row]


@pytest.mark.parametrize(
    "hint",
    [
        {"has_more": True},
        {"meta": {"hasNextPage": True}},
        {"@odata.nextLink": "http://x/?skip=3"},
        {"paging": {"cursors": {"next": "abc"}}},
        {"page": {"cursor": "abc"}},
        {"continuationToken": "abc"},
        {"offset": "itrA/recB"},
        {"total": 7},
        {"total_count": "7"},
        {"page": {"totalElements": 7}},
        {"last_page": 3},
        {"count": 7, "limit": 3},
    ],
)
def test_signs_of_more_pages_are_not_ignored_without_a_declared_paginator(api: Api, hint: dict[str, Any]) -> None:
    api.serve("/v1/contacts", {"data": ROWS[:3], **hint})
    for data in ({}, {"data": "data"}):
        assert "how to ask for the next one is not certain\n  remedy: declare `paginator`" in fail(api, data)
    assert fetch(api, {"paginator": {"type": "single_page"}}) == ROWS[:3]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {"Content-Range": "items 0-2/10"}),
        (206, {"Content-Range": "items 0-2/*"}),
        (200, {"Content-Range": "0-2/10"}),
        (200, {"X-Total-Count": "10"}),
        (200, {"X-WP-Total": "10", "X-WP-TotalPages": "4"}),
        (200, {"X-Next-Page": "2"}),
        (200, {"X-Has-More": "true"}),
    ],
)
def test_signs_of_more_pages_in_headers_are_not_passed_over_either(api: Api, status: int, headers: dict[str, str]) -> None:
    api.serve("/v1/contacts", lambda request: answer_json(ROWS[:3], status, headers))
    assert "how to ask for the next one is not certain\n  remedy: declare `paginator`" in fail(api, {})
    assert fetch(api, {"paginator": {"type": "single_page"}}) == ROWS[:3]


@pytest.mark.parametrize("headers", [{"Content-Range": "items 0-2/3"}, {"Content-Range": "0-2/*"}, {"X-Total-Count": "3"}, {"X-Next-Page": ""}])
def test_headers_of_the_only_page_need_no_paginator(api: Api, headers: dict[str, str]) -> None:
    api.serve("/v1/contacts", lambda request: answer_json(ROWS[:3], headers=headers))
    assert fetch(api, {}) == ROWS[:3]


@pytest.mark.parametrize(
    "hint",
    [{"has_more": False}, {"next": None}, {"links": {"next": ""}}, {"total": 3, "count": 3, "pages": 1}, {"offset": "0", "limit": 3}, {"continuation": None}],
)
def test_one_page_that_says_so_needs_no_paginator(api: Api, hint: dict[str, Any]) -> None:
    api.serve("/v1/contacts", {"data": ROWS[:3], **hint})
    assert fetch(api, {"data": "data"}) == ROWS[:3]


# --- a refusal past the last page


def refuse_past_the_end(status: int) -> Handler:
    def answer(request: Request) -> Any:
        start = int(request.args.get("offset", (int(request.args.get("page", 1)) - 1) * 7))
        return ROWS[start : start + 7] or answer_json({"detail": "Invalid page."}, status)

    return answer


@pytest.mark.parametrize("paginator", [{"type": "page_number"}, {"type": "offset", "limit": 7}])
@pytest.mark.parametrize("status", [404, 400, 416])
def test_a_refusal_past_the_last_page_is_the_end_where_it_is_declared(api: Api, paginator: dict[str, Any], status: int) -> None:
    api.serve("/v1/contacts", refuse_past_the_end(status))
    assert fetch(api, {"paginator": {**paginator, "end_status": status}}) == ROWS
    assert f"was answered with {status}" in (said := fail(api, {"paginator": paginator}))
    assert f"declare `end_status: {status}`" in said
    assert "was answered with" in fail(api, {"paginator": {**paginator, "end_status": 410}})


def test_a_refused_first_page_is_not_the_end(api: Api) -> None:
    api.serve("/v1/contacts", answer_json({}, 404))
    with pytest.raises(RefusedRequest, match="remedy: check base_url and the stream's path"):
        fetch(api, {"paginator": {"type": "page_number", "end_status": 404}})


# --- answers without content


EMPTY = [Response(status=204), Response(b"", content_type="application/json"), Response(b" \n", content_type="text/plain"), Response(status=205)]


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize(
    "stream",
    [
        {},
        {"data": "data"},
        {"data": "data[*]"},
        {"format": "jsonl"},
        *({"data": "data", "paginator": paginator} for paginator in [*PAGINATORS, {"type": "single_page"}, {"type": "header_link"}]),
        {"data": "data", "paginator": {"type": "page_number", "total": "pages"}},
        {"data": "data", "paginator": {"type": "offset", "limit": 2, "has_more": "more"}},
        {"data": "data", "paginator": {"type": "cursor", "next": "next", "done": "done"}},
    ],
)
def test_an_answer_without_content_has_no_rows_and_is_requested_once(api: Api, empty: Response, stream: dict[str, Any]) -> None:
    api.serve("/v1/contacts", empty)
    assert fetch(api, stream) == []
    assert len(api.requests) == 1


@pytest.mark.parametrize("paginator", [{"type": "page_number", "total": "pages"}, {"type": "offset", "limit": 3, "total": "rows"}, {"type": "header_link"}])
def test_a_page_without_content_before_the_last_one_is_not_the_end(api: Api, paginator: dict[str, Any]) -> None:
    def answer(request: Request) -> Response:
        start = int(request.args.get("offset", (int(request.args.get("page", 1)) - 1) * 3))
        link = {"Link": f"<?page={start // 3 + 2}>; rel=next"} if start < 6 else {}
        if start == 3:
            return Response(status=204, headers=link)
        return answer_json({"data": ROWS[start : start + 3], "pages": 3, "rows": 7}, headers=link)

    api.serve("/v1/contacts", answer)
    assert fetch(api, {"data": "data", "paginator": paginator}) == [*ROWS[:3], *ROWS[6:]]


def test_an_empty_answer_that_ends_with_its_headers_is_one(httpserver: HTTPServer) -> None:
    """Servers of HTTP/1.0 give no length and close the connection; see the tests of answers that break off for headers that are not whole."""
    from tests.faults.test_http import Wire

    with Wire(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n") as url:
        assert read({"contacts": {"path": "contacts", "primary_key": "id"}}, base_url=url).get_rows("contacts") == []


# --- totals and pages that contradict themselves


@pytest.mark.parametrize(("paginator", "total"), [("offset", -1), ("offset", 1), ("offset", "0"), ("page_number", -1), ("page_number", 0)])
def test_a_total_that_cannot_be_true_is_refused(api: Api, paginator: str, total: Any) -> None:
    api.serve("/v1/contacts", {"rows": ROWS[:2], "total": total})
    message = fail(api, {"data": "rows", "paginator": {"type": paginator, "total": "total", **({"limit": 2} if paginator == "offset" else {})}})
    assert f"the total is {total}, although 2 rows were read" in message


def test_a_total_of_pages_declared_as_one_of_rows_loses_no_page_in_silence(api: Api) -> None:
    api.serve("/v1/contacts", lambda request: {"rows": ROWS[int(request.args["offset"]) :][:2], "total": 3})
    assert "the total is 3, although 4 rows were read" in fail(api, {"data": "rows", "paginator": {"type": "offset", "limit": 2, "total": "total"}})


def test_fewer_rows_than_the_total_says_are_a_warning(api: Api) -> None:
    api.serve("/v1/contacts", lambda request: {"rows": ROWS[:4][int(request.args["offset"]) :][:2], "total": 8})
    streams = {"contacts": {"path": "contacts", "data": "rows", "primary_key": "id", "paginator": {"type": "offset", "limit": 2, "total": "total"}}}
    reading = read(streams, base_url=api.url)
    assert reading.get_rows("contacts") == ROWS[:4]
    assert reading.memories["contacts"].warnings == ["the API says that there are 8 rows, and gave 4: some may be hidden from this login"]


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("primary_key", [None, "id"])
def test_pages_that_overlap_are_a_warning_unless_their_rows_are_merged(api: Api, shared: int, primary_key: str | None) -> None:
    def answer(request: Request) -> Any:
        start = (int(request.args["page"]) - 1) * (3 - shared)
        return ROWS[start : start + 3] if start < 6 else []

    api.serve("/v1/contacts", answer)
    streams = {"contacts": {"path": "contacts", "paginator": {"type": "page_number"}, **({"primary_key": primary_key} if primary_key else {})}}
    warnings = read(streams, base_url=api.url).memories["contacts"].warnings
    assert len(warnings) == (0 if primary_key else 1)
    assert all(warning.startswith(f"a page begins with the {'2 rows' if shared == 2 else 'row'} that the page before it ends with") for warning in warnings)


def test_pages_that_do_not_overlap_warn_of_nothing(api: Api) -> None:
    pages = [[{"v": 1}, {"v": 2}], [{"v": 3}, {"v": 2}], [{"v": 1}], []]
    api.serve("/v1/contacts", lambda request: pages[int(request.args["page"]) - 1])
    assert read({"contacts": {"path": "contacts", "paginator": {"type": "page_number"}}}, base_url=api.url).memories["contacts"].warnings == []
