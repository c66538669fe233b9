"""The warehouse's transactions, one stream at a time and several side by side, against real DuckDB files and a real Postgres."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import build_ask
from fabric_assets.drivers.destinations import connect
from fabric_assets.drivers.duckdb_destination import ensure_file
from fabric_assets.errors import DestinationError, DestinationUnavailable, LeaseHeld
from fabric_assets.loading import loaded_streams
from fabric_assets.offboarding.local_data import find_local_data
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.rows.batches import Reject, StreamPlan
from fabric_assets.rows.reports import LoadRecord, SchemaChange, read_table
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.settings import Settings
from fabric_assets.warehouse.platform_tables import ledger
from fabric_assets.warehouse.session import Table
from fabric_assets.warehouse.transaction import StreamCommit, Transaction
from fabric_assets.warehouse.warehouse import Warehouse, open_warehouse
from fabric_assets.warehouse.writing import StreamWriter, Written
from tests.conftest import ROOT
from tests.support.shop import build_destination

_NUMBERS = count(1)
REPLACE, APPEND = StreamPlan("orders", "replace"), StreamPlan("orders", "append")
MERGE = StreamPlan("orders", "merge", key=("id",), newest_by="at")
BY_FILE = StreamPlan("orders", "append", replaced_by="file")


def build_tenant(settings: Settings, warehouse: str | None, name: str = "acme") -> TenantConfig:
    return TenantConfig.model_validate({"version": 1, "tenant": name, "destination": build_destination(settings, name, warehouse)})


class OpenStream:
    """One stream's rows in a transaction of their own."""

    def __init__(self, transaction: Transaction, writer: StreamWriter) -> None:
        self.transaction, self.writer, self.session = transaction, writer, writer._session
        self.write, self.finish, self.replace_rows_of, self.abort = writer.write, writer.finish, writer.replace_rows_of, transaction.abort

    def commit(self, record: LoadRecord, state: Mapping[str, Any]) -> None:
        self.transaction.commit([StreamCommit(self.writer, record, state)])


class Shop:
    """A source in the warehouse, loaded step by step as the engine does it."""

    def __init__(self, tenant: TenantConfig, settings: Settings, opened: Warehouse) -> None:
        self.tenant, self.settings, self.opened = tenant, settings, opened

    def record(self, plan: StreamPlan) -> LoadRecord:
        return LoadRecord(f"load-{next(_NUMBERS)}", "run-1", "shop", plan.name, plan.disposition, datetime.now(UTC), value_forms=CURRENT)

    def open(self, plan: StreamPlan, record: LoadRecord, *, full_refresh: bool = False) -> OpenStream:
        state = self.opened.read_states().get(plan.name, ledger.StreamState(0, {}))
        transaction, layouts = self.opened.begin(), self.opened.read_layouts()
        names = StreamNames(plan.name, layout={} if full_refresh else layouts)
        return OpenStream(transaction, transaction.open_writer(plan, layouts=layouts, names=names, state=state, full_refresh=full_refresh))

    def load(
        self,
        plan: StreamPlan,
        *batches: Mapping[str, pa.Table] | pa.Table,
        rejects: Sequence[Reject] = (),
        full_refresh: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> Written:
        record = self.record(plan)
        self.opened.start([record])
        writer = self.open(plan, record, full_refresh=full_refresh)
        try:
            for number, batch in enumerate(batches):
                writer.write(batch if isinstance(batch, Mapping) else {plan.name: batch}, rejects if number == 0 else ())
            written = writer.finish()
            writer.commit(replace(record, status="success", rows_total=written.rows_total, loaded_at=datetime.now(UTC)), state or {})
        finally:
            writer.abort()
        return written

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(connect(self.tenant, self.settings)) as connection:
            return build_ask(connection)(sql)

    def read(self, columns: str, table: str = "orders") -> list[tuple[Any, ...]]:
        return self.ask(
            f"select {columns} from acme_raw_shop.{table} order by 1, 2" if "," in columns else f"select {columns} from acme_raw_shop.{table} order by 1"
        )


@pytest.fixture
def shop(settings: Settings, warehouse: str | None) -> Iterator[Shop]:
    tenant = build_tenant(settings, warehouse)
    with open_warehouse(tenant, "shop", settings) as opened:
        opened.prepare()
        yield Shop(tenant, settings, opened)


def orders(*rows: tuple[int, str], at: int | None = None) -> pa.Table:
    columns = {"id": pa.array([row[0] for row in rows], BIGINT), "name": pa.array([row[1] for row in rows], TEXT)}
    return pa.table(columns if at is None else {**columns, "at": pa.array([at] * len(rows), BIGINT)})


# --- what is written


TYPED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "flag": (BOOL, [True, False]),
    "number": (BIGINT, [2**63 - 1, -(2**63)]),
    "ratio": (DOUBLE, [1e308, -0.1]),
    "text": (TEXT, ["ü€𝄞 '\"\\", ""]),
    "bytes": (BINARY, [b"\x00\xff", b""]),
    "day": (DATE, [date(1, 1, 1), date(9999, 12, 31)]),
    "clock": (TIME, [time(0), time(23, 59, 59, 999_999)]),
    "moment": (TIMESTAMP, [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)]),
    "instant": (TIMESTAMP_UTC, [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2024, 2, 29, 12, 0, tzinfo=UTC)]),
    "small": (pa.decimal128(5, 2), [Decimal("-999.99"), Decimal("0.01")]),
    "wide": (pa.decimal128(38, 10), [Decimal("-1234567890123456789012345678.0123456789"), Decimal("9999999999999999999999999999.9999999999")]),
    "whole": (pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(-(10**38) + 1)]),
}


