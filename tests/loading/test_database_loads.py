"""Loads from real databases into real warehouses: nothing lost, nothing doubled, whatever the write disposition."""

from datetime import datetime
from typing import Any

import pytest

from fabric_assets.settings import Settings
from tests.loading.shop import SourceDatabase, Tenant

ORDERS = "create table orders (id integer primary key, amount decimal(10,2), status varchar(20), updated_at timestamp null)"
FIRST = [(1, "10.50", "new", "2024-01-01 10:00:00"), (2, "20.00", "new", "2024-01-01 11:00:00"), (3, "0.10", "paid", "2024-01-01 11:00:00")]
MERGE = {"primary_key": "id", "cursor": {"field": "updated_at"}}


def test_every_database_loads_into_every_warehouse_and_then_only_what_is_new(database: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    database.run(ORDERS)
    database.fill("orders", FIRST)
    tenant = Tenant(settings, database.build_source(orders=MERGE), warehouse=warehouse)

    first = tenant.load()["orders"]
    assert (first.rows_loaded, first.rows_total, first.first_run) == (3, 3, True)
    assert first.table_name.endswith(".acme_raw_shop.orders")
    assert [column.name for column in first.columns] == ["id", "amount", "status", "updated_at"]

    database.run("update orders set status = 'paid', updated_at = '2024-01-02 09:00:00' where id = 1")
    database.fill("orders", [(4, "5.00", "new", "2024-01-02 10:00:00")])
    second = tenant.load()["orders"]
    # The two rows at the last value are read again, and merging them changes nothing.
    assert (second.rows_loaded, second.rows_total, second.first_run) == (4, 4, False)
    assert [(id_, str(amount), status) for id_, amount, status in tenant.read("orders", "id", "amount", "status")] == [
        (1, "10.50", "paid"),
        (2, "20.00", "new"),
        (3, "0.10", "paid"),
        (4, "5.00", "new"),
    ]

    third = tenant.load()["orders"]
    assert (third.rows_loaded, third.rows_total) == (1, 4)


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
    database.run(
        f"create table {table} ({key} integer, {column.replace('%', '%%') if 'sqlite' not in database.url else column} varchar(20))".replace("%%", "%%")
    )
    with database._engine.begin() as connection:
        connection.exec_driver_sql(f"insert into {table} values (1, 'a')")
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
    assert rows == [(report.load_id, "shop", "orders", report.rows_loaded, report.rows_total) for report in reports]
    loaded_at = tenant.ask("select min(loaded_at) from acme_fabric.loads")[0][0]
    assert isinstance(loaded_at, datetime) and loaded_at.tzinfo is not None


def test_no_rows_stay_in_the_working_folder(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS)
    sqlite.fill("orders", FIRST)
    Tenant(settings, sqlite.build_source(orders=MERGE)).load()
    assert not [path for path in (settings.data_dir / "dlt").rglob("*") if path.suffix in {".parquet", ".gz", ".jsonl"}]
    assert not (settings.data_dir / "dlt" / "acme" / "shop").exists()


def test_the_warehouse_file_is_readable_by_its_owner_alone(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run(ORDERS)
    Tenant(settings, sqlite.build_source(orders=MERGE)).load()
    file = settings.data_dir / "warehouse" / "acme.duckdb"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_key_that_is_none_keeps_the_newest_row_and_says_so(database: SourceDatabase, settings: Settings) -> None:
    database.run(ORDERS.replace(" primary key", ""))
    database.fill("orders", [(1, "1.00", "old", "2024-01-01 10:00:00"), (1, "2.00", "new", "2024-01-02 10:00:00"), (1, "3.00", "older", "2023-01-01 10:00:00")])
    tenant = Tenant(settings, database.build_source(orders=MERGE))
    tenant.load()
    assert tenant.read("orders", "id", "status") == [(1, "new")]
    assert any("2 rows share their primary_key with another one" in message for message in tenant.messages)
