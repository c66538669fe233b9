"""Files of every format, from a folder and from a bucket: each loaded once, each changed one again, no character changed."""

import contextlib
import json
import os
import sqlite3
import unicodedata
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.config.sources.files import FileStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.files.faults import build_error
from fabric_assets.connectors.files.listing import FetchedFile, SourceFile, fetch, list_files
from fabric_assets.connectors.files.news import find_news
from fabric_assets.errors import ConfigurationError, DataError, FabricError, RetriableError, SourceError, SourceUnavailable
from fabric_assets.settings import Settings, load_settings
from tests.support.services import Bucket, get_free_port
from tests.support.shop import Tenant, write_secret_file


def build_tenant(settings: Settings, *, warehouse: str | None = None, **streams: dict[str, Any]) -> Tenant:
    return Tenant(settings, {"type": "files", "path": "exports", "streams": streams}, warehouse=warehouse)


CSV = {"glob": "*.csv", "format": "csv"}
JSONL = {"glob": "*.jsonl", "format": "jsonl"}
PARQUET = {"glob": "*.parquet", "format": "parquet"}


def test_new_and_changed_files_are_loaded_and_the_others_are_not(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "a.csv").write_text("id,name\n1,one\n2,two\n")
    (inbox / "b.csv").write_text("id,name\n3,three\n")
    tenant = build_tenant(settings, items=CSV, warehouse=warehouse)
    first = tenant.load()["items"]
    assert (first.rows_loaded, first.rows_total) == (3, 3)
    assert tenant.read("items", "_fabric_file", "_fabric_row", "id", "name") == [("a.csv", 1, 1, "one"), ("a.csv", 2, 2, "two"), ("b.csv", 1, 3, "three")]
    assert tenant.load()["items"].rows_loaded == 0
    assert any("no new or changed file" in message for message in tenant.messages)

    (inbox / "a.csv").write_text("id,name\n1,ONE\n")
    (inbox / "c.csv").write_text("id,name\n4,four\n")
    second = tenant.load()["items"]
    # The rows of the earlier a.csv are gone with it.
    assert (second.rows_loaded, second.rows_total) == (2, 3)
    assert tenant.read("items", "id", "name") == [(1, "ONE"), (3, "three"), (4, "four")]