def test_every_type_comes_back_as_it_went_in_and_so_does_null(shop: Shop) -> None:
    rows = pa.table({name: pa.array([*values, None], kind) for name, (kind, values) in TYPED.items()})
    shop.load(REPLACE, rows)
    found = shop.opened.query("select * from acme_raw_shop.orders").to_pylist()
    assert found == rows.to_pylist()
    assert shop.opened.read_layouts() == {"orders": {name: kind for name, (kind, _) in TYPED.items()}}


def test_rows_much_larger_than_one_part_of_an_insert_arrive_unchanged(shop: Shop) -> None:
    values = {name: [*values, None] for name, (_, values) in TYPED.items()}
    # Sevenths and elevenths: nulls fall on every bit of a byte, and on both sides of wherever it is cut.
    columns = {
        name: pa.array([values[name][(number * (index + 7)) % 11 % 3] for number in range(6_007)], kind)
        for index, (name, (kind, _)) in enumerate(TYPED.items())
    }
    columns |= {"id": pa.array(range(6_007), BIGINT), "body": pa.array([None if n % 5 == 0 else json.dumps({"n": n}) for n in range(6_007)], JSON)}
    columns["text"] = pa.array([None if n % 7 == 3 else f"{n} " * (n % 61) for n in range(6_007)], TEXT)
    rows = pa.table(columns)
    # Parts of larger tables, in several pieces of which one is empty: as readers give them.
    shop.load(REPLACE, pa.concat_tables([rows.slice(0, 13), rows.slice(13, 0), rows.slice(13)]), rows.slice(0, 0))
    found = shop.opened.query("select * from acme_raw_shop.orders order by id")
    assert found.num_rows == 6_007
    bodies = [None if text is None else json.loads(text) for text in found["body"].to_pylist()]
    assert bodies == [None if n % 5 == 0 else {"n": n} for n in range(6_007)]
    assert found.drop_columns(["body"]).to_pylist() == rows.drop_columns(["body"]).to_pylist()


def test_a_load_reports_the_columns_that_any_connection_reads(shop: Shop) -> None:
    rows = pa.table({name: pa.array([*values, None], kind) for name, (kind, values) in TYPED.items()} | {"body": pa.array(["{}"] * 3, JSON)})
    written = shop.load(REPLACE, rows)
    assert (written.rows_total, written.columns) == read_table(shop.ask, "acme_raw_shop", "orders")
    assert written.rows_total == 3


def test_json_is_stored_as_json(shop: Shop) -> None:
    shop.load(REPLACE, pa.table({"body": pa.array(['{"a": [1, "ü"]}', None, "[]", '"text"'], JSON)}))
    shop.load(MERGE, pa.table({"id": [1], "body": pa.array(["{}"], JSON)}), full_refresh=True)
    shop.load(MERGE, pa.table({"id": [2], "body": pa.array(['{"a": [1, "ü"]}'], JSON)}))
    assert shop.opened.read_layouts()["orders"]["body"] == JSON
    assert [json.loads(row["body"]) for row in shop.opened.query("select body from acme_raw_shop.orders order by id").to_pylist()] == [{}, {"a": [1, "ü"]}]
    path = "body -> 'a' ->> 1"
    assert shop.ask(f"select {path} from acme_raw_shop.orders where id = 2") == [("ü",)]


def test_years_before_christ_and_beyond_9999_are_carried(shop: Shop) -> None:
    moments = pa.array([-210_000_000_000_000_000, 9_200_000_000_000_000_000], pa.int64())
    shop.load(
        REPLACE,
        pa.table({"at": moments.cast(TIMESTAMP), "instant": moments.cast(TIMESTAMP_UTC), "day": pa.array([-2_400_000, 2_900_000], pa.int32()).cast(DATE)}),
    )
    found = shop.opened.query("select * from acme_raw_shop.orders")
    assert found["at"].cast(pa.int64()).to_pylist() == found["instant"].cast(pa.int64()).to_pylist() == moments.to_pylist()
    assert found["day"].cast(pa.int32()).to_pylist() == [-2_400_000, 2_900_000]


def test_a_stream_without_rows_still_gets_its_table(shop: Shop) -> None:
    written = shop.load(REPLACE, orders())
    assert (written.rows_total, [column.name for column in written.columns]) == (0, ["id", "name"])
    assert shop.load(MERGE, orders()).rows_total == 0


def test_columns_are_matched_by_name_missing_ones_are_null_and_new_ones_are_added(shop: Shop) -> None:
    shop.load(APPEND, orders((1, "a")))
    turned = orders((2, "b")).select(["name", "id"])
    wider = pa.table({"id": [3], "extra": pa.array([0.5], DOUBLE)})
    written = shop.load(APPEND, turned, wider, pa.table({"id": [4]}))
    assert shop.read("id, name, extra") == [(1, "a", None), (2, "b", None), (3, None, 0.5), (4, None, None)]
    assert [column.name for column in written.columns] == ["id", "name", "extra"]


