"""Rows of another shape, rows that no column can hold, files in every dialect: each value is in the table or in rejected_rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.support.shop import SourceDatabase, Tenant

Start = Callable[[Case], Process]
Rows = list[dict[str, Any]]
CONTRACTS = ("evolve", "freeze", "discard")


# --- 16: the source's shape changes

PLAIN: Rows = [{"id": 1, "owner": "acme", "amount": 10}, {"id": 2, "owner": "acme", "amount": 20}]
CHANGED: dict[str, dict[str, Any]] = {
    "added": {"id": 3, "owner": "acme", "amount": 30, "extra": "new"},
    "dropped": {"id": 3, "owner": "acme"},
    "renamed": {"id": 3, "owner": "acme", "total": 30},
    "retyped": {"id": 3, "owner": "acme", "amount": "thirty"},
}
# What the row of id 3 becomes: the columns it is in, a rejected row, or an error.
OUTCOMES: dict[tuple[str, str], dict[str, Any] | str] = {
    ("added", "evolve"): {"amount": 30, "extra": "new"},
    ("added", "freeze"): "error",
    ("added", "discard"): "unexpected_column",
    ("dropped", "evolve"): {"amount": None},
    ("dropped", "freeze"): {"amount": None},
    ("dropped", "discard"): {"amount": None},
    ("renamed", "evolve"): {"amount": None, "total": 30},
    ("renamed", "freeze"): "error",
    ("renamed", "discard"): "unexpected_column",
    ("retyped", "evolve"): {"amount": None, "amount__v_text": "thirty"},
    ("retyped", "freeze"): "error",
    ("retyped", "discard"): "type_mismatch",
}


class Shop:
    """An API with one endpoint, whose pages the test writes."""

    def __init__(self, server: HTTPServer) -> None:
        self.pages: list[Rows] = []
        self.url = server.url_for("/v1").rstrip("/")
        server.expect_request("/v1/orders").respond_with_handler(self._answer)

    def _answer(self, request: Any) -> Any:
        from werkzeug import Response

        page = int(request.args.get("page", "1"))
        rows = self.pages[page - 1] if page <= len(self.pages) else []
        return Response(json.dumps(rows), content_type="application/json")

    def build_source(self, contract: str) -> dict[str, Any]:
        paginator = {"type": "page_number"}
        stream = {"path": "/orders", "primary_key": "id", "schema_contract": contract, "paginator": paginator}
        return {"type": "rest_api", "base_url": self.url, "streams": {"orders": stream}, "allow_private_network": True}


@pytest.fixture
def shop(httpserver: HTTPServer) -> Shop:
    return Shop(httpserver)


@pytest.mark.parametrize("when", ["the_next_day", "between_two_pages"])
@pytest.mark.parametrize(("change", "contract"), OUTCOMES)
def test_a_source_whose_shape_changes(shop: Shop, settings: Settings, destination: str | None, change: str, contract: str, when: str) -> None:
    tenant = Tenant(settings, shop.build_source(contract), warehouse=destination)
    shop.pages = [PLAIN[:1]]
    tenant.load()
    shop.pages = [[CHANGED[change]]] if when == "the_next_day" else [PLAIN[1:], [CHANGED[change]]]
    outcome = OUTCOMES[change, contract]
    if outcome == "error":
        column = {"retyped": "amount", "added": "extra", "renamed": "total"}[change]
        with pytest.raises(DataError, match=column):
            tenant.load()
        assert tenant.read("orders", "id") == [(1,)], "a page before the wrong one was kept"
        return
    report = tenant.load()["orders"]
    ids = [(1,)] if when == "the_next_day" else [(1,), (2,)]
    if isinstance(outcome, str):
        assert tenant.read("orders", "id") == ids
        ((reason, raw),) = tenant.ask("select reason, raw from acme_fabric.rejected_rows")
        assert (reason, json.loads(raw)) == (outcome, CHANGED[change])
        assert report.rows_rejected == 1
    else:
        assert tenant.read("orders", "id") == [*ids, (3,)]
        assert tenant.ask(f"select {', '.join(outcome)} from acme_raw_shop.orders where id = 3") == [tuple(outcome.values())]
    assert report.record.rows_read == report.rows_loaded + report.rows_rejected


def test_an_event_tells_each_change_with_before_and_after(shop: Shop, settings: Settings, destination: str | None) -> None:
    tenant = Tenant(settings, shop.build_source("evolve"), warehouse=destination)
    shop.pages = [PLAIN]
    tenant.load()
    shop.pages = [[{**CHANGED["retyped"], "extra": 1}]]
    changes = {(change.column, change.change): (change.before, change.after) for change in tenant.load()["orders"].record.schema_changes}
    assert ("extra", "column_added") in changes
    before, after = changes["amount", "type_changed"]
    assert before and after and before != after


# --- 17: rows that no column can hold

# Line of a JSON Lines file -> where it must be afterwards: the table, or rejected_rows.
POISON = {
    "a bad date": ('{"id": 10, "day": "2024-02-30"}', "table"),
    # A number for DuckDB, but not for every reader: its column is text from then on, and keeps the word.
    "NaN": ('{"id": 11, "n": NaN}', "table"),
    "a number beyond doubles": ('{"id": 12, "n": 1e400}', "any"),
    "a number beyond 64 bits": ('{"id": 13, "n": 99999999999999999999999}', "table"),
    "a NUL character": ('{"id": 14, "t": "a\\u0000b"}', "any"),
    "half a surrogate pair": ('{"id": 15, "t": "\\ud800"}', "rejected"),
    "500 levels": (f'{{"id": 16, "t": {"[" * 500}{"]" * 500}}}', "any"),
    "a cell of 10 MB": (f'{{"id": 17, "t": "{"x" * 10_000_000}"}}', "table"),
    "half a line": ('{"id": 18, "t": "x', "rejected"),
    "no object": ("[19]", "rejected"),
    "a key twice": ('{"id": 20, "id": 21}', "rejected"),
    "no UTF-8": (b'{"id": 22, "t": "\xff"}', "rejected"),
}
GOOD = '{"id": %d, "day": "2024-02-29", "n": %d, "t": "ok"}'


def build_files(format_: str, **stream: Any) -> dict[str, Any]:
    return {"type": "files", "path": "exports", "streams": {"rows": {"glob": f"*.{format_}", "format": format_, **stream}}}


def write_poison(inbox: Path, *names: str) -> None:
    lines = [GOOD % (1, 1), *(POISON[name][0] for name in names), GOOD % (2, 2)]
    (inbox / "a.jsonl").write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))


@pytest.mark.parametrize("name", POISON)
def test_a_poisonous_row_harms_no_other(settings: Settings, inbox: Path, destination: str | None, name: str) -> None:
    write_poison(inbox, name)
    tenant = Tenant(settings, build_files("jsonl"), warehouse=destination)
    report = tenant.load()["rows"]
    loaded = tenant.read("rows", "_fabric_row")
    rejected = tenant.ask("select origin, row_number, reason, raw from acme_fabric.rejected_rows")
    assert {1, 3} <= {row for (row,) in loaded}, "good rows are gone"
    assert sorted([row for (row,) in loaded] + [row for _, row, _, _ in rejected]) == [1, 2, 3]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected) == (3, len(loaded), len(rejected))
    where = POISON[name][1]
    assert where == "any" or bool(rejected) == (where == "rejected")
    for origin, row, reason, raw in rejected:
        assert (origin, row) == ("a.jsonl", 2)
        assert reason == reason.lower() and " " not in reason
        assert 0 < len(raw) <= 8000


def test_an_engine_that_drops_what_does_not_fit_is_caught(settings: Settings, inbox: Path, start: Start) -> None:
    write_poison(inbox, "half a line")
    tenant = Tenant(settings, build_files("jsonl"))
    paths = {name: str(getattr(settings, name)) for name in ("tenants_dir", "dbt_project_dir", "data_dir")}
    load = {"tenant": tenant.config.model_dump(mode="json"), "source": "shop", "streams": ()}
    process = start(Case(settings=paths, loads=(load,), broken="drop_rejects"))
    assert process.wait() == 0, process.log
    assert tenant.read("rows", "_fabric_row") == [(1,), (3,)]
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(0,)]


def test_the_same_bad_row_met_again_stays_one(settings: Settings, inbox: Path, destination: str | None) -> None:
    write_poison(inbox, "half a line")
    tenant = Tenant(settings, build_files("jsonl"), warehouse=destination)
    tenant.load()
    (inbox / "a.jsonl").write_text((inbox / "a.jsonl").read_text() + (GOOD % (3, 3)) + "\n")
    tenant.load()
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(1,)]
    assert tenant.read("rows", "id") == [(1,), (2,), (3,)]


def test_too_many_bad_rows_fail_the_load_and_are_kept(settings: Settings, inbox: Path, destination: str | None) -> None:
    (inbox / "a.jsonl").write_text(f"{GOOD % (1, 1)}\n[]\n[]\n")
    tenant = Tenant(settings, build_files("jsonl", rejects={"max": 1}), warehouse=destination)
    with pytest.raises(DataError, match="2 of 3 rows"):
        tenant.load()
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(2,)]
    assert tenant.ask("select count(*) from information_schema.tables where table_name = 'rows' and table_schema = 'acme_raw_shop'") == [(0,)]


# --- 18: CSV in every dialect

TWO = [(1, "a", "x"), (2, "b", "y")]
DIALECTS: dict[str, tuple[bytes, list[tuple[Any, ...]], list[str]]] = {
    "BOM": (b"\xef\xbb\xbfid,name,note\n1,a,x\n2,b,y\n", TWO, []),
    "CRLF": (b"id,name,note\r\n1,a,x\r\n2,b,y\r\n", TWO, []),
    "semicolons": (b"id;name;note\n1;a;x\n2;b;y\n", TWO, []),
    "tabs": (b"id\tname\tnote\n1\ta\tx\n2\tb\ty\n", TWO, []),
    "no last line end": (b"id,name,note\n1,a,x\n2,b,y", TWO, []),
    "line ends in quotes": (b'id,name,note\n1,"a\nA",x\n2,"b\r\nB",y\n', [(1, "a\nA", "x"), (2, "b\r\nB", "y")], []),
    "delimiters and quotes in quotes": (b'id,name,note\n1,"a,""A""",x\n2,b,y\n', [(1, 'a,"A"', "x"), (2, "b", "y")], []),
    "a short row": (b"id,name,note\n1,a,x\n9,c\n2,b,y\n", TWO, ["ragged_row"]),
    "a long row": (b"id,name,note\n1,a,x\n9,c,d,e\n2,b,y\n", TWO, ["ragged_row"]),
    "a quote that is never closed": (b'id,name,note\n1,a,x\n2,b,y\n9,"c,d\n8,e,f\n', TWO, ["bad_csv", "bad_csv"]),
    "Latin-1": (b"id,name,note\n1,a,x\n9,M\xfcller,z\n2,b,y\n", TWO, ["bad_encoding"]),
    "only a header": (b"id,name,note\n", [], []),
    "nothing at all": (b"", [], []),
    "UTF-16": ("id,name,note\n1,a,x\n2,b,y\n".encode("utf-16"), TWO, []),
    "a header with a name twice": (b"id,name,note,name\n1,a,x,other\n2,b,y,\n", TWO, []),
    "a header with a column without a name": (b"id,,name,note\n1,other,a,x\n2,,b,y\n", TWO, []),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_dialect_of_csv_shifts_a_column(settings: Settings, inbox: Path, destination: str | None, dialect: str) -> None:
    text, expected, reasons = DIALECTS[dialect]
    (inbox / "a.csv").write_bytes(text)
    tenant = Tenant(settings, build_files("csv"), warehouse=destination)
    report = tenant.load()["rows"]
    assert (report.rows_loaded, report.rows_rejected) == (len(expected), len(reasons))
    if expected:
        assert tenant.read("rows", "id", "name", "note") == expected
    assert [reason for (reason,) in tenant.ask("select reason from acme_fabric.rejected_rows order by row_number")] == reasons


