"""A rest_api source loads what an API answers: every login, every way of paging, every shape of an answer."""

import base64
import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from werkzeug import Request, Response

from fabric_assets.errors import ConfigurationError, FabricError, SecretError, SourceError, SourceUnavailable
from tests.connectors.rest_api.rest import Api, Warehouse, answer_json

CANARY = "c4n4ry-t0k3n"
ROWS = [{"id": number, "name": f"name {number}"} for number in range(1, 8)]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_TOKEN", CANARY)


def load_contacts(warehouse: Warehouse, stream: dict[str, Any] | None = None, **source: Any) -> list[tuple[Any, ...]]:
    warehouse.load({"contacts": {"path": "contacts", "primary_key": "id", **(stream or {})}}, **source)
    return warehouse.read("select id, name from contacts order by id")


ALL = [(row["id"], row["name"]) for row in ROWS]


# --- logins


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": {"env": "CRM_TOKEN"}}, "Authorization", f"Bearer {CANARY}"),
        ({"type": "api_key", "key": {"env": "CRM_TOKEN"}}, "X-API-Key", CANARY),
        ({"type": "api_key", "name": "X-Shop", "key": {"env": "CRM_TOKEN"}}, "X-Shop", CANARY),
        (
            {"type": "basic", "username": "käte", "password": {"env": "CRM_TOKEN"}},
            "Authorization",
            "Basic " + base64.b64encode(f"käte:{CANARY}".encode()).decode(),
        ),
    ],
)
def test_each_login_reaches_the_api(api: Api, warehouse: Warehouse, auth: dict[str, Any], header: str, value: str) -> None:
    api.serve("/v1/contacts", lambda request: ROWS if request.headers.get(header) == value else answer_json({}, 401))
    assert load_contacts(warehouse, auth=auth) == ALL


def test_a_client_fetches_a_token_and_renews_it_before_it_ends(api: Api, warehouse: Warehouse) -> None:
    given: list[dict[str, list[str]]] = []

    def give_token(request: Request) -> Any:
        given.append(parse_qs(request.get_data(as_text=True)))
        return {"access_token": f"token-{len(given)}", "expires_in": 1}

    def answer(request: Request) -> Any:
        if request.headers.get("Authorization") != f"Bearer token-{len(given)}":
            return answer_json({}, 401)
        return {"data": [ROWS[int(request.args["page"]) - 1]], "pages": 3}

    api.serve("/token", give_token)
    api.serve("/v1/contacts", answer)
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": api.server.url_for("/token"),
        "client_id": "acme",
        "client_secret": {"env": "CRM_TOKEN"},
        "scope": "read",
    }
    assert load_contacts(warehouse, {"paginator": {"type": "page_number", "total": "pages"}}, auth=auth) == ALL[:3]
    assert given[0] == {"grant_type": ["client_credentials"], "client_id": ["acme"], "client_secret": [CANARY], "scope": ["read"]}


