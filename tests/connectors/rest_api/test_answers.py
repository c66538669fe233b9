"""What an answer holds becomes rows as it is meant, is set aside with its reason, or is refused by name."""

import gzip
import json
from typing import Any

import pytest
from werkzeug import Request, Response

from fabric_assets.errors import SourceError, SourceUnavailable
from tests.connectors.rest_api.rest import Api, Reading, Warehouse, answer_json, read
from tests.support.memory import Memory

ONE_PAGE = {"path": "contacts", "paginator": {"type": "single_page"}}
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]


def fetch(api: Api, **stream: Any) -> Reading:
    return read({"contacts": {**ONE_PAGE, **stream}}, base_url=api.url)


# --- answers that are no data yet


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", json.dumps({"status": "processing"}).encode(), json.dumps(ROWS).encode()])
@pytest.mark.parametrize("write_disposition", ["replace", "merge"])
def test_an_answer_that_is_only_promised_leaves_the_table_as_it_is(
    api: Api, any_warehouse: Warehouse, no_waiting: list[float], body: bytes, write_disposition: str
) -> None:
    stream = {"contacts": {**ONE_PAGE, "primary_key": "id", "write_disposition": write_disposition}}
    api.serve("/v1/contacts", ROWS)
    any_warehouse.load(stream)
    api.server.clear()
    api.serve("/v1/contacts", Response(body, status=202, content_type="application/json"))
    with pytest.raises(SourceUnavailable, match=r"was answered with 202 \(the data are not ready yet\)"):
        any_warehouse.load(stream)
    assert len(no_waiting) == 4
    assert any_warehouse.read("select id, name from contacts order by id") == [(1, "a"), (2, "b")]


def test_what_was_promised_is_loaded_once_it_is_there(api: Api, no_waiting: list[float]) -> None:
    answers = [Response(status=202, headers={"Retry-After": "5"}), Response(b"{}", status=202), answer_json(ROWS)]
    api.serve("/v1/contacts", lambda _: answers.pop(0))
    assert fetch(api).get_rows("contacts") == ROWS
    assert no_waiting[0] == 5


# --- charsets

TEXTS = ["cafe", "café", "Ünï © £", "€ “quoted” …", "Ã©"]
CHARSETS = ["iso-8859-1", "ISO-8859-15", "windows-1252", '"utf-8"', "UTF8", "utf-16", "utf-16-be", "utf-32", "us-ascii"]


def has_letters(charset: str, text: str) -> bool:
    return text == text.encode(charset.strip('"'), "replace").decode(charset.strip('"'))


@pytest.mark.parametrize(("charset", "text"), [(charset, text) for charset in CHARSETS for text in TEXTS if has_letters(charset, text)])
def test_a_text_arrives_exactly_in_the_declared_charset_or_is_refused(api: Api, any_warehouse: Warehouse, charset: str, text: str) -> None:
    name = charset.strip('"')
    body = json.dumps([{"id": 1, "name": text}], ensure_ascii=False).encode(name)
    api.serve("/v1/contacts", Response(body, headers={"Content-Type": f"application/json; charset={charset}"}))
    stream = {"contacts": {**ONE_PAGE, "primary_key": "id"}}
    if body.isascii() or not is_ambiguous(body, name):
        any_warehouse.load(stream)
    else:
        with pytest.raises(SourceError, match=f"declares the charset {name} and is valid UTF-8 as well"):
            any_warehouse.load(stream)
        any_warehouse.load({"contacts": {**stream["contacts"], "encoding": name}})
    assert any_warehouse.read("select name from contacts") == [(text,)]
    assert len(api.requests) <= 2


def is_ambiguous(body: bytes, charset: str) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return not charset.lower().startswith("utf")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=klingon", "application/json; charset=utf-8", "text/plain"])
def test_bytes_that_are_not_utf8_are_refused_once_unless_the_encoding_is_declared(api: Api, content_type: str) -> None:
    api.serve("/v1/contacts", Response('[{"id": 1, "name": "café"}]'.encode("latin-1"), headers={"Content-Type": content_type}))
    with pytest.raises(SourceError, match=r"is not valid utf-8 at byte 24; it declares .*\n  remedy: declare the stream's `encoding`"):
        fetch(api)
    assert len(api.requests) == 1
    assert fetch(api, encoding="iso-8859-1").get_rows("contacts") == [{"id": 1, "name": "café"}]


