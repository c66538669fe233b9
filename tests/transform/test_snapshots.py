"""Snapshots on DuckDB and on Postgres: a history that grows, and that nothing replaces or mixes up."""

from typing import Any

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.transform.conftest import ENDLESS_HOOK, Run, build_tenant, get_raw_statements, kill_in_hook, make_tenant, write_files

NAMES = "select customer_id, customer_name, dbt_valid_to is null from acme_snapshots.customer_names order by customer_id, dbt_valid_from"
RECORD = "select unique_key, strategy, updated_at, check_cols from acme_fabric.snapshots where snapshot = '{}'"


@pytest.fixture
def run(run_in_warehouse: Run) -> Run:
    """Run SQL in acme's warehouse, which has raw rows of two customers and two orders."""
    run_in_warehouse(*get_raw_statements("acme", amounts=[60, 120]))
    return run_in_warehouse


@pytest.fixture
def acme(destination: dict[str, Any]) -> Any:
    return make_tenant("acme", destination=destination, select=["+names_per_customer", "+order_amounts"], exclude=["tenants"])


def test_a_changed_row_ends_the_old_version_and_a_full_refresh_keeps_both(seeded: Settings, run: Run, acme: Any) -> None:
    outcome = build_tenant(seeded, acme)
    assert (outcome.models["customer_names"].status, outcome.models["customer_names"].rows) == ("success", 2)
    assert outcome.tests["unique_customer_names_dbt_scd_id"].status == "pass"
    assert build_tenant(seeded, acme).models["customer_names"].rows == 2
    run("update acme_raw_shop.customers set name = 'Zoe' where id = 1", "update acme_raw_shop.orders set amount = 70, ordered_at = '2024-02-01' where id = 1")
    for full_refresh in (False, True):
        outcome = build_tenant(seeded, acme, full_refresh=full_refresh)
        assert run(NAMES) == [(1, "Ada", False), (1, "Zoe", True), (2, "Bob", True)]
        assert run("select amount, dbt_valid_to is null from acme_snapshots.order_amounts where order_id = 1 order by 1") == [(60, False), (70, True)]
        assert run("select names from acme_marts.names_per_customer order by customer_id") == [(2,), (1,)]
        assert (outcome.models["customer_names"].rows, outcome.models["order_amounts"].rows) == (3, 3)


def test_a_renamed_snapshot_begins_a_new_history_and_keeps_the_old_one(seeded: Settings, run: Run, destination: dict[str, Any]) -> None:
    build_tenant(seeded, make_tenant("acme", destination=destination, select=["+customer_names"], exclude=["tenants"]))
    file = seeded.dbt_project_dir / "snapshots" / "names.yml"
    file.write_text(file.read_text().replace("customer_names", "names_of_customers"))
    (seeded.dbt_project_dir / "models" / "marts" / "history" / "names_per_customer.sql").unlink()
    run("update acme_raw_shop.customers set name = 'Zoe' where id = 1")
    build_tenant(seeded, make_tenant("acme", destination=destination, select=["+names_of_customers"], exclude=["tenants"]), full_refresh=True)
    assert run(NAMES) == [(1, "Ada", True), (2, "Bob", True)]
    assert run("select customer_name from acme_snapshots.names_of_customers order by 1") == [("Bob",), ("Zoe",)]


NAMES_CHANGES = {
    "unique_key": ("unique_key: customer_id", "unique_key: customer_name", "unique_key was customer_id and is customer_name"),
    "strategy": ("strategy: check, check_cols: [customer_name]", "strategy: timestamp, updated_at: customer_id", "strategy was check and is timestamp"),
    "check_cols": ("check_cols: [customer_name]", "check_cols: all", "check_cols was customer_name and is all"),
}


@pytest.mark.parametrize("change", NAMES_CHANGES)
def test_a_snapshot_whose_key_or_strategy_changed_is_refused(seeded: Settings, run: Run, acme: Any, change: str) -> None:
    old, new, words = NAMES_CHANGES[change]
    build_tenant(seeded, acme)
    file = seeded.dbt_project_dir / "snapshots" / "names.yml"
    text = file.read_text()
    file.write_text(text.replace(old, new))
    run("update acme_raw_shop.customers set name = 'Zoe' where id = 1")
    outcome = build_tenant(seeded, acme, full_refresh=True)
    refused = outcome.models["customer_names"]
    assert refused.status == "error"
    assert words in refused.message
    assert "Change it back, or give the snapshot a new name, which begins a new history" in refused.message
    assert "drop the table acme_snapshots.customer_names" in refused.message
    assert (outcome.models["names_per_customer"].status, outcome.models["order_amounts"].status) == ("skipped", "success")
    assert run(NAMES) == [(1, "Ada", True), (2, "Bob", True)]
    assert run(RECORD.format("customer_names")) == [("customer_id", "check", "", "customer_name")]
    file.write_text(text)
    assert build_tenant(seeded, acme).models["customer_names"].rows == 3
    assert run(NAMES) == [(1, "Ada", False), (1, "Zoe", True), (2, "Bob", True)]


