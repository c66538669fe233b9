"""CSV and JSON files as people publish them: each is loaded completely, or refused with its name; no row is taken for a header."""

import bz2
import gzip
import io
import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.connectors.files import listing as file_listing
from fabric_assets.connectors.files import news as file_news
from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.support.shop import Tenant


def build_tenant(settings: Settings, *, warehouse: str | None = None, limits: dict[str, Any] | None = None, **stream: Any) -> Tenant:
    source = {"type": "files", "path": "exports", "streams": {"items": {"glob": "*", "format": "csv", **stream}}}
    return Tenant(settings, source | ({"limits": limits} if limits else {}), warehouse=warehouse)


def load(settings: Settings, inbox: Path, content: str | bytes, *columns: str, name: str = "a.csv", **stream: Any) -> list[tuple[Any, ...]]:
    (inbox / name).write_bytes(content.encode() if isinstance(content, str) else content)
    tenant = build_tenant(settings, **stream)
    tenant.load()
    return tenant.read("items", *columns, order="_fabric_row")


def refuse(settings: Settings, inbox: Path, content: str | bytes, **stream: Any) -> DataError:
    (inbox / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        build_tenant(settings, **stream).load()
    assert "the file a.csv" in caught.value.message
    assert caught.value.remedy
    return caught.value


def test_no_name_of_a_file_changes_what_an_error_shows(settings: Settings, inbox: Path) -> None:
    (inbox / "a\n\x1b[2J\u202evsc.csv").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        build_tenant(settings, encoding="utf-16").load()
    assert caught.value.message.startswith(r"tenant acme, source shop, stream items: the file 'a\n\x1b[2J\u202evsc.csv' is not valid utf-16")


# --- numbers


@pytest.mark.parametrize("number", ["1e-400", "-1E-400", "1.2345e-320"])
@pytest.mark.parametrize(
    ("content", "form"), [("id,v\n1,{}\n2,0.5\n", "csv"), ('{{"id": 1, "v": {}}}\n{{"id": 2, "v": 0.5}}\n', "jsonl"), ('[{{"id": 1, "v": {}}}]', "json")]
)
def test_a_number_too_small_for_a_double_is_kept_as_it_is_spelt(settings: Settings, inbox: Path, number: str, content: str, form: str) -> None:
    assert load(settings, inbox, content.format(number), "v", format=form)[0] == (number,)


@pytest.mark.parametrize("number", ["0e-400", "0.0", "-0.000", "1e-300", "2.5e-7", "5e-324"])
def test_a_zero_and_a_small_number_are_still_numbers(settings: Settings, inbox: Path, number: str) -> None:
    assert load(settings, inbox, f"id,v\n1,{number}\n2,0.5\n", "v") == [(float(number),), (0.5,)]


# --- keys


CODES = [
    "10.1",
    "10.10",
    "10.11",
    "10.2",
    "10.20",
    "1e5",
    "10e4",
    "100000",
    "007",
    "7",
    "+49170",
    "49170",
    "1_000",
    "1000",
    "0x10",
    "16",
    "inf",
    "nan",
    "-0",
    "0",
    "1.",
    "1",
]


@pytest.mark.parametrize("key", ["code", ["code", "kind"]])
def test_codes_that_look_like_numbers_stay_different_keys(settings: Settings, inbox: Path, warehouse: str | None, key: Any) -> None:
    (inbox / "a.csv").write_text("title,code,kind\n" + "".join(f"t{number},{code},k\n" for number, code in enumerate(CODES)))
    tenant = build_tenant(settings, warehouse=warehouse, primary_key=key)
    assert tenant.load()["items"].rows_total == len(CODES)
    assert tenant.read("items", "code", order="_fabric_order") == [(code,) for code in CODES]
    (inbox / "b.csv").write_text("title,code,kind\nlater,10.10,k\n")
    tenant.load()
    assert tenant.ask("select title from acme_raw_shop.items where code in ('10.1', '10.10') order by code") == [("t0",), ("later",)]


@pytest.mark.parametrize("codes", [["1.1", "1.10"], ["1e5", "10e4"], ["-0", "0"], ["true", "True"]])
def test_a_few_codes_of_one_kind_stay_different_keys(settings: Settings, inbox: Path, codes: list[str]) -> None:
    assert load(settings, inbox, "code,n\n" + "".join(f"{code},1\n" for code in codes), "code", primary_key="code", header=True) == [(c,) for c in codes]


MOMENTS = ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01 00:00:00+00", "2023-12-31T19:00:00-05:00"]


@pytest.mark.parametrize("moments", [MOMENTS, ["2024-01-01T00:00:00", "2024-01-01 00:00:00", "2024-01-01 00:00"]])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_spellings_of_one_moment_stay_different_keys(settings: Settings, inbox: Path, warehouse: str | None, moments: list[str], form: str) -> None:
    lines = [json.dumps({"at": moment, "n": number, "day": moment}) for number, moment in enumerate(moments)]
    rows = ["at,n,day", *(f"{moment},{number},{moment}" for number, moment in enumerate(moments))]
    (inbox / "a").write_text("\n".join(lines if form == "jsonl" else rows))
    tenant = build_tenant(settings, warehouse=warehouse, format=form, primary_key="at")
    for full_refresh in (False, True):
        assert tenant.load(full_refresh=full_refresh)["items"].rows_total == len(moments)
    assert tenant.read("items", "at", order="n") == [(moment,) for moment in moments]
    assert len({day for (day,) in tenant.read("items", "day")}) == 1


def test_whole_numbers_and_days_are_still_keys_of_their_types(settings: Settings, inbox: Path) -> None:
    tenant_rows = load(settings, inbox, "id,day,n\n1,2024-01-01,1.50\n-2,2024-01-02,2\n", "id", "n", primary_key=["id", "day"])
    assert tenant_rows == [(1, 1.5), (-2, 2.0)]


# --- names of columns


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (",name,city", ["column_1", "name", "city"]),
        ("name,,city", ["name", "column_2", "city"]),
        ("name,name,city", ["name", "name_2", "city"]),
        ("name,NAME,name_2", ["name", "name_3", "name_2"]),
        (",,city", ["column_1", "column_2", "city"]),
        ("\ufeff\u200bname,ci\u00adty,x\u200e", ["name", "city", "x"]),
    ],
)
def test_missing_and_duplicate_names_are_numbered_and_reported(settings: Settings, inbox: Path, header: str, columns: list[str]) -> None:
    (inbox / "a.csv").write_text(f"{header}\nann,bob,cid\n")
    tenant = build_tenant(settings)
    tenant.load()
    assert tenant.read("items", *columns) == [("ann", "bob", "cid")]
    assert sum("and is called" in message for message in tenant.messages) == sum("_" in column and column not in header for column in columns)