# --- packed bodies


@pytest.mark.parametrize("body", [json.dumps(ROWS).encode(), b"<html>", b"upstream error"])
def test_a_body_that_is_not_packed_as_its_header_says_is_named_and_asked_for_once(api: Api, body: bytes) -> None:
    api.serve("/v1/contacts", Response(body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}))
    with pytest.raises(SourceError, match="has the header Content-Encoding: gzip, but its body is not gzip\n  remedy: correct the API, or the proxy"):
        fetch(api)
    assert len(api.requests) == 1


@pytest.mark.parametrize("body", [json.dumps(ROWS).encode(), b'[{"id":1}]'])
def test_a_body_without_the_checks_of_gzip_is_named_with_its_header(api: Api, body: bytes) -> None:
    api.serve("/v1/contacts", Response(body, headers={"Content-Type": "application/json", "Content-Encoding": "deflate"}))
    with pytest.raises(SourceError, match="has the header Content-Encoding: deflate"):
        fetch(api)
    assert len(api.requests) == 1


def test_a_packed_body_that_is_damaged_is_asked_for_again(api: Api, no_waiting: list[float]) -> None:
    whole = gzip.compress(json.dumps(ROWS).encode())
    answers = [whole[:14] + b"\xff\xff\xff" + whole[17:], whole]
    api.serve("/v1/contacts", lambda _: Response(answers.pop(0), headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}))
    assert fetch(api).get_rows("contacts") == ROWS


# --- JSON Lines


LINES = b'{"id": 1, "name": "a"}\n\n{"id": 2, "name": "b"}\r\n'


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl", "application/json", "text/plain", "application/json-seq"])
def test_json_lines_are_read_where_they_are_declared_and_refused_once_where_not(api: Api, content_type: str) -> None:
    body = LINES.replace(b"{", b"\x1e{") if "seq" in content_type else LINES
    api.serve("/v1/contacts", Response(body, content_type=content_type))
    assert fetch(api, format="jsonl").get_rows("contacts") == ROWS
    api.requests.clear()
    with pytest.raises(SourceError):
        fetch(api)
    assert len(api.requests) == 1


def test_the_refusal_of_json_lines_names_the_key_to_declare(api: Api) -> None:
    api.serve("/v1/contacts", Response(LINES, content_type="application/x-ndjson"))
    with pytest.raises(SourceError, match=r"holds several JSON values, one after the other\n  remedy: declare `format: jsonl`"):
        fetch(api)


def test_a_line_separator_within_a_text_ends_no_line(api: Api) -> None:
    api.serve("/v1/contacts", Response('{"id": 1, "name": "a\u2028b\x85c"}\n{"id": 2}'.encode(), content_type="application/x-ndjson"))
    assert fetch(api, format="jsonl").get_rows("contacts") == [{"id": 1, "name": "a\u2028b\x85c"}, {"id": 2}]


def test_a_line_within_that_is_not_valid_is_named_and_asked_for_once(api: Api) -> None:
    api.serve("/v1/contacts", Response(b'{"id": 1}\n{"id": }\n{"id": 3}\n', content_type="application/x-ndjson"))
    with pytest.raises(SourceError, match="is not valid JSON Lines: line 2, column 8"):
        fetch(api, format="jsonl")
    assert len(api.requests) == 1


def test_lines_that_break_off_are_asked_for_again(api: Api, no_waiting: list[float]) -> None:
    answers = [Response(LINES[:30], content_type="application/x-ndjson"), Response(LINES, content_type="application/x-ndjson")]
    api.serve("/v1/contacts", lambda _: answers.pop(0))
    assert fetch(api, format="jsonl").get_rows("contacts") == ROWS
    assert len(no_waiting) == 1


