"""Tests that fail, models in batches, and unit tests of incremental models: built for real, on DuckDB and on Postgres."""

import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.offboarding.destinations import build_name_matcher
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import list_schemas
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.project import prepare_project
from tests.faults.processes import wait_until
from tests.support.lengths import choose
from tests.transform.conftest import build_tenant, get_raw_statements, make_tenant, run_duckdb

Run = Callable[..., list[tuple[Any, ...]]]

FILES = {
    "staging/shop/sensitive.yml": """
models:
  - name: stg_names
    columns:
      - {name: customer_id, data_tests: [unique]}
      - {name: customer_name, tags: [sensitive], data_tests: [unique, {accepted_values: {arguments: {values: [Nobody]}}}]}
""",
    "staging/shop/stg_names.sql": "select id as customer_id, name as customer_name from {{ source('shop', 'customers') }}",
    "marts/sales/labels.yml": """
models:
  - name: labels
    columns:
      - {name: customer_name, data_tests: [{accepted_values: {arguments: {values: [Nobody]}}}]}
      - {name: nickname, data_tests: [not_null]}
      - name: amount
        data_tests: [{accepted_values: {arguments: {values: [1], quote: false}, config: {severity: warn}}}]
""",
    "marts/sales/labels.sql": (
        "select customer_name, cast(null as varchar) as nickname, amount from {{ ref('stg_names') }} inner join {{ ref('stg_orders') }} using (customer_id)"
    ),
}
SINGULAR = {
    "large_orders.sql": "select order_id, amount from {{ ref('stg_orders') }} where amount > 100 -- no row is right",
    "named_orders.sql": "select customer_name from {{ ref('stg_names') }}",
}
# Without `event_time` dbt gives each batch all rows.
EVENTS = "{{ config(event_time='ordered_at') }} select id as order_id, ordered_at, amount from {{ source('shop', 'orders') }}"
BATCHES = """
{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='ordered_at', batch_size='year', begin='2023-01-01',
    unique_key='order_id' if target.type == 'postgres' else none) }}
select order_id, ordered_at, cast(case when amount = 0 then 'zero' else '1' end as integer) as share from {{ ref('stg_events') }}
"""
WAIT = """
create function acme_raw_shop.wait_in_2024(at timestamp) returns integer language plpgsql volatile as $$
begin
  if extract(year from at) = 2024 then perform pg_sleep(wait) from acme_raw_shop.seconds; end if;
  return 0;
end $$
"""
GROWING = """
{{ config(materialized='incremental', unique_key='order_id') }}
select order_id from {{ ref('stg_orders') }} {% if is_incremental() %} where order_id > (select max(order_id) from {{ this }}) {% endif %}
"""
GROWING_YML = """
models: [{name: growing}]
unit_tests:
  - name: only_what_is_new
    model: growing
    overrides: {macros: {is_incremental: true}}
    given:
      - {input: ref('stg_orders'), rows: [{order_id: 1}, {order_id: 9}]}
      - {input: this, rows: [{order_id: 5}]}
    expect: {rows: [{order_id: 9}]}
"""


def write(settings: Settings, files: dict[str, str], destination: dict[str, Any] | None) -> None:
    """Write files of the project and parse it for the kind of warehouse that the test uses."""
    write_only(settings, files)
    prepare_project(settings, destination["type"] if destination else "duckdb")


