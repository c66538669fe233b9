"""A tenant's YAML as Dagster sees it: names, lineage, schedules, and what loading it must not touch."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from fabric_assets.config.sources.models import RestApiSource
from fabric_assets.definitions import defs as location
from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.fleet import build_definitions
from tests.conftest import ROOT
from tests.factories.shop import get_tenant


@pytest.fixture
def definitions(prepared, write_tenant) -> dg.Definitions:
    write_tenant("acme", get_tenant())
    return build_definitions(prepared)


def get_specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_streams_and_models_are_one_graph_from_raw_to_marts(definitions):
    graph = definitions.resolve_asset_graph()
    upstream = dg.AssetSelection.assets("acme/marts/daily_revenue").upstream().resolve(graph)
    assert {key.to_user_string() for key in upstream} >= {
        "acme/marts/daily_revenue",
        "acme/marts/orders",
        "acme/staging/stg_shop__orders",
        "acme/raw/shop/orders",
    }
    roots = {key.to_user_string() for key in dg.AssetSelection.all().roots().resolve(graph)}
    assert roots == {f"acme/raw/shop/{stream}" for stream in ("customers", "orders", "items", "products", "stores", "supplies")}


def test_a_stream_carries_its_tenants_names(definitions, prepared):
    spec = get_specs(definitions)["acme/raw/shop/orders"]
    assert spec.group_name == "acme"
    assert (spec.tags["tenant"], spec.tags["source"]) == ("acme", "shop")
    assert spec.kinds == {"sql_database", "duckdb"}
    assert list(spec.owners) == ["team:growth", "data@acme.example"]
    assert spec.description == "Orders of the shop."
    assert spec.metadata["dagster/table_name"] == "acme.acme_raw_shop.orders"
    reference = spec.metadata["dagster/code_references"].code_references[0]
    line = (prepared.tenants_dir / "acme.yaml").read_text().splitlines()[reference.line_number - 1]
    assert line.strip() == "orders:"
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))


def test_the_layer_and_the_kinds_tell_raw_assets_from_models(definitions):
    specs = get_specs(definitions)
    raw, staging, mart = (specs[f"acme/{name}"] for name in ("raw/shop/orders", "staging/stg_shop__orders", "marts/orders"))
    assert [spec.tags["layer"] for spec in (raw, staging, mart)] == ["raw", "staging", "marts"]
    assert [("dbt" in spec.kinds, "sql_database" in spec.kinds) for spec in (raw, staging, mart)] == [(False, True), (True, False), (True, False)]
    graph = definitions.resolve_asset_graph()
    of_layer = {layer: dg.AssetSelection.tag("layer", layer).resolve(graph) for layer in ("raw", "marts")}
    assert of_layer["raw"] == {spec.key for name, spec in specs.items() if name.startswith("acme/raw/")}
    assert of_layer["marts"] == {spec.key for name, spec in specs.items() if name.startswith("acme/marts/")}


def test_old_names_of_models_are_assets_with_a_tag_and_schedules_that_target_them_have_the_new_ones(prepared, write_tenant):
    write_tenant("acme", get_tenant(schedules={"hourly": {"cron": "0 * * * *", "target": ["+staging/stg_orders"]}}))
    definitions = build_definitions(prepared)
    graph = definitions.resolve_asset_graph()
    deprecated = {key.path[2] for key in dg.AssetSelection.tag("deprecated", "true").resolve(graph)}
    assert deprecated == {f"stg_{name}" for name in ("customers", "orders", "order_items", "products", "supplies", "stores")}
    view = get_specs(definitions)["acme/staging/stg_orders"]
    assert view.description.startswith("Deprecated: use stg_shop__orders.")
    assert {dep.asset_key.to_user_string() for dep in view.deps} == {"acme/staging/stg_shop__orders"}
    job = definitions.resolve_job_def("acme__hourly")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert keys == {"acme/raw/shop/orders", "acme/staging/stg_shop__orders", "acme/staging/stg_orders"}


def test_a_raw_asset_has_the_descriptions_of_the_dbt_projects_source(prepared, write_tenant):
    tenant = get_tenant()
    tenant["sources"]["shop"]["streams"]["stores"].pop("description", None)
    write_tenant("acme", tenant)
    specs = get_specs(build_definitions(prepared))
    assert specs["acme/raw/shop/stores"].description == "One row per store."
    assert specs["acme/raw/shop/orders"].description == "Orders of the shop."  # the YAML's own
    columns = {column.name: (column.type, column.description) for column in specs["acme/raw/shop/orders"].metadata["dagster/column_schema"].columns}
    assert columns["tax_paid"] == ("?", "Tax, in cents.")


def test_the_customers_name_is_shown_where_dagster_has_a_place_for_it(prepared, write_tenant):
    write_tenant("acme", get_tenant(display_name="Acme Outdoor"))
    write_tenant("globex", get_tenant())
    definitions = build_definitions(prepared)
    specs = get_specs(definitions)
    assert {spec.metadata.get("display_name") for name, spec in specs.items() if name.startswith("acme/")} == {"Acme Outdoor"}
    assert {spec.metadata.get("display_name") for name, spec in specs.items() if name.startswith("globex/")} == {None}
    assert specs["acme/isolation"].description.startswith("What Acme Outdoor can access.")
    assert [definitions.resolve_schedule_def(f"{name}__nightly").description for name in ("acme", "globex")] == ["nightly of Acme Outdoor", "nightly of globex"]


@pytest.mark.parametrize("is_extracted", [False, True])
def test_the_kind_dlt_says_that_a_source_of_dlt_extracts_the_rows(prepared, write_tenant, monkeypatch, is_extracted):
    if is_extracted:
        monkeypatch.setattr(RestApiSource, "is_extracted_by_dlt", True)
    api = {"type": "rest_api", "base_url": "https://shop.example", "streams": {"orders": {"path": "orders"}}}
    write_tenant("acme", {"version": 1, "tenant": "acme", "sources": {"web": api}})
    assert get_specs(build_definitions(prepared))["acme/raw/web/orders"].kinds == {"rest_api", "duckdb", *(["dlt"] if is_extracted else [])}


def test_a_model_points_to_its_sql(definitions):
    spec = get_specs(definitions)["acme/marts/orders"]
    assert spec.kinds == {"dbt", "duckdb"}
    assert spec.metadata["dagster/table_name"] == "acme.acme_marts.orders"
    assert spec.metadata["dagster/code_references"].code_references[0].file_path == str(ROOT / "dbt_project/models/marts/sales/orders.sql")


def test_seeds_and_snapshots_are_assets_of_the_tenant_in_the_lineage_with_their_tests_as_checks(prepared, write_tenant):
    write_tenant("acme", get_tenant(transform={"select": ["staging.shop", "marts.sales", "product_prices", "ad_channels"]}))
    definitions = build_definitions(prepared)
    specs = get_specs(definitions)
    snapshot, seed = specs["acme/snapshots/product_prices"], specs["acme/seeds/ad_channels"]
    for spec, file in ((snapshot, "snapshots/product_prices.yml"), (seed, "seeds/marketing/ad_channels.csv")):
        assert (spec.group_name, spec.tags["tenant"], spec.kinds, list(spec.owners)) == (
            "acme",
            "acme",
            {"dbt", "duckdb"},
            ["team:growth", "data@acme.example"],
        )
        assert spec.metadata["dagster/code_references"].code_references[0].file_path == str(ROOT / "dbt_project" / file)
    assert snapshot.description == "One row per product and version of its name, type or price. The current version has no dbt_valid_to."
    assert {dep.asset_key.to_user_string() for dep in snapshot.deps} == {"acme/staging/stg_shop__products"}
    assert (snapshot.metadata["dagster/table_name"], seed.metadata["dagster/table_name"]) == (
        "acme.acme_snapshots.product_prices",
        "acme.acme_seeds.ad_channels",
    )
    assert (seed.description, list(seed.deps)) == ("One row per channel that ad spend may name.", [])
    keys = {(key.asset_key.to_user_string(), key.name) for key in definitions.resolve_asset_graph().asset_check_keys}
    assert {("acme/snapshots/product_prices", "unique_product_prices_dbt_scd_id"), ("acme/seeds/ad_channels", "unique_ad_channels_channel")} <= keys


def test_checks_of_the_yaml_and_tests_of_dbt_are_asset_checks(definitions):
    keys = {(key.asset_key.to_user_string(), key.name) for key in definitions.resolve_asset_graph().asset_check_keys}
    assert {("acme/raw/shop/orders", "row_count"), ("acme/raw/shop/orders", "freshness")} <= keys
    assert any(asset == "acme/marts/orders" and name.startswith("unique") for asset, name in keys)


def test_ops_pools_and_retries_are_named_as_promised(prepared, write_tenant):
    tenant = get_tenant()
    tenant["sources"]["shop"] = tenant["sources"]["shop"] | {"retries": {"max": 3, "delay": "10s", "backoff": "exponential"}}
    write_tenant("acme", tenant)
    nodes = {node.name: node for node in build_definitions(prepared).resolve_implicit_global_asset_job_def().all_node_defs}
    # The check of all tenants' walls has an op of its own, and waits for no warehouse.
    assert nodes.pop("fabric__isolation__check").pool is None
    assert set(nodes) == {"acme__shop__load", "acme__transform"}
    assert {node.pool for node in nodes.values()} == {"acme__warehouse"}
    policy = nodes["acme__shop__load"].retry_policy
    assert (policy.max_retries, policy.delay, policy.backoff) == (3, 10.0, dg.Backoff.EXPONENTIAL)
    assert nodes["acme__transform"].retry_policy is None


def test_schedules_start_tagged_runs_of_their_selection(definitions):
    schedule = definitions.resolve_schedule_def("acme__hourly_shop")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("15 * * * *", "UTC")
    assert definitions.resolve_schedule_def("acme__nightly").execution_timezone == "Europe/Berlin"
    job = definitions.resolve_job_def("acme__hourly_shop")
    assert job.tags["tenant"] == "acme"
    keys = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert "acme/marts/daily_revenue" in keys
    assert "acme/raw/shop/orders" in keys
    assert "acme/marts/customers" not in keys


def test_a_schedule_waits_on_a_developers_machine_and_runs_when_deployed(prepared, write_tenant, monkeypatch):
    write_tenant("acme", get_tenant())
    assert build_definitions(prepared).resolve_schedule_def("acme__nightly").default_status == dg.DefaultScheduleStatus.RUNNING
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    assert build_definitions(prepared).resolve_schedule_def("acme__nightly").default_status == dg.DefaultScheduleStatus.STOPPED


def test_a_broken_tenant_is_a_failing_check_and_the_others_load(prepared, write_tenant):
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    definitions = build_definitions(prepared)
    assert "acme/marts/orders" in get_specs(definitions)
    assert not [key for key in get_specs(definitions) if key.startswith("globex/raw")]
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        check = dg.AssetCheckKey(dg.AssetKey(["globex", "config"]), "config")
        assert check in definitions.resolve_asset_graph().asset_check_keys
        tick = definitions.resolve_sensor_def("fabric__broken_config").evaluate_tick(dg.build_sensor_context(instance=instance))
        again = definitions.resolve_sensor_def("fabric__broken_config").evaluate_tick(dg.build_sensor_context(instance=instance, cursor=tick.cursor))
    assert job is not None
    (event,) = tick.asset_events
    assert (event.asset_check_key, event.passed) == (check, False)
    assert "globex.yaml" in event.metadata["errors"].value
    assert "timezone" in event.metadata["errors"].value
    assert not again.asset_events, "the same errors are reported once"


def test_files_whose_wrong_names_look_alike_get_a_check_each(prepared, write_tenant):
    write_tenant("acme", get_tenant())
    for name in ("bad-1", "bad_1_", "bad 1", "ä", "ö"):
        write_tenant(name, get_tenant())
    graph = build_definitions(prepared).resolve_asset_graph()
    assert len({key for key in graph.asset_check_keys if key.name == "config"}) == 5


def test_a_check_fresher_than_dagsters_shortest_policy_is_kept_to_the_minute(prepared, write_tenant):
    write_tenant("acme", get_tenant(checks={"raw/shop/orders": [{"type": "freshness", "max_age": "30s"}]}))
    spec = get_specs(build_definitions(prepared))["acme/raw/shop/orders"]
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=1))


def test_a_mistake_that_was_corrected_and_made_again_is_reported_again(prepared, write_tenant):
    write_tenant("acme", get_tenant())
    file = write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    sensor = build_definitions(prepared).resolve_sensor_def("fabric__broken_config")
    with dg.DagsterInstance.ephemeral() as instance:
        first = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        os.utime(file, ns=(1, 1))
        second = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=first.cursor))
    assert len(second.asset_events) == 1


def test_a_selection_that_nobody_evaluated_breaks_its_tenant_until_a_reload_under_dev_or_prepare(
    prepared, write_tenant, settings_environ, monkeypatch, tmp_path
):
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(transform={"select": ["stg_shop__stores"]}, schedules={}, checks={}))
    monkeypatch.chdir(tmp_path)
    for environ, is_broken in (({}, True), ({"DAGSTER_IS_DEV_CLI": "1"}, False), ({}, False)):
        for name in ("DAGSTER_IS_DEV_CLI", "DAGSTER_IS_DEFS_VALIDATION_CLI"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        specs = get_specs(location())
        assert ("globex/staging/stg_shop__stores" in specs) is not is_broken
        assert ("globex/config" in specs) is is_broken
        assert "acme/marts/orders" in specs


def test_strict_settings_refuse_the_whole_fleet_for_one_broken_tenant(prepared, write_tenant):
    write_tenant("acme", get_tenant())
    write_tenant("globex", get_tenant(timezone="Mars/Olympus"))
    with pytest.raises(ConfigurationError, match=r"globex\.yaml"):
        build_definitions(replace(prepared, strict=True))


def test_a_part_of_the_fleet_without_tenants_yet_is_an_empty_code_location(prepared, write_tenant):
    write_tenant("acme", get_tenant())
    repository = build_definitions(replace(prepared, tenants=("[n-z]*",))).get_repository_def()
    assert repository.asset_graph.get_all_asset_keys() == set()


def test_a_process_serves_only_the_tenants_it_is_asked_for(prepared, write_tenant):
    for name in ("acme_de", "acme_us", "globex"):
        write_tenant(name, get_tenant())
    groups = {spec.group_name for spec in build_definitions(replace(prepared, tenants=("acme_*",))).resolve_all_asset_specs()}
    assert groups == {"acme_de", "acme_us"}


AUDIT = textwrap.dedent("""
    import json, sys
    import dagster  # its own import asks `file` what kind of Python this is
    seen = []
    def hook(event, args):
        acts = ("socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.posix_spawn", "sqlite3.connect")
        if event in acts or (event == "open" and "the_secret" in str(args[0])):
            seen.append([event, str(args[0])[:200]])
    sys.addaudithook(hook)
    from fabric_assets.definitions import defs
    repository = defs().get_repository_def()
    repository.get_all_jobs()
    heavy = [name for name in ("dlt", "dbt", "dagster_dlt", "dagster_dbt", "duckdb", "pyarrow", "sqlglot") if name in sys.modules]
    print(json.dumps({"seen": seen, "heavy": heavy, "assets": len(repository.asset_graph.get_all_asset_keys())}))
""")


def test_loading_opens_no_socket_reads_no_secret_and_imports_no_engine(prepared, write_tenant, settings_environ):
    tenant = get_tenant()
    tenant["sources"]["shop"] = tenant["sources"]["shop"] | {"url": {"file": "the_secret"}}
    write_tenant("acme", tenant)
    (prepared.data_dir / "the_secret").write_text("sqlite:///nowhere.db")
    done = subprocess.run([sys.executable, "-c", AUDIT], env=os.environ | settings_environ, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["assets"] > 6
    assert result["seen"] == []
    assert result["heavy"] == []