@pytest.mark.parametrize("body", ['[{"id": 1}, nope]', '{"id": 1,}', "[{'id': 1}]", '{"a": 1} trailing'])
def test_json_with_a_mistake_is_refused_once_with_its_line_and_column(api: Api, body: str) -> None:
    api.serve("/v1/contacts", Response(body, content_type="application/json"))
    with pytest.raises(SourceError, match="is not JSON: line 1, column"):
        fetch(api)
    assert len(api.requests) == 1


# --- rows that are no objects


@pytest.mark.parametrize(
    ("stray", "kind"),
    [(None, "null"), ([1, "a"], "a list"), ("x", "a text"), (5, "a number"), (1.5, "a number"), (True, "a truth value"), ("\ud800", "a text")],
)
def test_a_bad_row_among_others_is_kept_with_its_reason(api: Api, any_warehouse: Warehouse, stray: Any, kind: str) -> None:
    api.serve("/v1/contacts", [ROWS[0], stray, ROWS[1]])
    report = any_warehouse.load({"contacts": {**ONE_PAGE, "primary_key": "id"}})["contacts"]
    assert (report.rows_loaded, report.rows_rejected) == (2, 1)
    assert any_warehouse.read("select id, name from contacts order by id") == [(1, "a"), (2, "b")]
    (row,) = any_warehouse.read("select origin, row_number, reason, message, raw from acme_fabric.rejected_rows")
    assert row == ("page 1", 2, "bad_json", f"{kind} among the rows is not a JSON object", json.dumps(stray))


def test_a_later_page_of_nothing_but_bad_rows_is_kept(api: Api, warehouse: Warehouse) -> None:
    pages = {"1": ROWS, "2": [None], "3": [{"id": 3, "name": "c"}]}
    api.serve("/v1/contacts", lambda request: pages.get(request.args["page"], []))
    warehouse.load({"contacts": {"path": "contacts", "primary_key": "id", "paginator": {"type": "page_number"}}})
    assert warehouse.read("select count(*) from contacts") == [(3,)]
    assert warehouse.read("select origin, row_number, raw from acme_fabric.rejected_rows") == [("page 2", 1, "null")]


def test_a_bad_row_has_no_children_and_moves_no_cursor(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [None, {"id": 1, "at": "2026-01-01"}])
    api.serve("/v1/contacts/1/notes", [["x"], {"text": "hello"}])
    streams = {
        "contacts": {**ONE_PAGE, "primary_key": "id", "cursor": {"field": "at", "param": "since"}},
        "notes": {"path": "contacts/{contacts.id}/notes", "primary_key": "text"},
    }
    warehouse.load(streams)
    assert warehouse.read("select text from notes") == [("hello",)]
    assert warehouse.read("select stream, origin, row_number from acme_fabric.rejected_rows order by 1") == [
        ("contacts", "page 1", 1),
        ("notes", "contacts.id 1, page 1", 1),
    ]


@pytest.mark.parametrize(("answer", "data"), [({"data": {}}, "data"), ({}, None), ({}, "$"), ({"data": {"rows": {}}}, "data.rows"), ({"data": {}}, "data.*")])
@pytest.mark.parametrize("primary_key", [None, "id"])
def test_an_empty_object_instead_of_rows_is_not_a_row(api: Api, answer: Any, data: str | None, primary_key: str | None) -> None:
    """PHP writes an empty list as {} where a full one has keys."""
    api.serve("/v1/contacts", answer)
    assert fetch(api, primary_key=primary_key, **({"data": data} if data else {})).batches == []


def test_an_empty_object_among_rows_is_a_row(api: Api) -> None:
    api.serve("/v1/contacts", {"data": [{}]})
    assert fetch(api, data="data").get_rows("contacts") == [{}]
    assert fetch(api, data="data[*]").get_rows("contacts") == [{}]


