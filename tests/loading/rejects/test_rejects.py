"""Rejected rows: kept with file and line, returned in order, and loaded again once they can be, never over anything newer."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from fabric_assets.errors import DataError
from fabric_assets.loading.rejects.reader import RejectedRow, open_rejects
from fabric_assets.loading.rejects.replay import Replayed, build_table, replay
from fabric_assets.settings import Settings
from tests.loading.rejects.killed_replays import kill_while_it_waits
from tests.support.shop import SourceDatabase, Tenant

CSV = {"glob": "*.csv", "format": "csv"}


def build_tenant(settings: Settings, warehouse: str | None = None, **streams: dict[str, Any]) -> Tenant:
    return Tenant(settings, {"type": "files", "path": "exports", "streams": streams}, warehouse=warehouse)


def read_rejects(tenant: Tenant, **chosen: str) -> list[RejectedRow]:
    with open_rejects(tenant.config, tenant.settings, **chosen) as found:
        return [row for portion in found.read() for row in portion]


def run_replay(tenant: Tenant, **chosen: str) -> list[Replayed]:
    return list(replay(tenant.config, tenant.settings, **chosen))


def let_evolve(tenant: Tenant, stream: str = "items") -> None:
    tenant.source["streams"][stream]["schema_contract"] = "evolve"


def test_nothing_is_rejected_where_nothing_has_been_loaded(settings: Settings, warehouse: str | None) -> None:
    tenant = build_tenant(settings, warehouse, items=CSV)
    assert read_rejects(tenant) == []
    assert run_replay(tenant) == []


def test_rows_are_given_in_the_order_of_their_files(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "b.csv").write_text("id,n\n1\n2,x\n3\n")
    (inbox / "a.csv").write_text("id,n\n1,y\n2\n")
    (inbox / "c.jsonl").write_text('{"id": 1}\n{\n')
    tenant = build_tenant(settings, warehouse, items=CSV, lines={"glob": "*.jsonl", "format": "jsonl"})
    tenant.load()
    rows = read_rejects(tenant)
    assert [(row.stream, row.origin, row.row_number, row.raw) for row in rows] == [
        ("items", "a.csv", 2, "2"),
        ("items", "b.csv", 1, "1"),
        ("items", "b.csv", 3, "3"),
        ("lines", "c.jsonl", 2, "{"),
    ]
    assert [row.stream for row in read_rejects(tenant, stream="lines")] == ["lines"]
    assert read_rejects(tenant, source="elsewhere") == []


def test_rows_that_the_contract_refused_are_loaded_once_it_lets_them(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "a.csv").write_text("id,n,at\n1,1,2024-01-01T00:00:00\n")
    tenant = build_tenant(settings, warehouse, items={**CSV, "schema_contract": "discard"})
    tenant.load()
    (inbox / "b.csv").write_text("id,n,at\n2,2,2024-01-02T00:00:00\n3,many,2024-01-03T00:00:00\n4,4,soon\n")
    (inbox / "c.csv").write_text("id,n,at,extra\n5,5,2024-01-05T00:00:00,x\n")
    (inbox / "d.csv").write_text("id,n\n6\n")
    report = tenant.load()["items"]
    assert (report.rows_loaded, report.rows_rejected) == (1, 4)
    assert [row.reason for row in read_rejects(tenant)] == ["type_mismatch", "type_mismatch", "unexpected_column", "ragged_row"]

    assert run_replay(tenant) == [Replayed("shop", "items", replayed=0, rejected=3, unreadable=1)]
    assert len(read_rejects(tenant)) == 4
    let_evolve(tenant)
    assert run_replay(tenant) == [Replayed("shop", "items", replayed=3, rejected=0, unreadable=1)]
    assert tenant.read("items", "_fabric_file", "_fabric_row", "id", "n", "n__v_text", "at__v_text", "extra", order="id") == [
        ("a.csv", 1, 1, 1, None, None, None),
        ("b.csv", 1, 2, 2, None, None, None),
        ("b.csv", 2, 3, None, "many", None, None),
        ("b.csv", 3, 4, 4, None, "soon", None),
        ("c.csv", 1, 5, 5, None, None, "x"),
    ]
    assert tenant.ask('select "at" from acme_raw_shop.items where id in (3, 5) order by id') == [(datetime(2024, 1, 3),), (datetime(2024, 1, 5),)]
    assert [row.reason for row in read_rejects(tenant)] == ["ragged_row"]
    ledger = "select status, rows_read, rows_loaded, rows_rejected, rows_total from acme_fabric.loads order by started_at desc, loaded_at desc"
    assert tenant.ask(ledger)[0] == ("success", 3, 3, 0, 5)

    assert run_replay(tenant) == [Replayed("shop", "items", unreadable=1)]
    assert tenant.ask("select count(*) from acme_raw_shop.items") == [(5,)]
    assert tenant.load()["items"].rows_loaded == 0


def test_a_replayed_row_does_not_take_the_place_of_a_newer_one(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "1.csv").write_text("id,n\n1,1\n2,2\n3,3\n")
    tenant = build_tenant(settings, warehouse, items={**CSV, "primary_key": "id", "schema_contract": "discard"})
    tenant.load()
    (inbox / "2.csv").write_text("id,n\n1,late\n2,late\n4,late\n")
    tenant.load()
    (inbox / "3.csv").write_text("id,n\n2,22\n")
    tenant.load()
    let_evolve(tenant)
    assert run_replay(tenant) == [Replayed("shop", "items", replayed=3, superseded=1)]
    assert tenant.read("items", "id", "n", "n__v_text") == [(1, None, "late"), (2, 22, None), (3, 3, None), (4, None, "late")]
    assert read_rejects(tenant) == []


def test_a_stream_that_is_read_whole_replays_what_its_last_load_has_rejected_over_what_it_left(
    settings: Settings, sqlite: SourceDatabase, warehouse: str | None
) -> None:
    sqlite.run("create table orders (id integer primary key, amount)", "insert into orders values (1, 10), (3, 30)")
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id", "schema_contract": "discard"}), warehouse=warehouse)
    tenant.load()
    sqlite.run("update orders set amount = 'much' where id < 3", "insert into orders values (2, 'some')")
    assert tenant.load()["orders"].rows_rejected == 2
    sqlite.run("update orders set amount = 'more' where id = 3", "update orders set amount = 11 where id = 1")
    tenant.load()
    # Row 1 was corrected at the source: it is rejected no more.
    assert sorted(json.loads(row.raw)["id"] for row in read_rejects(tenant)) == [2, 3]
    let_evolve(tenant, "orders")
    assert run_replay(tenant) == [Replayed("shop", "orders", replayed=2)]
    assert tenant.read("orders", "id", "amount", "amount__v_text") == [(1, 11, None), (2, None, "some"), (3, None, "more")]
    assert read_rejects(tenant) == []


def test_a_stream_whose_cursor_is_gone_is_loaded_before_it_is_replayed(settings: Settings, sqlite: SourceDatabase, warehouse: str | None) -> None:
    sqlite.run("create table orders (id integer primary key, at integer, amount)", "insert into orders values (1, 1, 10)")
    stream = {"primary_key": "id", "cursor": {"field": "at"}, "schema_contract": "discard"}
    tenant = Tenant(settings, sqlite.build_source(orders=stream), warehouse=warehouse)
    tenant.load()
    sqlite.run("update orders set at = 2, amount = 'much'")
    assert tenant.load()["orders"].rows_rejected == 1
    sqlite.run("update orders set at = 3, amount = 30")
    tenant.load()
    del tenant.source["streams"]["orders"]["cursor"]
    let_evolve(tenant, "orders")
    (refused,) = run_replay(tenant)
    assert "the YAML no longer has the cursor of its last load" in refused.error
    assert tenant.read("orders", "id", "amount") == [(1, 30)]
    tenant.load()
    assert (run_replay(tenant), read_rejects(tenant)) == ([], [])


def test_where_only_the_loads_say_which_row_is_newer_the_latest_stays(settings: Settings, httpserver: HTTPServer, warehouse: str | None) -> None:
    rows: list[dict[str, Any]] = []
    httpserver.expect_request("/orders").respond_with_handler(lambda _: Response(json.dumps(rows), content_type="application/json"))
    cursor = {"field": "meta.at", "param": "since"}
    streams = {"orders": {"path": "orders", "primary_key": "id", "cursor": cursor, "paginator": {"type": "single_page"}, "schema_contract": "discard"}}
    source = {"type": "rest_api", "base_url": httpserver.url_for(""), "allow_private_network": True, "streams": streams}
    tenant = Tenant(settings, source, warehouse=warehouse)
    for day, values in enumerate([{1: 1, 2: 2, 3: 3}, {1: "a", 2: "b", 3: "c"}, {1: 11, 3: "d"}], start=1):
        rows[:] = [{"id": key, "n": n, "meta": {"at": f"2024-01-0{day}T00:00:00Z"}} for key, n in values.items()]
        tenant.load()
    assert [json.loads(row.raw)["n"] for row in read_rejects(tenant)] == ["a", "b", "c", "d"]
    let_evolve(tenant, "orders")
    # The later load's first; of the earlier one's, 1 and 3 have given way.
    assert run_replay(tenant) == [Replayed("shop", "orders", replayed=4, superseded=2)]
    assert tenant.read("orders", "id", "n", "n__v_text") == [(1, 11, None), (2, None, "b"), (3, None, "d")]
    assert read_rejects(tenant) == []


@pytest.mark.parametrize(("declared", "value"), [("date", "-infinity"), ("timestamp", "infinity"), ("timestamptz", "-infinity"), ("date", "300000-01-31")])
def test_a_date_that_no_table_holds_is_kept_as_the_source_spells_it_and_stays_rejected(
    settings: Settings, postgres_database: str, warehouse: str | None, declared: str, value: str
) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run(f"create table visits (id int primary key, at {declared})", f"insert into visits values (1, '2024-01-01'), (2, '{value}')")
    tenant = Tenant(settings, source.build_source(visits={"primary_key": "id"}), warehouse=warehouse)
    assert tenant.load()["visits"].rows_rejected == 1
    assert [json.loads(row.raw) for row in read_rejects(tenant)] == [{"id": 2, "at": value}]
    assert run_replay(tenant) == [Replayed("shop", "visits", rejected=1)]
    assert len(read_rejects(tenant)) == 1
    assert tenant.ask("select * from acme_raw_shop.visits where id = 2") == []
    source.run("update visits set at = '2024-01-02' where id = 2")
    assert tenant.load()["visits"].rows_total == 2
    assert read_rejects(tenant) == []


def test_a_nested_row_of_an_api_comes_back_with_what_is_nested_in_it(settings: Settings, httpserver: HTTPServer, warehouse: str | None) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "of": {"n": 1}, "lines": [{"sku": "a"}]}]
    httpserver.expect_request("/orders").respond_with_handler(lambda _: Response(json.dumps(rows), content_type="application/json"))
    streams = {"orders": {"path": "orders", "primary_key": "id", "paginator": {"type": "single_page"}, "schema_contract": "discard"}}
    source = {"type": "rest_api", "base_url": httpserver.url_for(""), "allow_private_network": True, "streams": streams}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    rows += [{"id": 2, "of": {"n": "many"}, "lines": [{"sku": "b"}, {"sku": "c"}]}, {"id": 3, "of": {"n": 3}, "lines": []}]
    assert tenant.load()["orders"].rows_rejected == 1
    let_evolve(tenant, "orders")
    assert run_replay(tenant) == [Replayed("shop", "orders", replayed=1)]
    assert tenant.read("orders", "id", "of__n", "of__n__v_text", order="id") == [(1, 1, None), (2, None, "many"), (3, 3, None)]
    lines = "select o.id, l.sku from acme_raw_shop.orders__lines as l join acme_raw_shop.orders as o on l._dlt_parent_id = o._dlt_id order by 1, 2"
    assert tenant.ask(lines) == [(1, "a"), (2, "b"), (2, "c")]


def test_rows_of_a_replaced_stream_are_added_until_the_next_load_reads_all_anew(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, items={**CSV, "write_disposition": "replace", "schema_contract": "discard"})
    tenant.load()
    (inbox / "a.csv").write_text("id\n1\nx\n")
    tenant.load()
    let_evolve(tenant)
    assert run_replay(tenant) == [Replayed("shop", "items", replayed=1)]
    assert tenant.read("items", "id", "id__v_text") == [(1, None), (None, "x")]
    assert tenant.load()["items"].rows_total == 2


def test_the_rejected_rows_of_a_file_go_with_its_next_version(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "a.csv").write_text("id,n\n1,1\n2\n")
    (inbox / "b.csv").write_text("id,n\n3\n")
    tenant = build_tenant(settings, warehouse, items=CSV)
    tenant.load()
    assert [row.origin for row in read_rejects(tenant)] == ["a.csv", "b.csv"]
    (inbox / "a.csv").write_text("id,n\n1,1\n2,2\n")
    tenant.load()
    assert [row.origin for row in read_rejects(tenant)] == ["b.csv"]


def test_values_of_every_type_come_back_as_they_were(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    values: dict[str, Any] = {
        "id": 1,
        "price": Decimal("-12.50"),
        "share": 0.1 + 0.2,
        "ok": True,
        "day": date(2024, 2, 29),
        "moment": datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "naive": datetime(2024, 1, 2, 3, 4, 5),
        "bytes_": b"\x00\xff",
        "tags": ["a", {"b": 1}],
        "note": "x",
        "none": None,
    }
    schema = pa.schema(
        {
            "id": pa.int64(),
            "price": pa.decimal128(10, 2),
            "share": pa.float64(),
            "ok": pa.bool_(),
            "day": pa.date32(),
            "moment": pa.timestamp("us", tz="UTC"),
            "naive": pa.timestamp("us"),
            "bytes_": pa.binary(),
            "tags": pa.string(),
            "note": pa.string(),
            "none": pa.int64(),
        }.items()
    )
    values["tags"] = json.dumps(values["tags"])
    pq.write_table(pa.Table.from_pylist([values], schema=schema), inbox / "a.parquet")
    tenant = build_tenant(settings, warehouse, items={"glob": "*.parquet", "format": "parquet", "schema_contract": "discard"})
    tenant.load()
    again = pa.Table.from_pylist([{**values, "id": 2}], schema=schema).append_column("extra", pa.array(["new"]))
    pq.write_table(again, inbox / "b.parquet")
    tenant.load()
    let_evolve(tenant)
    assert run_replay(tenant) == [Replayed("shop", "items", replayed=1)]
    names = [name for name in schema.names if name not in ("id", "bytes_")]
    first, second = tenant.read("items", *names, order="id")
    assert first == second
    assert [bytes(value) for (value,) in tenant.ask("select bytesx from acme_raw_shop.items")] == [b"\x00\xff"] * 2
    assert tenant.ask("select extra from acme_raw_shop.items where id = 2") == [("new",)]


def test_a_row_that_was_too_long_to_keep_is_not_replayed(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id,note\n1,short\n")
    tenant = build_tenant(settings, items={**CSV, "schema_contract": "discard"})
    tenant.load()
    (inbox / "b.csv").write_text(f"id,note\nx,{'y' * 9_000}\n")
    tenant.load()
    assert [(row.raw_truncated, len(row.raw)) for row in read_rejects(tenant)] == [(True, 8_000)]
    let_evolve(tenant)
    assert run_replay(tenant) == [Replayed("shop", "items", unreadable=1)]


def test_a_column_without_values_chooses_no_type() -> None:
    rows = [{"id": 1, "late": None, "old": None}, {"id": 2, "mixed": 1}, {"mixed": "x"}]
    found = build_table(rows, {"old": pa.float64()}, str)
    assert found.column_names == ["id", "old", "mixed"]
    assert (found["id"].to_pylist(), found["mixed"].to_pylist()) == ([1, 2, None], [None, "1", "x"])


def test_one_stream_that_cannot_be_replayed_does_not_hold_up_the_others(settings: Settings, inbox: Path) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, one={**CSV, "schema_contract": "discard"}, two={**CSV, "schema_contract": "discard"})
    tenant.load()
    (inbox / "b.csv").write_text("id\nx\n")
    tenant.load()
    tenant.source["streams"]["one"]["schema_contract"] = "freeze"
    let_evolve(tenant, "two")
    failed, done = run_replay(tenant)
    assert "schema_contract.data_type is freeze" in failed.error
    assert done == Replayed("shop", "two", replayed=1)
    assert [row.stream for row in read_rejects(tenant)] == ["one"]


def test_a_replay_that_is_killed_has_done_nothing(settings: Settings, inbox: Path, postgres_database: str) -> None:
    (inbox / "a.csv").write_text("id\n1\n")
    tenant = build_tenant(settings, postgres_database, items={**CSV, "schema_contract": "discard"})
    tenant.load()
    (inbox / "b.csv").write_text("id\nx\ny\n")
    tenant.load()
    let_evolve(tenant)
    # The replay has written its rows, and waits to delete the rejected ones.
    program = "from fabric_assets.loading.rejects.replay import replay\nlist(replay(tenant, settings))"
    kill_while_it_waits(tenant, program, table="rejected_rows")
    assert tenant.ask("select count(*) from acme_raw_shop.items") == [(1,)]
    assert len(read_rejects(tenant)) == 2
    assert run_replay(tenant) == [Replayed("shop", "items", replayed=2)]
    assert tenant.read("items", "id", "id__v_text") == [(1, None), (None, "x"), (None, "y")]
    assert read_rejects(tenant) == []


def test_rows_of_a_load_that_failed_are_neither_replayed_nor_kept_once_one_succeeds(warehouse: str | None, sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table visits (id integer, at integer)", "insert into visits values (1, 1)")
    stream = {"write_disposition": "append", "cursor": {"field": "at"}, "schema_contract": "discard", "rejects": {"max": 0}}
    tenant = Tenant(settings, sqlite.build_source(visits=stream), warehouse=warehouse)
    tenant.load()
    sqlite.run("insert into visits values (2, 2)", "insert into visits values ('two and a half', 3)")
    with pytest.raises(DataError, match="1 of 2 rows cannot be loaded|1 of 3 rows cannot be loaded"):
        tenant.load()
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(1,)]
    tenant.source["streams"]["visits"]["schema_contract"] = "evolve"
    assert list(replay(tenant.config, settings)) == [], "the next load reads the row again: replayed as well it would be there twice"
    tenant.load()
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(0,)]
    assert len(tenant.read("visits", "id")) == 3


def test_equal_bad_rows_are_each_kept(warehouse: str | None, sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table visits (id integer, at integer)", "insert into visits values (1, 1)")
    tenant = Tenant(settings, sqlite.build_source(visits={"schema_contract": "discard"}), warehouse=warehouse)
    tenant.load()
    sqlite.run("insert into visits values ('x', 2), ('x', 2)")
    for _ in range(2):
        assert tenant.load()["visits"].rows_rejected == 2
        assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(2,)]
