"""A small dbt project of the tests' own, with the platform's macros, parsed once per session; and shops whose raw data lies in a warehouse."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import TransformError
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests
from tests.conftest import ROOT
from tests.support.folders import make_once

Run = Callable[..., list[tuple[Any, ...]]]
STREAMS = {"shop": ["orders", "customers"], "crm": ["contacts"]}


def copy_project(folder: Path) -> Path:
    """Copy the fixture's models under the platform's dbt_project.yml and macros."""
    shutil.copytree(Path(__file__).parent / "project", folder)
    shutil.copy(ROOT / "dbt_project" / "dbt_project.yml", folder)
    shutil.copytree(ROOT / "dbt_project" / "macros", folder / "macros")
    return folder


@pytest.fixture(scope="session")
def prepared_project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings over the fixture project, parsed for DuckDB once for all of pytest's workers; read-only. What `make_tenant` selects by default is evaluated."""

    def get_settings(root: Path) -> Settings:
        return Settings(tenants_dir=root / "tenants", dbt_project_dir=root / "project", data_dir=root / "data")

    def make(root: Path) -> None:
        copy_project(root / "project")
        prepare_graph([make_tenant(name) for name in ("acme", "globex", "initech")], get_settings(root))

    return get_settings(make_once(tmp_path_factory, "fixture-project", make))


@pytest.fixture
def prepared(prepared_project: Settings, tmp_path: Path) -> Settings:
    """The same, with a data folder of the test's own."""
    shutil.copytree(prepared_project.data_dir / "dbt" / "prepared", tmp_path / "data" / "dbt" / "prepared")
    return replace(prepared_project, data_dir=tmp_path / "data")


@pytest.fixture
def own_project(prepared: Settings, tmp_path: Path) -> Settings:
    """The same, with a copy of the project that the test may change: it is parsed again then."""
    return replace(prepared, dbt_project_dir=copy_project(tmp_path / "project"))


def make_tenant(name: str, *, destination: dict[str, Any] | None = None, streams: dict[str, list[str]] | None = None, **transform: Any) -> TenantConfig:
    """A tenant that loads the fixture's sources and selects everything, by default."""
    declared = STREAMS if streams is None else streams
    return TenantConfig.model_validate(
        {
            "version": 1,
            "tenant": name,
            "destination": destination or {"type": "duckdb"},
            "sources": {
                source: {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {stream: {} for stream in names}} for source, names in declared.items()
            },
            "transform": {"select": ["staging", "marts"], **transform},
        }
    )


def get_raw_statements(tenant: str, *, amounts: Iterable[float], names: Iterable[str] = ("Ada", "Bob")) -> list[str]:
    """SQL, for DuckDB and Postgres, that creates the raw tables: an order for each amount, of the two customers in turn."""
    shop, crm = naming.raw_dataset(tenant, "shop"), naming.raw_dataset(tenant, "crm")
    orders = ", ".join(f"({index}, {1 + index % 2}, {amount}, timestamp '2024-01-0{index}')" for index, amount in enumerate(amounts, 1))
    customers = ", ".join(f"({index}, '{name}')" for index, name in enumerate(names, 1))
    return [
        f"create schema {shop}",
        f"create schema {crm}",
        f"create table {shop}.orders (id bigint, customer_id bigint, amount double precision, ordered_at timestamp)",
        f"insert into {shop}.orders values {orders}",
        f"create table {shop}.customers (id bigint, name varchar)",
        f"insert into {shop}.customers values {customers}",
        f"create table {crm}.contacts (id bigint, email varchar)",
        f"insert into {crm}.contacts values (1, 'Info@{tenant}.example')",
    ]


