"""dlt reads what loads have written: attached pipelines and datasets, after changes of the layout, and after others have run dlt on it."""

import json
import warnings
from pathlib import Path
from typing import Any

import dlt
import pytest
from pytest_httpserver import HTTPServer

from fabric_assets.errors import FabricError
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.rows.reports import StreamReport
from fabric_assets.settings import Settings
from tests.connectors.rest_api.rest import Api
from tests.support.dlt_reader import attach, check_recorded, compare, get_destination
from tests.support.shop import SourceDatabase, Tenant

RAW = "acme_raw_shop"
ORDERS = [{"id": 1, "total": "1.50", "Straße": "a", "город": "b", "lines": [{"sku": "x", "notes": ["n", "m"]}, {"sku": "y"}]}, {"id": 2, "a__b": 1}]


def read(relation: Any) -> dict[str, list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # dlt calls a function of DuckDB's that is to go
        return relation.arrow().to_pydict()


@pytest.fixture
def url(warehouse: str | None) -> str | None:
    return warehouse


@pytest.fixture
def destination(settings: Settings, url: str | None) -> Any:
    return get_destination(settings.data_dir, "acme", url)


class Feed:
    """A tenant whose streams orders and notes are read from an HTTP API, with nested rows."""

    def __init__(self, server: HTTPServer, settings: Settings, url: str | None) -> None:
        self.orders: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = [{"text": "a"}]
        api = Api(server)
        api.serve("/v1/orders", lambda _: self.orders)
        api.serve("/v1/notes", lambda _: self.notes)
        streams = {"orders": {"path": "orders", "primary_key": "id", "rejects": {"max": 10}}, "notes": {"path": "notes"}}
        self.tenant = Tenant(settings, {"type": "rest_api", "base_url": api.url, "allow_private_network": True, "streams": streams}, warehouse=url)

    def load(self, *streams: str, orders: list[dict[str, Any]] | None = None, full_refresh: bool = False) -> dict[str, StreamReport]:
        self.orders = self.orders if orders is None else orders
        return self.tenant.load(*streams, full_refresh=full_refresh)


@pytest.fixture
def feed(httpserver: HTTPServer, settings: Settings, url: str | None) -> Feed:
    return Feed(httpserver, settings, url)


def read_rows(tenant: Tenant) -> list[list[tuple[Any, ...]]]:
    """The rows of both tables, without dlt's compressed state."""
    return [
        tenant.ask(f"select version, version_hash, schema_name, inserted_at from {RAW}._dlt_version order by inserted_at"),
        tenant.ask(f"select version, version_hash, pipeline_name, _dlt_load_id, _dlt_id from {RAW}._dlt_pipeline_state order by version"),
    ]


def test_dlt_reads_each_table_and_column_and_a_load_without_changes_writes_nothing(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load(orders=ORDERS)
    tenant, pipeline = feed.tenant, attach(destination, tmp_path / "one")
    assert compare(pipeline, tenant.ask) == {"notes": 1, "orders": 2, "orders__lines": 2, "orders__lines__notes": 2}
    columns = pipeline.default_schema.get_table_columns("orders")
    assert {"strasse", "gorod", "a__b"} <= columns.keys()
    assert [name for name, column in columns.items() if column.get("primary_key")] == ["id"]
    assert pipeline.default_schema.get_table("orders").get("write_disposition") == "merge"
    assert pipeline.default_schema.get_table("orders__lines__notes").get("parent") == "orders__lines"
    assert sorted(read(pipeline.dataset()["orders"].select("gorod"))["gorod"], key=str) == [None, "b"]
    by_name = dlt.dataset(destination, RAW)
    assert (by_name.schema.name, len(read(by_name["orders"])["id"])) == ("shop", 2)
    before = read_rows(tenant)
    feed.load(orders=[*ORDERS, {"id": 3, "total": "2.00", "lines": [{"sku": "z"}]}])
    # It deletes what the first load has superseded.
    assert [rows[-1] for rows in read_rows(tenant)] == [rows[-1] for rows in before]
    left = read_rows(tenant)
    feed.load()
    assert read_rows(tenant) == left
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask)["orders"] == 3


def test_an_attached_pipeline_gets_new_columns_and_tables_by_a_sync(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load(orders=ORDERS[1:])
    tenant, pipeline = feed.tenant, attach(destination, tmp_path / "one")
    feed.load(orders=ORDERS)
    assert "gorod" not in pipeline.default_schema.get_table_columns("orders")
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask).keys() == {"notes", "orders", "orders__lines", "orders__lines__notes"}
    feed.load(orders=[{"id": 1, "total": 2}], full_refresh=True)
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask) == {"notes": 1, "orders": 1}
    for number in range(4):
        feed.load(orders=[{"id": 1, f"new_{number}": 2}])
    versions, states = read_rows(tenant)
    # A commit adds rows; the next load leaves two versions and one state of earlier loads.
    assert (len(versions), len(states)) == (3, 2)
    assert [row[0] for row in versions] == sorted({row[0] for row in versions})
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask) == {"notes": 1, "orders": 1}


