"""Rows that arrive late, share a moment or have none; cursors, states and folders that are set back or lost."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.faults.oracle import NONE, Counts
from tests.faults.world import STREAMS, World
from tests.support.shop import SourceDatabase, Tenant


@pytest.fixture
def shop(make_database: Callable[[], str], settings: Settings) -> SourceDatabase:
    return SourceDatabase(make_database(), settings)


@contextlib.contextmanager
def open_transaction(shop: SourceDatabase, statement: str) -> Iterator[None]:
    """Hold the statement's transaction open for the block; it commits at the end."""
    connection = psycopg2.connect(shop.url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield
    connection.close()


def read_ids(tenant: Tenant) -> list[int]:
    return [row[0] for row in tenant.read("orders", "id")]


# --- 27: late rows, ties, clocks, NULL


@pytest.mark.parametrize(("lag", "ids"), [({"lag": "1h"}, [1, 2, 3]), ({}, [1, 3])])
def test_a_row_that_commits_late_is_found_by_a_lag_where_late_rows_are_not_looked_for(
    shop: SourceDatabase, settings: Settings, destination: str | None, lag: dict[str, str], ids: list[int]
) -> None:
    shop.run("create table orders (id integer, at timestamptz)", "insert into orders values (1, '2024-05-01 10:00Z')")
    source = {**shop.build_source(orders={"primary_key": "id", "cursor": {"field": "at", **lag}}), "late_rows": False}
    tenant = Tenant(settings, source, warehouse=destination)
    with open_transaction(shop, "insert into orders values (2, '2024-05-01 10:30Z')"):
        shop.run("insert into orders values (3, '2024-05-01 11:00Z')")
        tenant.load()
        assert read_ids(tenant) == [1, 3]
    tenant.load()
    # Without a lag the row is lost: the control of the line above.
    assert read_ids(tenant) == ids


@pytest.mark.parametrize("stream", [{"primary_key": "id", "cursor": {"field": "at"}}, {"write_disposition": "append", "cursor": {"field": "at"}}])
def test_rows_that_share_the_last_moment_are_neither_lost_nor_doubled(
    shop: SourceDatabase, settings: Settings, destination: str | None, stream: dict[str, Any]
) -> None:
    shop.run("create table orders (id integer, at timestamptz)")
    tenant = Tenant(settings, shop.build_source(orders=stream), warehouse=destination)
    for number in range(3):
        first = number * 4000
        # More than a batch at one moment, and each day begins at the moment where the last one ended.
        shop.run(
            f"insert into orders select i, timestamptz '2024-05-01 10:00Z' + interval '1h' * ((i + 1) / 4000) from generate_series({first}, {first + 3999}) i"
        )
        tenant.load()
        assert read_ids(tenant) == list(range(first + 4000))


def test_the_hour_that_a_clock_goes_back_loses_nothing(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    shop.run(
        "create table orders (id integer, at timestamptz)",
        "insert into orders values (1, '2024-10-27 02:30+02'), (2, '2024-10-27 02:59+02')",
    )
    tenant = Tenant(settings, shop.build_source(orders={"write_disposition": "append", "cursor": {"field": "at"}}), warehouse=destination)
    tenant.load()
    shop.run("insert into orders values (3, '2024-10-27 02:00+01'), (4, '2024-10-27 02:30+01')")
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3, 4]


def test_local_times_without_a_zone_need_a_lag_of_an_hour_then(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    shop.run("create table orders (id integer, at timestamp)", "insert into orders values (1, '2024-10-27 02:59')")
    tenant = Tenant(settings, shop.build_source(orders={"primary_key": "id", "cursor": {"field": "at", "lag": "1h"}}), warehouse=destination)
    tenant.load()
    shop.run("insert into orders values (2, '2024-10-27 02:00')")
    tenant.load()
    assert read_ids(tenant) == [1, 2]


def test_a_row_without_a_cursor_value_is_merged_each_time_and_refused_in_an_append(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    shop.run("create table orders (id integer, at timestamptz)", "insert into orders values (1, '2024-05-01 10:00Z'), (2, null)")
    tenant = Tenant(settings, shop.build_source(orders={"primary_key": "id", "cursor": {"field": "at"}}), warehouse=destination)
    tenant.load()
    shop.run("insert into orders values (3, null)")
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]
    appended = Tenant(settings, shop.build_source(orders={"write_disposition": "append", "cursor": {"field": "at"}}), warehouse=destination, name="appended")
    with pytest.raises(DataError, match="2 rows have no at"):
        appended.load()


# --- 28: set back, lost


def test_a_source_that_is_set_back_is_read_anew_and_says_so(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    shop.run("create table orders (id integer, seq integer)", "insert into orders select i, i from generate_series(1, 10) i")
    tenant = Tenant(settings, shop.build_source(orders={"primary_key": "id", "cursor": {"field": "seq"}}), warehouse=destination)
    tenant.load()
    shop.run("delete from orders where id > 5", "insert into orders values (11, 5)")
    tenant.load()
    assert any("went back from 10 to 5" in message for message in tenant.messages)
    assert read_ids(tenant) == list(range(1, 12))


def test_an_append_whose_source_is_set_back_stops_instead_of_guessing(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    shop.run("create table orders (id integer)", "insert into orders select i from generate_series(1, 10) i")
    tenant = Tenant(settings, shop.build_source(orders={"write_disposition": "append", "cursor": {"field": "id"}}), warehouse=destination)
    tenant.load()
    shop.run("delete from orders where id > 5")
    with pytest.raises(DataError, match="went back from 10 to 5"):
        tenant.load()
    assert read_ids(tenant) == list(range(1, 11))


def change_warehouse(world: World, *statements: str) -> None:
    if world.warehouse:
        connection: Any = psycopg2.connect(world.warehouse)
    else:
        import duckdb

        connection = duckdb.connect(str(naming.warehouse_file(world.settings.data_dir, world.name)))
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    connection.commit() if world.warehouse else None
    connection.close()


def test_a_lost_state_is_rebuilt_from_the_rows(world: World) -> None:
    world.add_day()
    world.load_all()
    change_warehouse(world, f"delete from {world.name}_fabric.stream_state")
    world.add_day()
    world.load_all()
    assert world.count() == NONE


def test_a_state_that_is_lost_together_with_the_rows_is_the_only_loss_that_counts(world: World) -> None:
    """The control: rows that vanish while the state stays are lost, and the oracle sees it."""
    world.add_day()
    world.load_all()
    change_warehouse(world, f"delete from {world.name}_raw_shop.events where id % 2 = 0")
    world.load_all()
    assert world.count("events") == Counts(lost=world.size // 2)
    world.load("shop", "events", full_refresh=True)
    assert world.count() == NONE


def test_every_working_folder_may_be_wiped(world: World) -> None:
    world.add_day()
    world.load_all()
    for folder in world.settings.data_dir.iterdir():
        if folder.is_dir() and folder.name not in {"warehouse", f"{world.name}_desk"}:
            shutil.rmtree(folder)
    world.add_day()
    world.load_all()
    assert world.count() == NONE


def test_a_warehouse_set_back_to_yesterday_catches_up(settings: Settings) -> None:
    world = World(settings)
    file = naming.warehouse_file(settings.data_dir, world.name)
    world.add_day()
    world.load_all()
    shutil.copy(file, settings.data_dir / "backup")
    world.add_day()
    world.load_all()
    shutil.copy(settings.data_dir / "backup", file)
    assert world.count() != NONE
    world.add_day()
    world.load_all()
    assert world.count(*STREAMS) == NONE
