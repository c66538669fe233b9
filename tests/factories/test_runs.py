"""`fabric run` without the command line: what a run materialises, records and says when something is wrong."""

import json
import logging
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import dagster as dg
import duckdb
import pytest
from rich.console import Console

from fabric_assets import naming
from fabric_assets.cli.headless import run_tenants
from fabric_assets.cli.run import get_exit_code, print_results, to_json
from fabric_assets.config.loader import load_fleet
from fabric_assets.factories import runs, tenant
from fabric_assets.factories.fleet import build_definitions
from tests.factories.shop import STREAMS, get_tenant, make_shop
from tests.support.tracebacks import read_traceback


@pytest.fixture
def run(prepared, isolated_home) -> Callable:
    """Run tenants; gives their results by name, and the progress."""

    def run(*names: str, **options):
        events = []
        results = run_tenants(load_fleet(prepared), names, settings=prepared, on_event=events.append, **options)
        return {result.tenant: result for result in results}, events

    return run


def query(settings, tenant: str, sql: str):
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, tenant)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_tenant_goes_from_its_source_to_its_marts(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant(checks={"raw/shop/orders": [{"type": "row_count", "min": 3}, {"type": "unique", "columns": ["id"]}]}))
    results, events = run("acme")
    result = results["acme"]
    assert (result.status, result.error) == ("success", None)
    assert get_exit_code([result]) == 0
    rows = {asset.key: (asset.status, asset.rows_loaded, asset.rows_total) for asset in result.assets}
    assert rows["acme/raw/shop/orders"] == ("success", 3, 3)
    assert rows["acme/marts/orders"] == ("success", None, 3)
    assert all(check.passed for check in result.checks)
    assert {("acme/raw/shop/orders", "row_count"), ("acme/raw/shop/orders", "unique_id")} <= {(check.asset, check.name) for check in result.checks}
    values = query(prepared, "acme", "select customer_name, lifetime_value from acme_marts.customers order by 1")
    assert values == [("Ada", Decimal("15.90")), ("Grace", Decimal("5.30"))]
    assert any("rows loaded: 3" in event.message for event in events if event.kind == "asset")
    assert set(to_json(result)) == {"tenant", "status", "run_id", "seconds", "assets", "checks", "error"}


def test_rows_that_the_source_has_lost_are_counted_beside_the_loaded_ones(prepared, write_tenant, run, shop_url):
    config = get_tenant(transform=None, schedules={}, checks={})
    config["sources"]["shop"]["streams"] = {"orders": {"primary_key": "id", "write_disposition": "merge", "deletes": {"mode": "soft", "max": "50%"}}}
    write_tenant("acme", config)
    _, events = run("acme")
    assert not any("gone from the source" in event.message for event in events)
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("delete from orders where id = (select min(id) from orders)")
    database.close()
    _, events = run("acme")
    (told,) = [event.message for event in events if event.kind == "asset"]
    assert told.endswith("gone from the source: 1, in the table: 3")


def test_what_a_source_no_longer_has_is_in_the_summary_and_in_the_metadata(prepared, write_tenant, run, shop_url, capsys):
    checks = {"raw/shop/orders": [{"type": "schema_change", "severity": "warn"}]}
    write_tenant("acme", get_tenant(transform=None, schedules={}, checks=checks))
    run("acme")
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("alter table orders rename column tax_paid to taxes")
    database.close()
    results, events = run("acme")
    print_results(Console(highlight=False), list(results.values()))
    printed = capsys.readouterr().out
    assert "acme: warning: acme/raw/shop/orders: the column tax_paid is gone from the source: " in printed
    assert "acme: warning: check schema_change of acme/raw/shop/orders failed: the last load found: the column tax_paid (bigint) is gone" in printed
    assert any("warning: the column tax_paid is gone" in event.message for event in events if event.kind == "log")
    (asset,) = [asset for asset in json.loads(json.dumps(to_json(results["acme"])))["assets"] if asset["key"] == "acme/raw/shop/orders"]
    assert [warning.partition(":")[0] for warning in asset["warnings"]] == ["the column tax_paid is gone from the source"]
    with dg.DagsterInstance.from_config(str(prepared.data_dir / "dagster")) as instance:
        raw = instance.get_latest_materialization_event(dg.AssetKey(["acme", "raw", "shop", "orders"])).asset_materialization.metadata
    assert raw["warnings"].value == asset["warnings"][0]