def test_a_changed_updated_at_is_refused_until_its_table_is_dropped(seeded: Settings, run: Run, acme: Any) -> None:
    build_tenant(seeded, acme)
    file = seeded.dbt_project_dir / "snapshots" / "amounts.sql"
    file.write_text(file.read_text().replace("updated_at='ordered_at'", "updated_at='cast(ordered_at as date)'"))
    refused = build_tenant(seeded, acme).models["order_amounts"]
    assert (refused.status, "updated_at was ordered_at and is cast(ordered_at as date)" in refused.message) == ("error", True)
    run("drop table acme_snapshots.order_amounts")
    assert build_tenant(seeded, acme).models["order_amounts"].rows == 2
    assert run(RECORD.format("order_amounts")) == [("order_id", "timestamp", "cast(ordered_at as date)", "")]


def test_the_order_of_columns_does_not_count_as_a_change(seeded: Settings, run: Run, acme: Any) -> None:
    file = seeded.dbt_project_dir / "snapshots" / "names.yml"
    text = file.read_text()
    for key, columns in (("[customer_id, customer_name]", "[customer_name, customer_id]"), ("[customer_name, customer_id]", "[customer_id, customer_name]")):
        file.write_text(text.replace("unique_key: customer_id", f"unique_key: {key}").replace("check_cols: [customer_name]", f"check_cols: {columns}"))
        assert build_tenant(seeded, acme).models["customer_names"].rows == 2


def test_a_history_without_a_record_is_kept_and_recorded(seeded: Settings, run: Run, acme: Any) -> None:
    build_tenant(seeded, acme)
    run("drop table acme_fabric.snapshots", "update acme_raw_shop.customers set name = 'Zoe' where id = 1")
    assert build_tenant(seeded, acme).models["customer_names"].rows == 3
    assert run(RECORD.format("customer_names")) == [("customer_id", "check", "", "customer_name")]


SLOW = f"""
{{% snapshot order_amounts %}}
{{{{ config(unique_key='order_id', strategy='timestamp', updated_at='ordered_at', post_hook="{ENDLESS_HOOK}") }}}}
select * from {{{{ ref('stg_orders') }}}}
{{% endsnapshot %}}
"""
AMOUNTS = "select order_id, amount, dbt_valid_to is null from acme_snapshots.order_amounts order by 1, 2"


@pytest.mark.parametrize("is_first", [True, False], ids=["the first run", "a later run"])
def test_a_run_that_is_killed_in_the_midst_of_a_snapshot_is_healed_by_the_next(seeded: Settings, run: Run, destination: dict[str, Any], is_first: bool) -> None:
    """The hook runs in the snapshot's transaction, after its rows were written."""
    write_files(seeded.dbt_project_dir, {"snapshots/amounts.sql": SLOW})
    tenant = make_tenant("acme", destination=destination, select=["+order_amounts"], exclude=["tenants"])
    if not is_first:
        build_tenant(seeded, tenant)
        run("update acme_raw_shop.orders set amount = 70, ordered_at = '2024-02-01' where id = 1")
    kill_in_hook(seeded, tenant, "model.fabric.stg_orders", "snapshot.fabric.order_amounts")
    if not is_first:
        assert run(AMOUNTS) == [(1, 60, True), (2, 120, True)]
    assert build_tenant(seeded, tenant).models["order_amounts"].status == "success"
    assert run(AMOUNTS) == ([(1, 60, True), (2, 120, True)] if is_first else [(1, 60, False), (1, 70, True), (2, 120, True)])
    assert run("select table_name from information_schema.tables where table_schema = 'acme_snapshots'") == [("order_amounts",)]


def test_snapshots_alone_lie_among_the_snapshots(seeded: Settings) -> None:
    write_files(seeded.dbt_project_dir, {"models/marts/history/copy.sql": "{{ config(schema='snapshots') }}\nselect 1 as id"})
    with pytest.raises(
        ConfigurationError, match=r"models/marts/history/copy.sql: the schema snapshots is for snapshots alone, whose rows cannot be built again"
    ):
        prepare_project(seeded)


def test_a_mistake_in_a_shared_snapshot_stops_only_what_is_built_on_it(seeded: Settings) -> None:
    file = seeded.dbt_project_dir / "snapshots" / "amounts.sql"
    write_files(seeded.dbt_project_dir, {"models/marts/history/amounts.sql": "select * from {{ ref('order_amounts') }}"})
    for wrong in (file.read_text().replace("ref('stg_orders')", "ref('stg_order')"), file.read_text().replace("{{ config", "{{ oops(")):
        file.write_text(wrong)
        prepare_project(seeded)
        graph = load_graph(seeded)
        assert set(graph.stopped) == {"snapshot.fabric.order_amounts", "model.fabric.amounts"}
        assert graph.mistakes["snapshot.fabric.order_amounts"].file == "snapshots/amounts.sql"
        if "stg_order')" in wrong:
            assert graph.mistakes["snapshot.fabric.order_amounts"].line == 4
            assert graph.mistakes["snapshot.fabric.order_amounts"].message.startswith("ref('stg_order') does not exist; did you mean 'stg_orders'?")


def test_a_function_is_refused_by_its_name(seeded: Settings) -> None:
    write_files(
        seeded.dbt_project_dir,
        {
            "functions/double.sql": "select 2 * number",
            "functions/double.yml": "functions: [{name: double, arguments: [{name: number, data_type: int}], returns: {data_type: int}}]",
        },
    )
    with pytest.raises(ConfigurationError, match=r"functions/double.sql: a function is not built for tenants; write it as a macro"):
        prepare_project(seeded)
