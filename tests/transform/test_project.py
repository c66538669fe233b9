"""One parse of the dbt project serves all tenants: what it holds, when it is made anew, what it refuses."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import digest_packages_files, get_graph_file, get_packages_record, get_prepared_file
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import is_prepared, prepare_project


def test_the_graph_tells_what_definitions_need_of_a_model(prepared_project: Settings) -> None:
    graph = load_graph(prepared_project)
    orders = graph.models["model.fabric.stg_orders"]
    assert (orders.name, orders.schema, orders.materialized, orders.tenant) == ("stg_orders", "staging", "view", None)
    assert orders.description == "One row per order."
    assert orders.columns["order_id"] == ("bigint", "The order's number.")
    assert orders.depends_on_sources == (("shop", "orders"),)
    assert orders.file == "models/staging/shop/stg_orders.sql"
    checks = {check.name: check for check in orders.checks}
    assert set(checks) == {
        "not_null_stg_orders_order_id",
        "unique_stg_orders_order_id",
        "relationships_stg_orders_customer_id__customer_id__ref_stg_customers_",
    }
    relation = checks["relationships_stg_orders_customer_id__customer_id__ref_stg_customers_"]
    assert (relation.severity, relation.column) == ("warn", "customer_id")
    assert set(relation.depends_on_models) == {"model.fabric.stg_orders", "model.fabric.stg_customers"}
    assert graph.models["model.fabric.customers"].tags == ("people", "daily")


def test_an_ephemeral_model_is_replaced_by_what_it_reads(prepared_project: Settings) -> None:
    graph = load_graph(prepared_project)
    assert set(graph.models["model.fabric.people"].depends_on_models) == {"model.fabric.stg_contacts", "model.fabric.stg_customers"}
    assert "model.fabric.int_known_customers" in graph.models["model.fabric.people"].parents


def test_tests_belong_to_what_dagster_dbt_would_attach_them_to(prepared_project: Settings) -> None:
    graph = load_graph(prepared_project)
    names = {model.name: {check.name for check in model.checks} for model in graph.models.values()}
    assert "amounts_add_up" in names["customers"]  # meta.dagster.ref.name
    assert {"no_order_is_negative", "an_order_of_a_hundred_is_large"} <= names["orders"]
    assert next(check for check in graph.models["model.fabric.orders"].checks if check.kind == "unit").depends_on_models == ("model.fabric.orders",)
    assert {check.name for check in graph.source_checks["shop", "orders"]} == {"source_not_null_shop_orders_id", "source_unique_shop_orders_id"}
    assert graph.unattached == ()


def test_a_tenants_own_model_has_its_short_name_and_its_tenants_schema(prepared_project: Settings) -> None:
    models = load_graph(prepared_project).models
    assert [(models[f"model.fabric.{name}"].tenant, models[f"model.fabric.{name}"].schema, models[f"model.fabric.{name}"].name) for name in OWN] == [
        ("acme", "marts", "vip_customers"),
        ("globex", "marts", "vip_customers"),
        ("globex", "reports", "orders_by_day"),
    ]


OWN = ("acme__vip_customers", "globex__vip_customers", "globex__orders_by_day")


def test_a_project_that_has_not_changed_is_not_parsed_again(prepared: Settings) -> None:
    before = get_prepared_file(prepared).stat().st_mtime_ns
    assert is_prepared(prepared)
    prepare_project(prepared)
    assert get_prepared_file(prepared).stat().st_mtime_ns == before


def test_an_edit_makes_it_stale_and_a_touch_does_not(own_project: Settings) -> None:
    model = own_project.dbt_project_dir / "models/staging/shop/stg_orders.sql"
    model.touch()
    (own_project.dbt_project_dir / "target").mkdir()
    (own_project.dbt_project_dir / "target" / "junk.sql").write_text("select")
    assert is_prepared(own_project)
    model.write_text(model.read_text() + "-- a change\n")
    assert not is_prepared(own_project)
    with pytest.raises(ConfigurationError, match="has changed since it was prepared") as caught:
        load_graph(own_project)
    assert "fabric validate" in caught.value.remedy


def test_a_missing_preparation_says_what_to_run(prepared: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not prepared") as caught:
        load_graph(replace(prepared, data_dir=tmp_path / "empty"))
    assert "fabric validate" in caught.value.remedy


def test_a_folder_without_a_project_is_an_error(prepared: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no dbt_project.yml"):
        prepare_project(replace(prepared, dbt_project_dir=tmp_path / "nowhere"))


def test_several_at_once_parse_once(own_project: Settings) -> None:
    (own_project.dbt_project_dir / "models/marts/sales/people.sql").write_text("select 1 as one")
    written: list[int] = []

    def prepare() -> None:
        prepare_project(own_project)
        written.append(get_prepared_file(own_project).stat().st_mtime_ns)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 3
    assert len(set(written)) == 1
    assert load_graph(own_project).models["model.fabric.people"].depends_on_models == ()


def test_a_truncated_preparation_is_made_anew(prepared: Settings) -> None:
    get_graph_file(prepared).write_text('{"fingerprint": "')
    assert not is_prepared(prepared)


BROKEN = {
    "models/tenants/loose.sql": "select 1 as one",
    "models/marts/sales/leans.sql": "select * from {{ ref('acme__vip_customers') }}",
    "models/marts/sales/elsewhere.sql": "{{ config(schema='raw_shop') }} select 1 as one",
    "models/marts/sales/far.sql": "{{ config(database='other') }} select 1 as one",
    "models/tenants/globex/plain.sql": "select 1 as one",
    "models/staging/wild/sources.yml": """
