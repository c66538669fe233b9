"""Rows that commit late in a Postgres source: transactions without an xid, prepared ones, subtransactions, and where there is no way to see them."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from fabric_assets.config.sources.models import SqlDatabaseSource
from fabric_assets.connectors.sql_database.late_rows import LateRows
from fabric_assets.connectors.sql_database.moments import Moment
from fabric_assets.connectors.sql_database.postgres_moments import PostgresMoments
from fabric_assets.connectors.sql_database.readers import open_database
from fabric_assets.settings import Settings
from scripts.local_postgres import PostgresServer
from tests.faults.processes import wait_until
from tests.support.shop import SourceDatabase, Tenant

TABLE = "create table orders (id integer primary key, at timestamptz not null, note text)"
FIRST = "insert into orders values (1, '2024-05-01 10:00Z', 'first')"
LATE = "insert into orders values (2, '2024-05-01 10:30Z', 'late')"
NEWEST = "insert into orders values (3, '2024-05-01 11:00Z', 'newest')"
MERGE: dict[str, Any] = {"primary_key": "id", "cursor": {"field": "at"}}
APPEND: dict[str, Any] = {**MERGE, "write_disposition": "append"}


@pytest.fixture
def shop(make_database: Callable[[], str], settings: Settings) -> SourceDatabase:
    shop = SourceDatabase(make_database(), settings)
    shop.run(TABLE, FIRST)
    return shop


@contextlib.contextmanager
def connect(shop: SourceDatabase) -> Iterator[Any]:
    """A session beside the load, in a transaction that ends where the block says so."""
    connection = psycopg2.connect(shop.url)
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def make_tenant(shop: SourceDatabase, settings: Settings, destination: str | None = None, *, stream: dict[str, Any] = MERGE, **source: Any) -> Tenant:
    return Tenant(settings, {**shop.build_source(orders=stream), **source}, warehouse=destination)


def read_ids(tenant: Tenant) -> list[int]:
    return [row[0] for row in tenant.read("orders", "id")]


@pytest.mark.parametrize("stream", [MERGE, APPEND], ids=["merge", "append"])
def test_a_row_and_an_update_that_commit_late_arrive_once(shop: SourceDatabase, settings: Settings, destination: str | None, stream: dict[str, Any]) -> None:
    tenant = make_tenant(shop, settings, destination, stream=stream)
    tenant.load()
    with connect(shop) as other:
        other.execute(LATE)
        other.execute("update orders set note = 'changed' where id = 1")
        shop.run(NEWEST)
        tenant.load()
        assert read_ids(tenant) == [1, 3]
        other.connection.commit()
    tenant.load()
    # An append recognises a row's version by its key and its cursor value: what has kept both is not written again.
    note = "changed" if stream is MERGE else "first"
    assert tenant.read("orders", "id", "note") == [(1, note), (2, "late"), (3, "newest")]
    # What has arrived is not asked for again: nothing was open, and a day has not passed.
    assert tenant.load()["orders"].record.rows_read == (1 if stream is MERGE else 0)
    assert tenant.read("orders", "id") == [(1,), (2,), (3,)]


def test_a_transaction_that_has_no_xid_yet_counts_as_open(shop: SourceDatabase, settings: Settings) -> None:
    tenant = make_tenant(shop, settings)
    with connect(shop) as other:
        other.execute("select now()")
        shop.run(NEWEST)
        tenant.load()
        other.execute(LATE)
        other.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]


def test_an_idle_transaction_stays_open_over_several_loads(shop: SourceDatabase, settings: Settings) -> None:
    tenant = make_tenant(shop, settings)
    with connect(shop) as other:
        other.execute(LATE)
        for number in range(3):
            shop.run(f"insert into orders values ({10 + number}, '2024-05-02 1{number}:00Z')")
            tenant.load()
            assert read_ids(tenant) == [1, *range(10, 11 + number)]
        other.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [1, 2, 10, 11, 12]


def test_a_late_commit_arrives_while_an_older_transaction_is_still_open(shop: SourceDatabase, settings: Settings) -> None:
    tenant = make_tenant(shop, settings)
    with connect(shop) as older, connect(shop) as other:
        older.execute("insert into orders values (9, '2024-05-01 08:00Z', 'older')")
        other.execute(LATE)
        shop.run(NEWEST)
        tenant.load()
        other.connection.commit()
        tenant.load()
        assert read_ids(tenant) == [1, 2, 3]
        older.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3, 9]


@pytest.mark.parametrize("is_newest", [False, True], ids=["older", "the newest transaction of all"])
def test_a_prepared_transaction_counts_as_open(shop: SourceDatabase, settings: Settings, is_newest: bool) -> None:
    tenant = make_tenant(shop, settings)
    with connect(shop) as other:
        if is_newest:
            shop.run(NEWEST)
        other.execute(f"begin; {LATE}; prepare transaction 'late'")
        if not is_newest:
            shop.run(NEWEST)
    # The session is gone; the transaction stays.
    tenant.load()
    with connect(shop) as other:
        other.connection.autocommit = True
        other.execute("commit prepared 'late'")
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]


def test_a_subtransaction_that_no_snapshot_lists_is_found(shop: SourceDatabase, settings: Settings) -> None:
    tenant = make_tenant(shop, settings)
    with connect(shop) as other:
        other.execute("update orders set note = 'x' where id = 1; savepoint inner_one")
        other.execute(LATE)
        other.execute("release savepoint inner_one")
        # Those that commit after it have higher numbers: the row's own is below the end of the next snapshot, and not in its list.
        shop.run(NEWEST)
        shop.run("update orders set note = 'y' where id = 3")
        tenant.load()
        (state,) = tenant.ask("select state from acme_fabric.stream_state")
        with connect(shop) as reader:
            other.execute("select xmin::text from orders where id = 2")
            reader.execute("select txid_visible_in_snapshot(%s, %s::txid_snapshot)", (int(other.fetchone()[0]), json.loads(state[0])["late_rows"]["snapshot"]))
            assert reader.fetchone() == (True,), "the snapshot alone calls the row visible"
        other.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["partitioned", "inherited"])
def test_the_parts_of_a_table_are_asked_as_well(shop: SourceDatabase, settings: Settings, kind: str) -> None:
    columns = "(id integer, at timestamptz, note text)"
    if kind == "partitioned":
        shop.run(f"create table shown {columns} partition by range (id)", "create table shown_1 partition of shown for values from (0) to (100)")
    else:
        shop.run(f"create table shown {columns}", "create table shown_1 () inherits (shown)")
    shop.run("insert into shown select * from orders")
    tenant = make_tenant(shop, settings, stream={**MERGE, "table": "shown"})
    with connect(shop) as other:
        other.execute("insert into shown_1 values (2, '2024-05-01 10:30Z', 'late')")
        shop.run("insert into shown values (3, '2024-05-01 11:00Z', 'newest')")
        tenant.load()
        other.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]


def test_a_materialised_view_that_is_made_anew_gives_its_late_rows(shop: SourceDatabase, settings: Settings) -> None:
    shop.run("create materialized view shown as select * from orders")
    tenant = make_tenant(shop, settings, stream={**MERGE, "table": "shown"})
    with connect(shop) as other:
        other.execute("select now()")
        tenant.load()
    shop.run(LATE.replace("10:30", "09:30"), "refresh materialized view shown")
    tenant.load()
    assert read_ids(tenant) == [1, 2]


@pytest.mark.parametrize("kind", ["view", "view with such a column", "a column alone is granted"])
def test_where_rows_name_no_transaction_the_first_load_says_so(shop: SourceDatabase, settings: Settings, kind: str) -> None:
    owner = shop
    if kind == "view":
        owner.run("create view shown as select id, at, note from orders")
    elif kind == "view with such a column":
        owner.run("create view shown as select id, at, 7 as xmin from orders")
    else:
        owner.run("create table shown as select * from orders", "drop role if exists cursors_reader", "create role cursors_reader login")
        owner.run("grant usage on schema public to cursors_reader", "grant select (id, at, note) on shown to cursors_reader")
        shop = SourceDatabase(owner.url.replace("://postgres", "://cursors_reader"), settings)
    tenant = make_tenant(shop, settings, stream={**MERGE, "table": "shown"})
    (warning,) = tenant.load()["orders"].warnings
    assert "rows that are committed late with an older at are missed" in warning
    assert "Set cursor.lag" in warning
    assert tenant.load()["orders"].warnings == ()
    assert read_ids(tenant) == [1]
    if kind == "a column alone is granted":
        owner.run("drop owned by cursors_reader", "drop role cursors_reader")


def test_only_tables_whose_rows_name_their_transaction_are_asked_for_it(shop: SourceDatabase, settings: Settings) -> None:
    shop.run(
        "create foreign data wrapper nowhere",
        "create server nowhere foreign data wrapper nowhere",
        "create foreign table far (id integer) server nowhere",
        "create table mixed (id integer) partition by range (id)",
        "create table mixed_1 partition of mixed for values from (0) to (100)",
        "create table plain (id integer) partition by range (id)",
        "create table plain_1 partition of plain for values from (0) to (100)",
        "create view shown as select * from orders",
        'create table "it\'s ""here""" (id integer)',
    )
    names = ["orders", "far", "mixed", "plain", "plain_1", "shown", "gone", 'it\'s "here"']
    source = SqlDatabaseSource.model_validate(shop.build_source(orders={}))
    database = open_database(source, shop.url, label="here")

    def find() -> set[str]:
        moments = PostgresMoments(database, streams=["a"], tables=[database.quote_table(name) for name in names], hold_seconds=60)
        moment = moments.acquire()
        moments.close()
        assert moment is not None
        return set(moment.versioned)

    assert find() == {'"orders"', '"mixed"', '"plain"', '"plain_1"', '"it\'s ""here"""'}
    shop.run("create foreign table mixed_2 partition of mixed for values from (100) to (200) server nowhere")
    assert find() == {'"orders"', '"plain"', '"plain_1"', '"it\'s ""here"""'}
    database.close()