def test_the_summary_names_the_lines_of_the_yaml_that_failed_and_where_rejected_rows_are(prepared, write_tenant, run, shop_url, capsys):
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("insert into orders (id) values (null)")
    database.close()
    source = """
  {name}:
    type: sql_database
    url: {{env: {url}}}
    retries: {{max: 0}}
    streams:
      orders: {{primary_key: id}}
      twin: {{primary_key: id, table: {table}}}"""
    body = source.format(name="shop", url="SHOP_URL", table="ordrs") + source.format(name="gone", url="NO_SUCH_URL", table="orders")
    file = write_tenant("acme", f"version: 1\ntenant: acme\nsources:{body}\n")
    results, events = run("acme")
    error = results["acme"].error
    assert "did you mean 'orders'?" in error and f"\n  declared in: {file}:10" in error
    assert "NO_SUCH_URL" in error and f"\n  declared in: {file}:13" in error
    assert any(f"declared in: {file}:10" in event.message for event in events if event.kind == "failure")
    print_results(Console(highlight=False), list(results.values()))
    assert "acme: see the rejected rows and why: fabric rejects list acme\n" in capsys.readouterr().out


def test_progress_says_in_how_many_seconds_a_step_is_tried_again():
    @dg.op
    def load(context: dg.OpExecutionContext) -> None:
        if not context.retry_number:
            raise dg.RetryRequested(max_retries=1, seconds_to_wait=1.4327)

    @dg.job
    def job() -> None:
        load()  # pyright: ignore[reportCallIssue]

    (event,) = [event for event in job.execute_in_process().all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    said = runs._translate("acme", logging.makeLogRecord({"dagster_meta": {"dagster_event": event}}))
    assert said == runs.RunEvent("acme", "log", "the step is tried again in 1s")


def test_an_error_of_the_destination_names_its_line_whatever_its_kind(prepared, write_tenant, run, shop_url):
    source = "  shop: {type: sql_database, url: {env: SHOP_URL}, retries: {max: 0}, streams: {orders: {primary_key: id}}}"
    destination = "destination: {type: postgres, url: {env: NO_WAREHOUSE}}"
    file = write_tenant("acme", f"version: 1\ntenant: acme\nsources:\n{source}\n{destination}\n")
    results, _ = run("acme")
    assert "NO_WAREHOUSE" in results["acme"].error
    assert results["acme"].error.endswith(f"\n  declared in: {file}:5")


def test_materialisations_have_rows_columns_lineage_and_table_name(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant())
    run("acme")
    with dg.DagsterInstance.from_config(str(prepared.data_dir / "dagster")) as instance:
        mart = instance.get_latest_materialization_event(dg.AssetKey(["acme", "marts", "customers"])).asset_materialization.metadata
        raw = instance.get_latest_materialization_event(dg.AssetKey(["acme", "raw", "shop", "orders"])).asset_materialization.metadata
        run_record = instance.get_runs()[0]
    assert run_record.tags["tenant"] == "acme"
    assert mart["dagster/row_count"].value == 2
    assert mart["dagster/table_name"].value == "acme.acme_marts.customers"
    assert "lifetime_value" in [column.name for column in mart["dagster/column_schema"].value.columns]
    lineage = mart["dagster/column_lineage"].value.deps_by_column
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["lifetime_value"]} == {("acme/marts/orders", "total")}
    assert mart["seconds"].value > 0
    assert raw["dagster/row_count"].value == 3
    assert raw["rows_loaded"].value == 3
    assert raw["dagster/table_name"].value == "acme.acme_raw_shop.orders"
    assert {column.name for column in raw["dagster/column_schema"].value.columns} >= {"id", "customer", "order_total"}


def test_a_second_run_loads_what_is_new_and_doubles_nothing(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant())
    run("acme")
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("insert into orders values ('o4', 'c2', '2024-01-03T09:00:00', 's1', 100, 6, 106)")
        database.execute("insert into items values ('i4', 'o4', 'BEV-1')")
    database.close()
    results, _ = run("acme")
    rows = {asset.key: asset.rows_total for asset in results["acme"].assets}
    assert rows["acme/raw/shop/orders"] == 4
    assert query(prepared, "acme", "select count(*), count(distinct order_id) from acme_marts.orders") == [(4, 4)]


