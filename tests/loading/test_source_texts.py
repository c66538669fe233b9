"""Texts of a source arrive letter by letter, whatever its encoding; and values that fit no type leave the others of their column alone."""

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.errors import SourceError, SourceUnavailable
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant


@pytest.fixture
def latin_database(make_database: Callable[..., str], request: pytest.FixtureRequest) -> str:
    """A Postgres database in the encoding that the test names."""
    return make_database(request.param)


@pytest.mark.parametrize(("latin_database", "word"), [("LATIN1", "café"), ("WIN1252", "5 €"), ("EUC_JP", "日本語")], indirect=["latin_database"])
@pytest.mark.parametrize("parameter", ["", "?client_encoding=LATIN1"])
def test_texts_of_a_postgres_source_in_another_encoding_arrive_exactly(latin_database: str, settings: Settings, word: str, parameter: str) -> None:
    SourceDatabase(latin_database, settings).run("create table words (id integer primary key, v text)", f"insert into words values (1, '{word}')")
    source = SourceDatabase(latin_database + parameter, settings)
    tenant = Tenant(settings, source.build_source(words={"primary_key": "id", "where": f"v = '{word}'"}))
    assert tenant.load()["words"].record.rows_rejected == 0
    assert tenant.read("words", "id", "v") == [(1, word)]


@pytest.mark.parametrize("latin_database", ["WIN1252"], indirect=True)
def test_a_text_that_the_source_cannot_convert_is_refused_by_name(latin_database: str, settings: Settings) -> None:
    source = SourceDatabase(latin_database, settings)
    # 0x81 is no character of Windows-1252; the server stores it as it comes.
    source.run("create table words (id integer, v text)", "insert into words select 1, convert_from('\\x81'::bytea, 'WIN1252')")
    with pytest.raises(SourceError, match="text that does not convert to UTF-8") as caught:
        Tenant(settings, source.build_source(words={})).load()
    assert "where" in caught.value.remedy


@pytest.mark.parametrize("latin_database", ["SQL_ASCII"], indirect=True)
def test_bytes_of_a_database_without_an_encoding_are_text_only_where_they_are_utf8(latin_database: str, settings: Settings) -> None:
    source = SourceDatabase(latin_database, settings)
    source.run("create table words (id integer, v text)", "insert into words values (1, E'caf\\xe9'), (2, E'caf\\xc3\\xa9')")
    tenant = Tenant(settings, source.build_source(words={"primary_key": "id"}))
    assert tenant.load()["words"].record.rows_rejected == 1
    assert tenant.read("words", "id", "v") == [(2, "café")]
    assert tenant.ask("select column_name, reason from acme_fabric.rejected_rows") == [("v", "bad_text")]


@pytest.mark.parametrize("charset", ["latin1", "utf8", "ascii", "binary", "utf8mb4", "latin1&collation=latin1_swedish_ci"])
def test_a_charset_in_a_mysql_url_changes_no_letter(mariadb_url: str, settings: Settings, charset: str) -> None:
    SourceDatabase(mariadb_url, settings).run(
        "create table words (id integer primary key, v varchar(20) character set utf8mb4, w varchar(20) character set latin1)",
        "insert into words values (1, 'Ω 🤷 ?', 'café')",
    )
    source = SourceDatabase(f"{mariadb_url}?charset={charset}", settings)
    tenant = Tenant(settings, source.build_source(words={"primary_key": "id"}))
    assert tenant.load()["words"].record.rows_rejected == 0
    assert tenant.read("words", "v", "w") == [("Ω 🤷 ?", "café")]


