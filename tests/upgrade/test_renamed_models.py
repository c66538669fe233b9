"""A warehouse that an earlier release has built -> the same after this release: no mart changes, and old names are views of new models."""

import contextlib
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.support.lengths import choose
from tests.transform.conftest import make_tenant
from tests.transform.test_marketing import FILES, TABLE

# Its fixture is built once, by one worker.
pytestmark = pytest.mark.xdist_group("renamed_models")

# The models, snapshots and tests of the last release before the names `stg_<source>__<entity>`.
RECORDED = Path(__file__).parent / "dbt_project-663b6df.tar.xz"
REPLACED = ("models", "snapshots", "tests")
OLD = {
    **{f"stg_{name}": f"stg_shop__{name}" for name in ("customers", "orders", "order_items", "products", "supplies", "stores")},
    **{f"stg_{name}": f"int_{name}" for name in ("ad_spend", "ad_spend_versions")},
}
STREAMS = {"shop": ["customers", "orders", "items", "products", "supplies", "stores"], "ads": ["campaigns"]}
RAW = (
    "create schema acme_raw_shop",
    "create table acme_raw_shop.customers (id varchar, name varchar)",
    "insert into acme_raw_shop.customers values ('c1', 'Ada'), ('c2', 'Grace')",
    "create table acme_raw_shop.orders (id varchar, customer varchar, ordered_at timestamp, store_id varchar, subtotal int, tax_paid int, order_total int)",
    "insert into acme_raw_shop.orders values ('o1', 'c1', '2024-01-01 09:00:00', 's1', 1000, 60, 1060)",
    "insert into acme_raw_shop.orders values ('o2', 'c1', '2024-01-02 09:00:00', 's1', 500, 30, 530)",
    "create table acme_raw_shop.items (id varchar, order_id varchar, sku varchar)",
    "insert into acme_raw_shop.items values ('i1', 'o1', 'JAF-1'), ('i2', 'o2', 'BEV-1')",
    "create table acme_raw_shop.products (sku varchar, name varchar, type varchar, price bigint, description varchar)",
    "insert into acme_raw_shop.products values ('JAF-1', 'one', 'jaffle', 1000, 'a'), ('BEV-1', 'two', 'beverage', 500, 'b')",
    "create table acme_raw_shop.supplies (id varchar, name varchar, cost bigint, perishable varchar, sku varchar)",
    "insert into acme_raw_shop.supplies values ('u1', 'cup', 10, 'False', 'BEV-1'), ('u1', 'cup', 10, 'False', 'JAF-1'), ('u2', 'bread', 20, 'True', 'JAF-1')",
    "create table acme_raw_shop.stores (id varchar, name varchar, opened_at timestamp, tax_rate double precision)",
    "insert into acme_raw_shop.stores values ('s1', 'Berlin', '2023-01-01 00:00:00', 0.06)",
    "create schema acme_raw_ads",
    TABLE,
)
Tables = dict[str, tuple[list[tuple[str, str]], list[str]]]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The project with the earlier release's models, parsed."""
    root = tmp_path_factory.mktemp("earlier")
    project = shutil.copytree(ROOT / "dbt_project", root / "project", ignore=shutil.ignore_patterns(*REPLACED, "target", "logs"))
    with tarfile.open(RECORDED) as archive:
        archive.extractall(project, filter="data")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=project, data_dir=root / "data")
    for adapter in ("duckdb", "postgres"):
        prepare_project(settings, adapter)
    return settings


