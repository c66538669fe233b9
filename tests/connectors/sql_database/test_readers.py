"""What each database's reader gives: every value, in batches of bounded size, whatever is odd about a row or the connection."""

import contextlib
import socket
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sqla

from fabric_assets.connectors.sql_database import mysql_reader
from fabric_assets.drivers import postgres_adbc
from fabric_assets.errors import SourceError, SourceUnavailable
from fabric_assets.rows import arrow_types
from fabric_assets.rows.mixed_columns import split
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.support.duck import DuckSource
from tests.support.lengths import AT_FULL_LENGTH
from tests.support.shop import SourceDatabase, write_secret_file

_MEGABYTE = 1024 * 1024


def test_a_table_without_rows_gives_its_columns(database: SourceDatabase, settings: Settings) -> None:
    database.run("create table orders (id integer, amount decimal(10,2), day date)")
    (table,) = Reading(database, settings, orders={}).read()
    assert table.num_rows == 0
    assert table.schema == pa.schema({"id": pa.int64(), "amount": pa.decimal128(10, 2), "day": pa.date32()})


@AT_FULL_LENGTH
def test_wide_rows_come_in_small_batches(database: SourceDatabase, settings: Settings) -> None:
    database.run("create table documents (id integer, body longtext)" if "mysql" in database.url else "create table documents (id integer, body text)")
    for number in range(40):
        database.fill("documents", [(number, str(number % 10) * 2 * _MEGABYTE)])
    batches = Reading(database, settings, documents={}).read()
    assert max(table.nbytes for table in batches) < 40 * _MEGABYTE
    assert len(batches) > 2
    rows = {row["id"]: row["body"] for table in batches for row in table.to_pylist()}
    assert rows == {number: str(number % 10) * 2 * _MEGABYTE for number in range(40)}


def test_many_rows_keep_every_value_across_batches(database: SourceDatabase, settings: Settings) -> None:
    database.run("create table numbers (id integer, half decimal(12,1), word varchar(400))")
    count = 120_000
    rows = [(number, Decimal(number) / 2, None if number % 7 == 0 else f"word {number} " + "x" * (number % 300)) for number in range(count)]
    if isinstance(database, DuckSource):
        word = "case when i % 7 = 0 then null else 'word ' || i || ' ' || repeat('x', i % 300) end"
        database.run(f"insert into numbers select i, i / 2, {word} from range({count}) t(i)")
    else:
        database.fill("numbers", [(number, float(half), word) for number, half, word in rows])
    batches = Reading(database, settings, numbers={}).read()
    assert len(batches) > 1
    table = pa.concat_tables(batches).sort_by("id")
    assert table["id"].to_pylist() == list(range(count))
    assert table["half"].to_pylist() == [half for _, half, _ in rows]
    assert table["word"].to_pylist() == [word for _, _, word in rows]


