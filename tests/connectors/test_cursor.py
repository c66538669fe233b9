"""Where a cursor begins and what it remembers: lost states, restored sources, odd values, and the two sides of a clock change."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from fabric_assets.errors import DataError
from fabric_assets.rows.row_digests import digest_rows
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.support.memory import Memory
from tests.support.shop import SourceDatabase

MERGE = {"primary_key": "id", "cursor": {"field": "seen"}}
APPEND = {"write_disposition": "append", "cursor": {"field": "seen"}}
ROWS = [(1, "2024-01-01 10:00:00"), (2, "2024-01-01 11:00:00"), (3, "2024-01-01 11:00:00")]


@pytest.fixture
def events(database: SourceDatabase) -> SourceDatabase:
    """A database with a table of three events."""
    database.run("create table events (id integer, seen timestamp null)")
    database.fill("events", ROWS)
    return database


def test_a_state_that_is_lost_is_read_from_the_warehouse(events: SourceDatabase, settings: Settings) -> None:
    reading = Reading(events, settings, events=MERGE)
    reading.memories["events"] = Memory(table=_build_rows(events, [1, 2]))
    events.fill("events", [(4, "2024-01-01 10:30:00")])
    # What is older than the warehouse's newest row was loaded before the state was lost.
    assert _read_ids(reading) == [2, 3]
    assert reading.memories["events"].window.start == "2024-01-01T11:00:00" + ("+00:00" if "mysql" in events.url else "")


def test_a_lost_state_duplicates_no_row_of_an_append(events: SourceDatabase, settings: Settings) -> None:
    events.run("insert into events select * from events where id = 3")
    reading = Reading(events, settings, events=APPEND)
    reading.memories["events"] = Memory(table=_build_rows(events, [1, 2, 3]))
    assert _read_ids(reading) == [3]
    assert _read_ids(reading) == []
    events.fill("events", [(5, "2024-01-02 00:00:00")])
    assert _read_ids(reading) == [5]


def test_a_restored_source_is_merged_again_from_its_beginning(events: SourceDatabase, settings: Settings) -> None:
    reading = Reading(events, settings, events=MERGE)
    assert _read_ids(reading) == [1, 2, 3]
    events.run("delete from events where id > 1", "insert into events values (9, '2023-12-31 00:00:00'), (8, null)")
    assert _read_ids(reading) == [1, 8, 9]
    (message,) = reading.messages
    assert "the cursor seen went back from 2024-01-01T11:00:00" in message and "to 2024-01-01T10:00:00" in message
    # The state has followed: what comes from now on is new again.
    events.fill("events", [(10, "2024-01-01 10:30:00")])
    assert _read_ids(reading) == [1, 8, 10]
    assert len(reading.messages) == 1


def test_a_restored_source_is_read_from_the_initial_value_on(events: SourceDatabase, settings: Settings) -> None:
    events.run("create table numbers (id integer, n integer)", "insert into numbers values (1, 1), (2, 2), (100, 100), (200, 200), (9, null)")
    reading = Reading(events, settings, numbers={"primary_key": "id", "cursor": {"field": "n", "initial": 50}})
    assert _read_ids(reading) == [9, 100, 200]
    events.run("delete from numbers where id = 200")
    assert _read_ids(reading) == [9, 100]
    assert "the cursor n went back from 200 to 100" in reading.messages[0]
    window = reading.memories["numbers"].window
    assert (window.start, window.end) == ("50", "100")
    # What lies before it says as little as a source without rows.
    events.run("delete from numbers where id = 100")
    assert _read_ids(reading) == [9]
    assert len(reading.messages) == 1


@pytest.mark.parametrize(("declared", "value"), [("date", "9999-12-31"), ("timestamp", "2037-12-31 23:59:59"), ("datetime", "9999-12-31 00:00:00")])
def test_a_cursor_in_the_future_is_reported_in_each_load(events: SourceDatabase, settings: Settings, declared: str, value: str) -> None:
    declared = "timestamp null" if declared == "timestamp" else declared
    declared = "timestamp" if declared == "datetime" and events.url.startswith("postgresql") else declared
    events.run(f"create table plans (id integer, due {declared})", f"insert into plans values (1, '{'2024-01-01 00:00:00'[: len(value)]}'), (2, '{value}')")
    reading = Reading(events, settings, plans={"primary_key": "id", "cursor": {"field": "due"}})
    for count in (1, 2):
        reading.read()
        assert len(reading.messages) == count
        assert "stream plans: the cursor due has come to " + value[:10] in reading.messages[-1] and "--full-refresh" in reading.messages[-1]


def test_a_cursor_of_today_or_of_another_zones_tomorrow_is_nothing_to_tell_of(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table plans (id integer, due timestamp)", "insert into plans values (1, now() at time zone 'utc' + interval '14 hours')")
    reading = Reading(database, settings, plans={"primary_key": "id", "cursor": {"field": "due"}})
    reading.read()
    assert reading.messages == []


def test_a_restored_source_stops_an_append(events: SourceDatabase, settings: Settings) -> None:
    reading = Reading(events, settings, events=APPEND)
    reading.read()
    before = dict(reading.memories["events"].state)
    events.run("delete from events where id > 1")
    with pytest.raises(DataError, match="went back from 2024-01-01T11:00:00.* the source looks restored") as caught:
        reading.read()
    assert "--full-refresh" in caught.value.remedy
    assert reading.memories["events"].state == before


def test_a_source_that_was_emptied_says_nothing_about_the_cursor(events: SourceDatabase, settings: Settings) -> None:
    reading = Reading(events, settings, events=APPEND)
    reading.read()
    events.run("delete from events")
    assert _read_ids(reading) == []
    events.fill("events", [(4, "2024-01-02 00:00:00")])
    assert _read_ids(reading) == [4]
    assert reading.messages == []


def test_the_window_runs_from_where_the_load_began_to_its_newest_row(events: SourceDatabase, settings: Settings) -> None:
    reading = Reading(events, settings, events={**MERGE, "cursor": {"field": "seen", "lag": "1h"}})
    reading.read()
    zone = "+00:00" if "mysql" in events.url else ""
    memory = reading.memories["events"]
    assert (memory.window.start, memory.window.end) == (None, f"2024-01-01T11:00:00{zone}")
    events.fill("events", [(4, "2024-01-01 12:30:00")])
    reading.read()
    assert (memory.window.start, memory.window.end) == (f"2024-01-01T10:00:00{zone}", f"2024-01-01T12:30:00{zone}")


def test_both_hours_of_a_clock_set_back_are_read_once(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run(
        "alter database current set timezone = 'Europe/Berlin'".replace("current", postgres_database.rsplit("/", 1)[1]),
        "create table events (id integer, seen timestamptz)",
        "insert into events values (1, '2024-10-27 02:30:00+02'), (2, '2024-10-27 02:30:00+01')",
    )
    reading = Reading(database, settings, events={**APPEND, "cursor": {"field": "seen", "initial": "2024-10-27T02:45:00+02:00"}})
    assert [(row["id"], row["seen"].astimezone(UTC)) for row in reading.read_rows()] == [(2, datetime(2024, 10, 27, 1, 30, tzinfo=UTC))]
    database.run("insert into events values (3, '2024-10-27 02:30:00+01'), (4, '2024-10-27 02:59:00+02')")
    assert _read_ids(reading) == [3]


def test_a_mariadb_moment_in_the_hour_that_the_clock_repeats_is_the_one_stored(mariadb_url: str, settings: Settings) -> None:
    database = SourceDatabase(mariadb_url, settings)
    database.run("create table events (id integer, seen timestamp null)", "set time_zone = '+02:00'", "insert into events values (1, '2024-10-27 02:30:00')")
    reading = Reading(database, settings, events=MERGE)
    assert reading.read_rows()[0]["seen"].astimezone(UTC) == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)


def test_an_infinite_cursor_is_merged_in_every_load_and_never_remembered(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table events (id integer, seen timestamp)", "insert into events values (1, '2024-01-01'), (2, 'infinity'), (3, '-infinity')")
    reading = Reading(database, settings, events=MERGE)
    for count in (3, 3, 3):
        assert [table.num_rows for table in reading.read()] == [count]
        assert reading.memories["events"].state["value"] == "2024-01-01T00:00:00"
    with pytest.raises(DataError, match="2 rows have no seen"):
        Reading(database, settings, events=APPEND).read()


def test_another_cursor_begins_a_merge_again_and_stops_an_append(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table events (id integer, n integer)", "insert into events values (1, 5), (2, 6)")
    for disposition in ("merge", "append"):
        first = Reading(sqlite, settings, events={"primary_key": "id", "write_disposition": disposition, "cursor": {"field": "n"}})
        first.read()
        second = Reading(sqlite, settings, events={"primary_key": "id", "write_disposition": disposition, "cursor": {"field": "id"}})
        second.memories = first.memories
        if disposition == "merge":
            assert _read_ids(second) == [1, 2]
        else:
            with pytest.raises(DataError, match="the cursor was n and is now id"):
                second.read()


@pytest.mark.parametrize(
    ("before", "now", "reads"),
    [("numeric(6,2)", "numeric(12,4)", True), ("integer", "numeric(12,4)", True), ("integer", "varchar(9)", False), ("numeric(6,2)", "integer", False)],
)
def test_a_cursor_column_may_grow_wider_but_not_change_its_kind(postgres_database: str, settings: Settings, before: str, now: str, reads: bool) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run(f"create table events (id integer, seen {before})", "insert into events values (1, 5), (2, 6)")
    reading = Reading(database, settings, events=APPEND)
    reading.read()
    database.run(f"alter table events alter column seen type {now}", "insert into events values (3, 6), (4, 7)")
    if reads:
        assert _read_ids(reading) == [3, 4]
    else:
        with pytest.raises(DataError, match="the cursor seen was .* and is now"):
            reading.read()


def test_rows_are_the_same_whatever_type_carries_them() -> None:
    source = {
        "n": pa.array([1]),
        "d": pa.array([Decimal("1.50")]),
        "f": pa.array([0.1]),
        "t": pa.array(["x"]),
        "b": pa.array([True]),
        "day": pa.array([date(2024, 1, 1)]),
    }
    warehouse = {
        "n": pa.array([Decimal("1.000")]),
        "d": pa.array([None], pa.float64()),
        "d__v_text": pa.array(["1.5"]),
        "f": pa.array([0.1]),
        "t": pa.array(["x"]),
        "b": pa.array([1]),
        "day": pa.array([date(2024, 1, 1)]),
    }
    columns = list(source)
    assert list(digest_rows(pa.table(source), columns)) == list(digest_rows(pa.table(warehouse), columns))
    other = pa.table({**source, "n": pa.array([2])})
    assert list(digest_rows(other, columns)) != list(digest_rows(pa.table(source), columns))


def _build_rows(database: SourceDatabase, ids: list[int]) -> pa.Table:
    kind: Any = pa.timestamp("us", tz="UTC") if "mysql" in database.url else pa.timestamp("us")
    moments = [datetime.fromisoformat(dict(ROWS)[number]) for number in ids]
    return pa.table({"id": ids, "seen": pa.array([moment.replace(tzinfo=UTC) if kind.tz else moment for moment in moments], kind)})


def _read_ids(reading: Reading) -> list[int]:
    return sorted(row["id"] for row in reading.read_rows())
