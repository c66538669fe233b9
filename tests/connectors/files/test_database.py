"""The database in memory that reads the files of a stream."""

from pathlib import Path

import duckdb
import pytest

from fabric_assets.connectors.files.database import Engine, prepare_for_wide

SETTINGS = "select current_setting('threads'), current_setting('memory_limit'), current_setting('TimeZone')"


def test_the_next_file_is_read_by_the_same_database_with_the_settings_of_the_first(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    with engine.connect() as connection:
        first = connection.execute(SETTINGS).fetchone()
        prepare_for_wide(connection)
        connection.execute("create table kept as select 1 as one; create temp table own as select 2 as two; set TimeZone = 'Asia/Tokyo'")
    with engine.connect() as connection:
        assert connection.execute(SETTINGS).fetchone() == first
        assert first[1:] == ("192.0 MiB", "UTC")
        assert connection.execute("select one from kept").fetchall() == [(1,)]
        with pytest.raises(duckdb.CatalogException, match="own"):
            connection.execute("select two from own")
    engine.close()


def test_two_readings_at_once_have_a_database_each(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    with engine.connect() as one, engine.connect(threads=1) as other:
        one.execute("create table kept as select 1 as one")
        with pytest.raises(duckdb.CatalogException, match="kept"):
            other.execute("select one from kept")
        assert other.execute("select current_setting('threads')").fetchone() == (1,)
    engine.close()


def test_a_database_in_which_a_reading_failed_is_not_used_again(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    with pytest.raises(duckdb.ConversionException), engine.connect() as connection:
        connection.execute("create table kept as select 1 as one")
        connection.execute("select 'a'::int")
    with engine.connect() as connection, pytest.raises(duckdb.CatalogException, match="kept"):
        connection.execute("select one from kept")
    engine.close()