def test_a_new_table_takes_columns_in_the_middle_of_its_first_load(shop: Shop) -> None:
    shop.load(MERGE, orders((1, "a")), pa.table({"id": [2], "extra": pa.array([0.5], DOUBLE)}), orders((1, "z")))
    assert shop.read("id, name, extra") == [(1, "z", None), (2, None, 0.5)]


def test_a_table_is_replaced_by_rows_with_a_new_column(shop: Shop) -> None:
    shop.load(REPLACE, orders((1, "a")))
    shop.load(REPLACE, orders((2, "b")), pa.table({"id": [3], "extra": pa.array([0.5], DOUBLE)}))
    assert shop.read("id, name, extra") == [(2, "b", None), (3, None, 0.5)]


def test_names_are_quoted(shop: Shop) -> None:
    shop.load(MERGE, pa.table({"id": [1], "select": ["x"], 'he said "no"': ["y"], "100%": ["z"]}))
    assert shop.opened.query("select * from acme_raw_shop.orders").to_pylist() == [{"id": 1, "select": "x", 'he said "no"': "y", "100%": "z"}]


def test_rows_of_another_type_than_the_column_are_refused(shop: Shop) -> None:
    shop.load(APPEND, orders((1, "a")))
    with pytest.raises(DestinationError, match="the column id is int64 and rows came with double"):
        shop.load(APPEND, pa.table({"id": [1.5]}))
    assert shop.read("id") == [(1,)]


def test_1600_columns_are_taken_and_more_are_refused_clearly(shop: Shop) -> None:
    names = [f"c{number}" for number in range(1_600)]
    shop.load(APPEND, pa.table({name: pa.array([1], BIGINT) for name in names[:800]}))
    shop.load(APPEND, pa.table({name: pa.array([2], BIGINT) for name in names[800:]}))
    assert shop.read("c0, c1599") == [(1, None), (None, 2)]
    if shop.tenant.destination.type == "postgres":
        for plan in (APPEND, replace(APPEND, name="other")):
            with pytest.raises(DestinationError, match="columns.*Postgres takes at most 1,600"):
                shop.load(plan, pa.table({name: pa.array([1], BIGINT) for name in (*names, "one_more")}))


# --- dispositions


def test_append_keeps_existing_rows_and_replace_does_not(shop: Shop) -> None:
    shop.load(APPEND, orders((1, "a")), orders((1, "a")))
    assert shop.load(APPEND, orders((2, "b"))).rows_total == 3
    assert shop.load(REPLACE, orders((3, "c")), orders((4, "d"))).rows_total == 2
    assert shop.read("id") == [(3,), (4,)]
    assert shop.load(REPLACE).rows_total == 0