# --- 19: what a source that declares its columns no longer has


@pytest.fixture
def source(make_database: Callable[[], str], settings: Settings) -> SourceDatabase:
    return SourceDatabase(make_database(), settings)


def test_rows_that_the_lag_reads_again_keep_the_values_of_a_column_that_is_gone(source: SourceDatabase, settings: Settings, destination: str | None) -> None:
    source.run(
        "create table items (id integer, amount integer, at timestamptz)",
        "insert into items select i, i * 10, timestamptz '2024-05-01 10:00Z' + interval '1m' * i from generate_series(1, 64) i",
    )
    tenant = Tenant(settings, source.build_source(items={"primary_key": "id", "cursor": {"field": "at", "lag": "1d"}}), warehouse=destination)
    assert tenant.load()["items"].warnings == ()
    source.run("alter table items drop column amount", "insert into items values (65, '2024-05-01 12:00Z')")
    report = tenant.load()["items"]
    assert report.rows_loaded == 65
    assert tenant.read("items", "id", "amount") == [*((number, number * 10) for number in range(1, 65)), (65, None)]
    (warning,) = report.warnings
    assert "the column amount is gone from the source" in warning
    assert "freeze" not in warning
    assert f"tenant acme, source shop, stream items: warning: {warning}" in tenant.messages
    # It comes back: its values count again.
    source.run("alter table items add column amount integer", "update items set amount = 7 where id = 1")
    assert tenant.load()["items"].warnings == ()
    assert tenant.read("items", "amount", order="id")[:2] == [(7,), (None,)]


