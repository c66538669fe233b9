"""Fault 32: a tenant's own models try everything; each comes to nothing. And plain dbt on the same models, where most of it works: the negative control."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.security.secrets import resolve_secret, write_secret
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.faults.attacks import DUCKDB, JINJA, LOOKS_AROUND, POSTGRES, write_models
from tests.isolation.conftest import PostgresFleet, fleet
from tests.support.lengths import AT_FULL_LENGTH
from tests.transform.conftest import copy_project, get_raw_statements, make_tenant, run_duckdb

__all__ = ["fleet"]
pytestmark = pytest.mark.xdist_group("untrusted_models")

# What comes to nothing in dbt as it comes, too: no network here, nothing to unlock, and variables that are not there. The Python job fails when it is done.
REFUSED_BY_PLAIN_DBT = {"install", "unlock", "python", "secret_variable", "our_variable"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project with the attacks in it, parsed; another tenant's warehouse and secrets, and files to read, beside."""
    root = tmp_path_factory.mktemp("attacked")
    settings = Settings(root / "tenants", copy_project(root / "project"), root / "data", secret_keys=("5pLkGxRwJ0u1p3hPZ4cQzYp4n8l5mX3m7wq0v2uQb3Y=",))
    settings.data_dir.mkdir(mode=0o700)
    postgres = {f"pg_{name}": sql for name, sql in POSTGRES.items()}
    write_models(settings.dbt_project_dir, {**DUCKDB, **JINJA, **postgres, "looks_around": LOOKS_AROUND}, folder=settings.data_dir)
    (settings.dbt_project_dir / ".env").write_text("CANARY_OF_THE_PROJECT=from-a-file\n")
    (settings.data_dir / "neighbour.csv").write_text("word\nneighbours\n")
    run_duckdb(settings, "globex", *get_raw_statements("globex", amounts=[60]))
    write_secret("globex", "api", "secret of globex", settings=settings)
    prepare_project(settings)
    prepare_project(settings, "postgres")
    return settings


def build(settings: Settings, tenant: TenantConfig, names: list[str]) -> dict[str, ModelResult]:
    models = tuple(f"model.fabric.acme__{name}" for name in names)
    request = BuildRequest(tenant=tenant, models=models, tests=(), settings=settings, timeout_seconds=120)
    results = DbtWorker.start(settings, adapter=tenant.destination.type).build(request)
    return {result.unique_id.removeprefix("model.fabric.acme__"): result for result in results if isinstance(result, ModelResult)}


def list_stolen(settings: Settings) -> list[str]:
    """Files that an attack has written."""
    return sorted(path.name for path in settings.data_dir.rglob("stolen*"))


@pytest.fixture(scope="module")
def built(attacked: Settings) -> dict[str, ModelResult]:
    run_duckdb(attacked, "acme", *get_raw_statements("acme", amounts=[60]))
    return build(attacked, make_tenant("acme"), [*DUCKDB, *JINJA])


@pytest.mark.parametrize("attack", [*DUCKDB, *JINJA])
def test_every_attack_from_a_tenants_model_is_refused_on_duckdb(built: dict[str, ModelResult], attack: str) -> None:
    result = built[attack]
    assert result.status == "error", result
    if attack == "install":
        return  # the reason names the run's own folder, and so is struck
    reasons = ("disabled by configuration", "disabled through configuration", "configuration has been locked", "have no access to", "no Python model runs")
    assert any(reason in result.message for reason in (*reasons, "Env var", "Secret env vars")), result.message
    assert "globex" not in result.message.replace("globex.duckdb", "").replace("globex.json", "").replace("globex_raw_shop", "")


def test_nothing_of_anybody_elses_is_in_the_tenants_warehouse(built: dict[str, ModelResult], attacked: Settings) -> None:
    assert built
    assert list_stolen(attacked) == []
    assert run_duckdb(attacked, "acme", "select table_name from information_schema.tables where table_schema = 'acme_marts'") == []
    assert run_duckdb(attacked, "globex", "select count(*) from globex_raw_shop.orders") == [(1,)]