@pytest.mark.parametrize("method", [None, "client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("taken", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("status", [400, 401])
def test_a_client_sends_its_secret_by_the_method_that_the_server_accepts(
    api: Api, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, method: str | None, taken: str, status: int
) -> None:
    monkeypatch.setenv("CRM_TOKEN", "s%e&c:ü")

    def give_token(request: Request) -> Any:
        form = parse_qs(request.get_data(as_text=True))
        basic = request.headers.get("Authorization") == "Basic " + base64.b64encode(b"acme+1:s%25e%26c%3A%C3%BC").decode()
        posted = form.get("client_id") == ["acme 1"] and form.get("client_secret") == ["s%e&c:ü"]
        # Both ways at once are an error (RFC 6749, 2.3).
        is_right = basic and "client_secret" not in form if taken == "client_secret_basic" else posted and "Authorization" not in request.headers
        return {"access_token": "A", "expires_in": 1} if is_right else answer_json({"error": "invalid_client"}, status)

    api.serve("/token", give_token)
    api.serve("/v1/contacts", lambda request: [ROWS[0]] if request.headers.get("Authorization") == "Bearer A" else answer_json({}, 401))
    auth = {"type": "oauth2_client_credentials", "token_url": api.server.url_for("/token"), "client_id": "acme 1", "client_secret": {"env": "CRM_TOKEN"}}
    if method in {None, taken}:
        assert load_contacts(warehouse, auth={**auth, **({"method": method} if method else {})}) == ALL[:1]
        assert api.get_paths().count("/token") == (2 if method is None and taken == "client_secret_basic" else 1)
    else:
        with pytest.raises(SourceError, match=f"was answered with {status}"):
            load_contacts(warehouse, auth={**auth, "method": method})
        assert api.get_paths() == ["/token"]


def test_a_token_may_come_as_a_form(api: Api, warehouse: Warehouse) -> None:
    api.serve("/token", Response("access_token=A%2B1&token_type=bearer&expires_in=60", content_type="application/x-www-form-urlencoded"))
    api.serve("/v1/contacts", lambda request: [ROWS[0]] if request.headers.get("Authorization") == "Bearer A+1" else answer_json({}, 401))
    auth = {"type": "oauth2_client_credentials", "token_url": api.server.url_for("/token"), "client_id": "acme", "client_secret": {"env": "CRM_TOKEN"}}
    assert load_contacts(warehouse, auth=auth) == ALL[:1]


@pytest.mark.parametrize("answer", [{"token": "x"}, {"access_token": None}, {"access_token": ""}, {"access_token": "a\nb"}, ["x"], Response("<html>")])
def test_an_invalid_token_is_not_sent(api: Api, warehouse: Warehouse, answer: Any) -> None:
    api.serve("/token", answer)
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": api.server.url_for("/token"),
        "client_id": "acme",
        "client_secret": {"env": "CRM_TOKEN"},
    }
    with pytest.raises(SourceError, match="the answer holds no access_token"):
        load_contacts(warehouse, auth=auth)
    assert api.get_paths() == ["/token"]


def test_a_refused_client_secret_is_reported_but_not_shown(api: Api, warehouse: Warehouse) -> None:
    api.serve("/token", lambda request: answer_json({"error": f"bad secret {request.get_data(as_text=True)} {request.headers.get('Authorization')}"}, 401))
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": api.server.url_for("/token"),
        "client_id": "acme",
        "client_secret": {"env": "CRM_TOKEN"},
    }
    with pytest.raises(SourceError, match=r"the token of its auth: POST http://localhost:\d+/token was answered with 401") as caught:
        load_contacts(warehouse, auth=auth)
    assert "client_secret=***" in str(caught.value)
    assert [bool(request.headers.get("Authorization")) for request in api.requests] == [False, True]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("value", ["c4n4ry\nb", "c4n4ry\r\nX-Admin: 1", " c4n4ry", "c4n4ry ", "käse"])