def test_a_column_beside_another_one_follows_it_into_a_row_that_is_read_again(source: SourceDatabase, settings: Settings, destination: str | None) -> None:
    """What lies beside is a part of the value: it goes with a new value, and stays where the column itself is gone."""
    source.run("create table items (id integer, total integer, at integer)", "insert into items values (1, 10, 1), (2, 20, 2)")
    tenant = Tenant(settings, source.build_source(items={"primary_key": "id", "cursor": {"field": "at", "lag": 100}}), warehouse=destination)
    tenant.load()
    source.run("alter table items alter total type text", "update items set total = 'many' where id = 2")
    (warning,) = tenant.load()["items"].warnings
    assert "1 value does not fit the type bigint of the column items.total" in warning
    assert tenant.read("items", "id", "total", "total__v_text") == [(1, 10, None), (2, None, "many")]
    source.run("update items set total = '30' where id = 2")
    assert tenant.load()["items"].warnings == ()
    assert tenant.read("items", "id", "total", "total__v_text") == [(1, 10, None), (2, 30, None)]
    source.run("update items set total = 'more' where id = 1")
    tenant.load()
    source.run("alter table items drop column total")
    tenant.load()
    assert tenant.read("items", "id", "total", "total__v_text") == [(1, None, "more"), (2, 30, None)]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_gone_column_warns_under_each_contract(source: SourceDatabase, settings: Settings, contract: str) -> None:
    source.run("create table items (id integer, a integer, b integer)", "insert into items values (1, 1, 1)")
    tenant = Tenant(settings, source.build_source(items={"primary_key": "id", "schema_contract": contract}))
    tenant.load()
    source.run("alter table items drop column a", "alter table items drop column b")
    (warning,) = tenant.load()["items"].warnings
    assert "the columns a and b are gone from the source: all rows that the source still has are NULL there" in warning
    assert ("the next minor version of ETL Fabric stops such a load" in warning) == (contract == "freeze")


