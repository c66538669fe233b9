"""Files of every format, from a folder and from a bucket: each loaded once, each changed one again, no character changed."""

import json
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.errors import ConfigurationError, DataError, FabricError, SourceError, SourceUnavailable
from fabric_assets.settings import Settings
from tests.loading.shop import Tenant, write_secret_file
from tests.services import Bucket, get_free_port


@pytest.fixture
def inbox(settings: Settings) -> Path:
    folder = settings.data_dir / "exports"
    folder.mkdir()
    return folder


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


def test_the_same_bytes_under_another_name_are_loaded_once_and_said(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    (inbox / "copy.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    assert tenant.load()["items"].rows_total == 1
    assert any("copy.csv holds the same bytes as a.csv" in message for message in tenant.messages)
    assert tenant.load()["items"].rows_total == 1


def test_the_last_version_of_a_key_wins_within_a_run_and_between_runs(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "1.jsonl").write_text('{"id": 1, "v": "old"}\n{"id": 2, "v": "kept"}\n{"id": 1, "v": "newer"}\n')
    (inbox / "2.jsonl").write_text('{"id": 1, "v": "newest"}\n')
    tenant = build_tenant(settings, items={**JSONL, "primary_key": "id"}, warehouse=warehouse)
    assert tenant.load()["items"].rows_total == 2
    assert tenant.read("items", "id", "v") == [(1, "newest"), (2, "kept")]
    (inbox / "3.jsonl").write_text('{"id": 2, "v": "changed"}\n')
    tenant.load()
    assert tenant.read("items", "id", "v") == [(1, "newest"), (2, "changed")]


def test_replace_holds_what_the_files_hold_now(settings: Settings, inbox: Path) -> None:
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
        "[1, 2]",
        '{"a": "1.10"}',
    ]
    assert [_plain(value) for value in first] == expected
    assert [_plain(value) for value in second] == [None, 0, None, None, None, "b", None, None, None]


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


def test_a_file_that_contradicts_the_loaded_types_is_named_and_a_full_refresh_heals_it(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    (inbox / "b.csv").write_text("id\n007\n")
    error = _fail(DataError, tenant)
    assert "stream items: column id of the file b.csv holds values that are no int64" in str(error)
    tenant.load(full_refresh=True)
    assert tenant.read("items", "id") == [("007",), ("1",)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.csv", "id,n\n1,2\n3\n5,6\n", "the file bad.csv, line 3"),
        ("bad.csv", "id,n\n1,2\n3,4,5\n", "the file bad.csv, line 3"),
        ("bad.csv", 'id,n\n1,"2\n3,4\n', "the file bad.csv, line"),
        ("bad.csv", "id,id\n1,2\n", "names 'id' twice"),
        ("bad.csv", "id,\n1,2\n", "a column without a name"),
        ("bad.csv", "id,ID\n1,2\n", "ID"),
        ("bad.jsonl", '{"id": 1, "ID": 2}\n', "ID"),
        ("bad.csv", "_fabric_row\n1\n", "a name that the platform gives"),
        ("bad.csv", "id,n\n1,é\n".encode("latin-1"), "bad.csv"),
        ("bad.csv", "id,n\n1,2\n".encode("utf-16"), "bad.csv"),
        ("bad.jsonl", '{"id": 1}\n{"id": 2\n{"id": 3}\n', "the file bad.jsonl, line"),
        ("bad.jsonl", "[1, 2]\n", "the file bad.jsonl"),
        ("bad.jsonl", '{"id": 1, "id": 2}\n', "the file bad.jsonl"),
        ("bad.parquet", b"PAR1 and no more", "the file bad.parquet"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(settings: Settings, inbox: Path, name: str, content: str | bytes, message: str) -> None:
    (inbox / name).write_bytes(content.encode() if isinstance(content, str) else content)
    stream = {".csv": CSV, ".jsonl": JSONL, ".parquet": PARQUET}[Path(name).suffix]
    error = _fail(DataError, build_tenant(settings, items=stream))
    assert str(error).startswith("tenant acme, source shop, stream items")
    assert message in str(error)
    assert str(settings.data_dir) not in error.message


def test_an_empty_key_is_an_error_that_names_the_file(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,n\n1,a\n,b\n")
    assert "primary_key column id is empty in 1 rows of the file a.csv" in str(_fail(DataError, build_tenant(settings, items={**CSV, "primary_key": "id"})))


def test_a_missing_key_column_is_answered_with_the_nearest(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("ident,n\n1,a\n")
    error = _fail(SourceError, build_tenant(settings, items={**CSV, "primary_key": "indent"}))
    assert "no primary_key column 'indent'; did you mean 'ident'?" in str(error)


def test_a_folder_without_files_makes_an_empty_table_and_says_so(settings: Settings, inbox: Path) -> None:
    assert inbox.is_dir()
    tenant = build_tenant(settings, items=CSV)
    assert tenant.load()["items"].rows_total == 0
    assert any("no file matches *.csv" in message for message in tenant.messages)
    assert tenant.read("items", "_fabric_file") == []


def test_a_glob_that_misses_the_files_that_are_there_is_an_error(settings: Settings, inbox: Path) -> None:
    (inbox / "a.txt").write_text("id\n1\n")
    assert "holds files, but none matches *.csv" in str(_fail(SourceError, build_tenant(settings, items=CSV)))


def test_a_missing_folder_is_named(settings: Settings) -> None:
    assert "the folder exports does not exist" in str(_fail(SourceError, build_tenant(settings, items=CSV)))


@pytest.mark.parametrize("path", ["warehouse", "secrets", "dlt/other", "."])
def test_the_platforms_own_folders_are_no_source_by_any_link(settings: Settings, path: str) -> None:
    target = settings.data_dir / path
    target.mkdir(parents=True, exist_ok=True)
    (settings.data_dir / "exports").symlink_to(target)
    assert "the platform's own data" in str(_fail(ConfigurationError, build_tenant(settings, items=CSV)))


def test_a_link_out_of_the_folder_and_a_pipe_are_skipped_and_said(settings: Settings, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("id\n666\n")
    (inbox / "link.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "a [1]*'.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items=CSV)
    tenant.load()
    assert tenant.read("items", "_fabric_file", "id") == [("a [1]*'.csv", 1)]
    assert sum("is skipped" in message for message in tenant.messages) == 2


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
