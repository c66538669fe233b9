"""docs/readers.md: its notebooks read what a run has published, or the tenant's schemas on Postgres, and its settings can be pasted."""

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import dlt
import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.config.tenant import PublishConfig
from fabric_assets.drivers.duckdb_files import make_file
from fabric_assets.settings import Settings
from fabric_assets.warehouse.publishing import publish_schemas
from tests.conftest import ROOT
from tests.support.shop import SourceDatabase, Tenant, build_sqlite_url

PAGE = (ROOT / "docs" / "readers.md").read_text()
NOTEBOOKS = dict(re.findall(r"^```python\n# on (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
FILL = "create table acme_marts.daily_revenue as select 10.50 as revenue union all select 20.25"


def run_notebook(name: str, **environ: str) -> str:
    done = subprocess.run([sys.executable, "-c", NOTEBOOKS[name]], env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def published(settings: Settings) -> str:
    file = naming.warehouse_file(settings.data_dir, "acme")
    file.parent.mkdir(mode=0o700)
    make_file(file)
    with duckdb.connect(str(file)) as connection:
        connection.execute(f"create schema acme_marts; {FILL}")
    assert settings.publish_dir
    return str(publish_schemas("acme", PublishConfig(), data_dir=settings.data_dir, publish_dir=settings.publish_dir).file)


def test_the_notebook_on_duckdb_reads_the_published_file(published: str) -> None:
    assert run_notebook("DuckDB", ACME_FILE=published) == "[(Decimal('30.75'),)]\n"


def test_the_notebook_on_postgres_reads_the_marts(postgres_database: str) -> None:
    import psycopg2

    with psycopg2.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute(f"create schema acme_marts; {FILL}")
    connection.close()
    url = postgres_database.replace("postgresql://", "postgresql+psycopg2://")
    assert run_notebook("Postgres", ACME_BI_URL=url) == "[(Decimal('30.75'),)]\n"


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_the_example_of_dlt_reads_what_a_load_has_written(kind: str, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_database") if kind == "postgres" else None
    source = SourceDatabase(build_sqlite_url(tmp_path), settings)
    source.run("create table orders (id integer primary key, total integer)", "insert into orders values (1, 10), (2, 20)")
    Tenant(settings, source.build_source(orders={"primary_key": "id"}), warehouse=url).load()
    (code,) = re.findall(r"^```python\n# with dlt\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    if url:
        code = code.replace("dlt.destinations.duckdb(", "dlt.destinations.postgres(")
    warehouse = url or str(naming.warehouse_file(settings.data_dir, "acme"))
    environ = {**os.environ, "ACME_WAREHOUSE": warehouse, "DLT_DATA_DIR": str(tmp_path / "dlt")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[(1, 10), (2, 20)]\n"), done.stderr


def test_dlt_reads_the_marts_of_the_published_file(published: str) -> None:
    assert '.query("select ...", _execute_raw_query=True)' in PAGE
    marts = dlt.dataset(dlt.destinations.duckdb(duckdb.connect(published, read_only=True)), "acme_marts")
    assert marts.query("select sum(revenue) from acme_marts.daily_revenue", _execute_raw_query=True).fetchall() == [(Decimal("30.75"),)]


def test_the_engine_parameters_for_superset_are_json_that_opens_the_file_read_only(published: str) -> None:
    (parameters,) = re.findall(r'`(\{"connect_args.*?\})`', PAGE)
    with duckdb.connect(published, **json.loads(parameters)["connect_args"]) as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("create table t (x int)")


def test_the_connection_string_for_power_bi_has_an_option_of_duckdbs(published: str) -> None:
    (text,) = re.findall(r"^Driver=.*$", PAGE, re.MULTILINE)
    options = dict(part.split("=", 1) for part in text.split(";"))
    with (
        duckdb.connect(published, config={"access_mode": options["access_mode"]}) as connection,
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
    ):
        connection.execute("create table t (x int)")