def run_duckdb(settings: Settings, tenant: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run SQL in the tenant's warehouse file; gives the last statement's rows."""
    import duckdb

    file = naming.warehouse_file(settings.data_dir, tenant)
    file.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.fetchall()


@dataclass
class Outcome:
    """The results of a build by short name: a model's table, a test's name."""

    models: dict[str, ModelResult]
    tests: dict[str, TestResult]


def build_tenant(settings: Settings, tenant: TenantConfig, *, full_refresh: bool = False) -> Outcome:
    """Build the tenant's models with the tests that are its own."""
    assert tenant.transform
    graph = prepare_graph([tenant], settings)
    models = select_models(graph, tenant=tenant.tenant, transform=tenant.transform)
    tests = {test.unique_id: test.name for owned in get_tests(graph, tenant, models).values() for test in owned}
    request = BuildRequest(
        tenant=tenant,
        models=tuple(model.unique_id for model in models),
        tests=tuple(tests),
        settings=settings,
        full_refresh=full_refresh,
        timeout_seconds=120,
    )
    results = list(DbtWorker.start(settings, adapter=tenant.destination.type).build(request))
    names = {model.unique_id: model.name for model in models}
    return Outcome(
        models={names[result.unique_id]: result for result in results if isinstance(result, ModelResult)},
        tests={tests[result.unique_id]: result for result in results if isinstance(result, TestResult)},
    )


# The files of a project with seeds and snapshots, shared ones and tenants' own, beside those of the fixture.
SEEDED = {
    "seeds/regions.csv": 'region,label,population\nEU,Europe,449\nUS,"United States, all",335\nXX,,\n',
    "seeds/regions.yml": """
seeds:
  - name: regions
    description: One row per region.
    columns:
      - {name: region, description: Two letters., data_tests: [unique, not_null]}
""",
    "seeds/lists/weekdays.csv": "number;name\n1;Monday\n2;Tuesday\n",
    "seeds/lists/lists.yml": """
seeds:
  - {name: weekdays, config: {schema: lists, delimiter: ";", column_types: {number: varchar(2)}, tags: [calendar]}}
""",
    "seeds/tenants/acme/acme__codes.csv": "code,meaning\n007,secret\n1,open\n",
    "seeds/tenants/acme/codes.yml": """
seeds:
  - name: acme__codes
    config: {column_types: {code: varchar}}
    columns: [{name: code, data_tests: [unique]}]
""",
    "seeds/tenants/globex/globex__codes.csv": "code\nx\n",
    "snapshots/names.yml": """
snapshots:
  - name: customer_names
    relation: ref('stg_customers')
    description: One row per customer and name.
    config: {unique_key: customer_id, strategy: check, check_cols: [customer_name]}
    columns: [{name: dbt_scd_id, data_tests: [unique]}]
""",
    "snapshots/amounts.sql": """
{% snapshot order_amounts %}
{{ config(target_schema='elsewhere', unique_key='order_id', strategy='timestamp', updated_at='ordered_at') }}
select * from {{ ref('stg_orders') }}
{% endsnapshot %}
""",
    "snapshots/tenants/acme/acme__vips.sql": """
{% snapshot acme__vips %}
{{ config(unique_key='customer_id', strategy='check', check_cols='all') }}
select customer_id from {{ ref('acme__vip_customers') }}
{% endsnapshot %}
""",
    "models/marts/history/names_per_customer.sql": "select customer_id, count(*) as names from {{ ref('customer_names') }} group by customer_id",
    "models/marts/history/large_regions.sql": "select region from {{ ref('regions') }} where population > 400",
}


def write_files(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture(scope="session")
def seeded_project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings over the fixture project with SEEDED in it, parsed for DuckDB; read-only."""
    root = tmp_path_factory.mktemp("seeded")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=copy_project(root / "project"), data_dir=root / "data")
    write_files(settings.dbt_project_dir, SEEDED)
    prepare_graph([], settings)
    return settings


@pytest.fixture
def seeded(seeded_project: Settings, tmp_path: Path) -> Settings:
    """The same, with a project and a data folder of the test's own."""
    shutil.copytree(seeded_project.data_dir / "dbt" / "prepared", tmp_path / "data" / "dbt" / "prepared")
    project = shutil.copytree(seeded_project.dbt_project_dir, tmp_path / "project")
    return replace(seeded_project, data_dir=tmp_path / "data", dbt_project_dir=project)


@pytest.fixture(params=["duckdb", "postgres"])
def destination(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A tenant's destination, of each kind in turn."""
    if request.param == "postgres":
        monkeypatch.setenv("SEEDED_URL", request.getfixturevalue("postgres_database"))
        return {"type": "postgres", "url": {"env": "SEEDED_URL"}}
    return {"type": "duckdb"}


@pytest.fixture
def run_in_warehouse(destination: dict[str, Any], seeded: Settings) -> Run:
    """Run SQL in a tenant's warehouse, which is acme's by default."""

    def run(*statements: str, tenant: str = "acme") -> list[tuple[Any, ...]]:
        if destination["type"] == "duckdb":
            return run_duckdb(seeded, tenant, *statements)
        with contextlib.closing(psycopg2.connect(os.environ["SEEDED_URL"])) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


# It does nothing unless the tenant sets the variable `endless`.
ENDLESS_HOOK = (
    "{% if var('endless', false) %}{% if target.type == 'postgres' %}select pg_sleep(600){% else %}"
    "select count(*) from range(1000000000000) as a (x) where x % 7 = 8{% endif %}{% endif %}"
)


def kill_in_hook(settings: Settings, tenant: TenantConfig, *models: str) -> None:
    """Build the models, and kill dbt's process while it is in the endless hook of one of them."""
    assert tenant.transform
    tenant = tenant.model_copy(update={"transform": tenant.transform.model_copy(update={"vars": {"endless": True}})})
    adapter = tenant.destination.type
    prepare_project(settings, adapter)
    worker = DbtWorker.start(settings, adapter=adapter)
    worker.wait_until_ready()
    events = worker.build(BuildRequest(tenant=tenant, models=models, tests=(), settings=settings))
    pid, begun = worker.pid, _measure_seconds(worker.pid)

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (_list_sleepers() if adapter == "postgres" else _measure_seconds(pid) - begun > _SECONDS_OF_DBT):
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        if adapter == "postgres":
            # The server notices that its client is gone when the statement ends. This is that end, sooner.
            _list_sleepers("pg_terminate_backend(pid)")

    thread = Thread(target=kill)
    thread.start()
    with pytest.raises(TransformError, match="ended early, by signal SIGKILL"):
        list(events)
    thread.join()


# dbt itself needs less of the processor's time for such a build.
_SECONDS_OF_DBT = 8


def _measure_seconds(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(ticks[11]) / os.sysconf("SC_CLK_TCK")


def _list_sleepers(found: str = "pid") -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(os.environ["SEEDED_URL"])) as connection, connection.cursor() as cursor:
        where = r"datname = current_database() and query ~ 'select pg_sleep\(' and state = 'active' and pid <> pg_backend_pid()"
        cursor.execute(f"select {found} from pg_stat_activity where {where}")
        return cursor.fetchall()