def test_a_few_appended_rows_wait_for_more_and_go_in_one_statement(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    record = shop.record(APPEND)
    shop.opened.start([record])
    writer = shop.open(APPEND, record)
    inserted: list[int] = []
    insert = writer.session.insert
    monkeypatch.setattr(writer.session, "insert", lambda table, rows: inserted.append(rows.num_rows) or insert(table, rows))
    for number in range(3):
        writer.write({"orders": orders((number, "a"))})
    assert inserted == []
    # Other columns, and a wider type: those before go first.
    writer.write({"orders": pa.table({"id": [3], "name": ["b"], "price": [1]})})
    writer.write({"orders": pa.table({"id": [4], "name": ["b"], "price": [1.5]})})
    assert inserted == [3, 1]
    writer.write({"orders": orders(*((number, "c") for number in range(5, 20_005)))})
    assert inserted == [3, 1, 1, 20_000]
    writer.write({"orders": orders((20_005, "d"))})
    assert writer.finish().rows_total == 20_006
    writer.commit(record, {})
    assert shop.ask("select count(*), count(distinct id), count(price), sum(price) from acme_raw_shop.orders") == [(20_006, 20_006, 2, 2.5)]


def test_merge_keeps_the_newest_row_of_a_key_then_the_one_read_last(shop: Shop) -> None:
    first = shop.load(MERGE, orders((1, "old"), (1, "older"), at=1), orders((2, "b"), (1, "new"), (1, "last"), at=2), orders((1, "late"), at=1))
    assert (first.rows_total, first.duplicates) == (2, 4)
    assert shop.read("id, name") == [(1, "last"), (2, "b")]
    second = shop.load(
        MERGE, orders((1, "first"), (3, "c"), at=3), orders((1, "second"), at=3), pa.table({"id": [1], "name": ["unknown"], "at": pa.array([None], BIGINT)})
    )
    assert (second.rows_total, second.duplicates) == (3, 2)
    assert shop.read("id, name") == [(1, "second"), (2, "b"), (3, "c")]


def test_a_merge_with_a_new_column_into_an_emptied_table_removes_duplicates(shop: Shop) -> None:
    shop.load(MERGE, orders(at=1))
    written = shop.load(MERGE, orders((1, "a"), at=1), orders((1, "b"), at=2), pa.table({"id": [2], "at": [3], "extra": pa.array([0.5], DOUBLE)}))
    assert (written.rows_total, written.duplicates) == (2, 1)
    assert shop.read("id, name, extra") == [(1, "b", None), (2, None, 0.5)]


def test_the_last_read_row_of_a_key_is_kept_for_wide_rows_too(shop: Shop) -> None:
    """Postgres puts a narrow row into a hole that wide ones have left: where rows lie says nothing about when they came."""
    plan = StreamPlan("orders", "merge", key=("id",))
    batches = [orders(*((number % 50, f"{step} " + "x" * (4_000 if (number + step) % 3 else 10)) for number in range(60))) for step in range(20)]
    shop.load(plan, *batches)
    assert {name.split()[0] for _, name in shop.read("id, name")} == {"19"}
    shop.load(plan, *batches[:5])
    assert {name.split()[0] for _, name in shop.read("id, name")} == {"4"}


def test_merge_takes_keys_of_several_columns_and_types(shop: Shop) -> None:
    plan = StreamPlan("orders", "merge", key=("shop_id", "day", "amount"))

    def build(name: str) -> pa.Table:
        amounts = pa.array([Decimal("1.10"), Decimal("1.10")], pa.decimal128(10, 2))
        return pa.table({"shop_id": ["a", "b"], "day": pa.array([date(2024, 1, 1)] * 2, DATE), "amount": amounts, "name": [name, name]})

    shop.load(plan, build("x"), build("y"))
    shop.load(plan, build("z").slice(0, 1), build("w").slice(0, 1))
    assert shop.read("shop_id, name") == [("a", "w"), ("b", "y")]


def test_rows_of_a_value_replace_those_of_earlier_loads_and_not_each_other(shop: Shop) -> None:
    def build(file: str, *ids: int) -> pa.Table:
        return pa.table({"id": pa.array(ids, BIGINT), "file": pa.array([file] * len(ids), TEXT)})

    shop.load(BY_FILE, build("a.csv", 1, 2), build("b's.csv", 3), build("c.csv", 4))
    record = shop.record(BY_FILE)
    writer = shop.open(BY_FILE, record)
    writer.write({"orders": build("a.csv", 5)})
    writer.write({"orders": build("a.csv", 6)})
    writer.replace_rows_of("b's.csv")
    writer.replace_rows_of("a.csv")
    assert writer.finish().rows_total == 3
    writer.commit(record, {})
    assert shop.read("id, file") == [(4, "c.csv"), (5, "a.csv"), (6, "a.csv")]


def test_thousands_of_small_batches_need_little_memory(shop: Shop) -> None:
    """As files of a few rows come; inserted in as many pieces they once took all that DuckDB may have."""
    columns = {f"c{number}": pa.array([f"value {number} {row}" for row in range(20)], TEXT) for number in range(13)}
    assert shop.load(APPEND, *[pa.table(columns)] * 1_500).rows_total == 30_000


def lines(*rows: tuple[int, str, list[str]]) -> dict[str, pa.Table]:
    """Orders with a list nested in each, whose rows' ids are their names."""
    nested = [(f"{name}-{item}", name, item) for _, name, items in rows for item in items]
    children = {"_dlt_id": 0, "_dlt_root_id": 1, "item": 2}
    return {
        "orders": orders(*((number, name) for number, name, _ in rows)).append_column("_dlt_id", pa.array([row[1] for row in rows], TEXT)),
        "orders__lines": pa.table({name: pa.array([row[index] for row in nested], TEXT) for name, index in children.items()}),
    }


def test_nested_rows_follow_their_row_when_it_is_merged(shop: Shop) -> None:
    plan = StreamPlan("orders", "merge", key=("id",))
    shop.load(plan, lines((1, "a", ["x", "y"]), (2, "b", ["z"])), lines((1, "c", ["v"])))
    assert shop.read("_dlt_root_id, item", "orders__lines") == [("b", "z"), ("c", "v")]
    shop.load(plan, lines((2, "d", ["q"]), (2, "e", ["r"]), (3, "f", ["s"])))
    assert shop.read("_dlt_root_id, item", "orders__lines") == [("c", "v"), ("e", "r"), ("f", "s")]
    shop.load(plan, {"orders": lines((1, "g", []), (3, "h", []))["orders"]})
    assert shop.read("_dlt_root_id, item", "orders__lines") == [("e", "r")]


def test_nested_rows_are_found_by_their_row_without_reading_the_table(settings: Settings, postgres_database: str) -> None:
    tenant = build_tenant(settings, postgres_database)
    with open_warehouse(tenant, "shop", settings) as opened:
        opened.prepare()
        shop = Shop(tenant, settings, opened)
        shop.load(StreamPlan("orders", "merge", key=("id",)), lines((1, "a", ["x"])))
        (definition,) = shop.opened.query("select indexdef from pg_indexes where tablename = 'orders__lines'")["indexdef"].to_pylist()
    assert definition.endswith("(_dlt_root_id)")


def test_nested_rows_go_with_the_rows_that_are_replaced(shop: Shop) -> None:
    shop.load(REPLACE, lines((1, "a", ["x"])))
    shop.load(REPLACE, {"orders": lines((1, "b", []))["orders"]})
    assert shop.read("item", "orders__lines") == []

    def of_file(file: str, batch: dict[str, pa.Table]) -> dict[str, pa.Table]:
        return {**batch, "orders": batch["orders"].append_column("file", pa.array([file] * batch["orders"].num_rows, TEXT))}

    shop.load(BY_FILE, of_file("a", lines((1, "a", ["x"]))), of_file("b", lines((2, "b", ["y"]))), full_refresh=True)
    shop.load(BY_FILE, of_file("a", lines((3, "c", ["z"]))))
    assert shop.read("_dlt_root_id, item", "orders__lines") == [("b", "y"), ("c", "z")]


def test_a_full_refresh_chooses_types_anew_while_readers_see_the_old_rows(shop: Shop) -> None:
    shop.load(MERGE, lines((1, "a", ["x"])))
    record = shop.record(MERGE)
    shop.opened.start([record])
    writer = shop.open(MERGE, record, full_refresh=True)
    writer.write({"orders": pa.table({"id": ["one", "one"], "at": [1, 2]})})
    assert shop.read("id, name") == [(1, "a")]
    assert writer.finish().rows_total == 1
    assert shop.read("id, name") == [(1, "a")]
    writer.commit(record, {})
    assert shop.opened.read_layouts() == {"orders": {"id": TEXT, "at": BIGINT}}
    assert shop.read('id, "at"') == [("one", 2)]


def test_a_full_refresh_that_brings_nothing_leaves_an_empty_table(shop: Shop) -> None:
    shop.load(MERGE, lines((1, "a", ["x"])))
    written = shop.load(MERGE, full_refresh=True)
    assert (written.rows_total, [column.name for column in written.columns]) == (0, ["id", "name"])
    assert shop.read("id, name") == []


@pytest.mark.parametrize("plan", [REPLACE, StreamPlan("orders", "merge", key=("id",))], ids=lambda plan: plan.disposition)
def test_views_and_their_readers_outlive_a_full_refresh(shop: Shop, plan: StreamPlan) -> None:
    shop.load(plan, orders((1, "a")))
    with contextlib.closing(connect(shop.tenant, shop.settings)) as connection:
        connection.cursor().execute("create view acme_raw_shop.seen as select id from acme_raw_shop.orders")
        connection.commit()
    for number in (2, 3):
        shop.load(plan, orders((number, "b")), orders((number + 5, "c"), at=1), full_refresh=True)
        assert shop.read("id", "seen") == [(number,), (number + 5,)]
    shop.load(plan, orders((8, "d"), at=1))
    assert (8,) in shop.read("id", "seen")


# --- the transaction


def test_readers_see_all_or_nothing_and_an_abort_leaves_no_trace(shop: Shop) -> None:
    shop.load(REPLACE, orders((1, "a")), state={"cursor": 1})
    before = shop.ask("select * from acme_fabric.stream_state")
    for table in ({"orders": orders((2, "b"))}, {"orders": pa.table({"id": [2], "extra": ["x"]}), "orders__lines": orders((1, "x"))}):
        writer = shop.open(REPLACE, shop.record(REPLACE))
        writer.write(table, [Reject("", None, None, "bad_text", "no", "{}")])
        assert shop.read("id, name") == [(1, "a")]
        writer.finish()
        if "orders__lines" not in table:
            # To add a column locks the table until the end.
            assert shop.read("id, name") == [(1, "a")]
        writer.abort()
        writer.abort()
    assert shop.ask("select * from acme_fabric.stream_state") == before
    assert shop.ask("select count(*) from acme_fabric.rejected_rows") == [(0,)]
    assert shop.opened.read_layouts() == {"orders": {"id": BIGINT, "name": TEXT}}


def test_views_and_their_readers_outlive_a_replace(shop: Shop) -> None:
    shop.load(REPLACE, orders((1, "a")))
    with contextlib.closing(connect(shop.tenant, shop.settings)) as connection:
        connection.cursor().execute("create view acme_raw_shop.seen as select id from acme_raw_shop.orders")
        connection.commit()
    shop.load(REPLACE, orders((2, "b")))
    assert shop.read("id", "seen") == [(2,)]


def test_readers_of_a_table_do_not_wait_while_a_load_brings_a_new_column(shop: Shop) -> None:
    shop.load(APPEND, orders((1, "a")))
    writer = shop.open(APPEND, shop.record(APPEND))
    writer.write({"orders": pa.table({"id": [2], "extra": ["x"]})})
    if shop.tenant.destination.type == "postgres":
        shop.ask("set lock_timeout = '1s'; select 1")
    answers: list[Any] = []
    reader = threading.Thread(target=lambda: answers.append(shop.read("id")), daemon=True)
    reader.start()
    reader.join(10)
    writer.abort()
    assert answers == [[(1,)]]


def test_the_state_is_read_back_and_a_second_run_on_the_same_state_is_refused(shop: Shop) -> None:
    shop.load(APPEND, orders((1, "a")), state={"cursor": "it's", "n": 2**70})
    assert shop.opened.read_states() == {"orders": ledger.StreamState(1, {"cursor": "it's", "n": 2**70}, value_forms=CURRENT, rows_total=1)}
    late = shop.open(APPEND, record := shop.record(APPEND))
    shop.load(APPEND, orders((2, "b")))
    late.write({"orders": orders((2, "b"))})
    late.finish()
    with pytest.raises(LeaseHeld, match="another run has loaded shop.orders meanwhile; nothing of this load was kept"):
        late.commit(record, {})
    late.abort()
    assert shop.read("id") == [(1,), (2,)]
    assert shop.opened.read_states()["orders"].version == 2


def test_two_first_loads_of_a_stream_do_not_both_succeed(shop: Shop) -> None:
    records = [shop.record(APPEND), shop.record(APPEND)]
    for record in records:
        shop.opened.start([record])
    early, late = (shop.open(APPEND, record) for record in records)
    late.finish()
    early.finish()
    early.commit(records[0], {})
    with pytest.raises(LeaseHeld, match="nothing of this load was kept"):
        late.commit(records[1], {})
    late.abort()


def test_an_abort_from_another_thread_ends_the_running_statement(shop: Shop) -> None:
    writer = shop.open(APPEND, shop.record(APPEND))
    writer.write({"orders": orders((1, "a"))})
    session, errors = writer.session, list[BaseException]()
    slow = "select pg_sleep(60)::text" if shop.tenant.destination.type == "postgres" else "select count(*) from range(1000000000000) as a(i) where hash(i) = 3"

    def work() -> None:
        try:
            session.query(slow)
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(0.5)
    assert worker.is_alive()
    writer.abort()
    worker.join(10)
    assert not worker.is_alive()
    assert len(errors) == 1
    writer.write({"orders": orders((2, "b"))})
    with pytest.raises(DestinationUnavailable, match="given up"):
        writer.finish()
    assert shop.opened.read_layouts() == {}


def test_rows_that_a_trigger_takes_away_are_noticed(shop: Shop) -> None:
    if shop.tenant.destination.type == "duckdb":
        pytest.skip("DuckDB has no triggers")
    shop.load(REPLACE, orders((1, "a")))
    with contextlib.closing(connect(shop.tenant, shop.settings)) as connection:
        cursor = connection.cursor()
        cursor.execute("create function acme_raw_shop.lose() returns trigger language plpgsql as 'begin return null; end'")
        cursor.execute("create trigger lose before insert on acme_raw_shop.orders for each row when (new.id = 2) execute function acme_raw_shop.lose()")
        connection.commit()
    with pytest.raises(DestinationError, match="nothing was kept"):
        shop.load(REPLACE, orders((2, "b"), (3, "c")))
    assert shop.read("id") == [(1,)]


def test_eight_streams_are_loaded_side_by_side(shop: Shop) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        plan = StreamPlan(f"stream_{number}", "merge", key=("id",))
        try:
            for step in range(4):
                rows = orders(*((row, f"{step}") for row in range(2_000)))
                shop.load(plan, rows, rows.append_column(f"extra_{step}", pa.array([step] * 2_000, BIGINT)), rejects=[Reject("", step, None, "x", "y", "{}")])
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert errors == []
    for number in range(8):
        assert shop.ask(f"select count(*), min(name), count(extra_3), count(extra_0) from acme_raw_shop.stream_{number}") == [(2_000, "3", 2_000, 0)]
    assert shop.ask("select status, count(*) from acme_fabric.loads group by status") == [("success", 32)]
    assert shop.ask("select count(*) from acme_fabric.rejected_rows") == [(32,)]
    assert shop.ask("select count(*), count(distinct load_id) from acme_raw_shop._dlt_loads") == [(32, 32)]


def test_streams_whose_transactions_overlap_do_not_disturb_each_other(shop: Shop) -> None:
    plans = [StreamPlan(f"stream_{number}", "replace") for number in range(6)]
    for _ in range(2):
        records = [shop.record(plan) for plan in plans]
        shop.opened.start(records)
        writers = [shop.open(plan, record) for plan, record in zip(plans, records, strict=True)]
        for plan, writer in zip(plans, writers, strict=True):
            writer.write({plan.name: orders((1, "a"))})
        for writer in writers:
            writer.finish()
        for writer, record in zip(writers, records, strict=True):
            writer.commit(replace(record, status="success"), {})
    assert shop.ask("select version, count(*) from acme_fabric.stream_state group by version") == [(2, 6)]


def test_deferred_statements_run_before_the_next_one(shop: Shop) -> None:
    table = Table("acme_raw_shop", "notes")
    with shop.opened._borrow() as session:

        def defer(number: int) -> None:
            session.defer(f"insert into {table} values ({number})")

        session.create(table, {"id": BIGINT})
        defer(1)
        defer(2)
        assert session.execute(f"update {table} set id = 12 where id = 2") == 1
        defer(3)
        assert session.ask(f"select count(*) from {table}") == [(3,)]
        defer(4)
        assert session.insert(table, pa.table({"id": pa.array([5], BIGINT)})) == 1
        defer(6)
        session.commit()
        defer(7)
        session.rollback()
        assert session.query(f"select id from {table} order by id")["id"].to_pylist() == [1, 3, 4, 5, 6, 12]
        defer(8)
    assert shop.read("count(*)", "notes") == [(6,)], "what is not committed is not kept"


# --- the ledger


def reject(row: int | None, raw: str = '{"id": null}', origin: str = "orders.csv") -> Reject:
    return Reject(origin, row, "id", "null_key", "id is NULL", raw)


def test_a_load_writes_one_row_of_the_ledger(shop: Shop) -> None:
    record = replace(
        shop.record(REPLACE), window_start="2024-01-01", window_end="it's", schema_changes=(SchemaChange("orders", "extra", "column_added", "", "int64"),)
    )
    shop.opened.start([record])
    assert shop.ask("select status, loaded_at from acme_fabric.loads") == [("running", None)]
    writer = shop.open(REPLACE, record)
    writer.write({"orders": orders((1, "a"))})
    writer.finish()
    done = replace(record, status="success", loaded_at=datetime.now(UTC), rows_read=2, rows_loaded=1, rows_rejected=1, rows_total=1, bytes=16, seconds=0.25)
    writer.commit(done, {})
    assert ledger.read_successes(shop.ask, tenant="acme", source="shop", run_ids=["run-0", "run-1"]) == {"orders": done}
    assert ledger.read_successes(shop.ask, tenant="acme", source="shop", run_ids=["run-2"]) == {}
    assert loaded_streams.get_last_load(shop.ask, tenant="acme", source="shop", stream="orders") == done.loaded_at
    assert loaded_streams.get_last_load(shop.ask, tenant="acme", source="shop", stream="other") is None
    assert shop.ask("select load_id, schema_name, status from acme_raw_shop._dlt_loads") == [(record.load_id, "shop", 0)]


def test_a_failed_load_says_so_and_keeps_its_rejected_rows(shop: Shop) -> None:
    record = shop.record(REPLACE)
    shop.opened.start([record])
    shop.opened.record_failure(replace(record, status="failed", error="no\0pe \ud800", loaded_at=datetime.now(UTC)), [reject(1)])
    assert shop.ask("select status, error from acme_fabric.loads") == [("failed", "no\ufffdpe ?")]
    assert shop.ask("select load_id, run_id, reason from acme_fabric.rejected_rows") == [(record.load_id, "run-1", "null_key")]
    assert loaded_streams.get_last_load(shop.ask, tenant="acme", source="shop", stream="orders") is None


def test_a_failure_is_not_written_over_a_success_whose_answer_was_lost(shop: Shop) -> None:
    record = shop.record(REPLACE)
    shop.opened.start([record])
    writer = shop.open(REPLACE, record)
    writer.write({"orders": orders((1, "a"))})
    writer.finish()
    writer.commit(replace(record, status="success", rows_loaded=1, loaded_at=datetime.now(UTC)), {})
    assert not shop.opened.record_failure(replace(record, status="failed", error="server closed the connection"), [reject(1)])
    assert shop.ask("select status, rows_loaded from acme_fabric.loads") == [("success", 1)]
    assert shop.ask("select * from acme_fabric.rejected_rows") == []


def test_a_warehouse_that_is_closed_lets_no_late_thread_write(shop: Shop) -> None:
    shop.opened.close()
    with pytest.raises(DestinationUnavailable, match="the load is over"):
        shop.opened.start([shop.record(REPLACE)])


def test_the_next_run_marks_the_loads_of_a_killed_run_as_failed(shop: Shop) -> None:
    other = replace(shop.record(REPLACE), source="other")
    shop.opened.start([shop.record(REPLACE), other])
    shop.opened.prepare()
    assert shop.ask("select source, status, error like '%killed%' from acme_fabric.loads order by source") == [
        ("other", "running", None),
        ("shop", "failed", True),
    ]


def test_a_rejected_row_is_kept_once_however_often_it_is_met(shop: Shop) -> None:
    bad = "\0" + "\ud800" + "x" * 9_000
    shop.load(APPEND, orders((1, "a")), rejects=[reject(1), reject(2), reject(2), reject(None, bad)])
    shop.load(APPEND, orders(), orders(), rejects=[reject(2), reject(3), reject(2, origin="other.csv")])
    assert shop.ask("select origin, row_number from acme_fabric.rejected_rows where row_number is not null order by 1, 2") == [
        ("orders.csv", 1),
        ("orders.csv", 2),
        ("orders.csv", 3),
        ("other.csv", 2),
    ]
    assert shop.ask("select raw, raw_truncated from acme_fabric.rejected_rows where row_number is null") == [("\ufffd?" + "x" * 7_998, True)]


@pytest.mark.parametrize("full_refresh", [False, True])
def test_reading_everything_again_forgets_the_rows_rejected_before(shop: Shop, full_refresh: bool) -> None:
    shop.load(APPEND, orders((1, "a")), rejects=[reject(1), reject(2)])
    shop.load(replace(APPEND, name="other"), orders((1, "a")), rejects=[reject(9)])
    shop.load(APPEND if full_refresh else REPLACE, orders((1, "a")), rejects=[reject(2)], full_refresh=full_refresh)
    assert shop.ask("select stream, row_number from acme_fabric.rejected_rows order by 1, 2") == [("orders", 2), ("other", 9)]


# --- connections and schemas


def test_preparing_adds_columns_that_an_older_version_lacks_and_changes_nothing_else(shop: Shop) -> None:
    with contextlib.closing(connect(shop.tenant, shop.settings)) as connection:
        cursor = connection.cursor()
        cursor.execute("insert into acme_fabric.loads (load_id, run_id, source, stream) values ('1', 'r', 'shop', 'old')")
        cursor.execute("alter table acme_fabric.loads drop column window_end")
        connection.commit()
    shop.opened.prepare()
    shop.load(REPLACE, orders((1, "a")))
    assert shop.ask("select stream, status, window_end from acme_fabric.loads order by stream") == [("old", None, None), ("orders", "success", None)]


def test_many_tenants_prepare_one_database_at_once(settings: Settings, postgres_database: str) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(20)

    def work(number: int) -> None:
        try:
            tenant = build_tenant(settings, postgres_database, f"tenant_{number}")
            start.wait(30)
            with open_warehouse(tenant, "shop", settings) as opened:
                opened.prepare()
                Shop(tenant, settings, opened).load(REPLACE, orders((number, "a")))
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number // 2,)) for number in range(0, 40, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert errors == []


def test_a_login_without_the_right_to_make_schemas_loads_into_those_it_was_given(settings: Settings, postgres_database: str) -> None:
    import psycopg2

    role = f"loader_{next(_NUMBERS)}"
    with contextlib.closing(psycopg2.connect(postgres_database)) as admin:
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute(f"create role {role} login")
        for schema in ("acme_raw_shop", "acme_fabric", "stg_acme_raw_shop"):
            cursor.execute(f"create schema {schema} authorization {role}")
        try:
            tenant = build_tenant(settings, postgres_database.replace("postgres:postgres@", f"{role}:x@"))
            with open_warehouse(tenant, "shop", settings) as opened:
                opened.prepare()
                shop = Shop(tenant, settings, opened)
                shop.load(REPLACE, orders((1, "a")))
                assert shop.load(REPLACE, orders((2, "b")), full_refresh=True).rows_total == 1
        finally:
            cursor.execute(f"drop owned by {role} cascade; drop role {role}")


def test_the_duckdb_file_is_its_owners_alone(settings: Settings) -> None:
    with open_warehouse(build_tenant(settings, None), "shop", settings) as opened:
        opened.prepare()
    file = Path(settings.data_dir / "warehouse" / "acme.duckdb")
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_new_duckdb_file_squeezes_text_as_duckdb_1_3_does(settings: Settings) -> None:
    with open_warehouse(build_tenant(settings, None), "shop", settings) as opened:
        opened.prepare()
    with duckdb.connect(str(settings.data_dir / "warehouse" / "acme.duckdb"), read_only=True) as connection:
        assert connection.sql("select tags['storage_version'] from duckdb_databases() where database_name = 'acme'").fetchone() == ("v1.3.0+",)


def test_a_server_that_is_not_there_is_unavailable(settings: Settings) -> None:
    tenant = build_tenant(settings, "postgresql://loader:secret-word@127.0.0.1:1/warehouse")
    with open_warehouse(tenant, "shop", settings) as opened, pytest.raises(DestinationUnavailable, match="cannot be reached") as caught:
        opened.prepare()
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("moment", ["chmod", "link"])
def test_a_file_whose_making_was_killed_is_private_all_the_same(settings: Settings, moment: str) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from fabric_assets.config.tenant import TenantConfig\nfrom fabric_assets.drivers.destinations import connect\n"
        "from fabric_assets.settings import load_settings\n"
        "os.umask(0o022)\n"
        "def watch(name):\n"
        "    call = getattr(os, name)\n"
        "    def die(path, *more, **named):\n"
        "        if str(path).endswith('.duckdb'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return call(path, *more, **named)\n"
        "    setattr(os, name, die)\n"
        "watch(sys.argv[1])\n"
        "connect(TenantConfig.model_validate({'version': 1, 'tenant': 'acme'}), load_settings())"
    )
    environ = {**os.environ, "FABRIC_DATA_DIR": str(settings.data_dir)}
    killed = subprocess.run([sys.executable, "-c", program, moment], env=environ, check=False, timeout=60, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    connect(build_tenant(settings, None), settings).close()
    file = naming.warehouse_file(settings.data_dir, "acme")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(file.parent.glob(".acme.duckdb.*")) <= set(find_local_data("acme", settings.data_dir, None)["warehouse"])


def test_processes_that_make_the_file_at_once_have_one_and_lose_no_rows(settings: Settings) -> None:
    """Each makes one; the first to be there stays, with what is in it."""
    tenant, file = build_tenant(settings, None), naming.warehouse_file(settings.data_dir, "acme")
    with contextlib.closing(connect(tenant, settings)) as connection:
        connection.execute("create table acme.main.kept as select 1 as id")
    ensure_file(naming.warehouse_file(settings.data_dir, tenant.tenant))
    with contextlib.closing(connect(tenant, settings, read_only=True)) as connection:
        assert connection.execute("select id from kept").fetchall() == [(1,)]
    assert [path.name for path in file.parent.iterdir()] == ["acme.duckdb"]