@pytest.mark.parametrize("key", [{"$oid": "a1"}, ["a1"]])
def test_a_key_that_is_not_a_single_value_is_refused_with_the_remedy(api: Api, any_warehouse: Warehouse, key: Any) -> None:
    api.serve("/v1/contacts", [{"id": key, "name": "a"}])
    with pytest.raises(SourceError, match="the primary_key 'id' holds"):
        any_warehouse.load({"contacts": {**ONE_PAGE, "primary_key": "id"}})


@pytest.mark.parametrize(("key", "kind"), [({"$oid": "a1"}, "an object"), (["a1"], "a list")])
def test_one_key_that_is_not_a_single_value_rejects_its_row_by_its_kind(api: Api, any_warehouse: Warehouse, key: Any, kind: str) -> None:
    api.serve("/v1/contacts", [{"id": key}, {"id": 1}, {"id": None}])
    any_warehouse.load({"contacts": {**ONE_PAGE, "primary_key": "id"}})
    assert any_warehouse.read("select id from contacts") == [(1,)]
    assert any_warehouse.read("select row_number, reason, message from acme_fabric.rejected_rows order by 1") == [
        (1, "type_mismatch", f"the primary key id holds {kind}, not a single value"),
        (3, "null_key", "the primary key id is NULL"),
    ]


def test_an_object_of_objects_is_read_by_its_values(api: Api) -> None:
    api.serve("/v1/contacts", {"data": {"a1": {"id": 1}, "a2": {"id": 2}}})
    assert fetch(api, data="data.*").get_rows("contacts") == [{"id": 1}, {"id": 2}]


# --- one object


def serve_one(api: Api, name: str, end: str = "") -> None:
    row = {"name": name, "abilities": [{"slot": 1}, {"slot": 2}], "next": "/v1/other", "total": 99, "has_more": True}
    api.serve(f"/v1/pokemon/{name}{end}", row)


def serve_pokemon(api: Api) -> None:
    api.serve("/v1/pokemon", {"results": [{"name": "a"}, {"name": "b"}], "next": None})
    for number, name in enumerate("ab", 1):
        api.serve(
            f"/v1/pokemon/{name}", {"id": number, "name": name, "abilities": [{"slot": 1}, {"slot": 2}], "next": "/v1/other", "total": 99, "has_more": True}
        )


POKEMON = {"pokemon": {"path": "pokemon", "data": "results"}, "details": {"path": "pokemon/{pokemon.name}"}}


@pytest.mark.parametrize(
    "paginator",
    [None, {"type": "page_number"}, {"type": "offset", "limit": 1, "total": "rows"}, {"type": "json_link", "next": "next"}, {"type": "single_page"}],
)
@pytest.mark.parametrize("end", ["", "/", "/?x=1", ".json"])
def test_an_object_at_a_path_that_ends_in_a_parents_field_is_the_row(api: Api, paginator: Any, end: str) -> None:
    serve_pokemon(api)
    for name in "ab":
        serve_one(api, name, end.partition("?")[0])
    details = {"path": f"pokemon/{{pokemon.name}}{end}", **({"paginator": paginator} if paginator else {})}
    rows = read({**POKEMON, "details": details}, "details", base_url=api.url).get_rows("details")
    assert [row["name"] for row in rows] == ["a", "b"]
    assert [row["abilities"] for row in rows] == [[{"slot": 1}, {"slot": 2}]] * 2


def test_a_list_at_such_a_path_is_its_rows_and_may_have_pages(api: Api) -> None:
    api.serve("/v1/words", [{"word": "x"}])
    api.serve("/v1/search/x", lambda request: {"1": ROWS[:1], "2": ROWS[1:]}.get(request.args["page"], []))
    streams = {"words": {"path": "words", "paginator": {"type": "single_page"}}, "found": {"path": "search/{words.word}"}}
    assert read(streams, "found", base_url=api.url, paginator={"type": "page_number"}).get_rows("found") == ROWS


