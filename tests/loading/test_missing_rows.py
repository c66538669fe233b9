"""Rows that somebody deletes in the warehouse are missed by the next load, which says so; what loads themselves take away is not."""

from typing import Any

import pytest

from fabric_assets.factories.ingestion import describe_load
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

MERGE = {"primary_key": "id", "cursor": {"field": "id"}}
APPEND = {"cursor": {"field": "id"}, "write_disposition": "append"}
REPLACE = {"write_disposition": "replace"}
READS_ALL = {"primary_key": "id"}


@pytest.mark.parametrize(("stream", "again"), [(MERGE, False), (APPEND, False), (REPLACE, True), (READS_ALL, True)], ids=["merge", "append", "replace", "all"])
@pytest.mark.parametrize("deleted", [3, 10])
def test_the_next_load_reports_rows_that_were_deleted_by_hand(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, stream: dict[str, Any], again: bool, deleted: int
) -> None:
    sqlite.run("create table items (id integer, v text)")
    sqlite.fill("items", [(number, "x") for number in range(1, 11)])
    tenant = Tenant(settings, sqlite.build_source(items=stream), warehouse=warehouse)
    assert [tenant.load()["items"].warnings for _ in range(2)] == [(), ()]
    tenant.change(f"delete from acme_raw_shop.items where id <= {deleted}")
    sqlite.fill("items", [(11, "y")])

    report = tenant.load()["items"]
    assert report.rows_missing == deleted
    (warning,) = report.warnings
    assert f"the table held {10 - deleted} rows before this load, and the last load had left 10: {deleted} were deleted at the destination" in warning
    assert ("--full-refresh" in warning) is not again
    metadata = describe_load(tenant.config, "shop", report)
    assert (metadata["rows_missing"], metadata["warnings"]) == (deleted, warning)
    # Said once: the next load begins with what this one has left.
    assert tenant.load()["items"].warnings == ()
    assert tenant.load(full_refresh=True)["items"].warnings == ()


@pytest.mark.parametrize("stream", [MERGE | {"cursor": {"field": "v"}}, READS_ALL, REPLACE])
def test_rows_that_loads_replace_are_not_missed(sqlite: SourceDatabase, warehouse: str | None, settings: Settings, stream: dict[str, Any]) -> None:
    sqlite.run("create table items (id integer, v integer)")
    sqlite.fill("items", [(number, number) for number in range(1, 11)])
    tenant = Tenant(settings, sqlite.build_source(items=stream), warehouse=warehouse)
    tenant.load()
    sqlite.run("update items set v = v + 100 where id > 4", "delete from items where id = 1")
    report = tenant.load()["items"]
    assert (report.rows_missing, report.warnings) == (0, ())
    assert tenant.load()["items"].warnings == ()


def test_files_that_replace_their_own_rows_report_no_missing_rows(warehouse: str | None, settings: Settings) -> None:
    folder = settings.data_dir / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id\n1\n2\n3\n")
    (folder / "b.csv").write_text("id\n4\n")
    tenant = Tenant(settings, {"type": "files", "path": "in", "streams": {"items": {"glob": "*.csv", "format": "csv"}}}, warehouse=warehouse)
    tenant.load()
    (folder / "a.csv").write_text("id\n1\n")
    assert tenant.load()["items"].warnings == ()
    tenant.change("delete from acme_raw_shop.items where id = 4")
    (folder / "a.csv").write_text("id\n1\n2\n")
    report = tenant.load()["items"]
    assert (report.rows_missing, report.rows_total) == (1, 2)


def test_a_table_of_an_earlier_release_misses_nothing_in_its_first_load(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table items (id integer)")
    sqlite.fill("items", [(1,), (2,)])
    tenant = Tenant(settings, sqlite.build_source(items=MERGE), warehouse=warehouse)
    tenant.load()
    tenant.change("alter table acme_fabric.stream_state drop column rows_total")
    tenant.change("delete from acme_raw_shop.items where id = 1")
    assert tenant.load()["items"].warnings == ()
    tenant.change("delete from acme_raw_shop.items")
    assert tenant.load()["items"].rows_missing == 1