def write_only(settings: Settings, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = settings.dbt_project_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture(params=choose(["duckdb", "postgres"], 1))
def warehouse(request: pytest.FixtureRequest, own_project: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, dict[str, Any] | None, Run]:
    """A warehouse of either kind: settings, the tenant's destination, and a function that runs SQL there."""
    if request.param == "duckdb":
        return own_project, None, lambda *statements: run_duckdb(own_project, "acme", *statements)
    url = request.getfixturevalue("postgres_database")
    monkeypatch.setenv("SHARED_URL", url)

    def run(*statements: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return own_project, {"type": "postgres", "url": {"env": "SHARED_URL"}}, run


def test_a_failing_test_shows_its_values_in_its_message_alone_and_none_of_sensitive_columns(warehouse: tuple[Settings, dict[str, Any] | None, Run]) -> None:
    settings, destination, run = warehouse
    write(settings, {f"models/{name}": text for name, text in FILES.items()} | {f"tests/{name}": text for name, text in SINGULAR.items()}, destination)
    run(*get_raw_statements("acme", amounts=[60, 120, 180], names=["Ada", "Ada"]), "insert into acme_raw_shop.customers values (1, 'Ada')")
    tests = build_tenant(settings, make_tenant("acme", destination=destination, select=["staging", "labels"], exclude=["tenants"])).tests
    found = {name: (test.status, test.message, test.log_message) for name, test in tests.items() if test.status != "pass"}
    name = "accepted_values_stg_names_customer_name__Nobody"
    assert found["unique_stg_names_customer_id"] == ("fail", "1 value of customer_id is not unique ('1', 2 rows)", "1 value of customer_id is not unique")
    assert found["unique_stg_names_customer_name"] == ("fail", "1 value of customer_name is not unique", "")
    assert found[name] == ("fail", "customer_name has 1 unexpected value (3 rows)", "")
    assert found["named_orders"] == ("fail", "3 rows found", "")
    assert found["large_orders"][0] == "fail"
    assert found["large_orders"][1].startswith("2 rows found: order_id '2', amount '120")
    assert found["large_orders"][2] == "2 rows found"
    # The failed tests kept the models above them from being built. Without these tests they are built, and the column keeps its tag.
    for test in ("large_orders.sql", "named_orders.sql"):
        (settings.dbt_project_dir / "tests" / test).unlink()
    write(
        settings,
        {
            "models/staging/shop/sensitive.yml": FILES["staging/shop/sensitive.yml"]
            .replace(", data_tests: [unique", ", data_tests: [not_null")
            .replace("[not_null, {accepted_values: {arguments: {values: [Nobody]}}}]", "[not_null]")
        },
        destination,
    )
    tests = build_tenant(settings, make_tenant("acme", destination=destination, select=["staging", "labels"], exclude=["tenants"])).tests
    found = {name: (test.status, test.message, test.log_message) for name, test in tests.items() if test.status != "pass"}
    assert found["accepted_values_labels_customer_name__Nobody"] == ("fail", "customer_name has 1 unexpected value (4 rows)", "")
    assert found["not_null_labels_nickname"] == ("fail", "nickname is NULL in 4 rows", "")
    status, message, log_message = found["accepted_values_labels_amount__False__1"]
    assert (status, log_message) == ("warn", "amount has 3 unexpected values (4 rows)")
    assert message.startswith("amount has 3 unexpected values: '")


def test_a_microbatch_model_is_built_and_batches_that_failed_are_made_up_for_by_the_next_run(warehouse: tuple[Settings, dict[str, Any] | None, Run]) -> None:
    settings, destination, run = warehouse
    write(settings, {"models/staging/shop/stg_events.sql": EVENTS, "models/marts/sales/batches.sql": BATCHES}, destination)
    # dbt's next run of the model begins at this year: the batch of 2024 would never be there.
    run(*get_raw_statements("acme", amounts=[60, 120]), "insert into acme_raw_shop.orders values (7, 1, 5, timestamp '2023-03-01')")
    run("update acme_raw_shop.orders set amount = 0 where id = 2")
    tenant = make_tenant("acme", destination=destination, select=["staging.shop", "batches"], exclude=["tenants"])
    failed = build_tenant(settings, tenant).models["batches"]
    assert (failed.status, failed.rows) == ("error", None)
    assert "zero" in failed.message
    run("update acme_raw_shop.orders set amount = 120 where id = 2")
    batches = build_tenant(settings, tenant).models["batches"]
    assert (batches.status, batches.rows) == ("success", 3), batches.message
    assert batches.message == "its column lineage is unknown: it is not built by one SQL statement"
    # From here on it is incremental: a row of an old batch that is deleted stays in the model.
    run("delete from acme_raw_shop.orders where id = 7")
    assert build_tenant(settings, tenant).models["batches"].rows == 3


@pytest.mark.parametrize("has_table", choose([True, False], 1), ids=choose(["full refresh", "new model"], 1))
def test_batches_that_a_killed_dbt_process_did_not_reach_are_built_by_the_next_run(
    own_project: Settings, postgres_database: str, monkeypatch: pytest.MonkeyPatch, *, has_table: bool
) -> None:
    monkeypatch.setenv("SHARED_URL", postgres_database)
    destination = {"type": "postgres", "url": {"env": "SHARED_URL"}}
    model = BATCHES.replace("cast(case", "acme_raw_shop.wait_in_2024(ordered_at) as waited, cast(case")
    write(own_project, {"models/staging/shop/stg_events.sql": EVENTS, "models/marts/sales/batches.sql": model}, destination)
    tenant = make_tenant("acme", destination=destination, select=["staging.shop", "batches"], exclude=["tenants"])
    with contextlib.closing(psycopg2.connect(postgres_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in get_raw_statements("acme", amounts=[60, 120]):
            cursor.execute(statement)
        cursor.execute("insert into acme_raw_shop.orders values (7, 1, 5, timestamp '2023-03-01'), (8, 1, 5, timestamp '2025-03-01')")
        cursor.execute("create table acme_raw_shop.seconds as select 0 as wait")
        cursor.execute(WAIT)
        if has_table:
            assert build_tenant(own_project, tenant).models["batches"].rows == 4
        cursor.execute("update acme_raw_shop.seconds set wait = 100")
        with ThreadPoolExecutor(1) as executor:
            building = executor.submit(build_tenant, own_project, tenant, full_refresh=has_table)
            wait_until(lambda: is_sleeping(cursor), seconds=60)
            (worker,) = find_workers(own_project)
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(FabricError, match="dbt"):
                building.result(timeout=60)
        cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'")
        cursor.execute("update acme_raw_shop.seconds set wait = 0")
        batches = build_tenant(own_project, tenant).models["batches"]
        assert (batches.status, batches.rows) == ("success", 4), batches.message
        cursor.execute("select order_id from acme_marts.batches except all select id from acme_raw_shop.orders")
        assert cursor.fetchall() == []


def is_sleeping(cursor: Any) -> bool:
    cursor.execute("select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'")
    return cursor.fetchone()[0] > 0


def find_workers(settings: Settings) -> list[int]:
    """The dbt processes that build this test's tenant: a build's current folder is the run's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(naming.dbt_dir(settings.data_dir, "acme")):
                found.append(int(process.name))
    return found


def test_a_unit_test_that_reads_its_own_models_table_waits_until_there_is_one(warehouse: tuple[Settings, dict[str, Any] | None, Run]) -> None:
    settings, destination, run = warehouse
    write(settings, {"models/marts/sales/growing.sql": GROWING, "models/marts/sales/growing.yml": GROWING_YML}, destination)
    run(*get_raw_statements("acme", amounts=[60, 120]))
    tenant = make_tenant("acme", destination=destination, select=["staging.shop", "growing"], exclude=["tenants"])
    for expected in ("left_out", "pass"):
        outcome = build_tenant(settings, tenant)
        assert (outcome.models["growing"].status, outcome.models["growing"].rows) == ("success", 2)
        assert outcome.tests["only_what_is_new"].status == expected
    # A table that somebody dropped is no reason to refuse the model for ever.
    run("drop table acme_marts.growing")
    outcome = build_tenant(settings, tenant)
    assert (outcome.models["growing"].status, outcome.tests["only_what_is_new"].status) == ("success", "left_out")
    write(settings, {"models/marts/sales/growing.sql": GROWING.replace(">", "<")}, destination)
    outcome = build_tenant(settings, tenant)
    assert (outcome.models["growing"].status, outcome.tests["only_what_is_new"].status) == ("skipped", "fail")


def test_rows_that_a_test_stores_lie_in_a_schema_that_provisioning_and_offboarding_know(own_project: Settings) -> None:
    config = "{severity: warn, store_failures: true"
    yml = f"""
models:
  - name: orders_by_name
    columns:
      - name: customer_name
        data_tests:
          - accepted_values: {{arguments: {{values: [Ada]}}, config: {config}}}}}
          - not_null: {{config: {config}, schema: quality}}}}
