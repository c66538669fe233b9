"""Batches that name their table: each table is written like a stream's own, in one transaction with the stream's state."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.registry import open_source
from fabric_assets.errors import DataError, FabricError
from fabric_assets.loading import leased_load
from fabric_assets.loading.rejects.reader import open_rejects
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.rows.batches import Batch, ReadGroup, SourceReader, StreamFailed
from fabric_assets.settings import Settings
from tests.support.killed_loads import kill_at_commit
from tests.support.shop import SourceDatabase, Tenant

MERGE: dict[str, Any] = {"primary_key": "id", "cursor": {"field": "id"}}
APPEND: dict[str, Any] = {"write_disposition": "append", "cursor": {"field": "id"}}
REPLACE: dict[str, Any] = {"write_disposition": "replace"}
EVENTS = [(1, "Push", 10), (2, "Issue", 20), (3, "Push", 30), (4, None, 40)]


def split(batch: Batch, *, as_json: bool) -> Iterator[Batch]:
    """Give the rows of each kind as a batch of its own, whose table is the kind."""
    assert isinstance(batch.rows, pa.Table)
    kinds = batch.rows.column("kind").to_pylist()
    for kind in dict.fromkeys(kinds):
        rows = batch.rows.take([index for index, each in enumerate(kinds) if each == kind])
        yield replace(batch, rows=[_nest(row) for row in rows.to_pylist()] if as_json else rows, table=kind or "")
    if not kinds:
        yield batch


def _nest(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "kind": row["kind"], "items": [{"sku": number} for number in range(row["id"])]}


def open_splitting(context: SourceContext, *, as_json: bool = False) -> SourceReader:
    """Open a source of the project whose batches name their tables, as a connector's would that sends rows of several kinds."""
    reader = open_source(context)

    def build(group: ReadGroup) -> ReadGroup:
        def read(memories: Mapping[str, Any]) -> Iterator[Batch | StreamFailed]:
            for item in group.read(memories):
                yield from [item] if isinstance(item, StreamFailed) else split(item, as_json=as_json)

        return replace(group, read=read, streams=tuple(replace(plan, is_json=as_json) for plan in group.streams))

    return replace(reader, groups=tuple(map(build, reader.groups)))


@pytest.fixture
def make_tenant(settings: Settings, sqlite: SourceDatabase, warehouse: str | None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tenant]:
    """Make a tenant with the stream events, whose rows name the table of their kind."""

    def make(*, as_json: bool = False, **stream: Any) -> Tenant:
        monkeypatch.setattr(leased_load, "open_source", lambda context: open_splitting(context, as_json=as_json))
        sqlite.run("create table events (id integer, kind text, total integer)")
        sqlite.fill("events", EVENTS)
        return Tenant(settings, sqlite.build_source(events=stream), warehouse=warehouse)

    return make


def list_tables(tenant: Tenant) -> list[str]:
    found = tenant.ask("select table_name from information_schema.tables where table_schema = 'acme_raw_shop' order by 1")
    return [name for (name,) in found if not name.startswith("_dlt")]


@pytest.mark.parametrize(("stream", "boundary"), [(MERGE, 1), (APPEND, 0)])
def test_rows_go_to_the_tables_that_their_batches_name(
    make_tenant: Callable[..., Tenant], sqlite: SourceDatabase, stream: dict[str, Any], boundary: int
) -> None:
    tenant = make_tenant(**stream)
    report = tenant.load()["events"]
    assert (report.record.rows_read, report.record.rows_loaded, report.record.rows_total) == (4, 4, 1)
    sqlite.run("insert into events values (5, 'Push', 50), (6, 'Fork', 60)")
    assert tenant.load()["events"].record.rows_loaded == 2 + boundary, "the cursor is the stream's, whatever its tables are"
    assert tenant.load()["events"].record.rows_loaded == boundary
    assert list_tables(tenant) == ["events", "fork", "issue", "push"]
    assert tenant.read("push", "id", "total") == [(1, 10), (3, 30), (5, 50)]
    assert [tenant.read(table, "id") for table in ("events", "fork", "issue")] == [[(4,)], [(6,)], [(2,)]]


