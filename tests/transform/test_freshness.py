"""dbt's sources with `freshness`: each is a check of the tenant's raw asset, which dbt itself measures on DuckDB and on Postgres."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from fabric_assets.errors import DestinationUnavailable
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.graph import ProjectGraph, TestNode
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests
from tests.conftest import ROOT
from tests.transform.conftest import make_tenant, run_duckdb, write_files

pytestmark = pytest.mark.xdist_group("freshness")

STREAMS = {"shop": ["orders", "customers", "items", "refunds", "returns", "plain"]}
FILES = {
    "models/staging/shop/_shop__sources.yml": """
sources:
  - name: shop
    config: {freshness: {warn_after: {count: 1, period: hour}, error_after: {count: 1, period: day}}}
    tables:
      - {name: orders, config: {loaded_at_field: ordered_at}}
      - {name: customers}
      - {name: items, config: {freshness: {warn_after: {count: 90, period: minute}, error_after: null}}}
      - name: refunds
        config: {loaded_at_query: "select max(refunded_at) from {{ this }} where {{ 'accepted' }}", freshness: {error_after: {count: 1, period: hour}}}
      - {name: returns, config: {loaded_at_field: returned_at}}
      - {name: plain, config: {freshness: null}}
""",
    "models/marts/all_streams.sql": "".join(f"-- {{{{ source('shop', '{stream}') }}}}\n" for stream in STREAMS["shop"]) + "select 1 as one",
}
MOMENTS = {"recently": "now() - interval '5 minutes'", "hours ago": "now() - interval '3 hours'", "days ago": "now() - interval '50 hours'"}


def get_statements() -> list[str]:
    """SQL, for DuckDB and Postgres: orders are three hours old, returns have no table, refunds no row that counts. Other streams are as old as their load."""
    loads = [
        ("customers", "success", "hours ago"),
        ("customers", "success", "days ago"),
        ("customers", "failed", "recently"),
        ("items", "success", "days ago"),
        ("plain", "success", "recently"),
    ]
    return [
        *("create schema acme_raw_shop", "create schema acme_fabric"),
        "create table acme_raw_shop.orders (id bigint, ordered_at timestamp)",
        f"insert into acme_raw_shop.orders values (1, {MOMENTS['days ago']}), (2, cast({MOMENTS['hours ago']} as timestamp) - interval '1 second')",
        "create table acme_raw_shop.refunds (id bigint, refunded_at timestamptz, accepted boolean)",
        f"insert into acme_raw_shop.refunds values (1, {MOMENTS['recently']}, false)",
        "create table acme_fabric.loads (source text, stream text, status text, loaded_at timestamptz)",
        *(f"insert into acme_fabric.loads values ('shop', '{stream}', '{status}', {MOMENTS[moment]})" for stream, status, moment in loads),
    ]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, ProjectGraph]:
    root = tmp_path_factory.mktemp("freshness")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=root / "project", data_dir=root / "data")
    shutil.copytree(ROOT / "dbt_project" / "macros", settings.dbt_project_dir / "macros")
    shutil.copy(ROOT / "dbt_project" / "dbt_project.yml", settings.dbt_project_dir)
    write_files(settings.dbt_project_dir, FILES)
    tenants = [make_tenant(name, streams=STREAMS, select=["marts"], exclude=exclude) for name in ("acme", "globex") for exclude in ([], ["source:shop.orders"])]
    return settings, prepare_graph(tenants, settings)


def list_freshness(graph: ProjectGraph, name: str, **transform: Any) -> dict[str, TestNode]:
    """A tenant's tests of sources' ages, by source and stream."""
    tenant = make_tenant(name, streams=STREAMS, select=["marts"], **transform)
    assert tenant.transform
    tests = get_tests(graph, tenant, select_models(graph, tenant=name, transform=tenant.transform))
    return {owner: test for owner, owned in tests.items() for test in owned if test.kind == "freshness"}


def test_each_source_with_freshness_that_a_tenants_models_read_has_a_check(parsed: tuple[Settings, ProjectGraph]) -> None:
    _, graph = parsed
    found = list_freshness(graph, "acme")
    assert {owner: (test.name, test.severity, test.max_age_seconds) for owner, test in found.items()} == {
        "shop.orders": ("source_freshness", "error", 3600),
        "shop.customers": ("source_freshness", "error", 3600),
        "shop.items": ("source_freshness", "warn", 5400),
        "shop.refunds": ("source_freshness", "error", 3600),
        "shop.returns": ("source_freshness", "error", 3600),
    }
    assert found["shop.orders"].description == "dbt source freshness: warn after 1h, error after 1d."
    assert found["shop.orders"].unique_id == "source.fabric.shop.orders"


def test_a_tenant_excludes_the_freshness_of_a_source_by_its_selector(parsed: tuple[Settings, ProjectGraph]) -> None:
    found = list_freshness(parsed[1], "globex", exclude=["source:shop.orders"])
    assert sorted(found) == ["shop.customers", "shop.items", "shop.refunds", "shop.returns"]


@pytest.fixture(params=["duckdb", "postgres"])
def results(parsed: tuple[Settings, ProjectGraph], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, TestResult]:
    """The results of all tests of acme's sources, by stream, on each kind of destination in turn."""
    settings, graph = parsed
    settings = replace(settings, data_dir=tmp_path / "data")
    shutil.copytree(parsed[0].data_dir / "dbt", settings.data_dir / "dbt")
    destination = {"type": "duckdb"}
    if request.param == "postgres":
        monkeypatch.setenv("SHARED_URL", request.getfixturevalue("postgres_database"))
        destination = {"type": "postgres", "url": {"env": "SHARED_URL"}}
        with contextlib.closing(psycopg2.connect(os.environ["SHARED_URL"])) as connection, connection, connection.cursor() as cursor:
            cursor.execute(";".join(get_statements()))
    else:
        run_duckdb(settings, "acme", *get_statements())
    tenant = make_tenant("acme", destination=destination, streams=STREAMS, select=["marts"])
    tests = {test.unique_id: owner.split(".")[1] for owner, test in list_freshness(graph, "acme").items()}
    models = ("model.fabric.all_streams",)
    built = DbtWorker.start(settings, adapter=request.param).build(
        BuildRequest(tenant=tenant, models=models, tests=tuple(tests), settings=settings, timeout_seconds=120)
    )
    results = list(built)
    # What was measured before holds no model up, and leaves no file open.
    assert [(result.unique_id, result.status) for result in results if isinstance(result, ModelResult)] == [(models[0], "success")]
    return {tests[result.unique_id]: result for result in results if isinstance(result, TestResult)}