"""
    sql = "select name as customer_name from {{ source('shop', 'customers') }}"
    write(own_project, {"models/marts/sales/by_name.yml": yml, "models/marts/sales/orders_by_name.sql": sql}, None)
    run_duckdb(own_project, "acme", *get_raw_statements("acme", amounts=[60]))
    outcome = build_tenant(own_project, make_tenant("acme", select=["orders_by_name"], exclude=["tenants"]))
    name = "accepted_values_orders_by_name_customer_name__Ada"
    assert outcome.tests[name].message == "customer_name has 1 unexpected value: 'Bob' (1 row)"
    assert run_duckdb(own_project, "acme", f"select value_field from acme_dbt_test__audit.{name}") == [("Bob",)]
    managed = make_tenant("acme", destination={"type": "postgres", "managed": True, "url": {"env": "X"}}, select=["orders_by_name"], exclude=["tenants"])
    untested = make_tenant("acme", destination=managed.destination.model_dump(), select=["people"])
    unmanaged = make_tenant("acme", destination={"type": "postgres", "url": {"env": "X"}}, select=["people"], exclude=["tenants"])
    graph = prepare_graph([managed, untested, unmanaged], own_project)
    assert {"acme_dbt_test__audit", "acme_quality"} <= set(list_schemas(managed, graph))
    assert "acme_dbt_test__audit" not in list_schemas(untested, graph)
    assert "acme_dbt_test__audit" in list_schemas(unmanaged, graph)  # the test has left the project; its rows have not
    assert build_name_matcher("acme", replace(own_project, tenants_dir=own_project.dbt_project_dir), graph).is_like_own("acme_dbt_test__audit")
    write_only(own_project, {"models/marts/sales/by_name.yml": yml.replace("schema: quality", "schema: raw_shop")})
    with pytest.raises(ConfigurationError, match=r"not_null_orders_by_name_customer_name: the schema raw_shop is the platform's own"):
        prepare_project(own_project)