def test_the_next_load_of_a_dataset_of_an_older_version_writes_both_tables_once(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load(orders=ORDERS)
    for table in ("_dlt_version", "_dlt_pipeline_state"):
        feed.tenant.change(f"drop table {RAW}.{table}")
    assert feed.load("orders")["orders"].warnings == ()
    written = read_rows(feed.tenant)
    assert [len(rows) for rows in written] == [1, 1]
    feed.load("orders")
    assert read_rows(feed.tenant) == written
    assert compare(attach(destination, tmp_path / "one"), feed.tenant.ask)["orders"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        "update {raw}._dlt_version set schema = '{{'",
        "update {raw}._dlt_version set schema = null, version = null",
        "update {raw}._dlt_pipeline_state set state = 'no state'",
        "delete from {raw}._dlt_pipeline_state",
        "delete from {raw}._dlt_version",
        "insert into {raw}._dlt_version (schema_name) values ('shop')",
        "insert into {raw}._dlt_pipeline_state (pipeline_name) values ('acme__shop')",
    ],
)
def test_rows_that_somebody_has_damaged_are_written_anew(feed: Feed, destination: Any, tmp_path: Path, damage: str) -> None:
    feed.load(orders=ORDERS)
    feed.tenant.change(damage.format(raw=RAW))
    feed.load()
    assert compare(attach(destination, tmp_path / "one"), feed.tenant.ask)["orders"] == 2
    check_recorded(feed.tenant.ask)
    feed.load()
    left = read_rows(feed.tenant)
    feed.load()
    assert read_rows(feed.tenant) == left


def test_a_users_run_moves_neither_state_nor_names_and_the_next_load_reports_and_heals(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load(orders=ORDERS)
    tenant, states = feed.tenant, "select stream, version, state, column_names from acme_fabric.stream_state order by 1"
    ours, former = read_rows(tenant), tenant.ask(states)
    pipeline = attach(destination, tmp_path / "one")
    pipeline.run([{"id": 9, "New Column": 1, "gorod": "c"}], table_name="orders", write_disposition="append")
    pipeline.run([{"n": 1}], table_name="theirs")
    assert tenant.ask(states) == former
    reports = feed.load(orders=[*ORDERS, {"id": 3, "город": "d"}])
    found = [warning for report in reports.values() for warning in report.warnings if "dlt" in warning]
    assert len(found) in (1, 2), reports
    assert all(f"somebody has run a dlt pipeline that writes into {RAW}" in warning for warning in found)
    assert all(part in str(found) for part in ("the new column orders.new_column", "1 row of orders", "the new table theirs"))
    assert any("somebody has run a dlt pipeline" in message for message in tenant.messages)
    assert sorted(tenant.read("orders", "id", "gorod"), key=str) == [(1, "b"), (2, None), (3, "d"), (9, "c")]
    versions, states_after = read_rows(tenant)
    assert versions[0] in ours[0]
    assert {row[4].split(":")[0] for row in states_after} == {"fabric"}
    assert compare(attach(destination, tmp_path / "two"), tenant.ask).keys() >= {"orders", "theirs"}
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask)["orders"] == 4
    assert [warning for report in feed.load().values() for warning in report.warnings if "dlt" in warning] == []
    pipeline.drop()
    pipeline.sync_destination()
    assert compare(pipeline, tenant.ask)["orders"] == 4


