"""Our assets compared with those that dagster-dlt and dagster-dbt make of the same pipeline and project: users of these must recognise ours (ADR 0002)."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dbt import dbt_assets
from dagster_dlt import DagsterDltResource, dlt_assets
from dlt.sources.sql_database import sql_table

from fabric_assets.config.loader import load_fleet
from fabric_assets.factories.tenant import build_tenant_definitions
from fabric_assets.settings import Settings
from fabric_assets.transform.graph import load_graph
from tests.conftest import ROOT
from tests.factories.shop import get_tenant

# Its fixtures are built once, by one worker.
pytestmark = pytest.mark.xdist_group("conventions")


@pytest.fixture
def ours(prepared: Settings, write_tenant: Any) -> list[dg.AssetsDefinition]:
    """The loading and the transforming op of one tenant."""
    write_tenant("acme", get_tenant(transform={"select": ["staging.shop", "marts.sales", "product_prices", "ad_channels"]}))
    return build_tenant_definitions(load_fleet(prepared).tenants["acme"], load_graph(prepared), settings=prepared).assets


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What dbt itself makes of the project in the tenant's name."""
    folder = tmp_path_factory.mktemp("dbt")
    (folder / "profiles.yml").write_text(f"fabric: {{target: dev, outputs: {{dev: {{type: duckdb, path: '{folder}/acme.duckdb'}}}}}}")
    command = [str(Path(sys.executable).with_name("dbt")), "parse", "--quiet", "--project-dir", str(ROOT / "dbt_project"), "--profiles-dir", str(folder)]
    command += ["--target-path", str(folder / "target"), "--log-path", str(folder), "--vars", "{fabric_tenant: acme}"]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((folder / "target" / "manifest.json").read_text())


@pytest.fixture
def theirs(manifest: dict[str, Any]) -> dg.AssetsDefinition:
    """dagster-dbt's assets of the same models, with nothing overridden."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its beta and preview features say so

        @dbt_assets(manifest=manifest, select="staging.shop marts.sales product_prices ad_channels")
        def models(): ...

    return models


def shorten(key: dg.AssetKey) -> tuple[str, ...]:
    """Our key in dagster-dbt's words: without the tenant, and a source without the word raw."""
    path = key.path[1:]
    return tuple(path[1:] if path[0] == "raw" else path)


def test_models_have_the_keys_and_the_lineage_that_dagster_dbt_gives_them(ours: list[dg.AssetsDefinition], theirs: dg.AssetsDefinition) -> None:
    found = {shorten(spec.key): {shorten(dep.asset_key) for dep in spec.deps} for spec in ours[-1].specs}
    assert found == {tuple(spec.key.path): {tuple(dep.asset_key.path) for dep in spec.deps} for spec in theirs.specs}


def test_models_have_the_kinds_and_the_table_names_that_dagster_dbt_gives_them(ours: list[dg.AssetsDefinition], theirs: dg.AssetsDefinition) -> None:
    found = {shorten(spec.key): (spec.kinds, spec.metadata["dagster/table_name"]) for spec in ours[-1].specs}
    assert found == {tuple(spec.key.path): (spec.kinds, spec.metadata["dagster/table_name"]) for spec in theirs.specs}


def test_tests_are_the_checks_that_dagster_dbt_makes_of_them(ours: list[dg.AssetsDefinition], theirs: dg.AssetsDefinition, prepared: Settings) -> None:
    units = {test.name for model in load_graph(prepared).models.values() for test in model.checks if test.kind == "unit"}
    models = {shorten(spec.key) for spec in ours[-1].specs}
    found = {(shorten(spec.asset_key), spec.name) for spec in ours[-1].check_specs if spec.name not in units}
    expected = {(tuple(spec.asset_key.path), spec.name) for spec in theirs.check_specs}
    assert {check for check in found if check[0] in models} == expected
    assert units, "unit tests are checks of ours beside theirs"


def test_a_load_reports_of_its_table_what_dagster_dlt_reports(ours: list[dg.AssetsDefinition], shop_url: str, tmp_path: Path, settings: Settings) -> None:
    source = dlt.source(lambda: sql_table(shop_url, table="orders", backend="pyarrow"), name="shop")()
    source.resources["orders"].apply_hints(primary_key="id", write_disposition="merge")
    pipeline = dlt.pipeline(
        "theirs", destination=dlt.destinations.duckdb(str(tmp_path / "theirs.duckdb")), dataset_name="acme_raw_shop", pipelines_dir=str(tmp_path / "dlt")
    )

    @dlt_assets(dlt_source=source, dlt_pipeline=pipeline)
    def theirs(context: dg.AssetExecutionContext, dlt_resource: DagsterDltResource):
        yield from dlt_resource.run(context=context)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, about the two libraries' own code
        expected = _materialize(theirs, {"dlt_resource": DagsterDltResource()})
        found = _materialize(ours[0], {}, selection=[dg.AssetKey(["acme", "raw", "shop", "orders"])])
    technical = {"started_at", "finished_at", "jobs", "destination_name", "dagster/storage_kind"}
    assert set(expected) - technical <= set(found)
    assert _read_columns(found) == _read_columns(expected)  # their types are dlt's; ours are the warehouse's, as dagster-dbt's are
    assert found["rows_loaded"].value == expected["rows_loaded"].value == 3
    # dlt extracts nothing of a database here, so the source's type replaces their kind `dlt`.
    assert next(iter(ours[0].specs)).kinds - {"sql_database"} == next(iter(theirs.specs)).kinds - {"dlt"}


def test_a_load_describes_its_columns_as_dbts_sources_do(ours: list[dg.AssetsDefinition], shop_url: str, settings: Settings) -> None:
    found = _materialize(ours[0], {}, selection=[dg.AssetKey(["acme", "raw", "shop", "orders"])])
    described = {column.name: column.description for column in found["dagster/column_schema"].schema.columns}
    declared = {name: told for name, (_, told) in load_graph(settings).streams["shop"]["orders"].columns.items()}
    assert described == declared | dict.fromkeys(described.keys() - declared.keys())
    assert described["order_total"] == "Subtotal and tax, in cents."


def _materialize(assets: dg.AssetsDefinition, resources: dict[str, Any], selection: Any = None) -> dict[str, dg.MetadataValue]:
    result = dg.materialize([assets], resources=resources, selection=selection)
    (event,) = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def _read_columns(metadata: dict[str, Any]) -> set[str]:
    return {column.name for column in metadata["dagster/column_schema"].value.columns if not column.name.startswith("_dlt_")}