def test_a_sqlite_file_in_utf16_arrives_exactly(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("pragma encoding = 'UTF-16le'", "create table words (id integer, v text)", "insert into words values (1, 'Ω 🤷')")
    tenant = Tenant(settings, sqlite.build_source(words={}))
    tenant.load()
    assert tenant.read("words", "v") == [("Ω 🤷",)]


# --- one bad value


@pytest.mark.parametrize("contract", ["evolve", "discard"])
def test_a_zero_date_leaves_the_other_moments_alone(mariadb_url: str, warehouse: str | None, settings: Settings, contract: str) -> None:
    source = SourceDatabase(mariadb_url, settings)
    with source._engine.begin() as connection:
        connection.exec_driver_sql("set sql_mode = '', time_zone = '+00:00'")
        connection.exec_driver_sql("create table odd (id integer, created timestamp null, seen datetime null, day date, clock time(6))")
        connection.exec_driver_sql(
            "insert into odd values (1, '2024-01-01 10:00:00', '2024-01-01 10:00:00', '2024-01-01', '-00:00:01'),"
            " (2, '0000-00-00 00:00:00', '0000-00-00 00:00:00', '2024-00-15', '838:59:59'), (3, '2024-01-03 10:00:00', null, null, '10:00:00.5')"
        )
    stream = {"primary_key": "id", "schema_contract": contract, "columns": ["id", "created", "seen"] if contract == "discard" else None}
    tenant = Tenant(settings, source.build_source(odd={key: value for key, value in stream.items() if value}), warehouse=warehouse)
    record = tenant.load()["odd"].record
    first, third = datetime(2024, 1, 1, 10, tzinfo=UTC), datetime(2024, 1, 3, 10, tzinfo=UTC)
    if contract == "discard":
        assert (record.rows_loaded, record.rows_rejected) == (2, 1)
        assert tenant.read("odd", "id", "created", "seen") == [(1, first, datetime(2024, 1, 1, 10)), (3, third, None)]
        assert tenant.ask("select column_name, reason from acme_fabric.rejected_rows") == [("created", "type_mismatch")]
        return
    assert tenant.read("odd", "id", "created", "created__v_text") == [(1, first, None), (2, None, "0000-00-00 00:00:00"), (3, third, None)]
    assert tenant.read("odd", "id", "seen", "seen__v_text", order="id")[:2] == [(1, datetime(2024, 1, 1, 10), None), (2, None, "0000-00-00 00:00:00")]
    assert tenant.read("odd", "id", "day__v_text", order="id") == [(1, None), (2, "2024-00-15"), (3, None)]
    assert tenant.read("odd", "id", "clock", "clock__v_text", order="id") == [
        (1, None, "-00:00:01.000000"),
        (2, None, "838:59:59.000000"),
        (3, time(10, 0, 0, 500_000), None),
    ]


@pytest.mark.parametrize(
    ("declared", "first", "later", "values", "texts"),
    [
        ("real", 0.5, [0.12345678901234567, "word"], [0.12345678901234567, None], [None, "word"]),
        ("blob", b"\x01", [b"\x00\xff", "word"], [b"\x00\xff", None], [None, "word"]),
        ("boolean", 1, [0, 2], [False, None], [None, "2"]),
        ("decimal(10,2)", 0.5, [0.25, "x"], [Decimal("0.25"), None], [None, "x"]),
        ("datetime", "2024-01-01 10:00:00", ["2024-01-02 10:00:00.5", "soon"], [datetime(2024, 1, 2, 10, 0, 0, 500_000), None], [None, "soon"]),
        ("date", "2024-01-01", ["2024-01-02", "0000-00-00"], [datetime(2024, 1, 2).date(), None], [None, "0000-00-00"]),
        ("integer", 1, [2**53 + 1, 2.5], [2**53 + 1, None], [None, "2.5"]),
    ],
)
def test_a_sqlite_value_of_another_type_leaves_the_others_alone(
    sqlite: SourceDatabase, settings: Settings, declared: str, first: object, later: list[object], values: list[object], texts: list[object]
) -> None:
    sqlite.run(f"create table odd (id integer, v {declared})")
    sqlite.fill("odd", [(0, first)])
    tenant = Tenant(settings, sqlite.build_source(odd={"primary_key": "id"}))
    tenant.load()
    sqlite.fill("odd", list(enumerate(later, 1)))
    tenant.load()
    assert tenant.read("odd", "id", "v", "v__v_text")[1:] == [(index, *pair) for index, pair in enumerate(zip(values, texts, strict=True), 1)]


def test_blobs_in_a_sqlite_column_that_is_declared_text_stay_blobs(sqlite: SourceDatabase, settings: Settings) -> None:
    key = bytes.fromhex("a0eebc999c0b4ef8bb6d6bb9bd380a11")
    sqlite.run("create table odd (id uuid)")
    sqlite.fill("odd", [(key,), (b"plain letters 16",)])
    tenant = Tenant(settings, sqlite.build_source(odd={}))
    tenant.load()
    assert tenant.read("odd", "id") == [(b"plain letters 16",), (key,)]


@pytest.mark.parametrize(
    ("table", "key", "rows"),
    [
        ("k primary key, v", "k", [(1, "a"), ("1", "b")]),
        ("k primary key, v", "k", [(1.5, "a"), ("1.5", "b"), ("x", "c")]),
        ("k blob primary key, v", "k", [(b"1", "a"), (31, "b")]),
        ("k, v, primary key (k, v)", ["k", "v"], [(1, "a"), ("1", "a")]),
    ],
)
def test_keys_that_sqlite_alone_tells_apart_are_refused_with_the_remedy(
    sqlite: SourceDatabase, settings: Settings, table: str, key: Any, rows: list[tuple[Any, str]]
) -> None:
    sqlite.run(f"create table odd ({table})")
    sqlite.fill("odd", [rows[0], ("other", "z")])
    tenant = Tenant(settings, sqlite.build_source(odd={"primary_key": key}))
    tenant.load()
    sqlite.fill("odd", rows[1:])
    with pytest.raises(SourceError, match="two keys in SQLite and one text in a warehouse") as caught:
        tenant.load()
    assert "typeof(k)" in caught.value.remedy
    assert len(tenant.read("odd", "k")) == 2


def test_times_of_a_file_that_are_no_times_of_day_are_kept_beside_the_others(warehouse: str | None, settings: Settings) -> None:
    folder = settings.data_dir / "in"
    folder.mkdir()
    times = pa.table(
        {
            "id": [1, 2, 3, 4],
            "ms": pa.array([-1, 86_400_001, 86_399_999, None], pa.int32()).cast(pa.time32("ms")),
            "us": pa.array([-3_600_000_001, 0, 86_400_000_001, 1], pa.int64()).cast(pa.time64("us")),
            "ns": pa.array([1_000, 1_001, -1_000_000_000, 86_399_999_999_000], pa.int64()).cast(pa.time64("ns")),
        }
    )
    pq.write_table(times, folder / "a.parquet")
    source = {"type": "files", "path": "in", "streams": {"odd": {"glob": "*", "format": "parquet"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    assert tenant.load()["odd"].record.rows_rejected == 0
    last = time(23, 59, 59, 999_000)
    assert tenant.read("odd", "id", "ms", "ms__v_text") == [(1, None, "-00:00:00.001000"), (2, None, "24:00:00.001000"), (3, last, None), (4, None, None)]
    assert tenant.read("odd", "us", "us__v_text", order="id") == [
        (None, "-01:00:00.000001"),
        (time(0), None),
        (None, "24:00:00.000001"),
        (time(0, 0, 0, 1), None),
    ]
    assert tenant.read("odd", "ns", "ns__v_text", order="id") == [
        (time(0, 0, 0, 1), None),
        (None, "00:00:00.000001001"),
        (None, "-00:00:01"),
        (time(23, 59, 59, 999_999), None),
    ]


def test_what_a_sqlite_view_computes_is_the_same_in_each_load(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(
        "create table parts (id integer primary key, price real)",
        "create view shares as select id, avg(price) over () as mean, cast(sum(price) over () as real) as total, count(*) over () as parts from parts",
    )
    sqlite.fill("parts", [(number, number * 0.1) for number in range(1, 201)])
    tenant = Tenant(settings, sqlite.build_source(shares={"primary_key": "id"}))
    tenant.load()
    first = tenant.read("shares", "id", "mean", "total", "parts")
    tenant.load()
    assert tenant.read("shares", "id", "mean", "total", "parts") == first
    with sqlite._engine.connect() as connection:
        assert [tuple(row) for row in connection.exec_driver_sql("select id, mean, total, parts from shares order by id")] == first


# --- a file that another program holds


def test_a_locked_sqlite_file_is_tried_again_and_says_what_holds_it(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table words (id integer)")
    holder = sqlite3.connect(sqlite.url.removeprefix("sqlite:///"), isolation_level=None)
    with contextlib.closing(holder):
        holder.execute("begin exclusive")
        with pytest.raises(SourceUnavailable, match="another program has locked the SQLite file .*shop.sqlite") as caught:
            Tenant(settings, {**sqlite.build_source(words={}), "timeout": "6s", "retries": {"max": 0}}).load()
    assert "let that program commit" in caught.value.remedy and "network" not in caught.value.remedy


@pytest.mark.parametrize(("content", "words"), [(b"\x8f" * 8192, "is not a SQLite file, or it is encrypted"), (None, "is damaged")])
def test_a_sqlite_file_that_cannot_be_read_is_named(sqlite: SourceDatabase, settings: Settings, content: bytes | None, words: str) -> None:
    sqlite.run("create table words (id integer, v text)")
    sqlite.fill("words", [(number, "x" * 500) for number in range(3_000)])
    path = Path(sqlite.url.removeprefix("sqlite:///"))
    whole = bytearray(path.read_bytes())
    whole[40 * 4096 : 44 * 4096] = b"\xaa" * 16384
    path.write_bytes(bytes(whole) if content is None else content)
    with pytest.raises(SourceError, match=words) as caught:
        Tenant(settings, sqlite.build_source(words={})).load()
    assert "network" not in caught.value.remedy