def test_a_run_of_another_pipeline_is_reported(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load(orders=ORDERS)
    theirs = dlt.pipeline("mine", destination=destination, dataset_name=RAW, pipelines_dir=str(tmp_path / "mine"))
    theirs.run([{"n": 1}], table_name="theirs")
    found = [warning for report in feed.load().values() for warning in report.warnings if "dlt" in warning]
    assert len(found) == 1 and "the new table theirs" in found[0], found
    assert compare(attach(destination, tmp_path / "one"), feed.tenant.ask)["orders"] == 2
    assert [warning for report in feed.load().values() for warning in report.warnings] == []


def test_a_load_that_fails_leaves_no_version_of_its_tables(feed: Feed, destination: Any, tmp_path: Path) -> None:
    feed.load("notes")
    before = read_rows(feed.tenant)
    with pytest.raises(FabricError, match=r"rejects\.max"):
        feed.load("orders", orders=[*ORDERS, *[{"total": f"{number} has no key"} for number in range(50)]])
    assert read_rows(feed.tenant) == before
    assert compare(attach(destination, tmp_path / "one"), feed.tenant.ask) == {"notes": 1}


def test_streams_that_are_committed_side_by_side_are_all_described(settings: Settings, sqlite: SourceDatabase, url: str | None) -> None:
    streams = [f"t{number}" for number in range(6)]
    for stream in streams:
        sqlite.run(f"create table {stream} (id integer primary key, {stream}_note text)")
        sqlite.fill(stream, [(number, "x" * 80) for number in range(15_000)])
    tenant = Tenant(settings, sqlite.build_source(**{stream: {"primary_key": "id"} for stream in streams}), warehouse=url)
    tenant.load()
    check_recorded(tenant.ask)
    assert tenant.ask(f"select max(version), count(*) from {RAW}._dlt_version") == [(6, 6)], "each stream has a transaction of its own"
    tenant.load()
    check_recorded(tenant.ask)
    assert tenant.ask(f"select max(version), count(*) from {RAW}._dlt_version") == [(6, 2)]


def test_names_and_a_renamed_column_are_those_of_the_table(
    settings: Settings, sqlite: SourceDatabase, url: str | None, destination: Any, tmp_path: Path
) -> None:
    sqlite.run('create table orders (id integer primary key, note text, "Größe in %" numeric(10, 2))')
    sqlite.fill("orders", [(1, "a", 1.5)])
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=url)
    tenant.load()
    tenant.source = sqlite.build_source(orders={"primary_key": "id", "rename": {"note": "remark"}})
    tenant.load()
    pipeline = attach(destination, tmp_path / "one")
    assert compare(pipeline, tenant.ask) == {"orders": 1}
    assert "remark" in pipeline.default_schema.get_table_columns("orders")
    assert list(replay(tenant.config, settings)) == []


def test_the_state_holds_no_state_of_streams_and_no_secret(
    settings: Settings, sqlite: SourceDatabase, url: str | None, destination: Any, tmp_path: Path
) -> None:
    sqlite.run("create table orders (id integer primary key, at text)")
    sqlite.fill("orders", [(1, "2024-01-01")])
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id", "cursor": {"field": "at"}}), warehouse=url)
    tenant.load()
    state = attach(destination, tmp_path / "one").state
    assert state.keys() - {"_local", "_version_hash", "_state_version", "_state_engine_version"} == {
        "default_schema_name",
        "schema_names",
        "dataset_name",
        "pipeline_name",
        "destination_type",
        "destination_name",
        "etl_fabric",
    }
    shown = json.dumps({name: value for name, value in state.items() if name != "_local"})
    assert "2024" not in shown and (url is None or url not in shown) and sqlite.url not in shown