def test_a_lag_or_late_rows_false_keeps_the_warning_away(shop: SourceDatabase, settings: Settings) -> None:
    shop.run("create view shown as select * from orders")
    lagging = {"primary_key": "id", "table": "shown", "cursor": {"field": "at", "lag": "1d"}}
    assert make_tenant(shop, settings, stream=lagging).load()["orders"].warnings == ()
    never = Tenant(settings, {**shop.build_source(orders={**MERGE, "table": "shown"}), "late_rows": False}, name="never")
    assert never.load()["orders"].warnings == ()


def test_late_rows_are_asked_for_after_their_time_although_nothing_was_open(shop: SourceDatabase, settings: Settings) -> None:
    """A backdated row of a transaction that began and ended between two loads is no late commit; but a day later it is found."""
    waiting, at_once = make_tenant(shop, settings, late_rows="1d"), Tenant(settings, {**shop.build_source(orders=MERGE), "late_rows": "0s"}, name="at_once")
    for tenant in (waiting, at_once):
        tenant.load()
    shop.run(NEWEST, LATE)
    for tenant in (waiting, at_once):
        tenant.load()
    shop.run("insert into orders values (4, '2024-05-01 09:00Z')")
    for tenant in (waiting, at_once):
        tenant.load()
    assert read_ids(waiting) == [1, 2, 3]
    assert read_ids(at_once) == [1, 2, 3, 4]
    waiting.change('update acme_fabric.stream_state set state = replace(state, \'"at": "2\', \'"at": "1\')')
    waiting.load()
    assert read_ids(waiting) == [1, 2, 3, 4]