def test_a_touched_file_with_the_same_bytes_is_not_loaded_again(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    os.utime(inbox / "a.csv", (1, 1))
    assert tenant.load()["items"].rows_loaded == 0


def test_a_change_that_keeps_size_and_time_is_seen(settings: Settings, inbox: Path) -> None:
    """A copy can keep the time of a file's content. A file may also change within the same tick of the clock, right after it was read."""
    versions, tenant = set[str](), build_tenant(settings, items=CSV)
    for number in (1, 2):
        (inbox / "a.csv").write_text(f"id\n{number}\n")
        os.utime(inbox / "a.csv", (1, 1))
        tenant.load()
        assert tenant.read("items", "id") == [(number,)]
        ((file,), _) = list_files(_build_context(settings), FileStream.model_validate(CSV), where="here")
        versions.add(file.version)
        assert (file.kept_version, replace(file, is_young=False).kept_version) == ("", file.version)
    assert len(versions) == 2


def test_a_file_that_an_earlier_release_has_loaded_is_not_read_again(settings: Settings, inbox: Path) -> None:
    path = inbox / "a.csv"
    path.write_text("id\n1\n")
    ((file,), _) = list_files(_build_context(settings), FileStream.model_validate(CSV), where="here")
    known = {"a.csv": {"version": f"{path.stat().st_size}-{path.stat().st_mtime_ns}", "sha256": "5ha"}}
    news = find_news([file], known, inbox, replaces=True, most=100, where="here", report=print, check=lambda: None)
    assert (news.files, news.seen) == ([], {"a.csv": {"version": file.version, "sha256": "5ha"}})


@pytest.mark.parametrize("swapped", ["folder", "file"])
@pytest.mark.parametrize("held", [False, True])
def test_an_object_that_replaces_a_listed_file_is_not_read(settings: Settings, inbox: Path, tmp_path: Path, swapped: str, *, held: bool) -> None:
    for folder, number in ((inbox / "day", 1), (tmp_path / "other", 2)):
        folder.mkdir()
        (folder / "a.csv").write_text(f"id\n{number}\n")
    ((file,), _) = list_files(_build_context(settings), FileStream.model_validate(CSV | {"glob": "day/*"}), where="here")
    fetched = fetch(file, tmp_path, 0, most=100, where="here")

    def swap() -> None:
        if swapped == "folder":
            (inbox / "day").rename(inbox / "before")
            (inbox / "day").symlink_to(tmp_path / "other")
        else:
            (tmp_path / "other" / "a.csv").replace(inbox / "day" / "a.csv")

    if held:
        with fetched.hold("here"):
            swap()
            assert fetched.path.read_text() == "id\n1\n"
    else:
        swap()
        with pytest.raises((SourceError, RetriableError), match="is a link|changed while it was read"), fetched.hold("here"):
            pass
    with pytest.raises(RetriableError, match="changed while it was read"):
        fetched.refuse_change("here")


def _build_context(settings: Settings) -> SourceContext:
    return SourceContext("acme", "shop", build_tenant(settings, items=CSV).config.sources["shop"], ("items",), settings)


def test_the_rows_of_a_file_are_deleted_when_it_becomes_empty_or_a_copy_of_another_file(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    for name in ("a", "b", "c", "d"):
        (inbox / f"{name}.csv").write_text(f"id,name\n1,{name}\n")
    tenant = build_tenant(settings, items=CSV, warehouse=warehouse)
    tenant.load()
    (inbox / "b.csv").write_text("id,name\n")
    (inbox / "c.csv").write_text("id,name\n1,a\n")
    (inbox / "d.csv").write_text("")
    assert tenant.load()["items"].rows_total == 1
    assert tenant.read("items", "_fabric_file", "name") == [("a.csv", "a")]


def test_a_line_of_null_is_not_a_row(settings: Settings, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text('{"id": 1, "n": null}\nnull\n{"id": 2}\n')
    tenant = build_tenant(settings, items=JSONL)
    tenant.load()
    assert tenant.read("items", "_fabric_row", "id") == [(1, 1), (3, 2)]
    assert tenant.ask("select row_number, raw from acme_fabric.rejected_rows") == [(2, "null")]


@pytest.mark.parametrize("copy", ["0.csv", "copy.csv"])
def test_a_copy_is_loaded_once_the_file_that_it_copies_has_changed(settings: Settings, inbox: Path, copy: str) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    (inbox / copy).write_text("id\n1\n")
    if copy == "copy.csv":
        tenant.load()
    (inbox / "a.csv").write_text("id\n2\n")
    tenant.load()
    assert tenant.read("items", "id", "_fabric_file") == [(1, copy), (2, "a.csv")]
    assert tenant.load()["items"].rows_loaded == 0


def test_the_same_bytes_under_another_name_are_loaded_once_and_reported(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    (inbox / "copy.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    assert tenant.load()["items"].rows_total == 1
    assert any("copy.csv is skipped: same content as a.csv" in message for message in tenant.messages)
    assert tenant.load()["items"].rows_total == 1


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_changed_file_is_known_in_another_unicode_form_of_its_name(settings: Settings, inbox: Path, warehouse: str | None, forms: tuple[Any, Any]) -> None:
    """Copies to and from a Mac change the form; people see the same name."""
    first, second = (unicodedata.normalize(form, "März/Café.csv") for form in forms)
    tenant = build_tenant(settings, warehouse=warehouse, items={**CSV, "glob": "**/*.csv"})
    for name, content in ((first, "id,v\n1,a\n"), (second, "id,v\n1,a\n2,b\n"), (second, "id,v\n1,a\n2,b\n3,c\n"), (first, "id,v\n9,z\n")):
        for old in inbox.rglob("*.csv"):
            old.unlink()
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_text(content)
        tenant.load()
        assert tenant.ask("select count(*) from acme_raw_shop.items") == [(content.count("\n") - 1,)]


def test_two_files_whose_names_differ_in_their_form_are_two_while_both_are_there(settings: Settings, inbox: Path) -> None:
    for number, form in enumerate(("NFC", "NFD"), 1):
        (inbox / unicodedata.normalize(form, "Café.csv")).write_text(f"id\n{number}\n")  # type: ignore[arg-type]
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    assert tenant.read("items", "id") == [(1,), (2,)]


def test_the_last_version_of_a_key_wins_within_a_run_and_between_runs(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "1.jsonl").write_text('{"id": 1, "v": "old"}\n{"id": 2, "v": "kept"}\n{"id": 1, "v": "newer"}\n')
    (inbox / "2.jsonl").write_text('{"id": 1, "v": "newest"}\n')
    tenant = build_tenant(settings, items={**JSONL, "primary_key": "id"}, warehouse=warehouse)
    assert tenant.load()["items"].rows_total == 2
    assert tenant.read("items", "id", "v") == [(1, "newest"), (2, "kept")]
    (inbox / "3.jsonl").write_text('{"id": 2, "v": "changed"}\n')
    tenant.load()
    assert tenant.read("items", "id", "v") == [(1, "newest"), (2, "changed")]


def test_a_full_refresh_takes_the_files_in_the_order_in_which_they_came(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "a.jsonl").write_text('{"id": 1, "v": "old"}\n')
    (inbox / "b.jsonl").write_text('{"id": 1, "v": "newer"}\n')
    os.utime(inbox / "a.jsonl", (1, 1))
    os.utime(inbox / "b.jsonl", (2, 2))
    tenant = build_tenant(settings, items={**JSONL, "primary_key": "id"}, warehouse=warehouse)
    tenant.load()
    (inbox / "a.jsonl").write_text('{"id": 1, "v": "newest"}\n')
    tenant.load()
    assert tenant.read("items", "id", "v") == [(1, "newest")]
    tenant.load(full_refresh=True)
    assert tenant.read("items", "id", "v") == [(1, "newest")]


def test_replace_holds_the_present_rows_of_the_files(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    (inbox / "b.csv").write_text("id\n2\n")
    tenant = build_tenant(settings, items={**CSV, "write_disposition": "replace"})
    assert tenant.load()["items"].rows_total == 2
    (inbox / "a.csv").unlink()
    assert tenant.load()["items"].rows_total == 1
    (inbox / "b.csv").unlink()
    assert "replace would empty the table" in str(_fail(SourceError, tenant))
    assert tenant.read("items", "id") == [(2,)]


def test_texts_of_a_csv_become_values_only_where_nothing_is_lost(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "a.csv").write_text(
        "zip,count,price,exact,flag,day,at,moment,mixed,late,empty,quoted,none\n"
        '00123,1,1.50,0.12345678901234567890,true,2024-02-29,2024-02-29 10:11:12.5,2024-02-29T10:11:12+02:00,1,1,,"",\n'
        '123,-2,2,1,False,2024-03-01,2024-03-01T00:00:00,2024-03-01T00:00:00Z,x,2,,"a ""b""\nc, d",\n'
        + "".join(f"{n},3,3,1,true,2024-03-01,2024-03-01 00:00:00,2024-03-01T00:00:00Z,1,{n},,z,\n" for n in range(3000))
        + "9,3,3,1,true,2024-03-01,2024-03-01 00:00:00,2024-03-01T00:00:00Z,1,#late,,z,\n"
    )
    tenant = build_tenant(settings, items=CSV, warehouse=warehouse)
    tenant.load()
    names = ["zip", "count", "price", "exact", "flag", "day", "at", "moment", "mixed", "late", "empty", "quoted", "none"]
    rows = tenant.read("items", *names, order="_fabric_row")
    assert len(rows) == 3003
    assert [_plain(value) for value in rows[0]] == [
        "00123",
        1,
        1.5,
        "0.12345678901234567890",
        True,
        date(2024, 2, 29),
        datetime(2024, 2, 29, 10, 11, 12, 500000),
        datetime(2024, 2, 29, 8, 11, 12, tzinfo=UTC),
        "1",
        "1",
        None,
        "",
        None,
    ]
    assert rows[1][0] == "123" and rows[1][8] == "x" and rows[1][11] == 'a "b"\nc, d'
    assert rows[-1][9] == "#late"


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(settings: Settings, inbox: Path, mark: str) -> None:
    (inbox / "a.csv").write_bytes(b"\xef\xbb\xbf" + f"id{mark}name\r\n#1{mark}a\r\n".encode())
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    assert tenant.read("items", "id", "name") == [("#1", "a")]


def test_json_lines_keep_numbers_texts_and_nested_values(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": 1,
            "code": "007",
            "big": 12345678901234567890123,
            "half": 0.5,
            "ok": True,
            "at": "2024-01-02T03:04:05.5Z",
            "tags": ["a", {"b": None}],
            "mixed": 1,
            "none": None,
        },
        {"id": 2, "code": 'q"uote\n🤷', "big": 1, "half": 2, "ok": None, "at": None, "tags": [], "mixed": "x", "extra": 5},
    ]
    (inbox / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    tenant = build_tenant(settings, items=JSONL, warehouse=warehouse)
    tenant.load()
    first, second = tenant.read("items", "id", "code", "big", "half", "ok", "at", "tags", "mixed", "none", "extra", order="id")
    moment = datetime(2024, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)
    assert [_plain(value) for value in first] == [1, "007", "12345678901234567890123", 0.5, True, moment, '["a",{"b":null}]', "1", None, None]
    assert [_plain(value) for value in second] == [2, 'q"uote\n🤷', "1", 2.0, None, None, "[]", "x", None, 5]


def test_numbers_of_json_lines_with_more_digits_than_a_double_holds_stay_texts(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    """A CSV with these numbers keeps them so."""
    lines = [
        '{"id": 1, "price": 12345678901234567890.12, "share": 0.1234567890123456789, "plain": 0.30000000000000004, "at": {"x": [1, -1234567890.123456789012]}}',
        '{"id": 2, "price": 0.5, "share": 1e-7, "plain": 1.50, "at": {"x": "say \\"0.1234567890123456789\\", 0.1234567890123456789"}}',
        '{"id": 3, "price": 1234567890123456789e-5, "share": 0.1000000000000000000000, "plain": 12345678901234.5}',
    ]
    (inbox / "a.jsonl").write_text("\n".join(lines))
    tenant = build_tenant(settings, items=JSONL, warehouse=warehouse)
    tenant.load()
    assert tenant.read("items", "id", "price", "share", "plain", "at", order="_fabric_row") == [
        (1, "12345678901234567890.12", "0.1234567890123456789", 0.30000000000000004, '{"x":[1,"-1234567890.123456789012"]}'),
        (2, "0.5", "1e-7", 1.5, '{"x":"say \\"0.1234567890123456789\\", 0.1234567890123456789"}'),
        (3, "1234567890123456789e-5", "0.1", 12345678901234.5, None),
    ]


def test_parquet_keeps_its_types(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.int8()),
            "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "at": pa.array([datetime(2024, 1, 2, 3), None], pa.timestamp("ns")),
            "moment": pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC), None], pa.timestamp("ms", tz="Europe/Berlin")),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
            "raw": pa.array([b"\x00\xff", None]),
            "list_": pa.array([[1, 2], None]),
            "row": pa.array([{"a": Decimal("1.10")}, None]),
        }
    )
    pq.write_table(table, inbox / "a.parquet")
    tenant = build_tenant(settings, items=PARQUET, warehouse=warehouse)
    tenant.load()
    first, second = tenant.read("items", "small", "unsigned", "price", "at", "moment", "kind", "raw", "listx", "row", order="_fabric_row")
    expected = [
        1,
        Decimal(2**64 - 1),
        Decimal("1.50"),
        datetime(2024, 1, 2, 3),
        datetime(2024, 1, 2, 3, tzinfo=UTC),
        "a",
        b"\x00\xff",
        [1, 2],
        {"a": "1.10"},
    ]
    *plain, row = first
    assert [*(_plain(value) for value in plain), row if warehouse else json.loads(row)] == expected
    assert [_plain(value) for value in second] == [None, 0, None, None, None, "b", None, None, None]


def test_parquet_moments_of_spark_are_read_as_they_are(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    moments = [datetime(2026, 1, 1, 1, 2, 3, 456789), datetime(9999, 12, 31), datetime(2300, 1, 1), datetime(1600, 1, 1), None]
    pq.write_table(pa.table({"at": pa.array(moments, pa.timestamp("us"))}), inbox / "a.parquet", use_deprecated_int96_timestamps=True)
    tenant = build_tenant(settings, items=PARQUET, warehouse=warehouse)
    tenant.load()
    assert [at for (at,) in tenant.read("items", "at", order="_fabric_row")] == moments
    assert tenant.ask("select * from acme_raw_shop.items limit 0") == []
    assert not tenant.ask("select 1 from information_schema.columns where table_name = 'items' and column_name like '%__v_text'")


def test_parquet_uuids_maps_and_structs_are_texts_that_one_can_read(settings: Settings, inbox: Path) -> None:
    text, maps = "123e4567-e89b-12d3-a456-426614174000", pa.map_(pa.string(), pa.int32())
    table = pa.table(
        {
            "u": pa.array([uuid.UUID(text).bytes, None], pa.uuid()),
            "m": pa.array([[("a", 1), ("b", None)], None], maps),
            "s": pa.array([{"x": 1, "m": [("k", 2)]}, {"x": None, "m": []}], pa.struct({"x": pa.int32(), "m": maps})),
            "t": pa.array([3_723_123_456_000, None], pa.time64("ns")),
        }
    )
    pq.write_table(table, inbox / "a.parquet")
    tenant = build_tenant(settings, items=PARQUET)
    tenant.load()
    assert tenant.read("items", "u", "m", "s", "t", order="_fabric_row") == [
        (text, '{"a": 1, "b": null}', '{"x": 1, "m": {"k": 2}}', time(1, 2, 3, 123456)),
        (None, None, '{"x": null, "m": {}}', None),
    ]


@pytest.mark.parametrize("values", [[[], []], [[], None], [None, []]])
def test_a_list_that_is_empty_in_every_row_loads(settings: Settings, inbox: Path, warehouse: str | None, values: list[Any]) -> None:
    pq.write_table(pa.table({"id": [1, 2], "c": pa.array(values, pa.list_(pa.string()))}), inbox / "a.parquet")
    (inbox / "a.jsonl").write_text("".join(json.dumps({"id": number, "c": value}) + "\n" for number, value in enumerate(values)))
    tenant = build_tenant(settings, items=PARQUET, lines=JSONL, warehouse=warehouse)
    for full_refresh in (False, True):
        assert {report.rows_total for report in tenant.load(full_refresh=full_refresh).values()} == {2}
    assert [c is None for (c,) in tenant.read("items", "c", order="_fabric_row")] == [value is None for value in values]


def test_an_encrypted_parquet_file_is_called_so(settings: Settings, inbox: Path) -> None:
    (inbox / "a.parquet").write_bytes(b"PARE" + b"\0" * 100 + (10).to_bytes(4, "little") + b"PARE")
    error = _fail(DataError, build_tenant(settings, items=PARQUET))
    assert error.message.endswith("the file a.parquet is an encrypted Parquet file")


def test_files_of_other_columns_and_types_lose_nothing(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,v,w\n1,1,1\n")
    (inbox / "b.csv").write_text("v,id,extra\n2.5,2,x\n")
    (inbox / "c.csv").write_text("id,w\n3,word\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    assert tenant.read("items", "id", "v", "w", "extra") == [(1, 1.0, "1", None), (2, 2.5, None, "x"), (3, None, "word", None)]
    (inbox / "d.csv").write_text("id,later\n4,9\n")
    tenant.load()
    assert tenant.read("items", "id", "later") == [(1, None), (2, None), (3, None), (4, 9)]


def test_values_of_another_type_than_the_tables_are_kept_beside_it_and_a_full_refresh_chooses_anew(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,at,n\n1,2024-01-02 03:04:05,1.5\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    (inbox / "b.csv").write_text("id,at,n\n007,2024-01-03T00:00,2.50\n3,soon,many\n")
    report = tenant.load()["items"]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected) == (2, 2, 0)
    rows = tenant.read("items", "_fabric_row", "id", "id__v_text", "at", "at__v_text", "n", "n__v_text", order="_fabric_file, _fabric_row")
    assert rows == [
        (1, 1, None, datetime(2024, 1, 2, 3, 4, 5), None, 1.5, None),
        (1, None, "007", datetime(2024, 1, 3), None, 2.5, None),
        (2, 3, None, None, "soon", None, "many"),
    ]
    assert {(change.column, change.change) for change in report.record.schema_changes} == {(name, "type_changed") for name in ("id", "at", "n")}
    tenant.load(full_refresh=True)
    assert tenant.read("items", "id", "n") == [("007", "2.50"), ("1", "1.5"), ("3", "many")]


def test_a_column_that_only_some_files_of_a_run_have_is_not_reported(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,v\n1,1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    (inbox / "b.csv").write_text("id\n2\n")
    (inbox / "c.csv").write_text("id,v\n3,3\n")
    assert tenant.load()["items"].record.schema_changes == ()
    assert tenant.load()["items"].record.schema_changes == ()
    (inbox / "d.csv").write_text("id\n4\n")
    assert [(change.column, change.change) for change in tenant.load()["items"].record.schema_changes] == [("v", "column_missing")]


# --- lines that are no rows

BAD_CSV = (
    b"id,note\n"
    b"1,one\n"
    b"2\n"  # row 2
    b'3,"a ""b""\nand, more"\n'
    b"4,too,many\n"  # row 4
    b"5,caf\xe9\n"  # row 5
    b'6,"12" screen\n'  # row 6
    b"\n"
    b'7, "spaced" \n'
    b'8,"never\n'  # row 8
    b"9,closed\n"  # row 9
)


def test_lines_of_a_csv_that_are_no_rows_are_set_aside_and_the_others_keep_their_numbers(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "bad.csv").write_bytes(BAD_CSV)
    tenant = build_tenant(settings, items=CSV, warehouse=warehouse)
    report = tenant.load()["items"]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected) == (9, 3, 6)
    assert tenant.read("items", "_fabric_row", "id", "note") == [(1, 1, "one"), (3, 3, 'a "b"\nand, more'), (7, 7, "spaced")]
    rejected = tenant.ask("select origin, row_number, reason, message, raw from acme_fabric.rejected_rows order by row_number")
    assert rejected == [
        ("bad.csv", 2, "ragged_row", "line 3: 2 fields expected, 1 found", "2"),
        ("bad.csv", 4, "ragged_row", "line 6: 2 fields expected, 3 found", "4,too,many"),
        ("bad.csv", 5, "bad_encoding", "line 7 is not valid UTF-8; if the file has another encoding, declare it as the stream's `encoding`", "5,caf\\xe9"),
        ("bad.csv", 6, "bad_csv", "line 8: a quote that is not closed, or text right after one, or a line end of another kind", '6,"12" screen'),
        ("bad.csv", 8, "bad_csv", "lines 11 to 12: a quote that is not closed, or text right after one, or a line end of another kind", '8,"never'),
        ("bad.csv", 9, "bad_csv", "lines 11 to 12: a quote that is not closed, or text right after one, or a line end of another kind", "9,closed"),
    ]


def test_lines_that_are_no_json_objects_are_set_aside(settings: Settings, inbox: Path) -> None:
    lines = [b'{"id": 1}', b'{"id": 2', b"", b'{"id": 3, "id": 4}', b"[5]", b'{"id": "\xff"}', b'{"id": "\\ud83d"}', b'{"id": 7, "deep": {"a": 1, "a": 2}}']
    (inbox / "bad.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    tenant = build_tenant(settings, items=JSONL)
    report = tenant.load()["items"]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected) == (7, 2, 5)
    assert tenant.read("items", "_fabric_row", "id", "deep") == [(1, 1, None), (7, 7, '{"a":1,"a":2}')]
    rejected = tenant.ask("select row_number, reason, message, raw from acme_fabric.rejected_rows order by row_number")
    assert [row[:2] for row in rejected] == [(2, "bad_json"), (3, "bad_json"), (4, "bad_json"), (5, "bad_encoding"), (6, "bad_json")]
    assert rejected[1][2:] == ("line 4 names 'id' twice", '{"id": 3, "id": 4}')
    assert rejected[2][2:] == ("line 5 is no JSON object", "[5]")


def test_a_file_of_mixed_line_ends_loses_no_row(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_bytes(b"id,n\n1,a\r\n2,b\n3,c\r\n")
    (inbox / "b.csv").write_bytes(b"id,n\r4,d\r5\r6,f\r")
    tenant = build_tenant(settings, items=CSV)
    report = tenant.load()["items"]
    assert (report.rows_loaded, report.rows_rejected) == (5, 1)
    assert tenant.read("items", "id", "n") == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (6, "f")]


def test_bad_lines_in_a_large_file_move_no_row_and_no_number(settings: Settings, inbox: Path) -> None:
    rows = [f'{number},"text, {number}"' if number % 1_000 else f"{number}" for number in range(1, 120_001)]
    (inbox / "a.csv").write_text("id,note\n" + "\n".join(rows) + "\n")
    tenant = build_tenant(settings, items=CSV)
    report = tenant.load()["items"]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected) == (120_000, 119_880, 120)
    assert tenant.ask("select count(*), count(distinct id) from acme_raw_shop.items where id = _fabric_row and note = 'text, ' || id") == [(119_880, 119_880)]
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows where raw = row_number::varchar and row_number % 1000 = 0") == [(120,)]


def test_more_bad_lines_than_allowed_fail_the_load_and_are_kept(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n")
    tenant = build_tenant(settings, items={**CSV, "rejects": {"max": "20%"}})
    tenant.load()
    (inbox / "b.csv").write_text("id,n\n2,2\n3\n")
    assert "1 of 2 rows cannot be loaded, more than rejects.max allows" in str(_fail(DataError, tenant))
    assert tenant.read("items", "id") == [(1,)]
    assert tenant.ask("select origin, row_number from acme_fabric.rejected_rows") == [("b.csv", 2)]
    (inbox / "b.csv").write_text("id,n\n2,2\n3,3\n")
    assert tenant.load()["items"].rows_total == 3
    assert tenant.ask("select origin, row_number from acme_fabric.rejected_rows") == []


def test_wide_rows_are_read_in_parts_of_the_file(settings: Settings, inbox: Path) -> None:
    text = "x" * 3_000_000
    (inbox / "a.csv").write_text("id,note\n" + "".join(f'{number},"{number},\n{text}"\n' for number in range(1, 16)))
    (inbox / "a.jsonl").write_text("".join(json.dumps({"id": number, "note": text}) + "\n" for number in range(1, 16)))
    tenant = build_tenant(settings, items=CSV, lines=JSONL)
    tenant.load()
    facts = "count(*), count(distinct id), min(length(note)), sum(case when id = _fabric_row then 1 else 0 end)"
    assert tenant.ask(f"select {facts} from acme_raw_shop.items where note like id || ',' || chr(10) || 'x%'") == [(15, 15, 3_000_003, 15)]
    assert tenant.ask(f"select {facts} from acme_raw_shop.lines") == [(15, 15, 3_000_000, 15)]


# --- files that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.csv", "id,a\0b\n1,2\n", "bad.csv has a header that holds a NUL"),
        ("bad.csv", 'id,"n"x\n1,2\n', "a header whose quotes are not closed"),
        ("bad.csv", "\n\n", "has nothing but empty lines"),
        ("bad.jsonl", '{"id": 1, "ID": 2}\n', "ID"),
        ("bad.csv", "_fabric_row\n1\n", "a name that the platform uses"),
        ("bad.csv", "id,n\n1,2\n".encode("utf-16-le"), "bad.csv is not UTF-8 text: it looks like UTF-16"),
        ("bad.csv", "größe,n\n1,2\n".encode("latin-1"), "bad.csv has a header that is not valid UTF-8"),
        ("bad.jsonl", "[\n 1\n]\n", "the file bad.jsonl holds no JSON rows: none of its elements is a JSON object"),
        ("bad.jsonl", "1\n2\n", "the file bad.jsonl holds no JSON Lines: none of its lines is a JSON object"),
        ("bad.parquet", b"PAR1 and no more", "the file bad.parquet cannot be read: parquet magic bytes not found in footer"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_an_error_that_names_it(settings: Settings, inbox: Path, name: str, content: str | bytes, message: str) -> None:
    (inbox / name).write_bytes(content.encode() if isinstance(content, str) else content)
    stream = {".csv": CSV, ".jsonl": JSONL, ".parquet": PARQUET}[Path(name).suffix]
    error = _fail(DataError, build_tenant(settings, items=stream))
    assert str(error).startswith("tenant acme, source shop, stream items")
    assert message in str(error)
    assert str(settings.data_dir) not in error.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"PATH=/bin\0TOKEN=c4n4ry\0"),
        ("a.csv", b"c4n4ry" * 100 + b"\nx\n"),
        ("a.csv", b"c4n4ry,c4n4ry\n1,2\n" * 2),
        ("a.csv", b'"c4n4ry'),
        ("a.jsonl", b"TOKEN=c4n4ry\n"),
        ("a.jsonl", b'["c4n4ry"]\n'),
        ("a.parquet", b"PAR1c4n4ryc4n4ryc4n4ryPAR1"),
    ],
    ids=range(7),
)
def test_an_error_holds_no_text_of_a_file_but_a_columns_name(settings: Settings, inbox: Path, name: str, content: bytes) -> None:
    (inbox / name).write_bytes(content)
    stream = {".csv": CSV, ".jsonl": JSONL, ".parquet": PARQUET}[Path(name).suffix]
    error = _fail(FabricError, build_tenant(settings, items={**stream, "primary_key": "id"}))
    assert str(error).count("c4n4ry") <= 100 // len("c4n4ry")
    if b"\0" in content or name != "a.csv":
        assert "c4n4ry" not in str(error)


@pytest.mark.parametrize(
    ("kind", "said", "shown"),
    [
        (duckdb.InvalidInputException, "CSV Error on Line: 3\nOriginal Line: c4n4ry,2,3\nExpected Number of Columns: 2 Found: 3\n", "columns: 2 found: 3"),
        (duckdb.InvalidInputException, 'Error in "f", in line 3: Expected OBJECT, but got ARRAY: ["c4n4ry"]', "expected object, but got array"),
        (duckdb.InvalidInputException, 'Error in "f", in line 3: Object {"c4n4ry":1} has duplicate key "c4n4ry"', "duplicate key"),
        (duckdb.ParserException, 'unterminated quoted string at or near "\'c4n4ry"\n\nLINE 3: select c4n4ry', "ParserException"),
        (duckdb.ConversionException, "Could not convert string 'c4n4ry' to INT32 at line 3", "ConversionException"),
        (pa.ArrowInvalid, "line 3: c4n4ry", "ArrowInvalid"),
    ],
)
def test_a_readers_error_is_reported_without_the_bytes_that_it_quotes(tmp_path: Path, kind: type[Exception], said: str, shown: str) -> None:
    file = FetchedFile(SourceFile("a.csv", "", 0, 0.0, lambda: None), tmp_path / "0.data", "")
    message = build_error(file, "here", kind(said)).message
    assert message.startswith("here: the file a.csv, line 3 cannot be read: ")
    assert shown in message
    assert "c4n4ry" not in message


def test_a_row_without_its_key_is_set_aside_with_its_place(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,n\n1,a\n,b\n")
    tenant = build_tenant(settings, items={**CSV, "primary_key": "id"})
    assert tenant.load()["items"].rows_rejected == 1
    assert tenant.ask("select origin, row_number, column_name, reason from acme_fabric.rejected_rows") == [("a.csv", 2, "id", "null_key")]


def test_a_missing_key_column_is_answered_with_the_nearest(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("ident,n\n1,a\n")
    error = _fail(SourceError, build_tenant(settings, items={**CSV, "primary_key": "indent"}))
    assert "no primary_key column 'indent'; did you mean 'ident'?" in str(error)


def test_a_folder_without_files_makes_an_empty_table_and_says_so(settings: Settings, inbox: Path) -> None:
    assert inbox.is_dir()
    tenant = build_tenant(settings, items=CSV)
    assert tenant.load()["items"].rows_total == 0
    assert any(f"no file matches *.csv in {inbox}, so nothing is loaded" in message for message in tenant.messages)
    assert tenant.read("items", "_fabric_file") == []


@pytest.mark.parametrize("content", [None, "", "id,n\n", "\n"])
def test_a_keyed_stream_waits_for_its_first_row(settings: Settings, inbox: Path, warehouse: str | None, content: str | None) -> None:
    if content is not None:
        (inbox / "a.csv").write_text(content)
    tenant = build_tenant(settings, items={**CSV, "primary_key": "id"}, warehouse=warehouse)
    if content == "\n":
        assert "has nothing but empty lines" in str(_fail(DataError, tenant))
    else:
        assert tenant.load()["items"].rows_total == 0
    (inbox / "a.csv").write_text("id,n\n1,2\n")
    assert tenant.load()["items"].rows_total == 1
    # Columns that a file has named without a value are text.
    assert tenant.read("items", "id", "n") == [("1", "2") if content == "id,n\n" else (1, 2)]


def test_a_keyed_file_without_a_single_good_line_is_set_aside_whole(settings: Settings, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text('{"id": 1\n{"id": 2\n')
    tenant = build_tenant(settings, items={**JSONL, "primary_key": "id"})
    report = tenant.load()["items"]
    assert (report.rows_total, report.rows_rejected) == (0, 2)


def test_a_glob_that_misses_the_files_that_are_there_is_an_error(settings: Settings, inbox: Path) -> None:
    (inbox / "a.txt").write_text("id\n1\n")
    assert f"{inbox} holds files, but none matches *.csv" in str(_fail(SourceError, build_tenant(settings, items=CSV)))


def test_a_missing_folder_is_named(settings: Settings) -> None:
    assert "the folder exports does not exist" in str(_fail(SourceError, build_tenant(settings, items=CSV)))


@pytest.mark.parametrize("path", ["warehouse", "secrets", "loads/other", "."])
def test_the_platforms_own_folders_are_no_source_by_any_link(settings: Settings, path: str) -> None:
    target = settings.data_dir / path
    target.mkdir(parents=True, exist_ok=True)
    (settings.data_dir / "exports").symlink_to(target)
    assert "the platform's own data" in str(_fail(ConfigurationError, build_tenant(settings, items=CSV)))


def test_links_to_no_file_of_the_folder_and_pipes_are_skipped_and_reported(settings: Settings, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("id\n666\n")
    (inbox / "link.csv").symlink_to(tmp_path / "secret.csv")
    (inbox / "loop.csv").symlink_to("loop.csv")
    (inbox / "gone.csv").symlink_to("nowhere.csv")
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "a [1]*'.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    assert tenant.read("items", "_fabric_file", "id") == [("a [1]*'.csv", 1)]
    assert sum("is skipped" in message for message in tenant.messages) == 4


UPLOADS = ("a.csv.filepart", "b.csv.part", "c.csv.CrDownload", "~$d.csv", "deep/e.csv.part12", "_temporary/0/f.csv", "g.csv~")


def test_uploads_in_progress_are_left_alone_under_any_glob(settings: Settings, inbox: Path) -> None:
    for name in UPLOADS:
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_text("id\n1\n")
    tenant = build_tenant(settings, items={"glob": "**/*", "format": "csv"})
    assert tenant.load()["items"].rows_total == 0
    assert any("7 files are skipped" in message for message in tenant.messages)
    (inbox / "a.csv.filepart").rename(inbox / "a.csv")
    (inbox / "partial.csv").write_text("id\n2\n")
    tenant.load()
    assert tenant.read("items", "_fabric_file", "id") == [("a.csv", 1), ("partial.csv", 2)]


def test_uploads_to_a_bucket_in_progress_are_left_alone(settings: Settings, s3: Bucket) -> None:
    s3.put("exports/a.csv.filepart", b"id,name\n1,one\n")
    tenant = _build_bucket_tenant(settings, s3, None)
    tenant.source["streams"]["items"]["glob"] = "**/*"
    assert tenant.load()["items"].rows_total == 0
    s3.put("exports/b.csv", b"id,name\n2,two\n")
    assert tenant.load()["items"].rows_total == 1


def test_an_empty_file_and_a_header_alone_add_no_row(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n")
    (inbox / "b.csv").write_text("")
    (inbox / "c.csv").write_text("id,n\n")
    (inbox / "d.jsonl").write_text("")
    tenant = build_tenant(settings, items=CSV, lines=JSONL)
    assert tenant.load()["items"].rows_total == 1
    assert tenant.load()["items"].rows_loaded == 0


def test_a_bucket_is_read_like_a_folder(settings: Settings, s3: Bucket, warehouse: str | None) -> None:
    s3.put("exports/2024/a.csv", b"id,name\n1,one\n")
    s3.put("exports/2024/b.csv", b"id,name\n2,two\n")
    s3.put("elsewhere/c.csv", b"id,name\n3,three\n")
    tenant = _build_bucket_tenant(settings, s3, warehouse)
    assert tenant.load()["items"].rows_total == 2
    assert tenant.read("items", "_fabric_file", "id", "name") == [("2024/a.csv", 1, "one"), ("2024/b.csv", 2, "two")]
    assert tenant.load()["items"].rows_loaded == 0

    s3.put("exports/2024/b.csv", b"id,name\n2,TWO\n")
    assert tenant.load()["items"].rows_loaded == 1
    assert tenant.read("items", "id", "name") == [(1, "one"), (2, "TWO")]


def test_a_missing_bucket_is_named(settings: Settings, s3: Bucket) -> None:
    tenant = _build_bucket_tenant(settings, s3, None)
    tenant.source["path"] = "s3://no-such-bucket/exports"
    error = _fail(SourceError, tenant)
    assert "no-such-bucket" in str(error) and s3.secret_access_key not in str(error)


def test_an_unreachable_bucket_may_be_tried_again(settings: Settings, s3: Bucket) -> None:
    tenant = _build_bucket_tenant(settings, s3, None)
    tenant.source["credentials"]["endpoint_url"] = f"http://127.0.0.1:{get_free_port()}"
    assert "the bucket cannot be reached" in str(_fail(SourceUnavailable, tenant))


def test_a_store_without_its_library_says_what_to_install(settings: Settings) -> None:
    tenant = build_tenant(settings, items=CSV)
    tenant.source["path"] = "gs://bucket/exports"
    assert "gcsfs" in _fail(ConfigurationError, tenant).remedy


def _build_bucket_tenant(settings: Settings, s3: Bucket, warehouse: str | None) -> Tenant:
    write_secret_file(settings, "key", s3.access_key_id)
    write_secret_file(settings, "secret_key", s3.secret_access_key)
    tenant = build_tenant(settings, items={"glob": "**/*.csv", "format": "csv"}, warehouse=warehouse)
    tenant.source |= {
        "path": f"s3://{s3.name}/exports",
        "credentials": {"access_key_id": {"file": "key"}, "secret_access_key": {"file": "secret_key"}, "endpoint_url": s3.endpoint_url, "region": s3.region},
    }
    return tenant


def _fail(kind: type[FabricError], tenant: Tenant) -> FabricError:
    with pytest.raises(kind) as caught:
        tenant.load()
    return caught.value


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


# --- what no tenant may read


def _make_globexs_files(settings: Settings) -> None:
    for folder in ("inbox/globex/ads", "loads/globex/ads"):
        (settings.data_dir / folder).mkdir(parents=True)
        (settings.data_dir / folder / "secret.csv").write_text("id\n666\n")
    (settings.tenants_dir / "globex.yaml").write_text("version: 1\ntenant: globex\n")


# An import moves what it finds: it is tried where nothing of this machine could be moved even if it were let in.
_STRANGE = [
    ("inbox/globex/ads", "*.csv", "inbox/globex/ads lies in the inbox of tenant globex"),
    ("inbox", "globex/*/*.csv", "inbox/globex/ads lies in the inbox of tenant globex"),
    ("link", "**/*.csv", "lies in the inbox of tenant globex"),
    ("{parent}", "data/loads/globex/*/*.csv", "data/loads/globex/ads holds the platform's own data"),
    ("/proc/self", "environ", "lies in /proc"),
]
_STRANGE_TO_READ = [("/", "proc/1/environ", "lies in /proc"), ("/var/run", "*", "lies in /run"), ("file:///dev", "*", "lies in /dev")]


@pytest.mark.parametrize(
    ("kind", "path", "glob", "reason"),
    [*(("files", *case) for case in _STRANGE + _STRANGE_TO_READ), *(("csv_import", *case) for case in _STRANGE)],
)
def test_another_tenants_files_and_the_machines_own_are_no_source(settings: Settings, kind: str, path: str, glob: str, reason: str) -> None:
    _make_globexs_files(settings)
    (settings.data_dir / "link").symlink_to("inbox/globex")
    stream = {"glob": glob, "format": "csv"} if kind == "files" else {"glob": glob, "columns": {"id": {}}}
    tenant = Tenant(settings, {"type": kind, "path": path.format(parent=settings.data_dir.parent), "streams": {"items": stream}})
    error = _fail(ConfigurationError, tenant)
    assert reason in error.message
    assert error.remedy


def test_a_link_within_the_folder_leads_to_no_other_tenant(settings: Settings) -> None:
    _make_globexs_files(settings)
    (settings.data_dir / "inbox" / "acme").mkdir()
    (settings.data_dir / "inbox" / "acme" / "mine.csv").symlink_to("../globex/ads/secret.csv")
    tenant = Tenant(settings, {"type": "files", "path": "inbox", "streams": {"items": {"glob": "acme/*.csv", "format": "csv"}}})
    assert "lies in the inbox of tenant globex" in str(_fail(ConfigurationError, tenant))


def test_a_tenants_own_inbox_and_a_folder_of_no_tenant_are_read(settings: Settings) -> None:
    _make_globexs_files(settings)
    for folder in ("acme", "shared"):
        (settings.data_dir / "inbox" / folder).mkdir()
        (settings.data_dir / "inbox" / folder / f"{folder}.csv").write_text(f"name\n{folder}\n")
    tenant = Tenant(settings, {"type": "files", "path": "inbox", "streams": {"items": {"glob": "[as]*/*.csv", "format": "csv"}}})
    tenant.load()
    assert tenant.read("items", "_fabric_file") == [("acme/acme.csv",), ("shared/shared.csv",)]


def test_a_file_that_becomes_a_link_elsewhere_after_the_look_is_not_followed(settings: Settings, inbox: Path) -> None:
    """The file that was looked at is the one that is read, whatever its name stands for by then."""
    (inbox / "real").mkdir()
    (inbox / "real" / "a.csv").write_text("id\n1\n")
    (inbox / "a.csv").symlink_to("real/a.csv")
    tenant = build_tenant(settings, items=CSV)
    context = SourceContext("acme", "shop", tenant.config.sources["shop"], ("items",), settings)
    ((file,), _) = list_files(context, FileStream.model_validate(CSV), where="here")
    (inbox / "a.csv").unlink()
    (inbox / "a.csv").symlink_to("/etc/hostname")
    with file.open() as opened:
        assert opened.read() == b"id\n1\n"


@pytest.mark.parametrize(("allowed", "is_read"), [("", True), ("{tmp}/allowed", True), ("/srv , {tmp}/allowed/deep", False), ("{tmp}/allow", False)])
@pytest.mark.parametrize("kind", ["files", "csv_import", "sqlite", "duckdb"])
def test_local_files_lie_in_the_folders_that_the_operator_names(settings: Settings, tmp_path: Path, allowed: str, kind: str, *, is_read: bool) -> None:
    folder = tmp_path / "allowed"
    folder.mkdir()
    settings = replace(settings, source_dirs=load_settings({"FABRIC_SOURCE_DIRS": allowed.format(tmp=tmp_path)}).source_dirs)
    (folder / "a.csv").write_text("id\n1\n")
    with contextlib.closing(duckdb.connect(str(folder / "items.duckdb"))) as database:
        database.execute("create table items as select 1 as id")
    with contextlib.closing(sqlite3.connect(folder / "items.sqlite")) as lite:
        lite.execute("create table items as select 1 as id")
    write_secret_file(settings, "url", f"{kind}:///{folder}/items.{kind}")
    source = {
        "files": {"type": "files", "path": str(folder), "streams": {"items": CSV}},
        "csv_import": {"type": "csv_import", "path": str(folder), "streams": {"items": {"glob": "*.csv", "columns": {"id": {}}}}},
    }.get(kind, {"type": "sql_database", "url": {"file": "url"}, "streams": {"items": {}}})
    tenant = Tenant(settings, source)
    if is_read:
        tenant.load()
        assert len(tenant.read("items", "id")) == 1
    else:
        assert "outside of FABRIC_DATA_DIR and of FABRIC_SOURCE_DIRS" in str(_fail(ConfigurationError, tenant))


@pytest.mark.parametrize("kind", ["files", "duckdb"])
def test_no_source_reads_what_is_published_of_any_tenant(settings: Settings, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "published" / "globex"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("id\n1\n")
    with contextlib.closing(duckdb.connect(str(folder / "globex.duckdb"))) as database:
        database.execute("create table items as select 1 as id")
    (tmp_path / "link").symlink_to(folder)
    write_secret_file(settings, "url", f"duckdb:///{tmp_path}/link/globex.duckdb")
    source = {"type": "sql_database", "url": {"file": "url"}, "streams": {"items": {}}}
    if kind == "files":
        source = {"type": "files", "path": str(tmp_path / "link"), "streams": {"items": CSV}}
    assert "holds what is published for tenants' readers" in str(_fail(ConfigurationError, Tenant(settings, source)))
    assert Tenant(replace(settings, publish_dir=tmp_path / "elsewhere"), source).load()["items"].rows_loaded == 1


def test_the_data_folder_is_open_whatever_the_operator_names(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    assert build_tenant(replace(settings, source_dirs=(Path("/srv"),)), items=CSV).load()["items"].rows_loaded == 1
