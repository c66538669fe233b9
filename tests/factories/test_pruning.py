"""`fabric prune`: what no config names any more is listed, and dropped with --yes; what something reads stays."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.cli.headless import run_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import connect
from fabric_assets.settings import Settings
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.project import prepare_project
from fabric_assets.warehouse.lease import load_lease
from tests.conftest import ROOT
from tests.factories.conftest import copy_world
from tests.factories.shop import STREAMS, get_tenant, make_shop
from tests.support.folders import make_once
from tests.support.services import making_databases

# Its two projects are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("pruning")

DIMENSION = "select 1 as id"


class Shop:
    """A tenant with own models, whose YAML the test changes.

    Args:
        later: the settings of the project without OLD_MODELS.
        database: of a tenant on Postgres.
    """

    def __init__(self, settings: Settings, later: Settings | None, database: str) -> None:
        self.settings, self._later = settings, later
        self.destination: dict[str, Any] = {"type": "postgres", "url": {"env": "WAREHOUSE"}} if database else {"type": "duckdb"}
        self.streams = deepcopy(STREAMS)
        self.transform: dict[str, Any] | None = {}

    def remove_models(self, patch: pytest.MonkeyPatch) -> None:
        """Go on with the project without OLD_MODELS."""
        assert self._later
        shutil.copytree(self._later.data_dir / "dbt" / "prepared", self.settings.data_dir / "dbt" / "prepared", dirs_exist_ok=True)
        self.settings = replace(self.settings, dbt_project_dir=self._later.dbt_project_dir)
        _set_environment(patch, self.settings)

    def write(self) -> None:
        source = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": self.streams}
        body = get_tenant(destination=self.destination, sources={"shop": source}, transform=self.transform, schedules={}, checks={})
        (self.settings.tenants_dir / "acme.yaml").write_text(yaml.safe_dump({"version": 1, "tenant": "acme", **body}))

    def run(self, *selection: str) -> None:
        (result,) = run_tenants(load_fleet(self.settings), ["acme"], settings=self.settings, selection=selection, on_event=lambda event: None)
        assert result.status == "success", result.error

    def prune(self, *options: str) -> dict[str, str]:
        """Table -> why it stays; empty if it goes."""
        result = CliRunner().invoke(app, ["prune", "acme", "--json", *options])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert all(each["dropped"] == ("--yes" in options and not each["kept"]) for each in found)
        return {f"{each['schema']}.{each['name']}": each["kept"] for each in found}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        config = load_fleet(self.settings).tenants["acme"].config
        with closing(connect(config, self.settings)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = list(cursor.fetchall()) if sql.startswith("select") else []
            connection.commit()
            return rows

    def list_tables(self) -> set[str]:
        found = self.ask("select table_schema, table_name from information_schema.tables where table_schema like 'acme%'")
        return {f"{schema}.{name}" for schema, name in found if not name.startswith("_dlt") and schema != "acme_fabric"}


OLD_MODELS = {"old": (DIMENSION, "table"), "inner": (DIMENSION, "view"), "outer": ("select * from {{ ref('acme__inner') }}", "view")}

# A model of all tenants that has replaced one of them.
NEW_MODEL = f"{{{{ config(meta={{'fabric': {{'replaces': ['marts.old']}}}}) }}}}{DIMENSION}"


@dataclass(frozen=True)
class World:
    """A tenant after its first run; to be copied.

    Args:
        settings: over the project with OLD_MODELS.
        later: the same without them and with NEW_MODEL: another project, prepared in a data folder that holds nothing else.
        database: of a tenant on Postgres.
    """

    settings: Settings
    later: Settings
    database: str = ""


def _set_environment(patch: pytest.MonkeyPatch, settings: Settings) -> None:
    for name, value in (("TENANTS_DIR", settings.tenants_dir), ("DBT_PROJECT_DIR", settings.dbt_project_dir), ("DATA_DIR", settings.data_dir)):
        patch.setenv(f"FABRIC_{name}", str(value))
    patch.setenv("DAGSTER_HOME", str(settings.data_dir / "dagster"))


def _write_model(project: Path, name: str, sql: str, materialized: str = "table") -> None:
    file = project / "models" / "tenants" / "acme" / f"acme__{name}.sql"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{{{{ config(materialized='{materialized}') }}}}\n{sql}\n")


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Settings]:
    """Settings over the project with OLD_MODELS and without them, parsed once for all of pytest's workers; read-only."""

    def get_settings(root: Path, name: str) -> Settings:
        return Settings(tenants_dir=root / "tenants", dbt_project_dir=root / name / "dbt", data_dir=root / name / "data")

    def make(root: Path) -> None:
        tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", "transform": {}})
        for name, models in (("now", OLD_MODELS), ("later", {})):
            settings = get_settings(root, name)
            shutil.copytree(ROOT / "dbt_project", settings.dbt_project_dir, ignore=shutil.ignore_patterns("target", "logs"))
            for model, (sql, materialized) in {"regions": (DIMENSION, "table"), **models}.items():
                _write_model(settings.dbt_project_dir, model, sql, materialized)
            if name == "later":
                (settings.dbt_project_dir / "models" / "marts" / "new.sql").write_text(NEW_MODEL)
            prepare_graph([tenant], settings)
        prepare_project(get_settings(root, "now"), "postgres")

    root = make_once(tmp_path_factory, "pruning-projects", make)
    return get_settings(root, "now"), get_settings(root, "later")


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def world(request: pytest.FixtureRequest, projects: tuple[Settings, Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root, (now, later) = tmp_path_factory.mktemp("pruning"), projects
    settings = replace(now, tenants_dir=root / "tenants", data_dir=root / "data", publish_dir=root / "published")
    settings.tenants_dir.mkdir()
    (settings.data_dir / "dagster").mkdir(parents=True, mode=0o700)
    shutil.copytree(now.data_dir / "dbt" / "prepared", settings.data_dir / "dbt" / "prepared")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        database = ""
        if request.param == "postgres":
            database = stack.enter_context(making_databases(request.getfixturevalue("postgres_server")))()
            patch.setenv("WAREHOUSE", database)
        patch.setenv("SHOP_URL", make_shop(root / "shop.db"))
        _set_environment(patch, settings)
        shop = Shop(settings, None, database)
        shop.write()
        shop.run()
        yield World(settings, later, database)


@pytest.fixture
def shop(world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, shop_url: str) -> Shop:
    settings = replace(settings, dbt_project_dir=world.settings.dbt_project_dir)
    copy_world(world.settings, settings)
    _set_environment(monkeypatch, settings)
    if world.database:
        template = urlsplit(world.database).path.strip("/")
        monkeypatch.setenv("WAREHOUSE", request.getfixturevalue("make_database")(template=template))
    shop = Shop(settings, world.later, world.database)
    shop.write()
    return shop


def test_what_no_config_names_goes_and_the_rest_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shop.prune("--yes") == {}, "a healthy tenant has nothing to prune"
    shop.ask("create table acme_marts.made_by_hand as select 1 as id")
    before = shop.list_tables()
    del shop.streams["stores"]
    shop.remove_models(monkeypatch)
    shop.write()
    gone = {"acme_marts.old", "acme_marts.inner", "acme_marts.outer", "acme_raw_shop.stores"}
    assert shop.prune() == dict.fromkeys(gone, "")
    told = {line.split()[1]: " ".join(line.split()[5:]) for line in CliRunner().invoke(app, ["prune", "acme"]).stdout.splitlines()[1:]}
    assert told == dict.fromkeys(gone, "no config names it") | {"acme_marts.old": "no config names it; renamed to marts.new"}
    assert shop.list_tables() == before, "the list alone drops nothing"
    assert shop.prune("--yes") == dict.fromkeys(gone, "")
    assert shop.list_tables() == before - gone
    assert shop.prune() == {}
    assert shop.ask("select stream from acme_fabric.stream_state where stream = 'stores'") == []
    # Named again, it is loaded from the beginning.
    shop.streams["stores"] = STREAMS["stores"]
    shop.write()
    shop.run("raw")
    assert shop.ask("select count(*) from acme_raw_shop.stores") == [(1,)]


def test_what_a_view_or_a_model_reads_stays(shop: Shop) -> None:
    shop.ask("create view acme_marts.report as select * from acme_raw_shop.stores")
    del shop.streams["stores"]
    shop.write()
    assert shop.prune("--yes") == {"acme_raw_shop.stores": "acme_marts.report reads it"}
    shop.ask("drop view acme_marts.report")
    assert shop.prune("--yes") == {"acme_raw_shop.stores": ""}


def test_views_that_read_each_other_go_together(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.remove_models(monkeypatch)
    shop.ask('create view acme_marts.report as select * from acme_marts."outer"')
    assert shop.prune("--yes") == {
        "acme_marts.inner": "acme_marts.outer reads it",
        "acme_marts.outer": "acme_marts.report reads it",
        "acme_marts.old": "",
    }
    shop.ask("drop view acme_marts.report")
    assert shop.prune("--yes") == {"acme_marts.inner": "", "acme_marts.outer": ""}
    assert not {"acme_marts.inner", "acme_marts.outer"} & shop.list_tables()


def test_a_tenant_with_a_mistake_is_left_alone(shop: Shop) -> None:
    shop.streams = {"stores": {"primry_key": "id"}}
    shop.write()
    result = CliRunner().invoke(app, ["prune", "acme", "--yes"])
    assert result.exit_code == 2
    shop.streams = deepcopy(STREAMS)
    shop.write()
    assert "acme_raw_shop.orders" in shop.list_tables()


def test_a_drop_waits_for_the_load_of_the_source(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    del shop.streams["stores"]
    shop.write()
    monkeypatch.setattr("fabric_assets.factories.pruning.LEASE_SECONDS", 0.2)
    config = load_fleet(shop.settings).tenants["acme"].config
    with load_lease(config, "shop", shop.settings):
        result = CliRunner().invoke(app, ["prune", "acme", "--yes"])
    assert result.exit_code == 1
    assert "waited 0.2 s" in result.output
    assert "acme_raw_shop.stores" in shop.list_tables()


def test_a_stream_that_comes_back_while_a_drop_waits_keeps_its_rows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.list_tables()
    del shop.streams["stores"], shop.streams["supplies"]
    shop.write()

    @contextmanager
    def wait(*args: Any, **options: Any) -> Iterator[Any]:
        """Let the stream come back before the lease is there, as in the time of a load that is waited for."""
        shop.streams["stores"] = STREAMS["stores"]
        shop.write()
        with load_lease(*args, **options) as lease:
            yield lease

    monkeypatch.setattr("fabric_assets.factories.pruning.load_lease", wait)
    assert shop.prune("--yes") == {"acme_raw_shop.supplies": ""}
    assert shop.list_tables() == before - {"acme_raw_shop.supplies"}
    assert shop.ask("select count(*) from acme_fabric.stream_state where stream = 'stores'") == [(1,)]


def test_models_of_a_yaml_without_transform_are_listed_with_that_reason(shop: Shop) -> None:
    shop.transform = None
    shop.write()
    told = {line.split()[1]: " ".join(line.split()[5:]) for line in CliRunner().invoke(app, ["prune", "acme"]).stdout.splitlines()[1:]}
    assert told["acme_marts.old"] == "no config names it: the YAML has no transform"


def test_a_table_that_people_have_made_is_never_dropped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.ask("create table acme_raw_shop.stores__backup as select 1 as id")
    shop.ask("create view acme_raw_shop.stores__open as select 1 as id")
    del shop.streams["stores"]
    shop.remove_models(monkeypatch)
    shop.write()
    assert shop.prune("--yes").keys() >= {"acme_marts.old", "acme_raw_shop.stores"}
    shop.ask("create table acme_marts.old as select 42 as id")
    assert shop.prune("--yes") == {}, "the model's own table is gone already"
    assert {"acme_raw_shop.stores__backup", "acme_raw_shop.stores__open", "acme_marts.old"} <= shop.list_tables()


def test_nested_lists_go_or_stay_with_their_rows(shop: Shop) -> None:
    shop.ask("create table acme_raw_shop.stores__hours (_dlt_id varchar, _dlt_parent_id varchar)")
    del shop.streams["stores"]
    shop.write()
    shop.ask("create view acme_marts.report as select * from acme_raw_shop.stores__hours")
    assert shop.prune("--yes") == {
        "acme_raw_shop.stores": "it belongs to acme_raw_shop.stores__hours, which is kept",
        "acme_raw_shop.stores__hours": "acme_marts.report reads it",
    }
    assert shop.ask("select count(*) from acme_fabric.stream_state where stream = 'stores'") == [(1,)]
    shop.ask("drop view acme_marts.report")
    assert set(shop.prune("--yes").values()) == {""}


def test_whatever_depends_on_a_table_keeps_that_table_alone(shop: Shop) -> None:
    shop.ask(f"create {'materialized view' if shop.destination['type'] == 'postgres' else 'view'} acme_marts.report as select * from acme_raw_shop.stores")
    del shop.streams["stores"], shop.streams["supplies"]
    shop.write()
    assert shop.prune("--yes") == {"acme_raw_shop.stores": "acme_marts.report reads it", "acme_raw_shop.supplies": ""}
    assert "acme_raw_shop.supplies" not in shop.list_tables()
