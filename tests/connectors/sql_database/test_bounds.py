"""An incremental load's condition in SQL leaves out no row that the comparison of the values themselves would keep."""

from pathlib import Path

import pytest

from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, build_sqlite_url

STREAM = {"primary_key": "id", "cursor": {"field": "seen"}}
# Words, whose order is what these tests are about.
TRUSTED = {**STREAM, "cursor": {"field": "seen", "trust": True}}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("timestamp", "-infinity"),
        ("timestamptz", "-infinity"),
        ("date", "-infinity"),
        ("timestamp", "0044-03-15 12:00:00 BC"),
        ("timestamptz", "0044-03-15 12:00:00 BC"),
        ("date", "0044-03-15 BC"),
        ("double precision", "-Infinity"),
        ("real", "-Infinity"),
    ],
)
@pytest.mark.parametrize("engine", ["postgres", "duckdb"])
def test_a_value_before_all_others_is_read_in_each_load(
    engine: str, declared: str, value: str, request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> None:
    database = DuckSource(tmp_path / "shop.duckdb", settings) if engine == "duckdb" else request.getfixturevalue("postgres")
    value = value.replace(" BC", "").replace("03-15", "03-15 (BC)") if engine == "duckdb" else value
    usual = "1.5" if declared in {"double precision", "real"} else "2024-01-01"
    database.run(f"create table events (id integer, seen {declared})", f"insert into events values (1, '{usual}'), (4, null)")
    reading = Reading(database, settings, events=STREAM)
    assert _read_ids(reading) == [1, 4]
    database.run(f"insert into events values (2, '{value}')")
    assert _read_ids(reading) == [1, 2, 4]
    # A source that went back is read again from its beginning.
    earlier = "0.5" if usual == "1.5" else "2023-01-01"
    database.run("delete from events where id = 1", f"insert into events values (3, '{earlier}')")
    assert _read_ids(reading) == [2, 3, 4]


def test_an_invalid_sqlite_date_ends_a_later_load_as_it_would_have_ended_the_first(settings: Settings, tmp_path: Path) -> None:
    database = SourceDatabase(build_sqlite_url(tmp_path), settings)
    database.run("create table events (id integer, seen date)", "insert into events values (1, '2024-01-01')")
    reading = Reading(database, settings, events=STREAM)
    first = reading.read()[0]
    reading.memories["events"].rows = first
    for value in ("''", "5"):
        database.run(f"insert into events values (2, {value})")
        with pytest.raises(DataError, match="the cursor seen holds a value that its type .* cannot carry"):
            reading.read()
        database.run("delete from events where id = 2")


@pytest.mark.parametrize("declared", ["date", "datetime", "timestamp null"])
def test_a_mariadb_date_of_zeros_ends_a_later_load_as_it_would_have_ended_the_first(mariadb: SourceDatabase, settings: Settings, declared: str) -> None:
    mariadb.run(f"create table events (id integer, seen {declared})", "insert into events values (1, '2024-01-01')")
    reading = Reading(mariadb, settings, events=STREAM)
    reading.read()
    mariadb.run("set sql_mode = ''", "insert into events values (2, '0000-00-00')")
    with pytest.raises(DataError, match="the cursor seen holds a value that its type .* cannot carry"):
        reading.read()


def test_a_postgres_char_is_compared_without_its_padding(postgres: SourceDatabase, settings: Settings) -> None:
    postgres.run("create table events (id integer, seen char(6))", "insert into events values (1, 'a'), (2, 'b')")
    reading = Reading(postgres, settings, events=TRUSTED)
    reading.read()
    assert reading.memories["events"].state["value"] == "b     "
    postgres.run("insert into events values (3, 'b'), (4, 'bc')")
    assert _read_ids(reading) == [2, 3, 4]


@pytest.mark.parametrize("charset", ["latin1", "ucs2", "utf8mb4", "utf16"])
def test_a_mariadb_text_is_compared_in_one_charset(mariadb: SourceDatabase, settings: Settings, charset: str) -> None:
    mariadb.run(f"create table events (id integer, seen varchar(20) character set {charset})", "insert into events values (1, 'b'), (2, 'é')")
    reading = Reading(mariadb, settings, events=TRUSTED)
    reading.read()
    mariadb.run("insert into events values (3, 'é'), (4, 'ü'), (5, 'c')")
    assert _read_ids(reading) == [2, 3, 4]


def test_a_mariadb_uuid_or_word_of_a_list_is_a_cursor(mariadb: SourceDatabase, settings: Settings) -> None:
    ids = [f"0190163d-8694-739b-aea5-966c26f8ad9{digit}" for digit in "059"]
    mariadb.run("create table events (id integer, seen uuid, word enum('z', 'a'))")
    mariadb.run(f"insert into events values (1, '{ids[0]}', 'a'), (2, '{ids[1]}', 'a')")
    by_word = {"primary_key": "id", "cursor": {"field": "word", "trust": True}}
    reading = Reading(mariadb, settings, events=STREAM, words={**by_word, "table": "events"})
    reading.read("events")
    reading.read("words")
    mariadb.run(f"insert into events values (3, '{ids[2]}', 'z')")
    assert [row["id"] for row in reading.read_rows("events")] == [2, 3]
    assert [row["id"] for row in reading.read_rows("words")] == [1, 2, 3]


def _read_ids(reading: Reading) -> list[int]:
    return sorted({number for table in reading.read() for number in table["id"].to_pylist()})