def test_a_key_is_found_whatever_nobody_sees_in_its_name(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, "i\u200bd,n\n1,2\n", "id", "n", primary_key="id") == [(1, 2)]


def test_fields_after_the_last_name_that_no_row_fills_make_no_column(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, "id;name;\n1;a;\n2;b;\n", "id", "name") == [(1, "a"), (2, "b")]


def test_a_field_without_a_name_that_rows_fill_is_kept(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, "id;name;\n1;a;x\n2;b;\n", "id", "column_3") == [(1, "x"), (2, None)]


# --- the first line


HEADERLESS = [
    "2026-01-01,4711,5.50\n2026-01-01,4712,6.00\n",
    "4711,a\n4712,b\n",
    "a,4711\nb,4712\n",
    "1,2,3\n4,5,6\n",
    "ann,,5.5\nbob,x,6.5\n",
    "ann,01.02.2026\nbob,02.02.2026\n",
    "ann,12:30\nbob,13:45\n",
    "Berlin,x\nBerlin,y\n",
    "a@b.example,x\nc@d.example,y\n",
    '"4711","x"\n"4712","y"\n',
    "-1.5e3;x\n2;y\n",
    '"1,5";x\n"2,5";y\n',
    "2026-01-01,4711\n",
    "2019,2020,2021\n1,2,3\n",
    "123e4567-e89b-12d3-a456-426614174000,x\n123e4567-e89b-12d3-a456-426614174001,y\n",
]