@pytest.mark.parametrize("size", [0, 250, 251, 252, 253, 255, 65_535, 65_536, 16_777_214, 16_777_215, 16_777_216])
def test_mariadb_values_of_every_length_arrive_whole(mariadb: SourceDatabase, settings: Settings, size: int) -> None:
    """At these sizes the protocol changes how it writes a length, or splits a row over two packets."""
    mariadb.run("create table texts (id integer, a longtext, b longblob, c varchar(9))")
    half = size // 2
    mariadb.run(
        f"insert into texts values (1, concat(repeat('ä', {half // 2}), repeat('x', {half - half // 2 * 2})), repeat('y', {size - half}), 'end')",
        "insert into texts values (2, null, '', null)",
    )
    first, second = Reading(mariadb, settings, texts={}).read_rows()
    assert first == {"id": 1, "a": "ä" * (half // 2) + "x" * (half - half // 2 * 2), "b": b"y" * (size - half), "c": "end"}
    assert second == {"id": 2, "a": None, "b": b"", "c": None}


def test_an_error_in_the_middle_of_mariadbs_rows_is_not_their_end(mariadb: SourceDatabase, settings: Settings) -> None:
    mariadb.run("create table numbers (id integer)", "insert into numbers select seq from seq_1_to_200000")
    stream = {"where": "if(id = 150000, (select 1 union select 2), 1) = 1"}
    with pytest.raises(SourceError, match="more than 1 row"):
        Reading(mariadb, settings, numbers=stream).read()


@pytest.mark.parametrize(
    ("declared", "value", "kind", "text"),
    [
        ("time", "'100:00:00'", arrow_types.TIME, "100:00:00"),
        ("date", "'0000-00-00'", arrow_types.DATE, "0000-00-00"),
        ("datetime", "'2024-00-00 00:00:00'", arrow_types.TIMESTAMP, "2024-00-00 00:00:00"),
    ],
)
def test_what_a_mariadb_column_holds_against_its_type_comes_as_text_beside_the_others(
    mariadb: SourceDatabase, settings: Settings, declared: str, value: str, kind: pa.DataType, text: str
) -> None:
    mariadb.run("set sql_mode = ''", f"create table odd (v {declared})")
    with mariadb._engine.begin() as connection:
        connection.exec_driver_sql("set sql_mode = ''")
        connection.exec_driver_sql(f"insert into odd values ({value}), (null)")
    natural, odd = Reading(mariadb, settings, odd={}).read()
    assert (natural.schema.field("v").type, natural.num_rows) == (kind, 0)
    values, texts = split(odd["v"])
    assert (values.type, values.to_pylist(), texts.to_pylist()) == (kind, [None, None], [text, None])


def test_a_connection_that_waits_for_its_next_stream_holds_no_transaction(postgres: SourceDatabase, settings: Settings) -> None:
    postgres.run("create table stores (id integer)", "insert into stores values (1)")
    reading = Reading(postgres, settings, stores={})
    reader = reading.open()
    try:
        batches = reader.groups[0].read(reading.memories)
        next(batches)
        assert "idle in transaction" in ask_states(postgres)
        assert list(batches) == []
        assert "idle in transaction" not in ask_states(postgres)
    finally:
        reader.close()


def ask_states(postgres: SourceDatabase) -> list[str]:
    """What each other connection to the database is at; one that has just been closed may still be among them."""
    with postgres._engine.connect() as connection:
        return sorted(connection.exec_driver_sql("select state from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()").scalars())


def test_nan_in_a_postgres_numeric_is_read_as_text_beside_the_numbers(postgres: SourceDatabase, settings: Settings) -> None:
    postgres.run("create table odd (v numeric(10,2))", "insert into odd values (1.5), ('NaN')")
    natural, odd = Reading(postgres, settings, odd={}).read()
    assert natural.schema.field("v").type == pa.decimal128(10, 2)
    assert [part.to_pylist() for part in split(odd["v"])] == [[Decimal("1.50"), None], [None, "NaN"]]


def test_a_sqlite_column_that_was_loaded_as_a_number_gives_later_words_as_text_beside_the_numbers(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table odd (v integer)", "insert into odd values (1)")
    reading = Reading(sqlite, settings, odd={})
    reading.memories["odd"].rows = pa.table({"v": [1]})
    assert [table.to_pylist() for table in reading.read()] == [[{"v": 1}]]
    sqlite.run("insert into odd values ('two'), (2.5)")
    natural, odd = reading.read()
    assert natural.schema.field("v").type == pa.int64()
    assert [part.to_pylist() for part in split(odd["v"])] == [[1, None, None], [None, "two", "2.5"]]


@pytest.mark.parametrize("strays", ["", "insert into odd (id) values ('a word')"])
def test_an_invalid_sqlite_text_is_read_as_it_is_and_ends_nothing(sqlite: SourceDatabase, settings: Settings, strays: str) -> None:
    """Through ADBC, and row by row where another column breaks its declaration."""
    sqlite.run("create table odd (id integer, v text)", "insert into odd values (1, 'good'), (2, cast(x'ff41' as text))", *([strays] if strays else []))
    table = pa.concat_tables(Reading(sqlite, settings, odd={}).read())
    assert table["v"].cast(pa.binary()).to_pylist()[:2] == [b"good", b"\xffA"]


def test_sqlite_reads_through_adbc_what_it_reads_row_by_row(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table every (n integer, x real, t text, b blob, f boolean, d date, m datetime, p decimal(10,2), odd integer)")
    row = (-(2**63), 0.1, "a\x00b ü", b"\x00\xff", 1, "2024-02-29", "2024-02-29 12:00:00.5", 0.1, 1)
    sqlite.fill("every", [row, (None,) * 9])
    fast = Reading(sqlite, settings, every={}).read_rows()
    sqlite.run("update every set odd = 'stray' where odd = 1")
    slow = Reading(sqlite, settings, every={}).read_rows()
    assert [{**line, "odd": None} for line in fast] == [{**line, "odd": None} for line in slow]
    assert fast[0]["d"] == date(2024, 2, 29) and fast[0]["p"] == Decimal("0.10") and fast[0]["t"] == "a\x00b ü"


def test_a_missing_table_ends_its_own_stream_alone(database: SourceDatabase, settings: Settings) -> None:
    database.run("create table orders (id integer)", "insert into orders values (1)")
    reading = Reading(database, settings, orders={}, order={})
    assert reading.read_rows("orders") == [{"id": 1}]
    with pytest.raises(SourceError, match=r"stream order: the source has no table 'order'; did you mean 'orders'\? known: orders"):
        reading.read("order")


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_columns_of_many_tables_are_asked_for_at_once(engine: str, request: pytest.FixtureRequest, settings: Settings) -> None:
    database: SourceDatabase = request.getfixturevalue(engine)
    database.run(*[f"create table t{number} (id integer)" for number in range(30)])
    few, many = ([f"t{number}" for number in range(count)] for count in (1, 30))
    counts = []
    for names in (few, many):
        statements: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *rest: Any, seen: list[str] = statements) -> None:
            if "t0" in statement or "pg_" in statement:
                seen.append(statement)

        sqla.event.listen(sqla.engine.Engine, "before_cursor_execute", note)
        try:
            Reading(database, settings, **{name: {} for name in names}).open().close()
        finally:
            sqla.event.remove(sqla.engine.Engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1] > 0


def test_a_reading_that_is_given_up_leaves_the_next_one_a_clean_connection(database: SourceDatabase, settings: Settings) -> None:
    numbers = {"postgres": "generate_series(1, 400000) t(i)", "mysql": "(select seq as i from seq_1_to_400000) t", "duckdb": "range(1, 400001) t(i)"}
    series = next((sql for word, sql in numbers.items() if word in database.url), None)
    if series is None:
        series = "(with recursive t(i) as (select 1 union all select i + 1 from t where i < 400000) select i from t)"
    database.run("create table numbers (id integer, word varchar(200))", f"insert into numbers select i, 'a word that fills the row' from {series}")
    reader = Reading(database, settings, options={"max_connections": 1}, first={"table": "numbers"}, second={"table": "numbers", "where": "id = 7"}).open()
    memories = Reading(database, settings, first={}, second={}).memories
    first, second = reader.groups
    given_up = first.read(memories)
    assert next(given_up).rows.num_rows > 0
    given_up.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert [row for batch in second.read(memories) for row in batch.rows.to_pylist()] == [{"id": 7, "word": "a word that fills the row"}]
    reader.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_never_answers_ends_the_load_in_time(settings: Settings, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_secret_file(settings, "shop_url", f"{scheme}://reader:hunter2@127.0.0.1:{silent.getsockname()[1]}/shop")
        database = object.__new__(SourceDatabase)
        started = time.monotonic()
        with pytest.raises(SourceUnavailable) as caught:
            Reading(database, settings, options={"timeout": "2s"}, orders={}).open()
    assert time.monotonic() - started < 60
    assert "hunter2" not in str(caught.value)


def test_a_duckdb_file_that_is_not_there_is_not_made(settings: Settings, tmp_path: Path) -> None:
    write_secret_file(settings, "shop_url", f"duckdb:///{tmp_path}/absent.duckdb")
    with pytest.raises(SourceError, match=r"the DuckDB file .*absent\.duckdb does not exist"):
        Reading(object.__new__(SourceDatabase), settings, orders={}).open()
    assert not (tmp_path / "absent.duckdb").exists()


@AT_FULL_LENGTH
def test_duckdb_rows_that_do_not_fit_into_its_memory_at_once_are_read_a_few_at_a_time(settings: Settings, tmp_path: Path) -> None:
    database = DuckSource(tmp_path / "shop.duckdb", settings)
    database.run("create table documents (id integer, body varchar)")
    for number in range(18):
        database.run(f"insert into documents select {number}, repeat('{number % 10}', {10 * _MEGABYTE})")
    database.run("delete from documents where id = 17")
    batches = Reading(database, settings, documents={"where": "id <> 3 or id is null"}).read()
    assert max(table.nbytes for table in batches) < 100 * _MEGABYTE
    found = {row["id"]: (len(row["body"]), row["body"][0]) for table in batches for row in table.to_pylist()}
    assert found == {number: (10 * _MEGABYTE, str(number % 10)) for number in range(18) if number not in {3, 17}}


def test_a_duckdb_query_that_takes_too_long_is_interrupted(settings: Settings, tmp_path: Path) -> None:
    database = DuckSource(tmp_path / "shop.duckdb", settings)
    database.run("create table numbers as select i from range(100000) t(i)")
    slow = {"where": "(select count(*) from numbers a, numbers b where a.i + b.i > numbers.i) > 0"}
    with pytest.raises(SourceUnavailable, match="took longer than its timeout of 1 s"):
        Reading(database, settings, options={"timeout": "1s"}, numbers=slow).read()


def test_a_connection_to_postgres_does_not_read_the_columns_of_every_table(postgres: SourceDatabase) -> None:
    postgres.run(*(f"create table t{number} ({', '.join(f'c{column} integer' for column in range(30))})" for number in range(100)))

    def count_columns_read() -> int:
        # A backend's numbers are there for all to see when it has ended, or soon after.
        with postgres._engine.begin() as connection:
            found = connection.exec_driver_sql("select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_sys_tables where relname = 'pg_attribute'")
            return int(found.scalar_one())

    before = count_columns_read()
    with contextlib.closing(postgres_adbc.connect(postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 as one")
        assert cursor.fetch_arrow_table()["one"].to_pylist() == [1]
    time.sleep(1.5)
    assert count_columns_read() - before < 3_000


def test_mariadb_is_read_by_the_drivers_public_calls_where_pymysql_has_changed(
    mariadb: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mariadb.run(
        "create table kinds (id bigint, price decimal(12, 3), day date, moment datetime(6), body longtext, raw varbinary(9))",
        "insert into kinds values (1, 12345678.125, '2026-02-28', '2026-02-28 01:02:03.000004', 'é:word', x'00ff'), (2, null, null, null, null, null)",
        "insert into kinds select seq, seq, null, null, 'x', null from seq_3_to_20000",
    )
    fast = pa.concat_tables(Reading(mariadb, settings, kinds={}).read())
    monkeypatch.setattr(mysql_reader, "MysqlPacket", object)  # as in a version that has it elsewhere
    mysql_reader._has_attributes.cache_clear()
    try:
        slow = pa.concat_tables(Reading(mariadb, settings, kinds={}).read())
        options = {"consistent": True}
        at_one_moment = pa.concat_tables(Reading(mariadb, settings, options=options, kinds={}).read())
    finally:
        mysql_reader._has_attributes.cache_clear()
    assert fast.num_rows == 20_000
    assert slow.sort_by("id").equals(fast.sort_by("id"))
    assert at_one_moment.sort_by("id").equals(fast.sort_by("id"))
    warnings = [record.getMessage() for record in caplog.records if record.name.endswith("mysql_reader")]
    assert len(warnings) == 1
    assert "PyMySQL lacks MysqlPacket.check_error" in warnings[0]