sources:
  - {name: wild, schema: globex_raw_shop, tables: [{name: orders}]}
  - {name: odd, tables: [{name: a, identifier: b}]}
""",
    "packages.yml": "packages: [{package: acme/billing, version: 1.0.0}]",
    "package-lock.yml": "packages: [{name: billing, package: acme/billing, version: 1.0.0}]\nsha1_hash: abc\n",
    "dbt_packages/billing/dbt_project.yml": "name: billing\nversion: '1.0'\nconfig-version: 2\n",
    "dbt_packages/billing/models/tenants/globex/x.sql": "select 1 as one",
    "dbt_packages/billing/models/elsewhere.sql": "{{ config(schema='fabric') }} select 1 as one",
    "dbt_packages/billing/models/sources.yml": "sources: [{name: crm, tables: [{name: contacts}]}]",
}
REFUSALS = (
    "models/tenants/loose.sql: a tenant's own models lie in a folder with the tenant's name",
    "models/marts/sales/leans.sql: it refers to acme__vip_customers, which only tenant acme has",
    "models/marts/sales/elsewhere.sql: the schema raw_shop is the platform's own",
    "models/marts/sales/far.sql: it names the database other",
    "models/tenants/globex/plain.sql: name the file globex__plain.sql",
    "models/staging/wild/sources.yml: source wild.orders: its schema is globex_raw_shop",
    "models/staging/wild/sources.yml: source odd.a: it names the table b",
    "dbt_packages/billing/models/tenants/globex/x.sql: a folder tenants/<tenant>/ belongs to a tenant of the project itself",
    "dbt_packages/billing/models/elsewhere.sql: the schema fabric is the platform's own",
    "the stream is one asset. Disable one of the two in dbt_project.yml",
)


def test_a_project_that_would_mix_tenants_is_refused_with_every_reason_at_once(own_project: Settings) -> None:
    _write(own_project, BROKEN)
    get_packages_record(own_project.dbt_project_dir).write_text(digest_packages_files(own_project.dbt_project_dir))
    with pytest.raises(ConfigurationError) as caught:
        prepare_project(own_project)
    for refusal in REFUSALS:
        assert refusal in caught.value.message
    assert "fabric_tenant_placeholder" not in caught.value.message


def test_a_folder_of_no_tenants_name_is_refused(own_project: Settings) -> None:
    """Otherwise nobody would notice: no tenant exists to which the problem could be reported."""
    _write(own_project, {"models/tenants/pg_x/pg_x__one.sql": "select 1 as one"})
    with pytest.raises(ConfigurationError, match="the folder pg_x is no tenant's"):
        prepare_project(own_project)


def _write(settings: Settings, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = settings.dbt_project_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_project_that_does_not_admit_this_dbt_is_refused_with_the_line_to_change(own_project: Settings) -> None:
    file = own_project.dbt_project_dir / "dbt_project.yml"
    file.write_text(file.read_text().replace('">=1.11.0", "<1.13.0"', '">=1.9.0", "<1.10.0"'))
    with pytest.raises(ConfigurationError, match="Required version of dbt for 'fabric'") as caught:
        prepare_project(own_project)
    assert caught.value.remedy.startswith("let `require-dbt-version` in the dbt_project.yml that is named above admit the installed version")


def test_a_project_that_dbt_cannot_parse_is_refused_with_dbts_words(own_project: Settings) -> None:
    (own_project.dbt_project_dir / "models/marts/sales/wrong.yml").write_text("models: [x")
    with pytest.raises(ConfigurationError) as caught:
        prepare_project(own_project)
    assert "models/marts/sales/wrong.yml:" in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_model_that_only_one_kind_of_warehouse_has_is_refused(own_project: Settings) -> None:
    """Definitions are built from one graph, whatever the tenants' destinations."""
    model = own_project.dbt_project_dir / "models/marts/sales/people.sql"
    model.write_text("{{ config(enabled=target.type == 'duckdb') }} select 1 as one")
    prepare_project(own_project)
    with pytest.raises(ConfigurationError, match=r"model\.fabric\.people: not the same on every kind of warehouse"):
        prepare_project(own_project, "postgres")


def test_a_tenants_own_model_that_only_one_kind_has_stops_that_tenant_alone(own_project: Settings) -> None:
    _write(own_project, {"models/tenants/globex/globex__here.sql": "{{ config(enabled=target.type == 'duckdb') }} select 1 as one"})
    prepare_project(own_project)
    prepare_project(own_project, "postgres")
    graph = load_graph(own_project)
    assert "globex__here: not the same on every kind of warehouse" in graph.broken["globex"]
    assert {model.tenant for model in graph.models.values()} == {None, "acme"}
    get_prepared_file(own_project).unlink()
    prepare_project(own_project)
    assert load_graph(own_project) == graph