def test_macros_that_a_model_has_planted_open_nothing_to_the_next_run(attacked: Settings, tmp_path: Path) -> None:
    """dbt's own connection, as it is at run time: its first statements are the lock, whatever the file answers instead of DuckDB."""
    settings = replace(attacked, data_dir=tmp_path / "data")
    shutil.copytree(attacked.data_dir, settings.data_dir)
    (settings.data_dir / "warehouse" / "acme.duckdb").unlink(missing_ok=True)
    run_duckdb(settings, "acme", *get_raw_statements("acme", amounts=[60]))
    with contextlib.closing(duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme")))) as connection:
        connection.execute("create macro main.current_setting(name) as true; create macro main.getvariable(name) as true")
        connection.execute("create macro main.duckdb_settings() as table select 'lock_configuration' as name, 'true' as value")
    names = ["attach", "attach_in_adapter", "read_csv", "read_by_name", "list_files", "write_file", "unlock", "reset", "header"]
    for name, result in build(settings, make_tenant("acme"), names).items():
        assert result.status == "error", name
        assert "by configuration" in result.message or "configuration has been locked" in result.message, result.message
    assert list_stolen(settings) == []


@AT_FULL_LENGTH
def test_plain_dbt_lets_the_same_models_through(attacked: Settings, tmp_path: Path) -> None:
    """The negative control: what was refused above was there to be had."""
    settings = replace(attacked, data_dir=tmp_path / "data")
    shutil.copytree(attacked.data_dir, settings.data_dir)
    shutil.copytree(attacked.dbt_project_dir, tmp_path / "project")
    write_models(tmp_path / "project", {**DUCKDB, **JINJA}, folder=settings.data_dir)
    shutil.rmtree(tmp_path / "project" / "models" / "tenants" / "globex")
    output = {"type": "duckdb", "path": str(tmp_path / "acme.duckdb"), "schema": "main"}
    (tmp_path / "profiles.yml").write_text(json.dumps({"fabric": {"target": "dev", "outputs": {"dev": output}}}))
    names = [f"acme__{name}" for name in (*DUCKDB, *JINJA)]
    command = [str(Path(sys.executable).with_name("dbt")), "run", "--project-dir", str(tmp_path / "project"), "--profiles-dir", str(tmp_path)]
    command += ["--vars", "{fabric_tenant: acme}", "--target-path", str(tmp_path / "target"), "--log-path", str(tmp_path), "--select", *names]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
    results = json.loads((tmp_path / "target" / "run_results.json").read_text())["results"]
    refused = {result["unique_id"].removeprefix("model.fabric.acme__"): result["message"] for result in results if result["status"] != "success"}
    assert set(refused) == REFUSED_BY_PLAIN_DBT, refused
    assert {"stolen.csv", "stolen.parquet", "stolen_by_table.csv", "stolen_by_python"} <= set(list_stolen(settings))
    with contextlib.closing(duckdb.connect(str(tmp_path / "acme.duckdb"))) as connection:
        assert connection.execute("select count(*) from acme_marts.attach").fetchall() == [(1,)]
        assert connection.execute("select stolen from acme_marts.file_by_table").fetchall() == [("neighbours",)]


# --- on Postgres, as the tenant's own role


def test_every_attack_from_a_tenants_model_is_refused_on_postgres(fleet: PostgresFleet, attacked: Settings) -> None:
    settings = replace(attacked, secret_keys=fleet.settings.secret_keys)
    shutil.copytree(fleet.settings.data_dir / "secrets", settings.data_dir / "secrets", dirs_exist_ok=True)
    results = build(settings, fleet.tenants["acme"], [*(f"pg_{name}" for name in POSTGRES), *JINJA])
    assert {name for name, result in results.items() if result.status != "error"} == set()
    for name, result in results.items():
        reasons = ["permission denied", "must be owner", "have no access to", "Env var", "Secret env vars"]
        assert any(reason in result.message for reason in reasons), (name, result.message)
    there = "select table_schema, table_name from information_schema.tables where table_schema in ('acme_marts', 'globex_marts') order by 1"
    assert fleet.run(there) == [("acme_marts", "orders"), ("globex_marts", "orders")]
    assert list_stolen(attacked) == []


@AT_FULL_LENGTH
def test_a_login_that_may_do_everything_lets_them_through(fleet: PostgresFleet, attacked: Settings) -> None:
    """The negative control: the superuser, who is nobody's role, reads the other tenant's row."""
    loose = fleet.tenants["acme"].model_copy(update={"destination": fleet.tenants["loose"].destination})
    try:
        results = build(attacked, loose, [f"pg_{name}" for name in POSTGRES])
        # These have become globex, and as globex they cannot write into acme's schema.
        assert {name for name, result in results.items() if result.status != "success"} == {"pg_set_role", "pg_authorization", "pg_header"}
        assert fleet.run("select marker from acme_marts.pg_other_tenant") == [("row of globex",)]
    finally:
        fleet.run("drop table if exists globex_marts.planted", *(f"drop table if exists acme_marts.pg_{name}" for name in POSTGRES))


def test_what_models_may_read_of_their_process_holds_no_secret(fleet: PostgresFleet, attacked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Target, flags, arguments and graph are open to models: here is all of it, from a real build, as a table."""
    monkeypatch.setenv("FABRIC_SECRET_KEYS", "key-canary")
    monkeypatch.setenv("GLOBEX_URL", "url-canary")
    settings = replace(attacked, secret_keys=fleet.settings.secret_keys)
    shutil.copytree(fleet.settings.data_dir / "secrets", settings.data_dir / "secrets", dirs_exist_ok=True)
    password = resolve_secret(SecretRef(secret=naming.WAREHOUSE_LOGIN), tenant="acme", settings=fleet.settings)
    try:
        [result] = build(settings, fleet.tenants["acme"], ["looks_around"]).values()
        assert (result.status, result.rows) == ("success", 1), result.message
        [row] = fleet.run("select * from acme_marts.looks_around")
    finally:
        fleet.run("drop table if exists acme_marts.looks_around")
    text = " ".join(row)
    assert "fabric_acme" in text
    assert password not in text
    assert "canary" not in text.replace(str(ROOT), "")
    assert "globex__orders_by_day" not in text
    assert row[-1] == "unset unset unset"


# --- while the project is parsed


def test_what_is_tried_while_parsing_stops_that_tenant_alone(attacked: Settings, tmp_path: Path) -> None:
    written = tmp_path / "written"
    settings = _copy_project(attacked, tmp_path, {"acme__password.sql": "select '{{ ref.config.credentials.path }}' as stolen"})
    node = settings.dbt_project_dir / "models" / "tenants" / "umbrella" / "umbrella__node.sql"
    node.parent.mkdir()
    node.write_text(f"{{% do config.model.write_node('{written}', 'stolen', 'x') %}}select 1 as one\n")
    prepare_project(settings)
    graph = load_graph(settings)
    assert sorted(graph.broken) == ["acme", "umbrella"]
    assert all("have no access to the attribute" in message for message in graph.broken.values())
    assert [model.tenant for model in graph.models.values() if model.tenant] == ["globex", "globex"]
    assert not written.exists()


def test_hooks_foreign_schemas_and_macros_break_a_rule_of_their_tenant_alone(attacked: Settings, tmp_path: Path) -> None:
    settings = _copy_project(
        attacked,
        tmp_path,
        {
            "acme__hook.sql": "{{ config(pre_hook=\"attach '/x' as x\") }}select 1 as one",
            "acme__schema.sql": "{{ config(schema='x', database='globex') }}select 1 as one",
            "acme__other.sql": "select * from {{ ref('globex__orders_by_day') }}",
            "packages.yml": "version: 2\n",
            "acme__macro.sql": "{% macro generate_schema_name(name, node) %}globex_marts{% endmacro %}select 1 as one",
        },
    )
    prepare_project(settings)
    graph = load_graph(settings)
    assert set(graph.broken) == {"acme"}
    assert {model.tenant for model in graph.models.values()} == {None, "globex"}
    for words in ("have no hooks", "it names the database globex", "which only tenant globex has"):
        assert words in graph.broken["acme"]
    assert "acme__macro" not in graph.broken["acme"]  # a macro in a model's file is that file's alone


# What a unit test of a shared model does beside testing, with the login of each tenant that has the model.
GRANTS = "commit; grant usage on schema acme_raw_shop to fabric_globex; grant select on all tables in schema acme_raw_shop to fabric_globex; commit"
UNIT_TEST = f"""
unit_tests:
  - name: sneaky
    model: stg_orders
    given:
      - input: source('shop', 'orders')
        format: sql
        rows: "select 1 as id) select 1 as one) as q; {GRANTS}; select * from (with __dbt__cte__orders as (select 1 as id"
    expect: {{rows: []}}
"""


def test_a_tenants_yml_runs_nothing_with_another_tenants_login(fleet: PostgresFleet, attacked: Settings, tmp_path: Path) -> None:
    settings = _copy_project(attacked, tmp_path, {"acme__one.sql": "select 1 as one"})
    settings = replace(settings, secret_keys=fleet.settings.secret_keys)
    shutil.copytree(fleet.settings.data_dir / "secrets", settings.data_dir / "secrets")
    yml = settings.dbt_project_dir / "models" / "tenants" / "globex" / "x.yml"
    yml.write_text(UNIT_TEST)
    prepare_project(settings, "postgres")
    prepare_project(settings)
    graph = load_graph(settings)
    shared = graph.models["model.fabric.stg_orders"]
    models = (shared.unique_id, "model.fabric.acme__one")
    request = BuildRequest(
        tenant=fleet.tenants["acme"], models=models, tests=tuple(test.unique_id for test in shared.checks if test.kind == "unit"), settings=settings
    )
    try:
        results = {result.unique_id: result for result in DbtWorker.start(settings, adapter="postgres").build(replace(request, timeout_seconds=120))}
        assert fleet.run("select has_schema_privilege('fabric_globex', 'acme_raw_shop', 'usage')") == [(False,)]
        assert results["model.fabric.acme__one"].status == "success"
        assert "unit_tests names stg_orders" in graph.broken["globex"]
    finally:
        fleet.run("drop table if exists acme_marts.one", "revoke all on schema acme_raw_shop from fabric_globex")
        fleet.run("revoke all on all tables in schema acme_raw_shop from fabric_globex")


def _copy_project(attacked: Settings, folder: Path, files: dict[str, str]) -> Settings:
    project = shutil.copytree(attacked.dbt_project_dir, folder / "project")
    shutil.rmtree(project / "models" / "tenants" / "acme")
    (project / "models" / "tenants" / "acme").mkdir()
    for name, text in files.items():
        (project / "models" / "tenants" / "acme" / name).write_text(text + "\n")
    return replace(attacked, dbt_project_dir=project, data_dir=folder / "data")