def test_a_column_that_the_stream_leaves_out_is_not_gone(source: SourceDatabase, settings: Settings, destination: str | None) -> None:
    source.run("create table items (id integer, a integer, at integer)", "insert into items values (1, 1, 1)")
    stream: dict[str, Any] = {"primary_key": "id", "cursor": {"field": "at", "lag": 100}}
    Tenant(settings, source.build_source(items=stream), warehouse=destination).load()
    tenant = Tenant(settings, source.build_source(items={**stream, "columns": ["id", "at"]}), warehouse=destination)
    report = tenant.load()["items"]
    assert (report.warnings, report.record.schema_changes) == ((), ())
    assert tenant.read("items", "id", "a") == [(1, 1)]


@pytest.mark.parametrize("format_", ["csv", "parquet", "jsonl"])
def test_a_header_declares_columns_and_json_does_not(settings: Settings, inbox: Path, format_: str) -> None:
    tenant = Tenant(settings, build_files(format_))
    write_rows(inbox / f"a.{format_}", [{"id": 1, "price": 10}])
    tenant.load()
    write_rows(inbox / f"b.{format_}", [{"id": 2}])
    report = tenant.load()["rows"]
    assert [(change.column, change.change) for change in report.record.schema_changes] == [("price", "column_missing")]
    assert bool(report.warnings) == (format_ != "jsonl")


def write_rows(file: Path, rows: Rows) -> None:
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        file.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_values_kept_beside_their_column_are_counted(settings: Settings, inbox: Path, destination: str | None) -> None:
    tenant = Tenant(settings, build_files("csv"), warehouse=destination)
    write_rows(inbox / "a.csv", [{"id": 1, "price": 10}])
    tenant.load()
    write_rows(inbox / "b.csv", [{"id": number, "price": "unknown" if number < 1_235 else number} for number in range(2_000)])
    report = tenant.load()["rows"]
    (warning,) = report.warnings
    assert "1,235 values do not fit the type bigint of the column rows.price: kept in price__v_text, and NULL" in warning
    assert "__v_..." not in warning
    assert tenant.ask("select count(price), count(price__v_text) from acme_raw_shop.rows") == [(766, 1_235)]
    (change,) = report.record.schema_changes
    assert (change.change, change.values) == ("type_changed", 1_235)


def test_an_api_only_reports_a_field_that_no_row_has(shop: Shop, settings: Settings) -> None:
    tenant = Tenant(settings, shop.build_source("evolve"))
    shop.pages = [PLAIN]
    tenant.load()
    shop.pages = [[CHANGED["dropped"]]]
    report = tenant.load()["orders"]
    assert [(change.column, change.change) for change in report.record.schema_changes] == [("amount", "column_missing")]
    assert report.warnings == ()
