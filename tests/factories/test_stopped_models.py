"""A mistake in a shared model, in a run and in `fabric validate`."""

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.cli.headless import run_tenants
from fabric_assets.config.loader import load_fleet
from tests.factories.shop import get_tenant


@pytest.fixture
def project(prepared, tmp_path):
    folder = shutil.copytree(prepared.dbt_project_dir, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    file = folder / "models" / "marts" / "sales" / "daily_revenue.sql"
    file.write_text("-- revenue\nselect * from {{ ref('orderz') }}\n")
    return replace(prepared, dbt_project_dir=folder)


def test_other_models_and_other_tenants_go_on_and_the_summary_says_what_does_not(project, write_tenant, shop_url, isolated_home, monkeypatch):
    write_tenant("acme", get_tenant(schedules={}, checks={}))
    write_tenant("globex", get_tenant(schedules={}, checks={}, transform={"select": ["staging.shop"]}))
    results = {result.tenant: result for result in run_tenants(load_fleet(project), ["acme", "globex"], settings=project, on_event=lambda event: None)}
    assert (results["globex"].status, results["acme"].status) == ("success", "failure")
    statuses = {asset.key: asset.status for asset in results["acme"].assets}
    assert statuses.pop("acme/marts/daily_revenue") == "failure"
    assert set(statuses.values()) == {"success"}
    words = "models/marts/sales/daily_revenue.sql:2: ref('orderz') does not exist; did you mean 'orders'?"
    assert words in results["acme"].error
    for name, value in (("TENANTS_DIR", project.tenants_dir), ("DBT_PROJECT_DIR", project.dbt_project_dir), ("DATA_DIR", project.data_dir)):
        monkeypatch.setenv(f"FABRIC_{name}", str(value))
    validated = CliRunner().invoke(app, ["validate"])
    assert validated.exit_code == 2
    assert words.replace(":2:", ":2:1:") in validated.stdout
    assert "1 of 2 tenants are fine; some models of these cannot be built: acme; 1 problem found" in validated.stdout
    (project.dbt_project_dir / "models" / "broken.yml").write_text("models: [x")
    validated = CliRunner().invoke(app, ["validate"])
    assert "The shared dbt project does not parse; no tenant can run." in validated.stdout
    assert "are fine" not in validated.stdout
