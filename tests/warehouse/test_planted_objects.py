"""A tenant's file in which its models have planted macros, views and types: each command of ours that opens it does what it does elsewhere."""

import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.config.checks import AcceptedValuesCheck, RowCountCheck, UniqueCheck
from fabric_assets.drivers.destinations import get_destination
from fabric_assets.loading.checks import run_checks
from fabric_assets.loading.finished import find_finished
from fabric_assets.loading.rejects.reader import RejectedRow, open_rejects
from fabric_assets.offboarding.duckdb_file import DuckDbFile
from fabric_assets.rows.reports import LoadRequest, StreamReport
from fabric_assets.settings import Settings
from tests.support.duckdb_traps import plant_traps
from tests.support.shop import SourceDatabase, Tenant


@pytest.fixture
def tenant(sqlite: SourceDatabase, settings: Settings) -> Tenant:
    """A tenant with three orders and one rejected row, loaded before the traps were set."""
    sqlite.run("create table orders (id integer primary key, state text, total integer, at timestamp)")
    sqlite.run("insert into orders values (1, 'new', 1, '2026-01-01'), (2, 'paid', 2, '2026-01-02'), (3, 'paid', 3, '2026-01-03')")
    orders = {"primary_key": "id", "cursor": {"field": "at"}, "schema_contract": {"data_type": "discard"}}
    tenant = Tenant(settings, sqlite.build_source(orders=orders))
    assert tenant.load()["orders"].rows_loaded == 3
    sqlite.run("insert into orders values (9, 'bad', 'a dozen', '2026-01-04')")
    assert tenant.load()["orders"].record.rows_rejected == 1
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme"))) as connection:
        plant_traps(connection)
    return tenant


def test_loads_write_and_count_what_the_source_has(tenant: Tenant, sqlite: SourceDatabase) -> None:
    sqlite.run("update orders set state = 'sent', at = '2026-02-01' where id = 3", "insert into orders values (4, 'new', 4, '2026-02-02')")
    report = tenant.load()["orders"]
    assert (report.rows_loaded, report.rows_total) == (2, 4)
    assert tenant.read("orders", "id", "state") == [(1, "new"), (2, "paid"), (3, "sent"), (4, "new")]
    sqlite.run("alter table orders add column note text", "update orders set note = 'x', at = '2026-03-01' where id = 1")
    assert tenant.load()["orders"].rows_total == 4
    assert tenant.read("orders", "id", "note") == [(1, "x"), (2, None), (3, None), (4, None)]
    assert tenant.load(full_refresh=True)["orders"].rows_total == 5
    assert tenant.ask("select status, rows_loaded from acme_fabric.loads order by started_at") == [("success", rows) for rows in (3, 1, 2, 2, 5)]


def test_checks_and_what_has_finished_are_answered_from_the_table(tenant: Tenant) -> None:
    checks = (
        RowCountCheck(type="row_count", min=3, max=3),
        UniqueCheck(type="unique", columns=["id"]),
        AcceptedValuesCheck(type="accepted_values", column="state", values=["new"]),
    )
    outcomes = run_checks(checks, tenant=tenant.config, source="shop", stream="orders", settings=tenant.settings)
    assert [(outcome.passed, outcome.metadata.get("failures")) for outcome in outcomes] == [(True, None), (True, 0), (False, 2)]
    request = LoadRequest(tenant.config, "shop", ("orders",), tenant.settings, run_id="", earlier_runs=("",))
    (report,) = find_finished(request, ["orders"], get_destination(tenant.config, tenant.settings))
    assert isinstance(report, StreamReport)
    assert report.rows_total == 3


def test_rejected_rows_are_found_and_stay(tenant: Tenant, sqlite: SourceDatabase) -> None:
    assert [(reject.column_name, reject.row_id != "") for reject in read_rejects(tenant)] == [("total", True)]
    sqlite.run("insert into orders values (10, 'bad', 'some', '2026-02-01')")
    tenant.load()
    assert len(read_rejects(tenant)) == 2


def read_rejects(tenant: Tenant) -> list[RejectedRow]:
    with open_rejects(tenant.config, tenant.settings) as rejects:
        return [row for rows in rejects.read() for row in rows]


def test_offboarding_counts_and_exports_the_rows(tenant: Tenant) -> None:
    file = DuckDbFile("acme", naming.warehouse_file(tenant.settings.data_dir, "acme"))
    (orders,) = (relation for relation in file.list_relations() if relation.name == "orders" and relation.kind == "table")
    assert orders.rows == 3
    columns = file.get_columns(orders, as_text=False)
    with file.read(orders, [column for column in columns if column.name in {"id", "state"}]) as (rows, batches):
        assert (rows, batches.read_all().to_pylist()) == (3, [{"id": 1, "state": "new"}, {"id": 2, "state": "paid"}, {"id": 3, "state": "paid"}])
    assert file.find_fault(orders) is None