def test_a_merge_replaces_rows_in_the_table_that_is_named(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**MERGE, rename={"total": "amount"})
    tenant.load()
    sqlite.run("update events set total = 31 where id = 3", "insert into events values (9, 'Push', 90), (9, 'Push', 91)")
    tenant.source["streams"]["events"]["cursor"] = {"field": "id", "lag": 6}
    report = tenant.load()["events"]
    assert tenant.read("push", "id", "amount") == [(1, 10), (3, 31), (9, 91)]
    assert any("1 row" in warning and "id" in warning for warning in report.warnings), report.warnings


def test_nested_lists_of_a_named_table_have_its_name(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(as_json=True, **MERGE)
    tenant.load()
    sqlite.run("insert into events values (5, 'Push', 50)")
    tenant.load()
    assert list_tables(tenant) == ["events", "events__items", "issue", "issue__items", "push", "push__items"]
    joined = "select p.id, count(*) from acme_raw_shop.push as p join acme_raw_shop.push__items as i on i._dlt_root_id = p._dlt_id group by 1 order by 1"
    assert tenant.ask(joined) == [(1, 1), (3, 3), (5, 5)]


def test_a_replaced_stream_empties_named_tables_without_rows(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**REPLACE)
    tenant.load()
    sqlite.run("delete from events where kind = 'Push' or kind is null", "insert into events values (7, 'Fork', 70)")
    tenant.load()
    assert [tenant.read(table, "id") for table in ("events", "fork", "issue", "push")] == [[], [(7,)], [(2,)], []]


def test_a_full_refresh_loads_all_tables_anew(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**APPEND)
    tenant.load()
    sqlite.run("delete from events where id < 3", "alter table events add column note text", "insert into events values (8, 'Push', 80, 'new')")
    tenant.load(full_refresh=True)
    assert tenant.read("push", "id", "note") == [(3, None), (8, "new")]
    assert (tenant.read("issue", "id"), tenant.read("events", "id")) == ([], [(4,)])
    assert tenant.load()["events"].record.rows_loaded == 0


def test_names_of_a_named_tables_columns_are_kept(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    """Two fields with one spelling get two columns; the second load knows which is which."""
    tenant = make_tenant(**MERGE)
    sqlite.run('alter table events add column "a-b" text', 'alter table events add column "a b" text')
    sqlite.run("insert into events values (5, 'Push', 50, 'dash', 'space')")
    tenant.load()
    before = tenant.read("push", "id", "a_b", "a_b_2")
    assert {"dash", "space"} <= set(before[-1])
    sqlite.run("insert into events values (6, 'Push', 60, 'dash', 'space')")
    tenant.load()
    assert [row[1:] for row in tenant.read("push", "id", "a_b", "a_b_2")][2:] == [before[-1][1:]] * 2


def test_a_rejected_row_is_replayed_into_its_table(make_tenant: Callable[..., Tenant], settings: Settings, sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**MERGE, schema_contract={"columns": "discard"}, rejects={"max": 10})
    tenant.load()
    sqlite.run("alter table events add column note text", "insert into events values (5, 'Push', 50, 'new'), (6, 'Push', 60, null), (7, null, 70, 'own')")
    assert tenant.load()["events"].record.rows_rejected == 2
    with open_rejects(tenant.config, settings) as found:
        assert sorted(row.table_name or "" for portion in found.read() for row in portion) == ["", "push"]
    tenant.source["streams"]["events"]["schema_contract"] = "evolve"
    assert [(done.replayed, done.error) for done in replay(tenant.config, settings)] == [(2, "")]
    assert tenant.read("push", "id", "note") == [(1, None), (3, None), (5, "new"), (6, None)]
    assert tenant.read("events", "id", "note") == [(4, None), (7, "own")]
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(0,)]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("stores", "its rows name the table stores, which belongs to the stream stores"),
        ("a__b", "its rows name the table a__b, whose name is reserved"),
        ("_dlt_x", "its rows name the table _dlt_x, whose name is reserved"),
        ("Planted", "its rows name the table planted ('Planted' in the source), which exists, and which no load of the stream has made"),
    ],
)
def test_a_table_that_is_not_the_streams_is_refused(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase, kind: str, message: str) -> None:
    tenant = make_tenant(**MERGE)
    sqlite.run("create table stores (id integer, kind text)", "insert into stores values (1, null)")
    tenant.source["streams"]["stores"] = MERGE
    tenant.load()
    tenant.change("create table acme_raw_shop.planted (id bigint)")
    sqlite.fill("events", [(5, kind, 50), (6, "Push", 60)])
    with pytest.raises(DataError) as found:
        tenant.load("events")
    assert message in found.value.message
    assert (tenant.read("push", "id"), tenant.read("stores", "id")) == ([(1,), (3,)], [(1,)]), "nothing of the stream is loaded"
    sqlite.run("update events set kind = 'Issue' where id = 5")
    assert tenant.load("events")["events"].record.rows_loaded == 3, "both, and the row at the boundary"