@pytest.mark.parametrize("content", HEADERLESS)
def test_a_file_without_a_header_is_refused_and_loads_once_that_is_declared(settings: Settings, inbox: Path, content: str) -> None:
    error = refuse(settings, inbox, content)
    assert "has no header" in error.message and "header: false" in error.remedy
    tenant = build_tenant(settings, header=False)
    assert tenant.load()["items"].rows_loaded == len(content.splitlines())
    assert len(tenant.read("items", "column_1", "column_2")) == len(content.splitlines())


HEADERS = [
    "id,name\n1,a\n",
    "country,1960,1961,1962\nAruba,54211,55438,56225\n",
    "day," + ",".join(map(str, range(24))) + "\n2026-01-01," + ",".join("7" for _ in range(24)) + "\n",
    "product,2026-01-01,2026-02-01\nchair,5.5,6.5\n",
    "t,y\n1,2\n",
    "t,y,n\n",
    "name,total\na,1\n",
    "id,n\n1,y\n",
    "no,name\nyes,a\n",
    "id,name\n",
    "a b,c-d,e.f\nx,y,z\n",
    "only\none\n",
    "id,text\n1,a\n\ufeffid,text\n3,c\n",
]


@pytest.mark.parametrize("content", HEADERS)
def test_a_header_is_not_loaded_as_a_row(settings: Settings, inbox: Path, content: str) -> None:
    (inbox / "a.csv").write_text(content)
    assert build_tenant(settings).load()["items"].rows_loaded == len(content.splitlines()) - 1


def test_a_declared_header_is_one_whatever_it_looks_like(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, "2019,x\n1,2\n", "_2019", header=True) == [(1,)]


def test_names_are_declared_where_no_line_names_the_columns(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("2026-01-01,4711\n2026-01-02,4712\n")
    (inbox / "b.csv").write_text("day,number\n2026-01-03,4713\n")
    (inbox / "c.csv").write_text("2026-01-04\n")
    tenant = build_tenant(settings, header=["day", "number"])
    report = tenant.load()["items"]
    assert [number for (number,) in tenant.read("items", "number")] == [4711, 4712, 4713]
    assert report.rows_rejected == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("declared", ["NFC", "NFD"])
@pytest.mark.parametrize("line", ["größe,x", "\u200bGröße,X\u00ad"])
def test_a_line_of_the_declared_names_is_not_loaded_as_a_row_in_any_spelling(settings: Settings, inbox: Path, form: str, declared: str, line: str) -> None:
    content = unicodedata.normalize(form, f"{line}\na,1\n")
    assert load(settings, inbox, content, "x", header=[unicodedata.normalize(declared, "größe"), "x"]) == [(1,)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("code,42\nx,1\n", "code,42\ny,2\n"),
        ("code,42\nx,1\n", "code,42,new\ny,2,z\n"),
        ("note\nplain\n", "note\na;b\nc;d\n"),
    ],
)
def test_a_stream_that_has_columns_of_such_names_goes_on(settings: Settings, inbox: Path, first: str, second: str) -> None:
    (inbox / "a.csv").write_text(first)
    tenant = build_tenant(settings, header=True)
    tenant.load()
    (inbox / "b.csv").write_text(second)
    del tenant.source["streams"]["items"]["header"]
    assert tenant.load()["items"].rows_total == len((first + second).splitlines()) - 2


@pytest.mark.parametrize(
    "content",
    [
        "Bank export;\nAccount: 123;\n\nid;name\n1;a\n2;b\n",
        "Bank export\nAccount: 123\n\nid;name\n1;a\n2;b\n",
        "Report of January;;\nid;name;n\n1;a;2\n",
        "created by X\nid,name\n1,a\n2,b\n",
    ],
)
def test_lines_before_the_header_are_refused_until_they_are_declared(settings: Settings, inbox: Path, content: str) -> None:
    assert "skip_rows" in refuse(settings, inbox, content).remedy
    lines = content.splitlines()
    skipped = next(index for index, line in enumerate(lines) if line.startswith("id"))
    tenant = build_tenant(settings, skip_rows=skipped)
    tenant.load()
    assert tenant.read("items", "id", "name", order="id")[0] == (1, "a")


