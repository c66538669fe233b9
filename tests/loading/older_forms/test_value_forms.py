"""Each stream keeps the version of its value forms: old tables the first one, new tables and full refreshes the present one."""

import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.loading.older_forms.migration import migrate
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.rows.value_forms import CURRENT, FIRST
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

MERGE = {"primary_key": "id"}


def forget_versions(tenant: Tenant) -> None:
    """Bring the platform's tables to the shape in which the release before versions left them."""
    for table in ("stream_state", "loads"):
        tenant.change(f"alter table acme_fabric.{table} drop column value_forms")
        tenant.change(f"alter table acme_fabric.{table} drop column column_names")


def get_version(tenant: Tenant, stream: str = "orders") -> tuple[int, int]:
    """What the state says, and what the last load says."""
    (state,) = tenant.ask(f"select value_forms from acme_fabric.stream_state where stream = '{stream}'")
    (load,) = tenant.ask(f"select value_forms from acme_fabric.loads where stream = '{stream}' order by loaded_at desc limit 1")
    return state[0], load[0]


@pytest.fixture
def tenant(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> Tenant:
    sqlite.run("create table orders (id integer primary key)", "insert into orders values (1)")
    return Tenant(settings, sqlite.build_source(orders=MERGE), warehouse=warehouse)


def test_a_new_table_has_the_present_forms(tenant: Tenant) -> None:
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)


def test_a_table_of_an_earlier_release_keeps_its_forms_until_a_full_refresh(tenant: Tenant) -> None:
    tenant.load()
    forget_versions(tenant)
    for _ in range(2):
        tenant.load()
        assert get_version(tenant) == (FIRST, FIRST)
    tenant.load(full_refresh=True)
    assert get_version(tenant) == (CURRENT, CURRENT)


def test_a_table_that_was_dropped_by_hand_is_made_with_the_present_forms(tenant: Tenant) -> None:
    tenant.load()
    forget_versions(tenant)
    tenant.load()
    tenant.change("drop table acme_raw_shop.orders")
    tenant.load()
    assert get_version(tenant) == (CURRENT, CURRENT)


@pytest.mark.parametrize("version", [FIRST, CURRENT])
def test_a_state_that_is_lost_takes_no_version_with_it(tenant: Tenant, version: int) -> None:
    tenant.load()
    if version == FIRST:
        forget_versions(tenant)
        tenant.load()
    tenant.change("delete from acme_fabric.stream_state")
    tenant.load()
    assert get_version(tenant) == (version, version)


