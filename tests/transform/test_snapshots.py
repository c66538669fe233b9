"""Snapshots on DuckDB and on Postgres: a history that grows, and that nothing replaces or mixes up."""

from collections.abc import Callable
from typing import Any

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.support.lengths import AT_FULL_LENGTH
from tests.transform.conftest import Run, build_tenant, get_raw_statements, make_tenant, write_files
from tests.transform.killing import kill_in_hook
from tests.transform.seeded import AMOUNTS, HISTORIES

NAMES = "select customer_id, customer_name, dbt_valid_to is null from acme_snapshots.{} order by customer_id, dbt_valid_from"
RECORD = "select unique_key, strategy, updated_at, check_cols from acme_fabric.snapshots where snapshot = '{}'"
OLD, NEW = [(1, "Ada", True), (2, "Bob", True)], [(1, "Ada", False), (1, "Zoe", True), (2, "Bob", True)]


@pytest.fixture
def run(run_in_warehouse: Run) -> Run:
    """Run SQL in acme's warehouse, which has raw rows of two customers and two orders."""
    run_in_warehouse(*get_raw_statements("acme", amounts=[60, 120]))
    return run_in_warehouse


@pytest.fixture
def acme(destination: dict[str, Any]) -> Any:
    return make_tenant("acme", destination=destination, **HISTORIES)


def test_a_changed_row_ends_the_old_version_and_a_full_refresh_keeps_both(seeded: Settings, run: Run, acme: Any) -> None:
    outcome = build_tenant(seeded, acme)
    assert (outcome.models["customer_names"].status, outcome.models["customer_names"].rows) == ("success", 2)
    assert outcome.tests["unique_customer_names_dbt_scd_id"].status == "pass"
    run("update acme_raw_shop.customers set name = 'Zoe' where id = 1", "update acme_raw_shop.orders set amount = 70, ordered_at = '2024-02-01' where id = 1")
    # A history without a record, as one of an earlier release, is kept and recorded.
    run("drop table acme_fabric.snapshots")
    for full_refresh in (False, True):
        outcome = build_tenant(seeded, acme, full_refresh=full_refresh)
        assert run(NAMES.format("customer_names")) == NEW
        assert run("select amount, dbt_valid_to is null from acme_snapshots.order_amounts where order_id = 1 order by 1") == [(60, False), (70, True)]
        assert run("select names from acme_marts.names_per_customer order by customer_id") == [(2,), (1,)]
        assert (outcome.models["customer_names"].rows, outcome.models["order_amounts"].rows) == (3, 3)
        assert run(RECORD.format("customer_names")) == [("customer_id", "check", "", "customer_name")]


REFUSED = {
    "by_key": "unique_key was customer_id and is customer_name",
    "by_strategy": "strategy was check and is timestamp",
    "by_columns": "check_cols was customer_name and is all",
    "order_amounts": "updated_at was ordered_at and is cast(ordered_at as date)",
}


def test_a_snapshot_whose_key_or_strategy_changed_is_refused_until_it_is_changed_back_or_its_table_is_dropped(
    seeded: Settings, change: Callable[..., Settings], run: Run, acme: Any, destination: dict[str, Any]
) -> None:
    build_tenant(seeded, acme)
    run("update acme_raw_shop.customers set name = 'Zoe' where id = 1")
    outcome = build_tenant(change(), acme, full_refresh=True)
    for name, words in REFUSED.items():
        refused = outcome.models[name]
        assert refused.status == "error"
        assert words in refused.message
        assert "Change it back, or give the snapshot a new name, which begins a new history" in refused.message
        assert f"drop the table acme_snapshots.{name}" in refused.message
    # What was not changed is built, also where columns of a key or of check_cols are named in another order.
    assert (outcome.models["names_per_key"].status, outcome.models["customer_names"].rows, outcome.models["in_order"].rows) == ("skipped", 3, 3)
    assert run(NAMES.format("by_key")) == run(NAMES.format("by_strategy")) == run(NAMES.format("by_columns")) == OLD
    assert run(RECORD.format("by_key")) == [("customer_id", "check", "", "customer_name")]
    # A renamed snapshot begins a new history and keeps the old one.
    assert run(NAMES.format("old_names")) == OLD
    assert run("select customer_name from acme_snapshots.new_names order by 1") == [("Bob",), ("Zoe",)]

    run("drop table acme_snapshots.order_amounts")
    assert build_tenant(change(), make_tenant("acme", destination=destination, **AMOUNTS)).models["order_amounts"].rows == 2
    assert run(RECORD.format("order_amounts")) == [("order_id", "timestamp", "cast(ordered_at as date)", "")]

    assert build_tenant(change(back=True), acme).models["by_key"].rows == 3
    assert run(NAMES.format("by_key")) == NEW


