"""A small dbt project of the tests' own, with the platform's macros, parsed once per session; and shops whose raw data lies in a warehouse."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import ADAPTERS
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.selection import select_models
from fabric_assets.transform.tests import get_tests
from tests.conftest import ROOT
from tests.support.folders import make_once
from tests.support.lengths import choose
from tests.transform.seeded import AMOUNTS, CHANGED, HISTORIES, LISTS, REGIONS, SEEDED, TORN

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
    """Settings over the fixture project, parsed once for all of pytest's workers; read-only. What `make_tenant` selects by default is evaluated."""

    def get_settings(root: Path) -> Settings:
        return Settings(tenants_dir=root / "tenants", dbt_project_dir=root / "project", data_dir=root / "data")

    def make(root: Path) -> None:
        copy_project(root / "project")
        prepare_graph([make_tenant(name) for name in ("acme", "globex", "initech")], get_settings(root))
        prepare_project(get_settings(root), "postgres")

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


def write_files(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def make_seeded_tenants() -> list[TenantConfig]:
    """The tenants of the tests, so that what they select is evaluated once."""
    own = [make_tenant(name, streams={}, **LISTS) for name in ("acme", "globex")]
    return [
        make_tenant("acme", **HISTORIES),
        make_tenant("acme", **AMOUNTS),
        make_tenant("initech", streams={}, **REGIONS),
        make_tenant("torn", streams={}, **TORN),
        *own,
    ]


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """Settings over the two versions of the project, parsed for all kinds of warehouse; read-only."""

    def get_settings(root: Path) -> Settings:
        return Settings(tenants_dir=root / "tenants", dbt_project_dir=root / "project", data_dir=root / "data")

    def make(root: Path) -> None:
        for name, files in (("first", SEEDED), ("changed", SEEDED | CHANGED)):
            settings = get_settings(root / name)
            write_files(copy_project(settings.dbt_project_dir), files)
            prepare_graph(make_seeded_tenants(), settings)
            for adapter in ADAPTERS:
                prepare_project(settings, adapter)

    root = make_once(tmp_path_factory, "seeded-project", make)
    return get_settings(root / "first"), get_settings(root / "changed")


@pytest.fixture
def seeded(versions: tuple[Settings, Settings], tmp_path: Path) -> Settings:
    """The first version, with a data folder of the test's own."""
    return _use(versions[0], tmp_path / "data")


@pytest.fixture
def change(versions: tuple[Settings, Settings], tmp_path: Path) -> Callable[..., Settings]:
    """Call it to go on with the second version on the same data, or back to the first one."""
    return lambda *, back=False: _use(versions[0 if back else 1], tmp_path / "data")


@pytest.fixture
def own_seeded(seeded: Settings, tmp_path: Path) -> Settings:
    """The first version, with a project of the test's own."""
    return replace(seeded, dbt_project_dir=shutil.copytree(seeded.dbt_project_dir, tmp_path / "project"))


def _use(version: Settings, data: Path) -> Settings:
    shutil.copytree(version.data_dir / "dbt" / "prepared", data / "dbt" / "prepared", dirs_exist_ok=True)
    return replace(version, data_dir=data)


@pytest.fixture(params=choose(["duckdb", "postgres"], 1))
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