def test_two_streams_cannot_name_one_table(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**MERGE)
    sqlite.run("create table others (id integer, kind text)", "insert into others values (1, 'Push')")
    tenant.source["streams"]["others"] = MERGE
    with pytest.raises(FabricError, match="which belongs to the stream (events|others)"):
        tenant.load()
    assert len(tenant.ask("select stream from acme_fabric.loads where status = 'success'")) == 1


def test_a_stream_cannot_take_a_table_that_another_one_has_named(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**MERGE)
    tenant.load()
    sqlite.run("create table push (id integer, kind text)", "insert into push values (100, null)", "insert into events values (5, 'Issue', 50)")
    tenant.source["streams"]["push"] = MERGE
    with pytest.raises(DataError, match="its table push belongs to the stream events, whose rows name it"):
        tenant.load("push")
    assert tenant.read("push", "id") == [(1,), (3,)]
    tenant.load("events")
    assert tenant.read("issue", "id") == [(2,), (5,)], "the stream goes on while no row names that table"


def test_a_named_table_that_is_gone_stops_the_stream(make_tenant: Callable[..., Tenant]) -> None:
    """Its rows are before the cursor, so that no load would read them again."""
    tenant = make_tenant(**MERGE)
    tenant.load()
    tenant.change("drop table acme_raw_shop.push")
    with pytest.raises(DataError, match="push is missing, which earlier loads have written") as found:
        tenant.load()
    assert "--full-refresh" in found.value.remedy
    tenant.load(full_refresh=True)
    assert tenant.read("push", "id") == [(1,), (3,)]


def test_a_stream_whose_tables_are_all_gone_is_loaded_anew(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase) -> None:
    tenant = make_tenant(**APPEND)
    sqlite.run("delete from events where kind is null")
    tenant.load()
    assert list_tables(tenant) == ["issue", "push"]
    sqlite.run("insert into events values (5, 'Push', 50)")
    assert tenant.load()["events"].record.rows_loaded == 1, "tables that are named keep the stream's state"
    tenant.change("drop table acme_raw_shop.push")
    tenant.change("drop table acme_raw_shop.issue")
    assert tenant.load()["events"].record.rows_loaded == 4
    assert (tenant.read("push", "id"), tenant.read("issue", "id")) == ([(1,), (3,), (5,)], [(2,)])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_the_commit_leaves_all_tables_or_none(make_tenant: Callable[..., Tenant], sqlite: SourceDatabase, moment: str) -> None:
    tenant = make_tenant(**APPEND)
    tenant.load()
    sqlite.run("insert into events values (5, 'Push', 50), (6, 'Issue', 60), (7, 'Fork', 70)")
    kill_at_commit(tenant, moment, split_batches)
    committed = moment == "after"
    assert ("fork" in list_tables(tenant), tenant.read("push", "id")[2:], tenant.read("issue", "id")[1:]) == (
        (True, [(5,)], [(6,)]) if committed else (False, [], [])
    )
    assert tenant.load()["events"].record.rows_loaded == (0 if committed else 3)
    assert [tenant.read(table, "id") for table in ("push", "issue", "fork")] == [[(1,), (3,), (5,)], [(2,), (6,)], [(7,)]]


def split_batches() -> None:
    """Let the loads of this process open sources as the tests do."""
    leased_load.open_source = open_splitting  # type: ignore[assignment]
