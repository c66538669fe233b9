"""An answer that only looks like data, or that contradicts itself, is refused by name or rejected row by row."""

import gzip
import json
from typing import Any

import pytest
from werkzeug import Response

from fabric_assets.errors import SourceError
from tests.connectors.rest_api.rest import Api, Reading, Warehouse, read

ONE_PAGE = {"path": "contacts", "paginator": {"type": "single_page"}}


def fetch(api: Api, **stream: Any) -> Reading:
    return read({"contacts": {**ONE_PAGE, **stream}}, base_url=api.url)


# --- an error in place of rows


@pytest.mark.parametrize(
    "body",
    [
        {"success": False},
        {"success": False, "message": "token expired"},
        {"isSuccess": False, "data": None},
        {"ok": False},
        {"status": "error", "message": "quota"},
        {"status": "fail", "data": {"title": "required"}},
        {"status": 401, "message": "who are you?"},
        {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "no"},
        {"code": 500, "msg": "later", "data": []},
        {"error": "boom"},
    ],
)
@pytest.mark.parametrize("data", [None, "data"])
def test_an_object_that_only_reports_a_failure_is_refused_and_the_table_stays(api: Api, any_warehouse: Warehouse, body: Any, data: str | None) -> None:
    stream = {"contacts": {**ONE_PAGE, "write_disposition": "replace", **({"data": data} if data else {})}}
    api.serve("/v1/contacts", {"data": [{"id": 1}]})
    any_warehouse.load(stream)
    api.server.clear()
    api.serve("/v1/contacts", body)
    if data and isinstance(body.get("data"), dict):
        any_warehouse.load(stream)  # what `data` points at is there
        return
    with pytest.raises(SourceError, match=r"holds an error in place of rows|`data` matches nothing"):
        any_warehouse.load(stream)
    assert any_warehouse.read("select id from contacts") == [(1,)]


@pytest.mark.parametrize(
    "row",
    [{"id": 1, "success": False}, {"id": 1, "status": "error", "message": "x"}, {"status": "ok", "message": "fine"}, {"success": True}, {"code": 200}],
)
def test_an_object_with_data_of_its_own_is_a_row(api: Api, row: dict[str, Any]) -> None:
    api.serve("/v1/contacts", row)
    assert fetch(api).get_rows("contacts") == [row]


def test_a_row_that_looks_like_a_failure_is_loaded_if_data_points_at_it(api: Api) -> None:
    api.serve("/v1/contacts", {"success": False})
    assert fetch(api, data="$").get_rows("contacts") == [{"success": False}]


@pytest.mark.parametrize("end", [{"error": "boom"}, {"status": "error", "message": "backend gone"}, {"errors": [{"message": "x"}]}])
@pytest.mark.parametrize("before", [b"", b'{"id": 1}\n{"id": 2}\n'])
def test_json_lines_that_end_in_an_error_are_refused(api: Api, end: Any, before: bytes) -> None:
    api.serve("/v1/contacts", Response(before + json.dumps(end).encode(), content_type="application/x-ndjson"))
    with pytest.raises(SourceError, match="holds an error in place of rows"):
        fetch(api, format="jsonl")
    assert len(fetch(api, format="jsonl", data="[*]").get_rows("contacts")) == before.count(b"\n") + 1


def test_json_lines_that_are_all_errors_are_a_log(api: Api) -> None:
    api.serve("/v1/contacts", Response(b'{"error": "a"}\n{"error": "b"}\n', content_type="application/x-ndjson"))
    assert fetch(api, format="jsonl").get_rows("contacts") == [{"error": "a"}, {"error": "b"}]


# --- a name that comes twice


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ('{"id": 1, "a": 1, "a": 2}', "a"),
        ('{"id": 1, "n": {"x": 1, "x": null}}', "x"),
        ('{"id": 1, "l": [{"y": 1, "y": 1}]}', "y"),
        ('{"id": 1, "a": {"z": 1, "z": 2}, "a": 3}', "a"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_a_row_that_names_a_field_twice_is_rejected_with_both_values(api: Api, any_warehouse: Warehouse, bad: str, name: str, lines: bool) -> None:
    body = f'{bad}\n{{"id": 2, "a": 5}}' if lines else f'[{bad}, {{"id": 2, "a": 5}}]'
    api.serve("/v1/contacts", Response(body, content_type="application/json"))
    report = any_warehouse.load({"contacts": {**ONE_PAGE, "primary_key": "id", "format": "jsonl" if lines else "json"}})["contacts"]
    assert (report.rows_loaded, report.rows_rejected) == (1, 1)
    assert any_warehouse.read("select id, a from contacts") == [(2, 5)]
    (row,) = any_warehouse.read("select row_number, reason, message, raw from acme_fabric.rejected_rows")
    assert row == (1, "bad_json", f"it names {name!r} twice", bad)


def test_an_answer_of_one_such_row_alone_keeps_it(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/words", [{"name": "x"}])
    api.serve("/v1/words/x", Response('{"id": 1, "a": 1, "a": 2}', content_type="application/json"))
    streams = {"words": {"path": "words", "paginator": {"type": "single_page"}}, "details": {"path": "words/{words.name}"}}
    assert warehouse.load(streams, "details")["details"].rows_rejected == 1


@pytest.mark.parametrize("body", ['{"data": [{"id": 1}], "data": [{"id": 2}]}', '{"data": [{"id": 1}], "next": null, "next": "/v1/two"}'])
def test_an_answer_that_says_two_things_around_its_rows_is_refused(api: Api, body: str) -> None:
    api.serve("/v1/contacts", Response(body, content_type="application/json"))
    with pytest.raises(SourceError, match=r"names '(data|next)' twice outside of its rows"):
        fetch(api, data="data")


# --- bytes that nobody has unpacked


@pytest.mark.parametrize(
    ("body", "header", "said"),
    [(b"\x0b\x02\x80[]\x03", "br", "br"), (gzip.compress(b'[{"id": 1}]', mtime=0), "", "gzip"), (b"\x28\xb5\x2f\xfd\x00", "zstd", "zstd")],
)
def test_an_answer_that_is_still_compressed_is_refused(api: Api, body: bytes, header: str, said: str) -> None:
    api.serve("/v1/contacts", Response(body, headers={"Content-Type": "application/json", **({"Content-Encoding": header} if header else {})}))
    with pytest.raises(SourceError, match=rf"is compressed \({said}\), which was not requested"):
        fetch(api)
    assert len(api.requests) == 1
