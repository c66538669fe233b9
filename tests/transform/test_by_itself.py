"""dbt's own commands in a copy of `dbt_project/`, against one tenant that ETL Fabric has loaded and built: dbt_project/README.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings
from fabric_assets.transform.process import build_environment
from tests.conftest import ROOT
from tests.factories.shop import STREAMS, make_shop
from tests.support.lengths import AT_FULL_LENGTH, choose
from tests.support.shop import Tenant, build_destination, write_secret_file
from tests.transform.conftest import build_tenant, write_files

# Its tenants are loaded once, by one worker.
pytestmark = [pytest.mark.xdist_group("by_itself"), pytest.mark.timeout(600)]

SELECT = ["+customers"]
MARTS = ("orders", "order_items", "customers")
OWN = {
    "models/tenants/acme/acme__name.sql": "select '{{ tenant_name() }}' as tenant",
    "models/tenants/globex/globex__name.sql": "select '{{ tenant_name() }}' as tenant",
}
Rows = dict[str, list[tuple[Any, ...]]]


@dataclass
class Alone:
    """A tenant on one kind of destination, and a copy of the project beside it."""

    shop: Tenant | None
    project: Path
    environ: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("dbt")), *arguments]
        return subprocess.run(command, cwd=self.project, env=self.environ, capture_output=True, text=True, check=False)

    def dbt(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        assert self.shop
        return self.shop.ask(sql)

    def read_marts(self) -> Rows:
        return {mart: sorted(self.ask(f"select * from acme_marts.{mart}"), key=str) for mart in MARTS}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_itself") / "dbt_project"
    shutil.copytree(ROOT / "dbt_project", folder, ignore=shutil.ignore_patterns("target", "logs"))
    write_files(folder, OWN)
    return folder


@pytest.fixture(params=choose(["duckdb", "postgres"], 1))
def alone(request: pytest.FixtureRequest, project: Path, prepared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alone:
    """The tenant acme, loaded and built by ETL Fabric while the environment names another one."""
    shutil.copytree(prepared_data, tmp_path / "data" / "dbt" / "prepared")
    settings = Settings(tenants_dir=tmp_path / "tenants", dbt_project_dir=ROOT / "dbt_project", data_dir=tmp_path / "data")
    environ = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
    environ |= {"HOME": str(tmp_path), "FABRIC_TENANT": "acme", "DO_NOT_TRACK": "1", "FABRIC_DATA_DIR": str(settings.data_dir)}
    url = None
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
        parts = urlsplit(url)
        environ |= {"FABRIC_TARGET": "postgres", "PGHOST": str(parts.hostname), "PGPORT": str(parts.port), "PGDATABASE": parts.path[1:], "PGTZ": "UTC"}
        environ |= {"PGUSER": str(parts.username), "DBT_ENV_SECRET_FABRIC_PASSWORD": str(parts.password)}
    write_secret_file(settings, "shop_url", make_shop(tmp_path / "shop.sqlite"))
    source = {"type": "sql_database", "url": {"file": "shop_url"}, "streams": STREAMS}
    shop = Tenant(settings, source, warehouse=url)
    shop.load(*STREAMS)
    config = {"version": 1, "tenant": "acme", "sources": {"shop": source}, "destination": build_destination(settings, "acme", url)}
    tenant = TenantConfig.model_validate({**config, "transform": {"select": SELECT}})
    with monkeypatch.context() as other:
        other.setenv("FABRIC_TENANT", "globex")
        other.setenv("FABRIC_TARGET", "nowhere")
        other.setenv("DBT_TARGET", "nowhere")
        other.setenv("DBT_PROFILES_DIR", str(tmp_path))
        outcome = build_tenant(settings, tenant)
    assert {result.status for result in outcome.models.values()} == {"success"}
    return Alone(shop, project, environ)


def test_dbts_own_commands_build_what_a_run_builds_for_the_one_tenant(alone: Alone) -> None:
    built = alone.read_marts()
    assert all(built.values())
    assert alone.shop
    alone.shop.change("drop table acme_marts.orders")
    alone.dbt("build", "--quiet", "--select", *SELECT, "tenants.acme")
    assert alone.read_marts() == built
    assert alone.ask("select tenant from acme_marts.name") == [("acme",)]

    alone.dbt("docs", "generate", "--quiet", "--select", *SELECT)
    catalog = json.loads((alone.project / "target" / "catalog.json").read_text())
    assert catalog["sources"]["source.fabric.shop.orders"]["metadata"]["schema"] == "acme_raw_shop"
    assert catalog["nodes"]["model.fabric.customers"]["metadata"]["schema"] == "acme_marts"
    shown = json.loads(alone.dbt("show", "--quiet", "--inline", "select count(*) as orders from {{ ref('orders') }}", "--output", "json"))
    assert shown["show"] == [{"orders": len(built["orders"])}]
    if alone.environ.get("FABRIC_TARGET") != "postgres":  # docs have compiled there
        assert '"acme_marts"."orders"' in alone.dbt("compile", "--quiet", "--select", "customers")


@AT_FULL_LENGTH
def test_dbt_takes_own_models_of_the_one_tenant_alone_and_refuses_anothers_by_name(project: Path, tmp_path: Path) -> None:
    (tmp_path / "warehouse").mkdir()
    alone = Alone(None, project, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FABRIC_TENANT": "acme", "FABRIC_DATA_DIR": str(tmp_path)})
    listed = alone.dbt("ls", "--quiet", "--output", "name", "--resource-types", "model", "source").split()
    assert [name for name in listed if "__name" in name] == ["acme__name"]
    assert {"customers", "shop.customers"} <= set(listed)
    refused = alone.run("build", "--select", "acme__name", "globex__name")
    assert refused.returncode != 0
    assert "globex__name is tenant globex's, and FABRIC_TENANT is acme" in refused.stdout
    with duckdb.connect(str(tmp_path / "warehouse" / "acme.duckdb")) as connection:
        assert connection.execute("select count(*) from duckdb_tables()").fetchall() == [(0,)]


def test_without_a_tenant_dbt_says_which_variable_is_missing(project: Path, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    done = Alone(None, project, environ).run("build")
    assert done.returncode != 0
    assert "FABRIC_TENANT" in done.stdout


def test_the_dbt_of_a_run_sees_none_of_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "dbt_project" / "profiles.yml").read_text()
    names = {*re.findall(r"env_var\('(\w+)'", text), "DBT_PROFILES_DIR", "DBT_PROFILE", "DBT_TARGET"}
    assert {"FABRIC_TENANT", "DBT_ENV_SECRET_FABRIC_PASSWORD"} <= names
    for name in names:
        monkeypatch.setenv(name, "other")
    assert names & build_environment().keys() == set()