def test_a_table_of_an_earlier_version_keeps_reading_the_list_within(api: Api) -> None:
    """Objects would not fit among the rows that it has."""
    api.serve("/v1/pokemon", {"results": [{"name": "a"}]})
    api.serve("/v1/pokemon/a", {"id": 1, "abilities": [{"slot": 1}, {"slot": 2}]})
    memories = {"details": Memory(value_forms=1)}
    reading = read(POKEMON, "details", base_url=api.url, memories=memories)
    assert reading.get_rows("details") == [{"slot": 1}, {"slot": 2}]
    assert "load details with --full-refresh" in reading.messages[0]


# --- a parent's field in the query


COMMENTS = {"posts": {"path": "posts", "paginator": {"type": "single_page"}}, "comments": {"path": "comments", "params": {"post_id": "{posts.id}", "size": 5}}}


def test_a_parents_field_is_filled_into_the_query(api: Api) -> None:
    api.serve("/v1/posts", [{"id": 1}, {"id": "a&b=ü"}])
    api.serve("/v1/comments", lambda request: [{"id": request.args["post_id"]}])
    reading = read(COMMENTS, base_url=api.url)
    assert reading.get_rows("comments") == [{"id": "1"}, {"id": "a&b=ü"}]
    assert [batch.origin for batch in reading.batches if batch.stream == "comments"] == ["posts.id 1, page 1", "posts.id a&b=ü, page 1"]
    assert api.get_queries("/v1/comments") == [{"post_id": "1", "size": "5"}, {"post_id": "a&b=ü", "size": "5"}]


def test_several_fields_of_one_parent_and_texts_with_braces(api: Api) -> None:
    api.serve("/v1/posts", [{"id": 1, "user": {"lang": "de"}}])
    api.serve("/v1/posts/1/comments", lambda request: [dict(request.args)])
    params = {"q": 'in:{posts.user.lang} {"a": {"b": {posts.id}}} {{posts.id}}', "x": "{}"}
    streams = {"posts": COMMENTS["posts"], "comments": {"path": "posts/{posts.id}/comments", "params": params}}
    assert read(streams, "comments", base_url=api.url).get_rows("comments") == [{"q": 'in:de {"a": {"b": 1}} {posts.id}', "x": "{}"}]


@pytest.mark.parametrize("value", ["", True, {"a": 1}, [1]])
def test_a_value_that_would_ask_for_everything_is_refused(api: Api, value: Any) -> None:
    api.serve("/v1/posts", [{"id": value}])
    reading = read(COMMENTS, base_url=api.url)
    assert "stream comments: a row of posts has no value in 'id' that can be part of a query" in str(reading.failures["comments"])
    assert api.get_paths() == ["/v1/posts"]


# --- a parent that fails


def test_each_stream_below_a_parent_that_fails_is_named(api: Api) -> None:
    def answer(request: Request) -> Any:
        return answer_json({}, 401)

    api.serve("/v1/posts", answer)
    reading = Reading()
    reader = reading.open(COMMENTS, base_url=api.url)
    with pytest.raises(SourceError, match="stream posts: GET"):
        reading.collect(reader.groups[0])
    assert list(reading.failures) == ["comments"]
    assert str(reading.failures["comments"]) == "tenant acme, source crm, stream comments: not loaded, because its parent posts failed"


def test_a_load_names_the_parent_that_failed_before_its_children(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/posts", lambda _: answer_json({}, 401))
    with pytest.raises(SourceError) as caught:
        warehouse.load(COMMENTS)
    assert [line.partition(":")[0] for line in caught.value.message.splitlines() if line.startswith("- ")] == ["- posts", "- comments"]


def test_a_child_says_why_its_parent_failed_if_the_parent_is_not_loaded(api: Api) -> None:
    api.serve("/v1/posts", lambda _: answer_json({}, 401))
    reading = Reading()
    with pytest.raises(SourceError, match="stream posts: GET"):
        reading.collect(reading.open(COMMENTS, "comments", base_url=api.url).groups[0])
    error = reading.failures["comments"]
    where, _, reason = error.message.partition(": not loaded, because its parent posts failed: ")
    assert (where, reason.partition(" http")[0]) == ("tenant acme, source crm, stream comments", "tenant acme, source crm, stream posts: GET")
    assert error.remedy == "check the source's auth and the secret it names"