def test_after_a_run_that_a_shell_has_put_into_the_background_the_process_still_heeds_sigterm(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `fabric run --all &`
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run("acme", selection=["raw/shop/stores"])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (signal.SIG_DFL, signal.SIG_IGN)


def test_a_selection_materialises_only_its_assets(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant())
    results, _ = run("acme", selection=["raw/shop/stores", "raw/shop/products"])
    assert [asset.key for asset in results["acme"].assets] == ["acme/raw/shop/products", "acme/raw/shop/stores"]
    assert sorted(
        query(
            prepared,
            "acme",
            "select table_name from information_schema.tables where table_schema = 'acme_raw_shop' and table_name not like '\\_dlt%' escape '\\'",
        )
    ) == [
        ("products",),
        ("stores",),
    ]


def test_part_of_a_new_tenants_graph_is_not_tested_against_what_was_never_built(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant(checks={}))
    against_stores = "relationships_daily_revenue_store_id__store_id__ref_stores_"
    results, events = run("acme", selection=["+marts/daily_revenue"])
    assert (results["acme"].status, results["acme"].error) == ("success", None)
    assert results["acme"].checks
    assert [check for check in results["acme"].checks if not check.passed] == []
    assert against_stores not in {check.name for check in results["acme"].checks}
    assert any(f"{against_stores} is left out: acme/marts/stores was never materialised" in event.message for event in events)
    results, events = run("acme", selection=["+staging/stg_stores+"])  # a name of an earlier release
    views = ["staging/stg_shop__stores", "staging/stg_stores"]
    assert sorted(asset.key for asset in results["acme"].assets) == [f"acme/{key}" for key in ("marts/stores", "raw/shop/stores", *views)]
    assert "warning: '+staging/stg_stores+' is an earlier name of '+staging/stg_shop__stores+': write that" in [event.message for event in events]
    results, _ = run("acme", selection=["marts/daily_revenue"])
    assert against_stores in {check.name for check in results["acme"].checks}


def test_an_unreachable_source_fails_its_tenant_and_no_other(prepared, write_tenant, run, shop_url, monkeypatch):
    monkeypatch.setenv("DEAD_URL", "postgresql://fabric:s3cret-canary@127.0.0.1:1/none")
    write_tenant("acme", get_tenant())
    dead = get_tenant(sources={"shop": {"type": "sql_database", "url": {"env": "DEAD_URL"}, "retries": {"max": 0}, "streams": STREAMS}})
    write_tenant("globex", dead)
    results, events = run("globex", "acme")
    assert (results["globex"].status, results["acme"].status) == ("failure", "success")
    assert get_exit_code(list(results.values())) == 1
    assert "globex" in results["globex"].error
    assert "shop" in results["globex"].error
    assert "s3cret-canary" not in results["globex"].error + "".join(event.message for event in events)
    assert {asset.status for asset in results["globex"].assets if "/raw/" in asset.key} == {"failure"}
    assert {asset.status for asset in results["globex"].assets if "/marts/" in asset.key} == {"skipped"}


def test_a_missing_secret_says_which_and_where_it_is_looked_for(prepared, write_tenant, run, monkeypatch):
    monkeypatch.delenv("SHOP_URL", raising=False)
    write_tenant("acme", get_tenant())
    results, _ = run("acme")
    assert results["acme"].status == "failure"
    assert "SHOP_URL" in results["acme"].error


def test_an_error_that_several_sources_share_is_named_once(prepared, write_tenant, run, shop_url, monkeypatch):
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    first, second = (get_tenant()["sources"]["shop"] | {"streams": {name: {}}} for name in ("orders", "items"))
    destination = {"type": "postgres", "url": {"env": "WAREHOUSE_URL"}}
    write_tenant("acme", get_tenant(sources={"shop": first, "other": second}, transform=None, checks={}, schedules={}, destination=destination))
    result = run("acme")[0]["acme"]
    assert {asset.status for asset in result.assets} == {"failure"}, result.error
    assert result.error.count("environment variable WAREHOUSE_URL is not set") == 1


def test_a_new_data_folder_is_readable_by_its_owner_only(prepared, write_tenant, run, shop_url, tmp_path):
    old = os.umask(0o022)
    try:
        fresh = replace(prepared, data_dir=tmp_path / "above" / "fresh")
        write_tenant("acme", get_tenant(transform=None, schedules={}))
        (result,) = run_tenants(load_fleet(fresh), ["acme"], settings=fresh, on_event=lambda _: None)
    finally:
        os.umask(old)
    assert (result.status, result.error) == ("success", None)
    folders = [fresh.data_dir, *(path for path in fresh.data_dir.rglob("*") if path.is_dir())]
    assert {oct(folder.stat().st_mode & 0o777) for folder in folders if fresh.data_dir in (folder.parent, folder)} == {"0o700"}


def test_a_failing_model_fails_the_run_and_keeps_what_was_built(prepared, write_tenant, run, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_URL", make_shop(tmp_path / "shop.db"))
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("update orders set subtotal = 'not a number' where id = 'o1'")
    database.close()
    write_tenant("acme", get_tenant(checks={}))
    results, _ = run("acme")
    result = results["acme"]
    assert result.status == "failure"
    assert "acme" in result.error
    statuses = {asset.key: asset.status for asset in result.assets}
    assert statuses["acme/marts/products"] == "success" or "raw/shop" in result.error


def test_a_failing_test_is_a_failed_check_and_a_finding(prepared, write_tenant, run, shop_url):
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("insert into items values ('i9', 'gone', 'JAF-1')")
    database.close()
    write_tenant("acme", get_tenant())
    results, _ = run("acme")
    result = results["acme"]
    failed = [check for check in result.checks if not check.passed and check.severity == "error"]
    assert failed, "an item of no order breaks a relationship"
    for check in failed:
        assert result.error.count(check.name) == 1, "once in the step's error, and not once more by itself"
    assert get_exit_code(list(results.values())) == 1


def test_a_failing_check_says_why_and_a_blocking_one_names_what_it_stopped(prepared, write_tenant, run, shop_url):
    checks = {"raw/shop/orders": [{"type": "row_count", "min": 100, "blocking": True}, {"type": "not_null", "columns": ["nope"], "severity": "warn"}]}
    write_tenant("acme", get_tenant(checks=checks))
    results, _ = run("acme")
    result = results["acme"]
    assert result.status == "failure"
    assert "acme/raw/shop/orders: check row_count failed" in result.error
    assert "3" in result.error and "100" in result.error
    assert "a blocking check failed, so nothing below it was built" in result.error
    assert "dagster._core" not in result.error
    (warned,) = [check for check in result.checks if check.severity == "warn"]
    assert "nope" in warned.message
    assert {asset.status for asset in result.assets if "/marts/" in asset.key} == {"skipped"}


def test_a_broken_tenant_is_reported_and_the_others_run(prepared, write_tenant, run, shop_url):
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    results, _ = run("globex", "acme")
    assert (results["globex"].status, results["acme"].status) == ("failure", "success")
    assert "globex.yaml" in results["globex"].error
    assert get_exit_code([results["globex"]]) == 2


def test_a_model_whose_source_is_not_loaded_is_a_config_error(prepared, write_tenant, run, shop_url):
    tenant = get_tenant(checks={}, schedules={})
    tenant["sources"]["shop"] = tenant["sources"]["shop"] | {"streams": {name: STREAMS[name] for name in STREAMS if name != "stores"}}
    write_tenant("acme", tenant)
    results, _ = run("acme")
    assert get_exit_code(list(results.values())) == 2
    assert "stg_shop__stores" in results["acme"].error
    assert "shop.stores" in results["acme"].error
    assert "acme" in results["acme"].error


def test_a_fault_of_ours_in_one_tenants_definitions_is_reported_as_ours_and_stops_no_other(prepared, write_tenant, run, shop_url, monkeypatch):
    for name in ("acme", "globex"):
        write_tenant(name, get_tenant(transform=None, schedules={}, checks={}))
    build = tenant.build_schedules
    # No tenant at all, so that our own line fails.
    monkeypatch.setattr(tenant, "build_schedules", lambda config, *more: build(None if config.tenant == "acme" else config, *more))
    told = "its definitions cannot be built: a fault of ETL Fabric (AttributeError at fabric_assets/factories/schedules.py:"
    results, _ = run("acme", "globex")
    assert (results["acme"].status, results["globex"].status) == ("failure", "success")
    assert f"acme: {told}" in results["acme"].error
    assert "AttributeError" in read_traceback(prepared, "acme", results["acme"].error)
    definitions = build_definitions(prepared)
    keys = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    assert "globex/raw/shop/orders" in keys
    assert "acme/raw/shop/orders" not in keys
    texts = [file.read_text() for file in (prepared.data_dir / "errors" / "acme").iterdir()]
    assert [("build_schedules" in text, "its definitions cannot be built" in text) for text in texts] == [(True, True)] * 2
