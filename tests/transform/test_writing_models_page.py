"""docs/writing-models.md: its files, written step by step, load and build by the page's commands, and its mistakes give its messages."""

import json
import re
import shlex
import shutil
from pathlib import Path

import jinja2
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.transform.conftest import run_duckdb

PAGE = (ROOT / "docs" / "writing-models.md").read_text()
SOURCES = "dbt_project/models/staging/rentals/_rentals__sources.yml"
# The page's files, each with its text, and its commands, in order.
STEPS = re.findall(r"^```(?:yml|csv|sql)\n(?:#|--) (\S+)\n(.*?)^```|^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MART, OWN, TENANT = "dbt_project/models/marts/rentals/trips_by_day.sql", "dbt_project/models/tenants/velo/velo__bikes_to_service.sql", "tenants/velo.yaml"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's dbt_project.yml and macros, as the settings name it."""
    shutil.copytree(ROOT / "dbt_project" / "macros", tmp_path / "dbt_project" / "macros")
    shutil.copy(ROOT / "dbt_project" / "dbt_project.yml", tmp_path / "dbt_project")
    for name, folder in (
        ("FABRIC_TENANTS_DIR", "tenants"),
        ("FABRIC_DBT_PROJECT_DIR", "dbt_project"),
        ("FABRIC_DATA_DIR", ".fabric"),
        ("DAGSTER_HOME", "home"),
    ):
        (tmp_path / folder).mkdir(mode=0o700, exist_ok=True)
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("FABRIC_PUBLISH_DIR", str(tmp_path / "published"))
    return tmp_path


def run(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command.removeprefix("fabric ")))


def write(world: Path, name: str, text: str) -> None:
    (world / name).parent.mkdir(parents=True, exist_ok=True)
    (world / name).write_text(text)


def test_each_step_of_the_page_leads_to_tested_models_and_each_mistake_to_its_message(world: Path) -> None:
    commands = 0
    for name, text, console in STEPS:
        if name:
            write(world, name, text)
        for command in re.findall(r"^\$ (.*)$", console, re.MULTILINE):
            done = run(command)
            assert done.exit_code == 0, f"{command}\n{done.output}"
            commands += 1
    assert (len(STEPS), commands) == (12, 6)
    settings = Settings(tenants_dir=world / "tenants", dbt_project_dir=world / "dbt_project", data_dir=world / ".fabric")
    (source,) = yaml.safe_load((world / SOURCES).read_text())["sources"]
    environ = {"FABRIC_TENANT": "velo"}
    schema = jinja2.Template(source["schema"]).render(env_var=environ.get, var=lambda name: name)
    assert schema == "velo_raw_rentals", "dbt's own commands read the schema that the source declares"
    days = run_duckdb(settings, "velo", "select cast(started_on as text), trips, cast(long_trips as integer) from velo_marts.trips_by_day order by 1")
    assert days == [("2026-05-01", 2, 1), ("2026-05-02", 1, 0)]
    assert run_duckdb(settings, "velo", "select bike, cast(minutes_ridden as integer) from velo_marts.bikes_to_service") == [("red", 175)]
    checks = json.loads(run("fabric list checks velo --json").stdout)
    found = {(check["asset"].removeprefix("velo/"), check["check"], check["type"]) for check in checks}
    assert {
        ("raw/rentals/trips", "source_freshness", "dbt source freshness"),
        ("raw/rentals/trips", "source_unique_rentals_trips_id", "dbt data test"),
        ("marts/trips_by_day", "a_trip_of_an_hour_is_long", "dbt unit test"),
        ("marts/bikes_to_service", "unique_velo__bikes_to_service_bike", "dbt data test"),
    } <= found
    check_mistakes(world)


def check_mistakes(world: Path) -> None:
    """Make the mistakes of the page's table, those of dbt's files at once, and find their messages in what `fabric validate` says."""
    told = re.findall(r"^\| .* \| `(.*)` \|$", PAGE.split("## What goes wrong")[1], re.MULTILINE)
    groups = [
        [
            (MART, "stg_rentals__trips", "stg_rentals__trip"),
            ("dbt_project/models/staging/rentals/stg_rentals__trips.sql", "'trips'", "'trip'"),
            ("dbt_project/models/tenants/velo/bikes.sql", "", "select 1 as one"),
        ],
        [(TENANT, "marts.rentals", "marts.rental")],
        [(TENANT, "trips: {glob", "rides: {glob")],
    ]
    assert len(told) == sum(map(len, groups))
    for group in groups:
        before = {name: (world / name).read_text() if (world / name).exists() else "" for name, *_ in group}
        for name, old, new in group:
            write(world, name, before[name].replace(old, new))
        said = run("fabric validate")
        assert said.exit_code == 2
        assert [message for message in told[: len(group)] if message not in " ".join(said.stdout.split())] == [], said.stdout
        told = told[len(group) :]
        for name, text in before.items():
            write(world, name, text) if text else (world / name).unlink()