def test_dbt_measures_a_column_a_query_or_the_last_load(results: dict[str, TestResult]) -> None:
    assert {stream: (result.status, result.severity, result.message) for stream, result in results.items()} == {
        "orders": ("warn", "warn", "the newest ordered_at is 3h old, limit 1h"),
        "customers": ("warn", "warn", "the last load is 3h old, limit 1h"),
        "items": ("warn", "warn", "the last load is 2d 2h old, limit 1h 30m"),
        "refunds": ("fail", "error", "the moment of loaded_at_query is unknown: no row has a value"),
        "returns": ("error", "error", "the table acme_raw_shop.returns does not exist yet: load raw/shop/returns first"),
    }
    facts = results["customers"].facts
    assert facts["measured_by"] == "the last load"
    assert facts["criteria"] == "warn after 1h, error after 1d"
    assert 3 * 3600 <= int(facts["age_seconds"]) < 4 * 3600
    assert str(facts["max_loaded_at"]) < str(facts["snapshotted_at"])


def test_a_warehouse_that_does_not_answer_may_be_tried_again(parsed: tuple[Settings, ProjectGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, graph = parsed
    monkeypatch.setenv("SHARED_URL", "postgresql://someone:pw@127.0.0.1:1/nowhere")
    tenant = make_tenant("acme", destination={"type": "postgres", "url": {"env": "SHARED_URL"}}, streams=STREAMS, select=["marts"])
    test = list_freshness(graph, "acme")["shop.orders"]
    with pytest.raises(DestinationUnavailable, match="the warehouse cannot be reached"):
        list(DbtWorker.start(settings, adapter="postgres").build(BuildRequest(tenant=tenant, models=(), tests=(test.unique_id,), settings=settings)))
