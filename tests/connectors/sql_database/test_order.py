"""A cursor of numbers that can only be read as text is refused: as text 10 comes before 9. The error names the wrong value."""

from pathlib import Path

import pyarrow as pa
import pytest

from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase

STREAM = {"primary_key": "id", "cursor": {"field": "n"}}


@pytest.mark.parametrize("value", ["", "n/a"])
@pytest.mark.parametrize("declared", ["integer", "real", "decimal(10,2)", "datetime", "date", "", "numeric"])
def test_sqlite_refuses_a_cursor_of_numbers_or_days_with_another_text_in_it(sqlite: SourceDatabase, settings: Settings, declared: str, value: str) -> None:
    first, second = ("'2024-01-08'", "'2024-01-09'") if "date" in declared else ("8", "9")
    sqlite.run(f"create table events (id integer, n {declared})", f"insert into events values (1, {first}), (2, {second}), (3, '{value}')")
    with pytest.raises(DataError, match=f"the cursor n .* holds '{value}', and so is read as text") as caught:
        Reading(sqlite, settings, events=STREAM).read()
    assert "where" in caught.value.remedy and "--full-refresh" in caught.value.remedy
    assert [row["id"] for row in Reading(sqlite, settings, events={**STREAM, "where": "id < 3"}).read_rows()] == [1, 2]


def test_sqlite_follows_moments_that_are_written_in_a_way_of_their_own(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table events (id integer, n datetime)", "insert into events values (1, '2024-01-08 09:00'), (2, '2024-01-09 09:00')")
    reading = Reading(sqlite, settings, events=STREAM)
    reading.read()
    sqlite.run("insert into events values (3, '2024-01-10 09:00')")
    assert [row["id"] for row in reading.read_rows()] == [2, 3]


def test_a_cursor_that_an_earlier_version_has_loaded_as_text_is_refused_too(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table events (id integer, n integer)", "insert into events values (1, 8), (2, 9), (3, 10)")
    reading = Reading(sqlite, settings, events=STREAM)
    reading.memories["events"].rows = pa.table({"id": [1, 2], "n": ["8", "9"]})
    with pytest.raises(DataError, match=r"the cursor n \(INTEGER\) is read as text"):
        reading.read()


@pytest.mark.parametrize("declared", ["", "text", "varchar(20)", "string", "json"])
def test_sqlite_follows_a_cursor_of_texts(sqlite: SourceDatabase, settings: Settings, declared: str) -> None:
    sqlite.run(f"create table events (id integer, n {declared})", "insert into events values (1, 'a8'), (2, 'a9'), (3, '')")
    reading = Reading(sqlite, settings, events={**STREAM, "cursor": {**STREAM["cursor"], "trust": True}})
    reading.read()
    sqlite.run("insert into events values (4, 'b10'), (5, 'a10')")
    assert [row["id"] for row in reading.read_rows()] == [2, 4]


@pytest.mark.parametrize("value", ["1e20", "0.1234567890123456789"])
@pytest.mark.parametrize("declared", ["numeric", "amount"])
def test_postgres_refuses_a_cursor_of_numbers_that_fit_no_type(postgres_database: str, settings: Settings, declared: str, value: str) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create domain amount as numeric", f"create table events (id integer, n {declared})")
    database.run(f"insert into events values (1, 8), (2, 9), (3, '{value}')")
    written = "1" + "0" * 20 if value == "1e20" else value
    with pytest.raises(DataError, match=rf"the cursor n \(NUMERIC\) holds '{written}', and so is read as text"):
        Reading(database, settings, events=STREAM).read()
    assert [row["id"] for row in Reading(database, settings, events={**STREAM, "where": "id < 3"}).read_rows()] == [1, 2]


@pytest.mark.parametrize("declared", ["numeric", "numeric(10,2)"])
def test_postgres_refuses_a_cursor_with_a_value_that_is_not_a_number(postgres_database: str, settings: Settings, declared: str) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run(f"create table events (id integer, n {declared})", "insert into events values (1, 8), (2, 'NaN')")
    with pytest.raises(DataError, match="the cursor n holds a value that its type decimal128.* cannot carry"):
        Reading(database, settings, events=STREAM).read()


def test_money_cannot_be_a_cursor(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table events (id integer, n money)", "insert into events values (1, 8), (2, 9)")
    with pytest.raises(DataError, match=r"the cursor n \(MONEY\) is read as text"):
        Reading(database, settings, events=STREAM).read()


def test_numbers_wider_than_any_type_cannot_be_a_cursor(postgres_database: str, mariadb_url: str, settings: Settings, tmp_path: Path) -> None:
    for url in (postgres_database, mariadb_url):
        database = SourceDatabase(url, settings)
        database.run("create table events (id integer, n decimal(60,2))", "insert into events values (1, 8), (2, 9)")
        with pytest.raises(DataError, match=r"the cursor n \((NUMERIC|DECIMAL)\(60, 2\)\) is read as text"):
            Reading(database, settings, events=STREAM).read()
    duck = DuckSource(tmp_path / "shop.duckdb", settings)
    duck.run("create table events (id integer, n bignum)", "insert into events values (1, 8), (2, 9)")
    with pytest.raises(DataError, match=r"the cursor n \(BIGNUM\) is read as text"):
        Reading(duck, settings, events=STREAM).read()


def test_a_uuid_that_begins_with_its_time_is_a_cursor(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    ids = [f"0190163d-8694-739b-aea5-966c26f8ad9{digit}" for digit in "0a"]
    database.run("create table events (id integer, n uuid)", f"insert into events values (9, '{ids[0]}')")
    reading = Reading(database, settings, events=STREAM)
    reading.read()
    database.run(f"insert into events values (10, '{ids[1]}')")
    assert [row["id"] for row in reading.read_rows()] == [9, 10]