def test_late_rows_from_before_the_initial_value_stay_out(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    tenant = make_tenant(shop, settings, destination, stream={**APPEND, "cursor": {"field": "at", "initial": "2024-05-01T10:15:00Z"}})
    with connect(shop) as other:
        other.execute(LATE)
        other.execute("insert into orders values (5, '2024-05-01 10:10Z')")
        shop.run(NEWEST)
        tenant.load()
        other.connection.commit()
    tenant.load()
    assert read_ids(tenant) == [2, 3]


def test_rows_that_were_frozen_are_neither_lost_nor_doubled(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    tenant = make_tenant(shop, settings, destination, stream=APPEND)
    with connect(shop) as other:
        other.execute(LATE)
        shop.run(NEWEST)
        tenant.load()
        other.connection.commit()
    with connect(shop) as other:
        other.connection.autocommit = True
        other.execute("vacuum (freeze) orders")
    tenant.load()
    assert read_ids(tenant) == [1, 2, 3]


def test_an_append_without_a_key_asks_for_no_late_rows(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    """It could not tell them from rows that it has."""
    tenant = make_tenant(shop, settings, destination, stream={"write_disposition": "append", "cursor": {"field": "at"}}, late_rows="0s")
    tenant.load()
    shop.run("update orders set note = 'changed'", NEWEST)
    tenant.load()
    shop.run("update orders set note = 'again'  where id = 1")
    assert tenant.load()["orders"].rows_loaded == 0


@pytest.mark.parametrize(
    ("then", "now", "xmin", "is_late"),
    [
        ("100:105:101,103", "200:200:", 99, False),
        ("100:105:101,103", "200:200:", 100, True),
        ("100:105:101,103", "200:200:", 199, True),
        ("4294967290:4294967290:", "4294967300:4294967300:", 4294967289, False),
        ("4294967290:4294967290:", "4294967300:4294967300:", 4294967295, True),
        # After the counter has begun again: xmin 2 and 3, in the second epoch.
        ("4294967290:4294967290:", "4294967300:4294967300:", 3, True),
        ("8589934602:8589934602:", "8589934700:8589934700:", 11, True),
        ("8589934602:8589934602:", "8589934700:8589934700:", 9, False),
        ("100:100:", "9000000000:9000000000:", 50, True),
    ],
)
def test_the_number_of_a_row_counts_on_where_it_begins_again(shop: SourceDatabase, then: str, now: str, xmin: int, is_late: bool) -> None:
    state = {"late_rows": {"snapshot": then, "at": datetime.now(UTC).isoformat(), "open": True}}
    late = LateRows(state, table="t", every=timedelta(days=1))
    condition = late.begin(Moment(1, snapshot=now, versioned=frozenset({"t"})))
    assert condition is not None
    with connect(shop) as cursor:
        cursor.execute(f"select {condition} from (select '{xmin % 2**32}'::xid as xmin) as t")
        assert cursor.fetchone() == (is_late,)


def test_a_server_that_was_set_up_anew_is_taken_as_it_is(shop: SourceDatabase, settings: Settings) -> None:
    tenant = make_tenant(shop, settings)
    tenant.load()
    tenant.change('update acme_fabric.stream_state set state = replace(state, \'"snapshot": "\', \'"snapshot": "9\')')
    shop.run(NEWEST)
    tenant.load()
    (state,) = tenant.ask("select state from acme_fabric.stream_state")
    assert not json.loads(state[0])["late_rows"]["snapshot"].startswith("9")
    assert read_ids(tenant) == [1, 3]


@pytest.mark.parametrize("key", ["id integer", "id numeric(20, 5)", "id text", "id date", "id uuid", "id timestamptz", "id boolean", "id double precision"])
def test_an_append_with_a_lag_recognises_each_kind_of_key(make_database: Callable[[], str], settings: Settings, destination: str | None, key: str) -> None:
    shop = SourceDatabase(make_database(), settings)
    values = {
        "integer": "1",
        "numeric(20, 5)": "1.10000",
        "text": "'it''s'",
        "date": "'2024-01-31'",
        "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "timestamptz": "'2024-01-31 10:00:00.123456+02'",
        "boolean": "true",
        "double precision": "0.1",
    }
    value = values[key.removeprefix("id ")]
    shop.run(f"create table orders ({key}, n integer, v text)", f"insert into orders values ({value}, 1, 'a'), ({value}, 5, 'b')")
    stream = {"write_disposition": "append", "primary_key": "id", "cursor": {"field": "n", "lag": 100}}
    tenant = make_tenant(shop, settings, destination, stream=stream)
    tenant.load()
    shop.run(f"insert into orders values ({value}, 3, 'late')", "update orders set v = 'changed' where n = 1")
    tenant.load()
    assert tenant.read("orders", "n", "v") == [(1, "a"), (3, "late"), (5, "b")]
    assert tenant.load()["orders"].rows_loaded == 0


def test_the_newest_row_of_an_append_updated_at_the_source_is_there_once_by_its_key(shop: SourceDatabase, settings: Settings, destination: str | None) -> None:
    stream = {"write_disposition": "append", "primary_key": "id", "cursor": {"field": "id"}}
    tenant = make_tenant(shop, settings, destination, stream=stream, late_rows="0s")
    tenant.load()
    shop.run("update orders set note = 'changed'")
    for _ in range(2):
        tenant.load()
        assert tenant.read("orders", "id", "note") == [(1, "first")]


def test_a_load_of_a_standby_warns_that_late_rows_are_missed(shop: SourceDatabase, postgres_server: PostgresServer, settings: Settings) -> None:
    shop.run("create table items (id integer primary key)", "insert into items values (1)")
    standby = PostgresServer(primary=postgres_server)
    try:
        standby.start()
        copy = SourceDatabase(standby.get_url(shop.url.rpartition("/")[2]), settings)
        tenant = Tenant(settings, copy.build_source(orders=MERGE, items={"primary_key": "id"}))
        reports = tenant.load()
        assert [warning for warning in reports["orders"].warnings if "or the server is a standby. Set cursor.lag" in warning]
        assert not reports["items"].warnings
        shop.run(NEWEST)
        with connect(copy) as reader:
            wait_until(lambda: (reader.connection.rollback(), reader.execute("select id from orders"), reader.rowcount)[-1] == 2)
        tenant.load()
        assert read_ids(tenant) == [1, 3]
    finally:
        standby.remove()
    assert tenant.read("items", "id") == [(1,)]