def test_a_token_that_cannot_be_in_a_header_is_reported_before_a_request(api: Api, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CRM_TOKEN", value)
    with pytest.raises(SecretError, match="environment variable CRM_TOKEN cannot be part of a header") as caught:
        load_contacts(warehouse, auth={"type": "bearer", "token": {"env": "CRM_TOKEN"}})
    assert value not in str(caught.value)
    assert api.requests == []


def test_no_login_comes_from_the_machine(api: Api, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Neither dlt's look-up nor ~/.netrc may complete what a tenant has not declared."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine localhost login operator password {CANARY}\n")
    for name in ("CREDENTIALS__TOKEN", "TOKEN", "SOURCES__CRM__TOKEN", "AUTH__TOKEN", "SOURCES__REST_API__CLIENT__AUTH__TOKEN"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("NETRC", str(netrc))
    api.serve("/v1/contacts", Response(status=302, headers={"Location": "/v1/moved"}))
    api.serve("/v1/moved", ROWS)
    assert load_contacts(warehouse) == ALL
    assert all("Authorization" not in request.headers for request in api.requests)


def test_headers_and_params_are_sent_as_apis_read_them(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", ROWS)
    load_contacts(warehouse, {"params": {"active": True, "size": 5, "fields": "id,name & more"}}, headers={"Accept-Language": "de"})
    assert api.requests[0].headers["Accept-Language"] == "de"
    assert api.get_queries("/v1/contacts") == [{"active": "true", "size": "5", "fields": "id,name & more"}]


def test_the_base_url_may_be_a_reference(api: Api, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    api.serve("/v1/contacts", ROWS)
    monkeypatch.setenv("CRM_URL", api.url)
    assert load_contacts(warehouse, base_url={"env": "CRM_URL"}) == ALL


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://user:c4n4ry-t0k3n@localhost", "http://?", "http://localhost:x", "http://[::1"])
def test_a_secret_that_is_not_a_url_is_reported_but_not_shown(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CRM_URL", url)
    with pytest.raises(SecretError, match="base_url, at environment variable CRM_URL, is not an http") as caught:
        load_contacts(warehouse, base_url={"env": "CRM_URL"})
    assert url not in str(caught.value)


# --- pages


def get_page(request: Request, size: int = 3, base: int = 1) -> list[dict[str, Any]]:
    start = (int(request.args.get("page", base)) - base) * size
    return ROWS[start : start + size]


def test_pages_by_header_link(api: Api, warehouse: Warehouse) -> None:
    def answer(request: Request) -> Response:
        page = int(request.args.get("page", 1))
        link = {"Link": f'<{api.url}/contacts?page={page + 1}>; rel="next", <{api.url}/contacts?page=1>; rel="first"'} if page < 3 else {}
        return answer_json(get_page(request), headers=link)

    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse, {"paginator": {"type": "header_link"}, "params": {"kind": "all"}}) == ALL
    assert api.get_queries("/v1/contacts") == [{"kind": "all"}, {"page": "2"}, {"page": "3"}]


@pytest.mark.parametrize("end", [None, "", "absent"])
@pytest.mark.parametrize("relative", [True, False])
def test_pages_by_json_link(api: Api, warehouse: Warehouse, end: str | None, relative: bool) -> None:
    def answer(request: Request) -> Any:
        page = int(request.args.get("page", 1))
        link = f"{'' if relative else api.url + '/contacts'}?page={page + 1}" if page < 3 else end
        return {"results": get_page(request), "paging": {} if link == "absent" else {"next": link}}

    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse, {"paginator": {"type": "json_link", "next": "paging.next"}, "data": "results"}) == ALL


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("total", [None, "meta.pages"])
def test_pages_by_number(api: Api, warehouse: Warehouse, base: int, total: str | None) -> None:
    api.serve("/v1/contacts", lambda request: {"data": [ROWS[n] for n in range(7) if n // 3 == int(request.args["page"]) - base], "meta": {"pages": 3}})
    paginator = {"type": "page_number", "base": base} | ({"total": total} if total else {})
    assert load_contacts(warehouse, {"paginator": paginator}) == ALL
    asked = [query["page"] for query in api.get_queries("/v1/contacts")]
    assert asked == [str(base + number) for number in range(3 if total else 4)]


def test_an_empty_page_before_the_last_one_is_not_the_end(api: Api, warehouse: Warehouse) -> None:
    pages = {"1": ROWS[:3], "2": [], "3": [], "4": ROWS[3:]}
    api.serve("/v1/contacts", lambda request: {"data": pages[request.args["page"]], "pages": 4})
    assert load_contacts(warehouse, {"data": "data", "paginator": {"type": "page_number", "total": "pages"}}) == ALL


@pytest.mark.parametrize("total", [None, "total"])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_by_offset(api: Api, warehouse: Warehouse, total: str | None, limit: int) -> None:
    def answer(request: Request) -> Any:
        start = int(request.args["start"])
        return {"data": ROWS[start : start + int(request.args["count"])], "total": 7}

    api.serve("/v1/contacts", answer)
    paginator = {"type": "offset", "limit": limit, "offset_param": "start", "limit_param": "count"} | ({"total": total} if total else {})
    assert load_contacts(warehouse, {"paginator": paginator}) == ALL


@pytest.mark.parametrize("total", [None, "total"])
def test_a_limit_that_the_server_caps_is_refused_for_it_would_leave_rows_out(api: Api, warehouse: Warehouse, total: str | None) -> None:
    def answer(request: Request) -> Any:
        start = int(request.args["offset"])
        return {"data": ROWS[start : start + min(2, int(request.args["limit"]))], "total": 7}

    api.serve("/v1/contacts", answer)
    paginator = {"type": "offset", "limit": 3} | ({"total": total} if total else {})
    with pytest.raises(SourceError, match="fewer rows a page than `limit` asks for"):
        load_contacts(warehouse, {"paginator": paginator})


@pytest.mark.parametrize("total", [None, "total"])
@pytest.mark.parametrize("keyed", [True, False])
def test_a_limit_below_the_servers_page_size_is_refused_since_rows_would_come_twice(api: Api, warehouse: Warehouse, total: str | None, keyed: bool) -> None:
    def answer(request: Request) -> Any:
        start = int(request.args["offset"])
        return {"data": ROWS[start : start + 5], "total": 7}

    api.serve("/v1/contacts", answer)
    paginator = {"type": "offset", "limit": 2} | ({"total": total} if total else {})
    with pytest.raises(SourceError, match="the server gives 5 rows a page where `limit` asks for 2.*\n  remedy: set the paginator's limit to the rows"):
        load_contacts(warehouse, {"data": "data", "paginator": paginator, **({} if keyed else {"primary_key": None})})
    assert warehouse.list_tables() == []


def serve_growing(api: Api) -> None:
    """Four contacts, and a fifth one before them once the first page has been read."""
    rows = [{"id": number, "name": "old", "at": "2024-03-01"} for number in range(1, 5)]

    def answer(request: Request) -> Any:
        start = int(request.args["offset"])
        page = {"data": rows[start : start + 2], "total": len(rows)}
        if not start:
            rows.insert(0, {"id": 5, "name": "new", "at": "2024-03-02"})
        return page

    api.serve("/v1/contacts", answer)


CONTACTS_BY_TWO = {"path": "contacts", "data": "data", "paginator": {"type": "offset", "limit": 2, "total": "total"}}


@pytest.mark.parametrize(
    "stream",
    [
        {"write_disposition": "replace"},
        {"write_disposition": "replace", "primary_key": "id"},
        {"write_disposition": "append", "cursor": {"field": "at", "param": "since"}},
    ],
    ids=["replace", "replace by key", "append"],
)
def test_rows_that_come_twice_because_new_ones_were_inserted_are_refused_and_retried(api: Api, warehouse: Warehouse, stream: dict[str, Any]) -> None:
    serve_growing(api)
    with pytest.raises(SourceUnavailable, match="the total went from 4 to 5 while the pages were read, so that rows which moved down would come twice"):
        warehouse.load({"contacts": {**CONTACTS_BY_TWO, **stream}})
    assert warehouse.list_tables() == []


def test_rows_that_would_be_left_out_since_others_went_are_refused_and_may_be_tried_again(api: Api, warehouse: Warehouse) -> None:
    answers = [{"data": ROWS[:2], "total": 4}, {"data": ROWS[3:4], "total": 3}]
    api.serve("/v1/contacts", lambda request: answers.pop(0))
    with pytest.raises(SourceUnavailable, match="the total went from 4 to 3 while the pages were read, so that rows which moved up would be left out"):
        warehouse.load({"contacts": {**CONTACTS_BY_TWO, "primary_key": "id"}})


def test_rows_that_come_twice_are_merged(api: Api, warehouse: Warehouse) -> None:
    serve_growing(api)
    warehouse.load({"contacts": {**CONTACTS_BY_TWO, "primary_key": "id"}})
    assert warehouse.read("select id from contacts order by id") == [(1,), (2,), (3,), (4,)]


def test_children_of_a_merged_row_that_comes_twice_are_not_duplicated(api: Api, warehouse: Warehouse) -> None:
    serve_growing(api)
    api.server.expect_request(re.compile("/v1/contacts/[0-9]+/notes")).respond_with_json([{"text": "hello"}])
    notes = {"path": "contacts/{contacts.id}/notes", "paginator": {"type": "single_page"}, "write_disposition": "replace"}
    with pytest.raises(SourceUnavailable, match="the total went from 4 to 5"):
        warehouse.load({"contacts": {**CONTACTS_BY_TWO, "primary_key": "id"}, "notes": notes})


@pytest.mark.parametrize("end", [None, "", "absent"])
def test_pages_by_cursor(api: Api, warehouse: Warehouse, end: str | None) -> None:
    def answer(request: Request) -> Any:
        start = int(request.args.get("after", "0x0"), 16)
        following = hex(start + 3) if start + 3 < 7 else end
        return {"data": ROWS[start : start + 3]} | ({} if following == "absent" else {"meta": {"next": following}})

    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse, {"paginator": {"type": "cursor", "next": "meta.next", "param": "after"}, "params": {"kind": "all"}}) == ALL
    assert api.get_queries("/v1/contacts") == [{"kind": "all"}, {"kind": "all", "after": "0x3"}, {"kind": "all", "after": "0x6"}]


def test_a_single_page_asks_once(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", {"results": ROWS, "next": "/v1/contacts?page=2"})
    assert load_contacts(warehouse, {"paginator": {"type": "single_page"}}) == ALL
    assert len(api.requests) == 1


def test_the_sources_paginator_serves_streams_without_one(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", get_page)
    assert load_contacts(warehouse, paginator={"type": "page_number"}) == ALL


def test_links_are_found_without_a_declaration(api: Api, warehouse: Warehouse) -> None:
    def answer(request: Request) -> Any:
        page = int(request.args.get("page", 1))
        return {"results": get_page(request), "next": f"{api.url}/contacts?page={page + 1}" if page < 3 else None}

    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse) == ALL


@pytest.mark.parametrize("hint", [{"total_pages": 3}, {"next": "abc"}])
def test_pages_that_dlt_would_only_guess_are_refused(api: Api, warehouse: Warehouse, hint: dict[str, Any]) -> None:
    api.serve("/v1/contacts", {"data": ROWS[:3], **hint})
    with pytest.raises(SourceError, match=r"how to ask for the next one is not certain\n  remedy: declare `paginator`"):
        load_contacts(warehouse)


def test_a_server_that_ignores_the_page_number_is_found_out(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", ROWS)
    with pytest.raises(SourceError, match="gives the same page again and again"):
        load_contacts(warehouse, {"paginator": {"type": "page_number"}})
    assert len(api.requests) == 2


@pytest.mark.parametrize("answer", [{"data": ROWS}, {"data": ROWS, "pages": "many"}, {"data": ROWS, "pages": None}])
def test_a_missing_total_is_reported_without_the_answers_rows(api: Api, warehouse: Warehouse, answer: Any) -> None:
    api.serve("/v1/contacts", answer)
    with pytest.raises(SourceError, match="does not say how to go on in `pages`") as caught:
        load_contacts(warehouse, {"paginator": {"type": "page_number", "total": "pages"}})
    assert "name 1" not in str(caught.value)


def test_a_link_that_is_not_a_text_is_reported(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", {"data": ROWS, "next": 5})
    with pytest.raises(SourceError, match="the link to the next page is not a text"):
        load_contacts(warehouse, {"paginator": {"type": "json_link", "next": "next"}})


# --- the shape of answers


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (ROWS, None),
        (ROWS, "$"),
        ({"contacts": ROWS, "count": 7}, None),
        ({"contacts": ROWS, "errors": []}, "contacts"),
        ({"body": {"rows": ROWS}}, "body.rows"),
        ({"body": {"rows": ROWS}}, "body.rows[*]"),
        ({"groups": [{"rows": ROWS[:2]}, {"rows": ROWS[2:]}]}, "groups[*].rows"),
        ({"my-rows": ROWS}, "'my-rows'"),
    ],
)
def test_rows_are_found_where_they_are(api: Api, warehouse: Warehouse, answer: Any, data: str | None) -> None:
    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse, {"data": data} if data else {}) == ALL


@pytest.mark.parametrize(("answer", "data"), [({"result": ROWS[0]}, "result"), (ROWS[0], None), ({"rows": ROWS[:1]}, "rows[*]")])
def test_a_single_object_is_one_row(api: Api, warehouse: Warehouse, answer: Any, data: str | None) -> None:
    api.serve("/v1/contacts", answer)
    assert load_contacts(warehouse, {"data": data} if data else {}) == ALL[:1]


@pytest.mark.parametrize(
    ("answer", "data"), [([], None), ({"rows": []}, "rows"), ({"rows": None}, "rows"), ({"rows": []}, "rows[*]"), ([], "$[*]"), ({"data": []}, None)]
)
@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_an_empty_stream_loads_nothing_and_is_fine(api: Api, warehouse: Warehouse, answer: Any, data: str | None, disposition: str) -> None:
    api.serve("/v1/contacts", answer)
    stream = {"path": "contacts", "primary_key": "id", "write_disposition": disposition} | ({"data": data} if data else {})
    report = warehouse.load({"contacts": stream})["contacts"]
    assert (report.rows_loaded, report.rows_total) == (0, 0)


def test_a_replaced_stream_that_became_empty_leaves_no_row(api: Api, warehouse: Warehouse) -> None:
    answers = [{"rows": ROWS}, {"rows": []}]
    api.serve("/v1/contacts", lambda _: answers.pop(0))
    stream = {"contacts": {"path": "contacts", "data": "rows"}}
    assert warehouse.load(stream)["contacts"].rows_total == 7
    assert warehouse.load(stream)["contacts"].rows_total == 0


@pytest.mark.parametrize("data", ["results", "results[*]", "body.rows", "contact"])
def test_a_selector_that_matches_nothing_is_reported_with_the_fields_of_the_answer(api: Api, warehouse: Warehouse, data: str) -> None:
    api.serve("/v1/contacts", {"contacts": ROWS, "count": 7})
    with pytest.raises(SourceError, match=r"matches nothing in the answer of http://localhost:\d+/v1/contacts, which holds: contacts, count") as caught:
        load_contacts(warehouse, {"data": data})
    assert caught.value.message.startswith("tenant acme, source crm, stream contacts: ")


@pytest.mark.parametrize("answer", [[1, 2], ["a"], [[1]], [None, None], "text", 5])
def test_rows_that_are_not_objects_are_refused(api: Api, warehouse: Warehouse, answer: Any) -> None:
    api.serve("/v1/contacts", answer)
    with pytest.raises(SourceError, match="are not JSON objects"):
        load_contacts(warehouse)


def test_a_broken_jsonpath_is_a_mistake_of_the_yaml(api: Api, warehouse: Warehouse) -> None:
    with pytest.raises(ConfigurationError, match=r"data `rows\[` is not a valid JSONPath"):
        load_contacts(warehouse, {"data": "rows["})


def test_rows_without_their_primary_key_are_refused(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [{"contact_id": 1, "name": "a"}])
    with pytest.raises(SourceError, match="the source has no primary_key column 'id'; known: contact_id, name"):
        load_contacts(warehouse)


def test_an_object_whose_list_is_mistaken_for_the_rows_is_loaded_as_the_remedy_says(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", {"id": 1, "name": "a", "tags": [{"tag": "x"}]})
    with pytest.raises(SourceError, match="known: tag") as caught:
        load_contacts(warehouse)
    assert "let `data` be their JSONPath, `$` for the whole answer" in caught.value.remedy
    assert load_contacts(warehouse, {"data": "$"}) == [(1, "a")]


def test_one_row_without_its_primary_key_is_set_aside(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [*ROWS, {"id": None, "name": "nobody"}])
    assert load_contacts(warehouse) == ALL
    found = warehouse.read("select origin, row_number, column_name, reason, raw from acme_fabric.rejected_rows")
    assert found == [("page 1", 8, "id", "null_key", '{"id": null, "name": "nobody"}')]


def test_values_of_all_kinds_arrive_as_they_are(api: Api, any_warehouse: Warehouse) -> None:
    row = {
        "id": 1,
        "big": 2**53 + 1,
        "share": 0.1,
        "yes": True,
        "none": None,
        "text": "käse ☕ '\"\\",
        "at": "2024-01-31T12:00:00.000001+02:00",
        "day": "2024-01-31",
    }
    api.serve("/v1/contacts", [row, {"id": 2}])
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    found = any_warehouse.read("select id, big, share, yes, text, \"at\" at time zone 'UTC', day from contacts order by id")
    assert found == [
        (1, 2**53 + 1, 0.1, True, row["text"], datetime(2024, 1, 31, 10, 0, 0, 1), "2024-01-31"),
        (2, None, None, None, None, None, None),
    ]


def test_nested_values_become_columns_and_child_tables(api: Api, any_warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [{"id": 1, "home": {"city": "Ulm"}, "phones": [{"number": "1"}, {"number": "2"}], "tags": ["a", "b"]}])
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    assert any_warehouse.read("select home__city from contacts") == [("Ulm",)]
    assert any_warehouse.read("select number from contacts__phones order by number") == [("1",), ("2",)]
    assert any_warehouse.read("select value from contacts__tags order by value") == [("a",), ("b",)]


def test_a_field_that_comes_with_a_later_page_becomes_a_column(api: Api, any_warehouse: Warehouse) -> None:
    pages = {"1": [{"id": 1}], "2": [{"id": 2, "vip": True}], "3": [{"id": 3, "vip": None, "score": 1.5}]}
    api.serve("/v1/contacts", lambda request: pages.get(request.args["page"], []))
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id", "paginator": {"type": "page_number"}}})
    assert any_warehouse.read("select id, vip, score from contacts order by id") == [(1, None, None), (2, True, None), (3, None, 1.5)]


def test_whole_and_broken_numbers_in_one_field_share_a_column(api: Api, any_warehouse: Warehouse) -> None:
    pages = {"1": [{"id": 1, "price": 3, "net": 2.5}], "2": [{"id": 2, "price": 3.5, "net": 2}], "3": [{"id": 3, "price": None, "net": 1}]}
    stream = {"contacts": {"path": "contacts", "primary_key": "id", "paginator": {"type": "page_number"}}}
    api.serve("/v1/contacts", lambda request: pages.get(request.args["page"], []))
    any_warehouse.load(stream)
    assert any_warehouse.read("select id, price, net from contacts order by id") == [(1, 3.0, 2.5), (2, 3.5, 2.0), (3, None, 1.0)]
    pages["4"] = [{"id": 4, "price": 7, "net": 7}]
    any_warehouse.load(stream)
    assert any_warehouse.read("select sum(price), sum(net) from contacts") == [(13.5, 12.5)]


def test_numbers_that_broke_after_the_first_load_get_a_column_of_their_own(api: Api, any_warehouse: Warehouse) -> None:
    answers = [[{"id": 1, "unitPrice": 3}], [{"id": 2, "unitPrice": 3.5}], [{"id": 1, "unitPrice": 3}, {"id": 2, "unitPrice": 3.5}]]
    stream = {"contacts": {"path": "contacts", "primary_key": "id"}}
    api.serve("/v1/contacts", lambda _: answers.pop(0))
    for _ in range(2):
        any_warehouse.load(stream)
    assert any_warehouse.read("select id, unit_price, unit_price__v_double from contacts order by id") == [(1, 3, None), (2, None, 3.5)]
    any_warehouse.load(stream, full_refresh=True)
    assert any_warehouse.read("select id, unit_price from contacts order by id") == [(1, 3.0), (2, 3.5)]


def test_whole_numbers_that_a_double_cannot_hold_stay_exact(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [{"id": 1, "price": 2**53 + 1}, {"id": 2, "price": 0.5}])
    warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    assert warehouse.read("select price, price__v_double from contacts order by id") == [(2**53 + 1, None), (None, 0.5)]


def test_text_among_numbers_loses_nothing(api: Api, any_warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [{"id": 1, "price": 3}, {"id": 2, "price": "n/a"}])
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    assert any_warehouse.read("select price, price__v_text from contacts order by id") == [(3, None), (None, "n/a")]


@pytest.mark.parametrize(("value", "found"), [(2**63, Decimal(2**63)), (-(2**63) - 1, Decimal(-(2**63) - 1)), (2**200, str(2**200))])
def test_a_number_past_64_bits_stays_exact(api: Api, any_warehouse: Warehouse, value: int, found: Any) -> None:
    api.serve("/v1/contacts", [{"id": 1, "big": value}])
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    assert any_warehouse.read("select big from contacts") == [(found,)]


@pytest.mark.parametrize("number", ["12345678901234567890.12", "1234567890.123456789012", "-0.1234567890123456789", "1234567890123456789e-5"])
@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_a_number_with_more_digits_than_a_double_holds_stays_exact_beside_the_others(api: Api, any_warehouse: Warehouse, number: str, head: str) -> None:
    body = f'{head}[{{"id": 1, "price": 0.30000000000000004}}, {{"id": 2, "price": {number}, "parts": [{number}]}}]'
    api.serve("/v1/contacts", Response(body, content_type="application/json"))
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    assert any_warehouse.read("select price, price__v_text from contacts order by id") == [(0.30000000000000004, None), (None, number)]
    assert any_warehouse.read("select value from contacts__parts") == [(number,)]


@pytest.mark.parametrize("text", ["käse \U0001f9c0", "a\ud800", "a\u0000", "x" * 1_000_000])
def test_odd_text_arrives_or_is_set_aside(api: Api, any_warehouse: Warehouse, text: str) -> None:
    api.serve("/v1/contacts", Response(json.dumps([{"id": 1, "name": text}, {"id": 2, "name": "plain"}]), content_type="application/json"))
    any_warehouse.load({"contacts": {"path": "contacts", "primary_key": "id"}})
    loaded = any_warehouse.read("select name from contacts order by id")
    rejected = any_warehouse.read("select reason from acme_fabric.rejected_rows")
    expected = {"a\ud800": "bad_text", "a\u0000": "nul_byte" if any_warehouse.tenant.warehouse else None}.get(text)
    assert (loaded, rejected) == (([("plain",)], [(expected,)]) if expected else ([(text,), ("plain",)], []))


def test_a_merge_keeps_the_newer_row_of_a_key(api: Api, warehouse: Warehouse) -> None:
    answers = [ROWS, [{"id": 2, "name": "new"}, {"id": 9, "name": "nine"}]]
    api.serve("/v1/contacts", lambda _: answers.pop(0))
    load_contacts(warehouse)
    assert load_contacts(warehouse) == [(1, "name 1"), (2, "new"), *ALL[2:], (9, "nine")]


def test_a_redirect_within_the_api_keeps_the_login(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", Response(status=307, headers={"Location": "/v2/contacts"}))
    api.serve("/v2/contacts", lambda request: ROWS if request.headers.get("Authorization") == f"Bearer {CANARY}" else answer_json({}, 401))
    assert load_contacts(warehouse, auth={"type": "bearer", "token": {"env": "CRM_TOKEN"}}) == ALL


def test_every_error_of_ours_names_the_stream(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", answer_json({}, 404))
    with pytest.raises(FabricError) as caught:
        load_contacts(warehouse)
    assert caught.value.message.startswith("tenant acme, source crm, stream contacts: GET ")