def test_a_full_refresh_that_meets_no_rows_keeps_the_columns_and_their_forms(warehouse: str | None, settings: Settings, inbox: Path) -> None:
    write_lines(inbox / "a.jsonl", {"id": 1})
    source = {"type": "files", "path": "exports", "streams": {"orders": {"glob": "*.jsonl", "format": "jsonl", "primary_key": "id"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    write_lines(inbox / "a.jsonl")
    tenant.load(full_refresh=True)
    assert tenant.ask("select count(*) from acme_raw_shop.orders") == [(0,)]
    assert get_version(tenant) == (FIRST, FIRST)


def write_lines(path: Path, *rows: dict[str, int]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_names_what_keeps_an_earlier_form_and_the_migration_rewrites_it(warehouse: str | None, settings: Settings, inbox: Path) -> None:
    """The table is made as the earlier release made it: UUIDs as bytes, and x for a name in another script."""
    key = uuid.UUID("6f8a2f0e-0000-4000-8000-000000000002")
    table = pa.table({"id": [1], "город": ["Oslo"], "key": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes], pa.binary(16)))})
    pq.write_table(table.select(["id"]), inbox / "1.parquet")
    source = {"type": "files", "path": "exports", "streams": {"orders": {"glob": "*.parquet", "format": "parquet", "primary_key": "id"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    for column, kind in (("x", "text"), ("key", "bytea" if warehouse else "blob")):
        tenant.change(f"alter table acme_raw_shop.orders add column {column} {kind}")
    (unknown,) = migrate(tenant.config, settings)
    assert (unknown.status, "a row with id, x, key," in unknown.message) == ("unknown", True)

    pq.write_table(table, inbox / "2.parquet")
    report = tenant.load()["orders"]
    expected = "keeps forms of an earlier release: the name of x (город), UUIDs as bytes in key; rewrite them with `fabric migrate-values acme`"
    assert [warning.partition(", or load")[0] for warning in report.warnings] == [expected]
    stored = tenant.ask("select x, key from acme_raw_shop.orders")
    assert [(name, bytes(value)) for name, value in stored] == [("Oslo", key.bytes)]

    (planned,) = migrate(tenant.config, settings, dry_run=True)
    (done,) = migrate(tenant.config, settings)
    assert (planned.status, done.status, done.message) == ("planned", "migrated", "")
    assert (done.renamed, done.rewritten) == ({"orders.x": "gorod"}, ("key",))
    assert tenant.ask("select gorod, key from acme_raw_shop.orders") == [("Oslo", str(key))]
    assert get_version(tenant) == (CURRENT, CURRENT)
    assert [found.status for found in migrate(tenant.config, settings)] == ["current"]


def test_values_that_cannot_be_derived_change_nothing_and_the_message_names_the_remedy(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, inbox: Path
) -> None:
    (inbox / "1.csv").write_text("code,город\n10.1,Oslo\n")
    source = {"type": "files", "path": "exports", "streams": {"orders": {"glob": "*.csv", "format": "csv", "primary_key": "code"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    tenant.change("alter table acme_raw_shop.orders rename column gorod to x")
    tenant.change("alter table acme_raw_shop.orders alter column code type double precision using cast(code as double precision)")
    (inbox / "2.csv").write_text("code,город\n20.5,Bergen\n")
    assert "codes as numbers in code" in tenant.load()["orders"].warnings[0]
    (found,) = migrate(tenant.config, settings)
    assert (found.status, "raw/shop/orders --full-refresh" in found.message) == ("reload", True)
    assert tenant.read("orders", "code", "x") == [(10.1, "Oslo"), (20.5, "Bergen")]
    assert get_version(tenant) == (FIRST, FIRST)


@pytest.mark.parametrize("columns", [0, 150])
def test_a_key_stored_as_a_number_takes_one_spelling_of_it(warehouse: str | None, settings: Settings, columns: int, inbox: Path) -> None:
    """The other spellings may be other codes: they are rejected by name, in a replay too, until a full refresh makes texts of all."""
    more = "".join(f",c{number}" for number in range(columns))
    (inbox / "1.csv").write_text(f"code,name{more}\n10.1,a{',' * columns}\n7,b{',' * columns}\n")
    stream = {"glob": "*.csv", "format": "csv", "primary_key": "code", "rejects": {"max": "100%"}}
    tenant = Tenant(settings, {"type": "files", "path": "exports", "streams": {"orders": stream}}, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    # The earlier release has chosen this type.
    tenant.change("alter table acme_raw_shop.orders alter column code type double precision using cast(code as double precision)")
    codes = ["10.10", "10.1", "1e5", "100000", "007", "-0", "0", "5.0", "-2.5", "100000.5"]
    (inbox / "2.csv").write_text(f"code,name{more}\n" + "".join(f"{code},{code}{',' * columns}\n" for code in codes))
    report = tenant.load()["orders"]
    loaded = [(-2.5, "-2.5"), (0.0, "0"), (7.0, "b"), (10.1, "10.1"), (100000.0, "100000"), (100000.5, "100000.5")]
    assert tenant.read("orders", "code", "name") == loaded
    rejects = tenant.ask("select raw, reason, message from acme_fabric.rejected_rows")
    assert sorted(json.loads(raw)["code"] for raw, _, _ in rejects) == ["-0", "007", "10.10", "1e5", "5.0"]
    assert {reason for _, reason, _ in rejects} == {"other_spelling"}
    assert "--full-refresh" in rejects[0][2]
    assert (report.record.rows_loaded, report.record.rows_rejected) == (5, 5)

    (done,) = replay(tenant.config, settings)
    assert (done.replayed, done.rejected) == (0, 5)
    assert tenant.read("orders", "code", "name") == loaded
    tenant.load(full_refresh=True)
    assert {code for (code,) in tenant.read("orders", "code")} == {*codes, "7"}
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(0,)]


def test_a_load_without_rows_is_no_reason_to_migrate(warehouse: str | None, settings: Settings, inbox: Path) -> None:
    """It knows the key alone: the forms of an earlier release would meet today's in the next load, and rows would be doubled."""
    keys = [uuid.UUID(int=number) for number in (1, 2)]
    table = pa.table({"id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes for key in keys], pa.binary(16))), "n": [1, 2]})
    pq.write_table(table, inbox / "1.parquet")
    source = {"type": "files", "path": "exports", "streams": {"orders": {"glob": "*.parquet", "format": "parquet", "primary_key": "id"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    tenant.load()
    forget_versions(tenant)
    # The earlier release has written a binary key as the text of its hexadecimal digits.
    tenant.change("update acme_raw_shop.orders set id = replace(id, '-', '')")
    tenant.load()
    assert [found.status for found in migrate(tenant.config, settings)] == ["unknown"]

    pq.write_table(table.slice(1), inbox / "2.parquet")
    tenant.load()
    assert tenant.read("orders", "id", order="id") == [(key.hex,) for key in keys]
    assert [(found.status, found.rewritten) for found in migrate(tenant.config, settings)] == [("migrated", ("id",))]
    pq.write_table(table.slice(0, 1), inbox / "3.parquet")
    tenant.load()
    assert tenant.read("orders", "id", order="id") == [(str(key),) for key in keys]