ORDERS = "select order_id, amount, dbt_valid_to is null from acme_snapshots.order_amounts order by 1, 2"
KILLS = [
    pytest.param("duckdb", False, id="duckdb-a later run"),
    pytest.param("duckdb", True, marks=AT_FULL_LENGTH, id="duckdb-the first run"),
    pytest.param("postgres", False, marks=AT_FULL_LENGTH, id="postgres-a later run"),
    pytest.param("postgres", True, id="postgres-the first run"),
]


@pytest.mark.parametrize(("destination", "is_first"), KILLS, indirect=["destination"])
def test_a_run_that_is_killed_in_the_midst_of_a_snapshot_is_healed_by_the_next(seeded: Settings, run: Run, destination: dict[str, Any], is_first: bool) -> None:
    """The hook runs in the snapshot's transaction, after its rows were written."""
    tenant = make_tenant("acme", destination=destination, **AMOUNTS)
    if not is_first:
        build_tenant(seeded, tenant)
        run("update acme_raw_shop.orders set amount = 70, ordered_at = '2024-02-01' where id = 1")
    kill_in_hook(seeded, tenant, "model.fabric.stg_orders", "snapshot.fabric.order_amounts")
    if not is_first:
        assert run(ORDERS) == [(1, 60, True), (2, 120, True)]
    assert build_tenant(seeded, tenant).models["order_amounts"].status == "success"
    assert run(ORDERS) == ([(1, 60, True), (2, 120, True)] if is_first else [(1, 60, False), (1, 70, True), (2, 120, True)])
    assert run("select table_name from information_schema.tables where table_schema = 'acme_snapshots'") == [("order_amounts",)]


def test_what_is_no_snapshot_is_refused_among_the_snapshots_and_a_function_anywhere(own_seeded: Settings) -> None:
    write_files(
        own_seeded.dbt_project_dir,
        {
            "models/marts/history/copy.sql": "{{ config(schema='snapshots') }}\nselect 1 as id",
            "functions/double.sql": "select 2 * number",
            "functions/double.yml": "functions: [{name: double, arguments: [{name: number, data_type: int}], returns: {data_type: int}}]",
        },
    )
    with pytest.raises(ConfigurationError) as caught:
        prepare_project(own_seeded)
    assert "models/marts/history/copy.sql: the schema snapshots is for snapshots alone, whose rows cannot be built again" in caught.value.message
    assert "functions/double.sql: a function is not built for tenants; write it as a macro" in caught.value.message


@pytest.mark.parametrize(("old", "new"), [("ref('stg_orders')", "ref('stg_order')"), pytest.param("{{ config", "{{ oops(", marks=AT_FULL_LENGTH)])
def test_a_mistake_in_a_shared_snapshot_stops_only_what_is_built_on_it(own_seeded: Settings, old: str, new: str) -> None:
    file = own_seeded.dbt_project_dir / "snapshots" / "amounts.sql"
    write_files(own_seeded.dbt_project_dir, {"models/marts/history/amounts.sql": "select * from {{ ref('order_amounts') }}"})
    file.write_text(file.read_text().replace(old, new))
    prepare_project(own_seeded)
    graph = load_graph(own_seeded)
    assert set(graph.stopped) == {"snapshot.fabric.order_amounts", "model.fabric.amounts"}
    assert graph.mistakes["snapshot.fabric.order_amounts"].file == "snapshots/amounts.sql"
    if new == "ref('stg_order')":
        assert graph.mistakes["snapshot.fabric.order_amounts"].line == 4
        assert graph.mistakes["snapshot.fabric.order_amounts"].message.startswith("ref('stg_order') does not exist; did you mean 'stg_orders'?")
