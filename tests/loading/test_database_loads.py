"""Loads from real databases into real warehouses: nothing lost, nothing doubled, whatever the write disposition."""

import contextlib
import threading
import time
from datetime import datetime
from typing import Any

import pytest

from fabric_assets.errors import DestinationUnavailable
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import load_lease
from tests.support.shop import SourceDatabase, Tenant, write_secret_file

ORDERS = "create table orders (id integer primary key, amount decimal(10,2), status varchar(20), updated_at timestamp null)"
FIRST = [(1, "10.50", "new", "2024-01-01 10:00:00"), (2, "20.00", "new", "2024-01-01 11:00:00"), (3, "0.10", "paid", "2024-01-01 11:00:00")]
MERGE = {"primary_key": "id", "cursor": {"field": "updated_at"}}


def test_a_second_change_within_the_same_cursor_value_is_not_missed(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    tenant = Tenant(settings, database.build_source(orders=MERGE))
    tenant.load()

    database.run("update orders set status = 'lost' where id = 3")
    database.fill("orders", [(9, "1.00", "late", "2024-01-01 11:00:00")])
    tenant.load()

    assert tenant.read("orders", "id", "status") == [(1, "new"), (2, "new"), (3, "lost"), (9, "late")]


def test_a_lag_brings_rows_that_arrived_late(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    without = Tenant(settings, database.build_source(orders=MERGE), name="without")
    lagging = Tenant(settings, database.build_source(orders={"primary_key": "id", "cursor": {"field": "updated_at", "lag": "2h"}}), name="lagging")
    without.load()
    lagging.load()

    database.fill("orders", [(5, "7.00", "late", "2024-01-01 09:30:00"), (6, "7.00", "too late", "2024-01-01 08:30:00")])
    without.load()
    assert lagging.load()["orders"].rows_loaded == 4

    assert [row[0] for row in without.read("orders", "id")] == [1, 2, 3]
    assert [row[0] for row in lagging.read("orders", "id")] == [1, 2, 3, 5]


def test_rows_without_a_cursor_value_are_merged_in_every_load(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", [*FIRST, (7, "1.00", "draft", None)])
    tenant = Tenant(settings, database.build_source(orders=MERGE))
    assert tenant.load()["orders"].rows_total == 4

    database.fill("orders", [(8, "2.00", "draft", None)])
    tenant.load()
    assert [row[0] for row in tenant.read("orders", "id")] == [1, 2, 3, 7, 8]


def test_append_keeps_history_and_doubles_nothing_at_the_boundary(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run("create table events (name varchar(20), seen_at timestamp null)")
    database.fill("events", [("a", "2024-01-01 10:00:00"), ("b", "2024-01-01 11:00:00"), ("b", "2024-01-01 11:00:00")])
    tenant = Tenant(settings, database.build_source(events={"write_disposition": "append", "cursor": {"field": "seen_at"}}), warehouse=warehouse)
    assert tenant.load()["events"].rows_loaded == 3
    assert tenant.load()["events"].rows_loaded == 0

    # A third equal row is a third event, and c shares the moment of the last ones.
    database.fill("events", [("b", "2024-01-01 11:00:00"), ("c", "2024-01-01 11:00:00")])
    assert tenant.load()["events"].rows_loaded == 2
    database.fill("events", [("d", "2024-01-01 12:00:00")])
    report = tenant.load()["events"]
    assert (report.rows_loaded, report.rows_total) == (1, 6)
    assert [row[0] for row in tenant.read("events", "name")] == ["a", "b", "b", "b", "c", "d"]
    assert tenant.load()["events"].rows_loaded == 0


def test_replace_shows_what_the_source_holds_now_even_if_that_is_nothing(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run("create table stores (id integer, name varchar(20))")
    database.fill("stores", [(1, "a"), (2, "b")])
    tenant = Tenant(settings, database.build_source(stores={}), warehouse=warehouse)
    assert tenant.load()["stores"].rows_total == 2

    database.run("delete from stores where id = 1", "update stores set name = 'B'")
    assert tenant.load()["stores"].rows_total == 1
    assert tenant.read("stores", "id", "name") == [(2, "B")]

    database.run("delete from stores")
    report = tenant.load()["stores"]
    assert (report.rows_loaded, report.rows_total) == (0, 0)


def test_an_empty_table_gets_all_its_columns(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run(ORDERS)
    report = Tenant(settings, database.build_source(orders=MERGE), warehouse=warehouse).load()["orders"]
    assert report.rows_total == 0
    assert [column.name for column in report.columns] == ["id", "amount", "status", "updated_at"]


def test_columns_and_where_choose_what_is_read(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    stream = {"table": "orders", "primary_key": "id", "columns": ["id", "status"], "where": "amount > 1 or status = '10:30' -- %s :x"}
    tenant = Tenant(settings, database.build_source(big=stream))
    assert [column.name for column in tenant.load()["big"].columns] == ["id", "status"]
    assert tenant.read("big", "id", "status") == [(1, "new"), (2, "new")]


def test_a_where_with_or_does_not_escape_the_cursor(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    stream = {**MERGE, "where": "status = 'new' or status = 'paid'"}
    tenant = Tenant(settings, database.build_source(orders=stream))
    tenant.load()
    assert tenant.load()["orders"].rows_loaded == 2


def test_initial_says_where_the_first_load_begins(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    stream = {"primary_key": "id", "cursor": {"field": "updated_at", "initial": "2024-01-01T10:30:00"}}
    tenant = Tenant(settings, database.build_source(orders=stream))
    tenant.load()
    assert [row[0] for row in tenant.read("orders", "id")] == [2, 3]


def test_a_state_that_is_lost_loses_and_doubles_nothing(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run(ORDERS, "create table events (name varchar(20), seen_at timestamp null)")
    database.fill("orders", FIRST)
    database.fill("events", [("a", "2024-01-01 10:00:00"), ("b", "2024-01-01 11:00:00"), ("b", "2024-01-01 11:00:00")])
    streams = {"orders": MERGE, "events": {"write_disposition": "append", "cursor": {"field": "seen_at"}}}
    tenant = Tenant(settings, database.build_source(**streams), warehouse=warehouse)
    tenant.load()
    tenant.change("delete from acme_fabric.stream_state")

    assert {name: report.rows_loaded for name, report in tenant.load().items()} == {"orders": 2, "events": 0}
    database.fill("events", [("b", "2024-01-01 11:00:00"), ("c", "2024-01-02 10:00:00")])
    tenant.load()
    assert [row[0] for row in tenant.read("events", "name")] == ["a", "b", "b", "b", "c"]


def test_a_restored_source_is_reported_and_merged_again(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    tenant = Tenant(settings, database.build_source(orders=MERGE), warehouse=warehouse)
    tenant.load()
    database.run("delete from orders where id > 1", "update orders set status = 'back', updated_at = '2023-12-31 10:00:00'")

    tenant.load()
    assert any("the source looks restored" in message for message in tenant.messages)
    # What the source has lost stays: a merge deletes nothing.
    assert tenant.read("orders", "id", "status") == [(1, "back"), (2, "new"), (3, "paid")]
    database.fill("orders", [(4, "1.00", "new", "2024-01-01 09:00:00")])
    assert tenant.load()["orders"].rows_total == 4


def test_full_refresh_reads_everything_again_and_leaves_the_other_streams_alone(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run(ORDERS, "create table events (id integer, seen_at timestamp)")
    sqlite.fill("orders", FIRST)
    sqlite.fill("events", [(1, "2024-01-01 10:00:00")])
    streams = {"orders": MERGE, "events": {"write_disposition": "append", "cursor": {"field": "seen_at"}}}
    tenant = Tenant(settings, sqlite.build_source(**streams), warehouse=warehouse)
    tenant.load()
    sqlite.run("delete from orders where id = 1", "delete from events")

    report = tenant.load("orders", full_refresh=True)["orders"]
    assert (report.rows_loaded, report.rows_total, report.first_run) == (2, 2, True)
    assert tenant.ask("select count(*) from acme_raw_shop.events") == [(1,)]
    sqlite.fill("events", [(1, "2024-01-01 10:00:00")])
    assert tenant.load("events")["events"].rows_loaded == 0


@pytest.mark.parametrize("stream", [{"write_disposition": "append", "cursor": {"field": "id"}}, {"write_disposition": "replace"}, {"primary_key": "id"}])
def test_full_refresh_works_for_every_disposition_by_itself(sqlite: SourceDatabase, warehouse: str | None, settings: Settings, stream: dict[str, Any]) -> None:
    sqlite.run("create table events (id integer)", "insert into events values (1), (2)")
    tenant = Tenant(settings, sqlite.build_source(events=stream), warehouse=warehouse)
    for full_refresh in (True, False, True, True):
        tenant.load(full_refresh=full_refresh)
        assert tenant.read("events", "id") == [(1,), (2,)]


def test_a_chosen_stream_is_loaded_alone_and_the_others_keep_their_cursors(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS, "create table stores (id integer)")
    sqlite.fill("orders", FIRST)
    sqlite.fill("stores", [(1,)])
    tenant = Tenant(settings, sqlite.build_source(orders=MERGE, stores={}))
    assert set(tenant.load()) == {"orders", "stores"}
    assert set(tenant.load("stores")) == {"stores"}
    assert tenant.load("orders")["orders"].rows_loaded == 2


def test_names_that_need_quoting_are_quoted(database: SourceDatabase, settings: Settings) -> None:
    quote = "`" if "mysql" in database.url else '"'
    table, column, key = (f"{quote}{name}{quote}" for name in ("order; drop", "Group %", "the:key"))
    # The drivers of these two read % as the beginning of a parameter.
    written = column.replace("%", "%%") if database.url.startswith(("postgresql", "mysql")) else column
    database.run(f"create table {table} ({key} integer, {written} varchar(20))")
    database.run(f"insert into {table} values (1, 'a')")
    stream = {"table": "order; drop", "primary_key": "the:key", "columns": ["the:key", "Group %"], "cursor": {"field": "the:key"}}
    tenant = Tenant(settings, database.build_source(odd=stream))
    tenant.load()
    assert [column.name for column in tenant.load()["odd"].columns] == ["the_key", "groupx"]


def test_the_ledger_tells_each_load(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run(ORDERS)
    sqlite.fill("orders", FIRST)
    tenant = Tenant(settings, sqlite.build_source(orders=MERGE), warehouse=warehouse)
    reports = [tenant.load()["orders"], tenant.load()["orders"]]
    rows = tenant.ask("select load_id, source, stream, rows_loaded, rows_total from acme_fabric.loads order by loaded_at")
    assert rows == [(report.record.load_id, "shop", "orders", report.rows_loaded, report.rows_total) for report in reports]
    loaded_at = tenant.ask("select min(loaded_at) from acme_fabric.loads")[0][0]
    assert isinstance(loaded_at, datetime) and loaded_at.tzinfo is not None


def test_the_warehouse_file_is_readable_by_its_owner_alone(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS)
    Tenant(settings, sqlite.build_source(orders=MERGE)).load()
    file = settings.data_dir / "warehouse" / "acme.duckdb"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_key_that_rows_share_keeps_the_newest_row_and_warns(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS.replace(" primary key", ""))
    database.fill("orders", [(1, "1.00", "old", "2024-01-01 10:00:00"), (1, "2.00", "new", "2024-01-02 10:00:00"), (1, "3.00", "older", "2023-01-01 10:00:00")])
    tenant = Tenant(settings, database.build_source(orders=MERGE))
    warnings = tenant.load()["orders"].warnings
    assert tenant.read("orders", "id", "status") == [(1, "new")]
    (warning,) = [warning for warning in warnings if "primary_key" in warning]
    assert warning.startswith("2 rows have the primary_key (id) of another row of this load: the newest row of each key is kept")


def test_a_table_that_was_dropped_is_loaded_whole_again(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run(ORDERS)
    sqlite.fill("orders", FIRST)
    tenant = Tenant(settings, sqlite.build_source(orders=MERGE), warehouse=warehouse)
    tenant.load()
    tenant.change("drop table acme_raw_shop.orders")
    tenant.load()
    assert [row[0] for row in tenant.read("orders", "id")] == [1, 2, 3]


def test_waiting_for_another_load_does_not_count_as_time_of_the_load(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS)
    sqlite.fill("orders", FIRST)
    tenant = Tenant(settings, {**sqlite.build_source(orders=MERGE), "timeout": "2s"})
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with load_lease(tenant.config, "shop", settings):
            held.set()
            done.wait(3)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    assert tenant.load()["orders"].rows_total == 3
    assert any("waiting for" in message for message in tenant.messages)
    other.join()


@pytest.mark.parametrize("between", [(), ("append",)])
def test_a_stream_that_was_merged_is_appended_without_its_boundary_twice(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, between: tuple[str, ...]
) -> None:
    sqlite.run(ORDERS)
    tenant = Tenant(settings, {}, warehouse=warehouse)
    for number, disposition in enumerate((*between, "merge", "append")):
        sqlite.fill("orders", [(number, "1.00", "new", f"2024-01-0{number + 1} 10:00:00")])
        tenant.source = sqlite.build_source(orders={**MERGE, "write_disposition": disposition})
        tenant.load()
    tenant.load()
    assert [row[0] for row in tenant.read("orders", "id")] == list(range(len(between) + 2))


@pytest.mark.parametrize("warehouse", ["postgres"], indirect=True)
def test_a_destination_that_drops_every_connection_fails_its_streams_at_once(postgres_database: str, warehouse: str, settings: Settings) -> None:
    source, destination = SourceDatabase(postgres_database, settings), SourceDatabase(warehouse, settings)
    write_secret_file(settings, "shop_url", postgres_database)
    source.run("create view short as select 1 as id, pg_sleep(3)::text as nap")
    source.run("create view long as select n as id, repeat('x', 1000000) as pad, pg_sleep(0.1)::text as nap from generate_series(1, 80) as n")
    tenant = Tenant(settings, {**source.build_source(short={}, long={}), "timeout": "280s", "max_connections": 2}, warehouse=warehouse)

    def drop_all() -> None:
        # The connection of the stream that is done waits for the next one, and the failure would be written by it.
        with contextlib.suppress(Exception):
            while tenant.ask("select status from acme_fabric.loads where stream = 'short'") != [("success",)]:
                time.sleep(0.1)
        destination.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fabric' and datname = current_database()")

    threading.Timer(2, drop_all).start()
    started = time.monotonic()
    with pytest.raises(DestinationUnavailable):
        tenant.load()
    assert time.monotonic() - started < 120
    assert tenant.read("short", "id") == [(1,)]
