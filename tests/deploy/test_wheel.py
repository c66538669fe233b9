"""The wheel in an empty environment: plain pip installs it from PyPI, and a project outside of this repository runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.lengths import AT_FULL_LENGTH

FILES = {
    "tenants/acme.yaml": """
version: 1
tenant: acme
sources:
  shop: {type: files, path: exports, streams: {customers: {glob: customers.csv, format: csv, primary_key: id}}}
transform: {select: [names]}
""",
    "dbt_project/models/marts/shop.yml": """
sources: [{name: shop, tables: [{name: customers, config: {freshness: {warn_after: {count: 1, period: day}}}}]}]
models: [{name: names, description: One row per customer., columns: [{name: id, data_tests: [unique]}]}]
""",
    "dbt_project/models/marts/names.sql": "select id, name from {{ source('shop', 'customers') }}\n",
    ".fabric/exports/customers.csv": "id,name\nc1,Ada\nc2,Grace\n",
}


# pip resolves and downloads a gigabyte, which takes a minute or more.
@AT_FULL_LENGTH
@pytest.mark.timeout(1200)
def test_pip_alone_installs_the_wheel_and_a_project_of_ones_own_runs(tmp_path: Path) -> None:
    def run(*command: str | Path, folder: Path = tmp_path) -> str:
        # Without this environment's packages and settings; those of the machine's package index stay.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DBT_", "FABRIC_", "PYTHON", "VIRTUAL_ENV"))}
        done = subprocess.run([*command], cwd=folder, env={**kept, "HOME": str(tmp_path / "home")}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    (tmp_path / "home").mkdir()
    run(ROOT / "scripts" / "uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "env")
    programs = tmp_path / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)

    project = tmp_path / "project"
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    shutil.copy(ROOT / "dbt_project" / "dbt_project.yml", project / "dbt_project")
    shutil.copytree(ROOT / "dbt_project" / "macros", project / "dbt_project" / "macros")

    installed = {entry["name"]: entry["version"] for entry in json.loads(run(programs / "python", "-m", "pip", "list", "--format", "json"))}
    assert installed["dbt-core"].startswith("1.11.")
    assert "dbt-core-experimental-parser" not in installed
    assert "Usage: fabric" in run(programs / "fabric", "--help", folder=project)
    assert "1 of 1 tenants are fine" in run(programs / "fabric", "validate", folder=project)
    [tenant] = json.loads(run(programs / "fabric", "run", "acme", "--json", folder=project))["tenants"]
    assert {asset["key"]: asset["status"] for asset in tenant["assets"]} == {"acme/raw/shop/customers": "success", "acme/marts/names": "success"}
    assert {check["name"]: check["passed"] for check in tenant["checks"]} == {"source_freshness": True, "unique_names_id": True}
    run(programs / "dagster", "definitions", "validate", "-m", "fabric_assets.definitions", folder=project)
