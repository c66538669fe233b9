"""Streams of one load and the moment that they show: one for all where the source can, and a warning where it was lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.sql_database import postgres_moments
from fabric_assets.connectors.sql_database.source import open_source
from fabric_assets.errors import ConfigurationError
from fabric_assets.rows.batches import SourceReader
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.support.shop import SourceDatabase

STREAMS: dict[str, dict[str, Any]] = {
    "orders": {"primary_key": "id"},
    "items": {"primary_key": "id", "cursor": {"field": "id"}},
    "stores": {"primary_key": "id"},
}
MORE = tuple(f"insert into {name} values (2)" for name in STREAMS)


@pytest.fixture
def postgres(postgres_database: str, settings: Settings) -> SourceDatabase:
    return make_tables(SourceDatabase(postgres_database, settings))


@pytest.fixture
def mariadb(mariadb_url: str, settings: Settings) -> SourceDatabase:
    return make_tables(SourceDatabase(mariadb_url, settings))


def make_tables(database: SourceDatabase) -> SourceDatabase:
    for name in STREAMS:
        database.run(f"create table {name} (id integer)", f"insert into {name} values (1)")
    return database


@contextmanager
def opened(reading: Reading) -> Iterator[SourceReader]:
    reader = reading.open()
    try:
        yield reader
    finally:
        reader.close()


def read(reading: Reading, reader: SourceReader, name: str) -> list[int]:
    (group,) = [group for group in reader.groups if group.streams[0].name == name]
    return sorted(row["id"] for batch in group.read({name: reading.memories[name]}) for row in batch.rows.to_pylist())  # pyright: ignore[reportAttributeAccessIssue]


def count_transactions(database: SourceDatabase) -> int:
    with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'")
        return cursor.fetchone()[0]  # pyright: ignore[reportOptionalSubscript]


def test_the_streams_of_a_postgres_source_show_one_moment(postgres: SourceDatabase, settings: Settings) -> None:
    reading = Reading(postgres, settings, **STREAMS)
    with opened(reading) as reader:
        assert read(reading, reader, "orders") == [1]
        assert count_transactions(postgres) == 1
        postgres.run(*MORE)
        assert read(reading, reader, "items") == [1]
        assert read(reading, reader, "stores") == [1]
        # All have begun: the moment is held no longer.
        assert count_transactions(postgres) == 0
    assert [memory.warnings for memory in reading.memories.values()] == [[], [], []]
    with opened(reading) as reader:
        assert [read(reading, reader, name) for name in STREAMS] == [[1, 2], [1, 2], [1, 2]]


class StoppedTimer:
    """As where the process is stopped: it never ends anything."""

    def __init__(self, *_: Any) -> None:
        self.daemon = False

    def start(self) -> None: ...

    def cancel(self) -> None: ...


@pytest.mark.parametrize("who", ["this process", "the server"])
def test_a_moment_is_held_no_longer_than_declared_and_a_later_one_is_reported(
    postgres: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Each of the two ends it, should the other not."""
    if who == "the server":
        monkeypatch.setattr(threading, "Timer", StoppedTimer)
    else:
        monkeypatch.setattr(postgres_moments, "_BEGIN", "begin isolation level repeatable read read only; ")
    reading = Reading(postgres, settings, options={"snapshot_hold": "1s"}, **STREAMS)
    with opened(reading) as reader:
        assert read(reading, reader, "orders") == [1]
        deadline = time.monotonic() + 20
        while count_transactions(postgres) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert count_transactions(postgres) == 0
        postgres.run(*MORE)
        assert read(reading, reader, "items") == [1, 2]
    assert reading.memories["orders"].warnings == []
    (warning,) = reading.memories["items"].warnings
    assert warning.startswith("shows a later moment of the source than orders: ")


def test_a_moment_whose_session_the_server_ends_is_replaced_by_a_later_one(postgres: SourceDatabase, settings: Settings) -> None:
    reading = Reading(postgres, settings, **STREAMS)
    with opened(reading) as reader:
        assert read(reading, reader, "orders") == [1]
        with psycopg2.connect(postgres.url) as connection, connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'")
            assert cursor.fetchall() == [(True,)]
        postgres.run(*MORE)
        assert read(reading, reader, "items") == [1, 2]
        assert read(reading, reader, "stores") == [1, 2]
    assert reading.memories["items"].warnings == reading.memories["stores"].warnings != []


def test_mariadb_shows_one_moment_where_it_is_asked_to(mariadb: SourceDatabase, settings: Settings) -> None:
    reading = Reading(mariadb, settings, options={"consistent": True, "max_connections": 4}, **STREAMS)
    with opened(reading) as reader:
        assert reader.connections == 1
        assert read(reading, reader, "orders") == [1]
        mariadb.run(*MORE)
        assert read(reading, reader, "items") == [1]
        assert read(reading, reader, "stores") == [1]
    assert [memory.warnings for memory in reading.memories.values()] == [[], [], []]
    plain = Reading(mariadb, settings, **STREAMS)
    with opened(plain) as reader:
        assert reader.connections == 4
        assert read(plain, reader, "orders") == [1, 2]
        mariadb.run("insert into items values (3)")
        assert read(plain, reader, "items") == [1, 2, 3]


def test_a_connection_that_breaks_ends_the_moment_and_the_next_stream_says_so(mariadb: SourceDatabase, settings: Settings) -> None:
    reading = Reading(mariadb, settings, options={"consistent": True}, **STREAMS)
    with opened(reading) as reader:
        (group,) = [group for group in reader.groups if group.streams[0].name == "orders"]
        batches = group.read({"orders": reading.memories["orders"]})
        next(batches)
        batches.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator, given up in the middle
        mariadb.run(*MORE)
        assert read(reading, reader, "items") == [1, 2]
    assert reading.memories["items"].warnings[0].startswith("shows a later moment of the source than orders: ")


def test_a_stream_that_is_tried_again_says_that_it_shows_a_later_moment(postgres: SourceDatabase, settings: Settings) -> None:
    reading = Reading(postgres, settings, **STREAMS)
    context = SourceContext("acme", "shop", reading.config, ("items",), settings, loaded_before=("orders", "stores"))
    reader = open_source(context)
    try:
        assert read(reading, reader, "items") == [1]
    finally:
        reader.close()
    assert reading.memories["items"].warnings[0].startswith("shows a later moment of the source than orders, stores: ")


def test_one_moment_is_refused_for_a_database_without_consistent_reads(settings: Settings, tmp_path: Any) -> None:
    from tests.support.shop import build_sqlite_url

    database = SourceDatabase(build_sqlite_url(tmp_path), settings)
    with pytest.raises(ConfigurationError, match="consistent: true is for MySQL and MariaDB") as caught:
        Reading(database, settings, options={"consistent": True}, orders={}).open()
    assert caught.value.remedy == "leave consistent out"
