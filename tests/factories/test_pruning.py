"""`fabric prune`: what no config names any more is listed, and dropped with --yes; what something reads stays."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.cli.headless import run_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.drivers.destinations import connect
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import load_lease
from tests.factories.shop import STREAMS, get_tenant

DIMENSION = "select 1 as id"


class Shop:
    """A tenant with two own models, whose YAML the test changes."""

    def __init__(self, settings: Settings, write_tenant: Callable[..., Any], destination: dict[str, Any]) -> None:
        self.settings, self._write, self.destination = settings, write_tenant, destination
        self.streams = deepcopy(STREAMS)
        self.models = settings.dbt_project_dir / "models" / "tenants" / "acme"
        self.models.mkdir(parents=True, exist_ok=True)
        self.write_model("regions", DIMENSION)
        self.write()

    def write_model(self, name: str, sql: str, materialized: str = "table") -> None:
        (self.models / f"acme__{name}.sql").write_text(f"{{{{ config(materialized='{materialized}') }}}}\n{sql}\n")

    def write(self) -> None:
        source = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": self.streams}
        self._write("acme", get_tenant(destination=self.destination, sources={"shop": source}, transform={}, schedules={}, checks={}))

    def run(self) -> None:
        (result,) = run_tenants(load_fleet(self.settings), ["acme"], settings=self.settings, on_event=lambda event: None)
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


@pytest.fixture(params=["duckdb", "postgres"])
def shop(
    request: pytest.FixtureRequest,
    prepared: Settings,
    write_tenant: Callable[..., Any],
    shop_url: str,
    isolated_home: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[Shop]:
    folder = shutil.copytree(prepared.dbt_project_dir, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    settings = replace(prepared, dbt_project_dir=folder)
    for name, value in (("TENANTS_DIR", settings.tenants_dir), ("DBT_PROJECT_DIR", folder), ("DATA_DIR", settings.data_dir)):
        monkeypatch.setenv(f"FABRIC_{name}", str(value))
    destination: dict[str, Any] = {"type": "duckdb"}
    if request.param == "postgres":
        monkeypatch.setenv("WAREHOUSE", request.getfixturevalue("make_database")())
        destination = {"type": "postgres", "url": {"env": "WAREHOUSE"}}
    yield Shop(settings, write_tenant, destination)


def test_what_no_config_names_goes_and_the_rest_stays(shop: Shop) -> None:
    shop.write_model("old", DIMENSION)
    shop.run()
    assert shop.prune("--yes") == {}, "a healthy tenant has nothing to prune"
    shop.ask("create table acme_marts.made_by_hand as select 1 as id")
    before = shop.list_tables()
    del shop.streams["stores"]
    (shop.models / "acme__old.sql").unlink()
    shop.write()
    assert shop.prune() == {"acme_marts.old": "", "acme_raw_shop.stores": ""}
    assert shop.list_tables() == before, "the list alone drops nothing"
    assert shop.prune("--yes") == {"acme_marts.old": "", "acme_raw_shop.stores": ""}
    assert shop.list_tables() == before - {"acme_marts.old", "acme_raw_shop.stores"}
    assert shop.prune() == {}
    assert shop.ask("select stream from acme_fabric.stream_state where stream = 'stores'") == []
    # Named again, it is loaded from the beginning.
    shop.streams["stores"] = STREAMS["stores"]
    shop.write()
    shop.run()
    assert shop.ask("select count(*) from acme_raw_shop.stores") == [(1,)]


def test_what_a_view_or_a_model_reads_stays(shop: Shop) -> None:
    shop.write_model("old", DIMENSION)
    shop.run()
    shop.ask("create view acme_marts.report as select * from acme_raw_shop.stores")
    del shop.streams["stores"]
    shop.write()
    assert shop.prune("--yes") == {"acme_raw_shop.stores": "acme_marts.report reads it"}
    shop.ask("drop view acme_marts.report")
    assert shop.prune("--yes") == {"acme_raw_shop.stores": ""}


def test_views_that_read_each_other_go_together(shop: Shop) -> None:
    shop.write_model("inner", DIMENSION, "view")
    shop.write_model("outer", "select * from {{ ref('acme__inner') }}", "view")
    shop.run()
    for name in ("inner", "outer"):
        (shop.models / f"acme__{name}.sql").unlink()
    shop.ask('create view acme_marts.report as select * from acme_marts."outer"')
    assert shop.prune("--yes") == {
        "acme_marts.inner": "acme_marts.outer reads it",
        "acme_marts.outer": "acme_marts.report reads it",
    }
    shop.ask("drop view acme_marts.report")
    assert shop.prune("--yes") == {"acme_marts.inner": "", "acme_marts.outer": ""}
    assert not {"acme_marts.inner", "acme_marts.outer"} & shop.list_tables()


def test_a_tenant_with_a_mistake_is_left_alone(shop: Shop) -> None:
    shop.run()
    shop.streams = {"stores": {"primry_key": "id"}}
    shop.write()
    result = CliRunner().invoke(app, ["prune", "acme", "--yes"])
    assert result.exit_code == 2
    shop.streams = deepcopy(STREAMS)
    shop.write()
    assert "acme_raw_shop.orders" in shop.list_tables()


def test_a_drop_waits_for_the_load_of_the_source(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run()
    del shop.streams["stores"]
    shop.write()
    monkeypatch.setattr("fabric_assets.factories.pruning.LEASE_SECONDS", 0.2)
    config = load_fleet(shop.settings).tenants["acme"].config
    with load_lease(config, "shop", shop.settings):
        result = CliRunner().invoke(app, ["prune", "acme", "--yes"])
    assert result.exit_code == 1
    assert "waited 0.2 s" in result.output
    assert "acme_raw_shop.stores" in shop.list_tables()


def test_a_table_that_people_have_made_is_never_dropped(shop: Shop) -> None:
    shop.write_model("old", DIMENSION)
    shop.run()
    shop.ask("create table acme_raw_shop.stores__backup as select 1 as id")
    shop.ask("create view acme_raw_shop.stores__open as select 1 as id")
    del shop.streams["stores"]
    (shop.models / "acme__old.sql").unlink()
    shop.write()
    assert shop.prune("--yes") == {"acme_marts.old": "", "acme_raw_shop.stores": ""}
    shop.ask("create table acme_marts.old as select 42 as id")
    assert shop.prune("--yes") == {}, "the model's own table is gone already"
    assert {"acme_raw_shop.stores__backup", "acme_raw_shop.stores__open", "acme_marts.old"} <= shop.list_tables()


def test_nested_lists_go_or_stay_with_their_rows(shop: Shop) -> None:
    shop.run()
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
    shop.run()
    shop.ask(f"create {'materialized view' if shop.destination['type'] == 'postgres' else 'view'} acme_marts.report as select * from acme_raw_shop.stores")
    del shop.streams["stores"], shop.streams["supplies"]
    shop.write()
    assert shop.prune("--yes") == {"acme_raw_shop.stores": "acme_marts.report reads it", "acme_raw_shop.supplies": ""}
    assert "acme_raw_shop.supplies" not in shop.list_tables()