class Warehouse:
    """A tenant's warehouse of either kind, with raw rows."""

    def __init__(self, settings: Settings, url: str | None) -> None:
        self.settings, self.url = settings, url
        with self._connect() as cursor:
            for statement in RAW:
                cursor.execute(statement)
            for row in FILES:
                cursor.execute(f"insert into acme_raw_ads.campaigns values ({', '.join(['%s' if url else '?'] * len(row))})", row)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Any]:
        if self.url:
            with contextlib.closing(psycopg2.connect(self.url)) as connection, connection, connection.cursor() as cursor:
                yield cursor
            return
        file = naming.warehouse_file(self.settings.data_dir, "acme")
        file.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(file)) as connection:
            yield connection

    def build(self, project: Path, prepared: Path) -> dict[str, str]:
        """Build with a project that is parsed already; gives the models that were not built."""
        settings = replace(self.settings, dbt_project_dir=project)
        shutil.rmtree(settings.data_dir / "dbt", ignore_errors=True)
        shutil.copytree(prepared, settings.data_dir / "dbt" / "prepared")
        destination = {"type": "postgres", "url": {"env": "WAREHOUSE_URL"}} if self.url else {"type": "duckdb"}
        # All of them, so that no selection has to be evaluated. Their tests are other tests' subject.
        models = tuple(key for key, model in load_graph(settings).models.items() if model.kind != "seed")
        tenant = make_tenant("acme", destination=destination, streams=STREAMS)
        request = BuildRequest(tenant=tenant, models=models, tests=(), settings=settings, timeout_seconds=120)
        results = DbtWorker.start(settings, adapter="postgres" if self.url else "duckdb").build(request)
        return {result.unique_id: result.message for result in results if result.status != "success"}

    def read(self) -> Tables:
        """Each table and view that dbt has made: its columns with their types, and its rows as texts."""
        found: Tables = {}
        with self._connect() as cursor:
            cursor.execute(
                "select table_schema, table_name, column_name, data_type from information_schema.columns where table_schema like 'acme\\_%' escape '\\'"
                " and table_schema not like 'acme\\_raw%' escape '\\' and table_schema <> 'acme_fabric' order by table_schema, table_name, ordinal_position"
            )
            for schema, table, column, kind in cursor.fetchall():
                found.setdefault(f"{schema}.{table}", ([], []))[0].append((column, kind))
            for table, (_, rows) in found.items():
                cursor.execute(f"select * from {table}")
                rows.extend(sorted(map(repr, cursor.fetchall())))
        return found

    def get_definition(self, view: str) -> str:
        schema, _, name = view.partition(".")
        listed = ("pg_views", "definition", "schemaname", "viewname") if self.url else ("duckdb_views()", "sql", "schema_name", "view_name")
        with self._connect() as cursor:
            cursor.execute("select {1} from {0} where {2} = '{schema}' and {3} = '{name}'".format(*listed, schema=schema, name=name))
            ((text,),) = cursor.fetchall()
        return text


@pytest.mark.parametrize("kind", choose(["duckdb", "postgres"], 1))
def test_the_old_names_become_views_of_the_new_models_and_nothing_else_changes(
    kind: str, earlier: Settings, prepared_data: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue("postgres_database") if kind == "postgres" else None
    monkeypatch.setenv("WAREHOUSE_URL", url or "")
    warehouse = Warehouse(replace(earlier, data_dir=tmp_path / "data"), url)
    assert warehouse.build(earlier.dbt_project_dir, earlier.data_dir / "dbt" / "prepared") == {}
    before = warehouse.read()
    assert {f"acme_staging.{name}" for name in OLD} <= before.keys()
    assert all(rows for _, rows in before.values()), "a table without rows proves nothing"

    assert warehouse.build(ROOT / "dbt_project", prepared_data) == {}
    after = warehouse.read()
    assert {name: after.get(name) for name in before} == before
    assert {name.partition(".")[2] for name in after.keys() - before.keys()} == {*OLD.values(), "stg_ads__campaigns"}
    assert all(new in warehouse.get_definition(f"acme_staging.{old}") for old, new in OLD.items())


def test_the_rename_table_has_each_old_name(prepared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared_data, tmp_path / "dbt" / "prepared")
    graph = load_graph(Settings(tenants_dir=tmp_path, dbt_project_dir=ROOT / "dbt_project", data_dir=tmp_path))
    assert {name: model.name for (schema, name), model in graph.renamed.items() if schema == "staging"} == OLD
    deprecated = {model.name for model in graph.models.values() if model.deprecation_date and "deprecated" in model.tags}
    assert deprecated == set(OLD)
    # The CHANGELOG lists each old asset key beside the new one.
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for (schema, name), model in graph.renamed.items():
        assert f"| `{schema}/{name}` | `{model.schema}/{model.name}` |" in changelog