def test_rejected_lines_are_counted_in_the_file_as_it_is(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("x\r\ny\r\nid;name\r\n1;a\r\n2\r\n")
    tenant = build_tenant(settings, skip_rows=2)
    tenant.load()
    assert tenant.ask("select row_number, message from acme_fabric.rejected_rows") == [(2, "line 5: 2 fields expected, 1 found")]


def test_more_lines_to_skip_than_there_are_is_an_error(settings: Settings, inbox: Path) -> None:
    assert "fewer than the 5 lines" in refuse(settings, inbox, "id\n1\n", skip_rows=5).message


@pytest.mark.parametrize(
    ("content", "stream"),
    [
        ("sep=;\nid;name\n1;a,b\n", {}),
        ("id^name\n1^a,b\n", {"delimiter": "^"}),
        ("id\x01name\n1\x01a,b\n", {"delimiter": "\x01"}),
        ('id,name\n1,"a,b"\n', {"delimiter": ","}),
        ("id:name\n1:a,b\n", {"delimiter": ":"}),
    ],
)
def test_the_delimiter_is_declared_or_names_itself(settings: Settings, inbox: Path, content: str, stream: dict[str, Any]) -> None:
    assert load(settings, inbox, content, "id", "name", **stream) == [(1, "a,b")]


# --- encodings and packing


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_declared_encoding_is_read_exactly(settings: Settings, inbox: Path, warehouse: str | None, encoding: str) -> None:
    (inbox / "a.csv").write_bytes("größe,straße\n1,Žluťoučký €\n".replace("Žluťoučký €", "Ünï ÿ").encode(encoding))
    tenant = build_tenant(settings, warehouse=warehouse, encoding=encoding)
    tenant.load()
    assert tenant.ask('select * from "acme_raw_shop"."items"')[0][1] == "Ünï ÿ"


@pytest.mark.parametrize(("encoding", "text"), [("cp932", "東京"), ("gb18030", "北京"), ("cp1251", "Москва"), ("big5", "台北"), ("euc-kr", "서울")])
def test_texts_in_other_scripts_are_read_exactly(settings: Settings, inbox: Path, encoding: str, text: str) -> None:
    rows = load(settings, inbox, f"id,name\n1,{text}\n".encode(encoding), "name", encoding=encoding)
    assert rows == [(text,)]
    assert load(settings, inbox, json.dumps({"id": 1, "name": text}, ensure_ascii=False).encode(encoding), "name", encoding=encoding, format="jsonl") != []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_mark_at_the_beginning_says_the_encoding(settings: Settings, inbox: Path, encoding: str) -> None:
    assert load(settings, inbox, "id,name\n1,größe\n".encode(encoding), "id", "name") == [(1, "größe")]


def test_a_row_that_its_encoding_lacks_is_rejected_alone(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_bytes("id,name\n1,é\n".encode("cp1252") + b"2,\x81\n3,c\n")
    tenant = build_tenant(settings, encoding="cp1252")
    tenant.load()
    assert tenant.read("items", "id", "name") == [(1, "é"), (3, "c")]
    assert tenant.ask("select row_number, reason, message from acme_fabric.rejected_rows") == [
        (2, "bad_encoding", "line 3 is not valid CP1252; if the file has another encoding, declare it as the stream's `encoding`")
    ]


@pytest.mark.parametrize("content", ["größe\n1\n".encode("latin-1"), "id,n\n1,2\n".encode("utf-16-le"), "id,n\n1,2\n".encode("utf-16-be")])
def test_the_error_of_a_text_that_is_not_utf8_names_the_key_for_its_encoding(settings: Settings, inbox: Path, content: bytes) -> None:
    assert "encoding" in refuse(settings, inbox, content).remedy


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_letters_of_utf16_that_are_ascii_as_well_are_not_loaded_as_such(settings: Settings, inbox: Path, encoding: str) -> None:
    error = refuse(settings, inbox, "номер,город\nпервый,Москва\nвторой,Казань\n".encode(encoding))  # noqa: RUF001
    assert error.message.endswith("is not UTF-8 text: it looks like UTF-16")
    assert error.remedy.startswith(f"declare encoding: {encoding}, ")


def pack(kind: str, content: bytes) -> bytes:
    return gzip.compress(content) if kind == "gzip" else pa.Codec("zstd").compress(content, asbytes=True)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("declared", ["auto", "declared"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_packed_files_are_unpacked(settings: Settings, inbox: Path, kind: str, declared: str, form: str) -> None:
    content = {
        "csv": b"id,name\n1,a\n2,b\n",
        "jsonl": b'{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}\n',
        "json": b'[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]',
    }
    packed = pack(kind, content[form]) + (pack(kind, b"") if kind == "gzip" else b"")
    rows = load(settings, inbox, packed, "id", "name", format=form, compression=kind if declared == "declared" else "auto")
    assert rows == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_half_of_a_packed_file_is_refused(settings: Settings, inbox: Path, kind: str) -> None:
    packed = pack(kind, b"id,name\n" + b"".join(b"%d,%d\n" % (number, number * 7919) for number in range(50_000)))
    assert f"is not a complete {kind} file" in refuse(settings, inbox, packed[: len(packed) // 2]).message


def test_a_packed_file_may_begin_with_a_frame_to_be_skipped(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, b"\x50\x2a\x4d\x18\4\0\0\0size" + pack("zstd", b"id,name\n1,a\n"), "id", "name") == [(1, "a")]


def test_a_file_that_is_not_packed_as_declared_is_refused(settings: Settings, inbox: Path) -> None:
    assert "is not a gzip file" in refuse(settings, inbox, "id\n1\n", compression="gzip").message
    assert "is a gzip file" in refuse(settings, inbox, gzip.compress(b"id\n1\n"), compression="none").message


def test_the_size_of_an_unpacked_file_is_limited(settings: Settings, inbox: Path) -> None:
    content = gzip.compress(b"id\n" + b"1\n" * 5_000_000)
    assert "more than 1,000,000 bytes" in refuse(settings, inbox, content, limits={"bytes": "1MB"}).message
    assert "limits.bytes" in refuse(settings, inbox, b"id\n" + b"1\n" * 600_000, limits={"bytes": "1MB"}).remedy


def test_a_file_is_fetched_within_the_sources_limit(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def fetch(*arguments: Any, most: int, **options: Any) -> Any:
        limits.append(most)
        return file_listing.fetch(*arguments, most=most, **options)

    monkeypatch.setattr(file_news, "fetch", fetch)
    load(settings, inbox, "id\n1\n", "id", limits={"bytes": "2MB"})
    assert limits == [2_000_000]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_are_limited(settings: Settings, inbox: Path, form: str) -> None:
    names = [f"c{number}" for number in range(11)]
    packed = io.BytesIO()
    pq.write_table(pa.table({name: [1] for name in names}), packed)
    content = {"csv": ",".join(names).encode(), "jsonl": json.dumps(dict.fromkeys(names, 1)).encode(), "parquet": packed.getvalue()}[form]
    error = refuse(settings, inbox, content + (b"" if form == "parquet" else b"\n"), format=form, limits={"columns": 10})
    assert "has 11 columns, more than 10" in error.message and "limits.columns" in error.remedy


# --- other formats under a text's name


def build_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", "id,name\n1,a\n" * 100)
    return buffer.getvalue()


FOREIGN = [
    (build_zip(), "ZIP"),
    (b"PAR1" + b"\0" * 50, "Parquet"),
    (bz2.compress(b"id,name\n1,a\n"), "bzip2"),
    (b"%PDF-1.7\n1 0 obj\n", "PDF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 50, "Office"),
    (b"<!DOCTYPE html>\n<html><body>Session expired</body></html>\n", "HTML"),
    (b'  <?xml version="1.0"?>\n<rows/>\n', "XML"),
]


@pytest.mark.parametrize(("content", "word"), FOREIGN, ids=[word for _, word in FOREIGN])
@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_another_format_under_a_texts_name_is_refused_by_its_own(settings: Settings, inbox: Path, content: bytes, word: str, form: str) -> None:
    assert word in refuse(settings, inbox, content, format=form).message


@pytest.mark.parametrize("content", ['[{"id": 1}, {"id": 2}]', '{"id": 1}\n{"id": 2}\n', '[\n  {"id": 1},\n  {"id": 2}\n]\n', "[]"])
def test_json_under_a_csvs_name_is_refused(settings: Settings, inbox: Path, content: str) -> None:
    assert "is JSON, not CSV" in refuse(settings, inbox, content).message


ROWS = [{"id": 1, "name": 'a,]}"\\"'}, {"id": 2, "name": "é{["}, {"id": 3, "name": None}]
ARRAYS = [
    json.dumps(ROWS),
    json.dumps(ROWS, indent=2),
    json.dumps(ROWS, ensure_ascii=False, indent="\t").replace("\n", "\r\n"),
    "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
    "[" + ",\n".join(json.dumps(row) for row in ROWS) + "]\n",
    "[\n" + "\n,".join(json.dumps(row) for row in ROWS) + "\n]\n",
]


@pytest.mark.parametrize("content", ARRAYS, ids=range(len(ARRAYS)))
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_json_array_is_read_however_it_is_laid_out(settings: Settings, inbox: Path, content: str, form: str) -> None:
    assert load(settings, inbox, content, "id", "name", format=form) == [(row["id"], row["name"]) for row in ROWS]


def test_one_object_and_objects_without_an_array_are_json_too(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, '{\n  "id": 1,\n  "tags": [1]\n}\n', "id", "tags", format="json") == [(1, "[1]")]
    (inbox / "a.csv").write_text('{"id": 1}\n{"id": 2}')
    tenant = build_tenant(settings, format="json")
    tenant.load(full_refresh=True)
    assert tenant.read("items", "id") == [(1,), (2,)]


def test_an_empty_array_has_no_row(settings: Settings, inbox: Path) -> None:
    (inbox / "a.json").write_text("[ ]\n")
    assert build_tenant(settings, format="json").load()["items"].rows_total == 0


@pytest.mark.parametrize(("content", "form"), [("{}", "json"), ("[]", "json"), ("\n", "jsonl")])
def test_an_empty_object_alone_is_an_empty_list(settings: Settings, inbox: Path, content: str, form: str) -> None:
    (inbox / "a.json").write_text(content)
    assert build_tenant(settings, format=form).load()["items"].rows_total == 0


@pytest.mark.parametrize(("content", "form"), [("[{}, {}]", "json"), ("{}\n{}\n", "jsonl")])
def test_objects_without_any_field_are_refused_in_plain_words(settings: Settings, inbox: Path, content: str, form: str) -> None:
    assert "holds no fields: all of its objects are empty" in refuse(settings, inbox, content, format=form).message


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_nul_byte_in_a_name_rejects_its_row_alone(settings: Settings, inbox: Path, warehouse: str | None, form: str) -> None:
    rows = [r'{"id": 1, "a\u0000b": 5}', r'{"id": 2, "a": {"k\u0000": 1}}', r'{"id": 3, "\\u0000": 1}']
    (inbox / "a.json").write_text("[" + ", ".join(rows) + "]" if form == "json" else "\n".join(rows))
    tenant = build_tenant(settings, warehouse=warehouse, format=form)
    tenant.load()
    assert tenant.read("items", "id", "a") == [(2, r'{"k\u0000":1}'), (3, None)]
    assert tenant.ask("select row_number, reason, raw from acme_fabric.rejected_rows") == [(1, "bad_json", rows[0])]


def test_a_bad_element_is_rejected_alone(settings: Settings, inbox: Path) -> None:
    (inbox / "a.json").write_text('[{"id": 1}, {"id": }, null, [5], {"id": 2},, {"id": 3}]')
    tenant = build_tenant(settings, format="json")
    report = tenant.load()["items"]
    assert tenant.read("items", "_fabric_row", "id") == [(1, 1), (5, 2), (7, 3)]
    assert report.rows_rejected == 4
    assert tenant.ask("select min(message) from acme_fabric.rejected_rows where row_number = 3") == [("element 3 is no JSON object",)]


@pytest.mark.parametrize("content", ['[{"id": 1}, {"id": 2}', '[{"id": 1}, {"id', '[{"id": 1}] trailing', '{"id": 1', "[{"])
def test_a_json_file_that_is_not_complete_is_refused(settings: Settings, inbox: Path, content: str) -> None:
    assert refuse(settings, inbox, content, format="json").remedy


@pytest.mark.parametrize("line", ["[1, 2]", "[1, 2", "[]"])
def test_a_bad_first_line_makes_no_array_of_json_lines(settings: Settings, inbox: Path, line: str) -> None:
    assert load(settings, inbox, line + '\n{"id": 1}\n{"id": 2}\n', "_fabric_row", "id", format="jsonl") == [(2, 1), (3, 2)]


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030"])
def test_a_json_array_in_an_undeclared_encoding_is_not_reported_as_incomplete(settings: Settings, inbox: Path, encoding: str) -> None:
    # The second byte of each of these letters is a backslash, which hides the quote after it.
    text = {"shift_jis": "\u8868", "gb18030": "\u4e57"}[encoding]
    content = f'[{{"id": 1, "name": "{text}"}}, {{"id": 2, "name": "{text}"}}]'.encode(encoding)
    error = refuse(settings, inbox, content, format="json")
    assert "is not valid utf-8" in error.message
    assert "encoding" in error.remedy
    assert load(settings, inbox, content, "id", "name", format="json", encoding=encoding) == [(1, text), (2, text)]


def test_a_record_separator_does_not_count_as_space_in_json(settings: Settings, inbox: Path) -> None:
    assert load(settings, inbox, '{"id": 1}\n\x1e{"id": 2}\n \t{"id": 3}\r\n', "_fabric_row", "id", format="jsonl") == [(1, 1), (3, 3)]


@pytest.mark.parametrize("row", ['{"": 1, "id": 2}', '{"id": 2, "": {"x": 1}, "c0": 3}'])
def test_a_field_without_a_name_is_refused(settings: Settings, inbox: Path, row: str) -> None:
    assert "has a field without a name" in refuse(settings, inbox, f'{{"id": 1}}\n{row}\n', format="jsonl").message
    assert load(settings, inbox, '{"c0": 1, "C1": 2}\n', "c0", "c1", format="jsonl") == [(1, 2)]


# --- JSON Lines of many keys


@pytest.mark.parametrize(
    "rows",
    [
        [{f"c{number}": number for number in range(200)}],
        [{f"c{number}": number for number in range(201)}] * 3,
        [{"id": number, "type": f"e{number}", **{f"e{number}_f{key}": key for key in range(5)}} for number in range(30)],
        [{f"k{number}": 1} for number in range(12)],
        [{"id": number, "labels": {f"l{number}_{key}": key for key in range(300)}} for number in range(3)],
    ],
    ids=["200 keys", "201 keys", "kinds of events", "sparse", "a map within"],
)
def test_objects_of_many_keys_are_rows(settings: Settings, inbox: Path, rows: list[dict[str, Any]]) -> None:
    (inbox / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tenant = build_tenant(settings, format="jsonl")
    assert tenant.load()["items"].rows_total == len(rows)
    names = {name for row in rows for name in row}
    for name in sorted(names)[:20]:
        found = [value for (value,) in tenant.ask(f'select "{name}" from acme_raw_shop.items order by _fabric_row')]
        expected = [json.dumps(value, separators=(",", ":")) if isinstance(value := row.get(name), dict) else value for row in rows]
        assert found == expected
