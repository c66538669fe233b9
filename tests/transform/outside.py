"""A project of the shape of jaffle-shop, with packages from a hub, a git repository and a folder. All of them are on this machine."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.transform.conftest import write_files

# The platform's macros that a project needs.
MACROS = ("generate_schema_name", "generate_alias_name", "tenant_name")
# A hub's release has another number than the one in dbt_project/: nothing may come from there.
HUB_VERSION = "1.4.2"
BILLING = {
    "dbt_project.yml": "name: billing\nversion: '1.0'\nconfig-version: 2\nprofile: none\nmodels: {billing: {+schema: billing}}\n",
    "models/totals.sql": "select customer as customer_id, sum(order_total) as total from {{ source('ecom', 'raw_orders') }} group by 1\n",
    "models/totals.yml": """
models:
  - name: totals
    description: One row per customer, of billing.
    columns:
      - name: total
        data_tests: [billing.is_positive]
seeds:
  - name: rates
    columns:
      - name: rate
        data_tests: [is_positive]
""",
    "tests/generic/is_positive.sql": "{% test is_positive(model, column_name) %} select * from {{ model }} where {{ column_name }} <= 0 {% endtest %}\n",
    "seeds/rates.csv": "country,rate\nBE,21\nNL,0\n",
}
# A model of the same name, in another schema.
CALENDAR = {
    "dbt_project.yml": "name: calendar\nversion: '1.0'\nconfig-version: 2\nmodels: {calendar: {+schema: calendar}}\n",
    "models/totals.sql": "select count(*) as days from {{ ref('metricflow_time_spine') }}\n",
}
PACKAGES = """
packages:
  - package: dbt-labs/dbt_utils
    version: [">=1.3.0", "<2.0.0"]
  - local: packages/billing
  - git: "file://{repository}"
    revision: "1.0"
"""
# Each macro of dbt_utils that reads the warehouse, or asks dbt's objects for more than a text.
UTILS = {
    "models/marts/utils/united.sql": "{{ dbt_utils.union_relations([ref('stg_orders'), ref('order_log')], include=['order_id', 'ordered_at']) }}",
    "models/marts/utils/pivoted.sql": (
        "select customer_id, {{ dbt_utils.pivot('store_id', dbt_utils.get_column_values(ref('stg_orders'), 'store_id')) }}"
        " from {{ ref('stg_orders') }} group by customer_id"
    ),
    "models/marts/utils/starred.sql": "select {{ dbt_utils.star(ref('customers'), except=['customer_name']) }} from {{ ref('customers') }}",
    "models/marts/utils/last_orders.sql": "{{ dbt_utils.deduplicate(ref('orders'), partition_by='customer_id', order_by='ordered_at desc') }}",
    "models/marts/utils/unpivoted.sql": "{{ dbt_utils.unpivot(ref('stg_stores'), cast_to='varchar', exclude=['store_id'], remove=['opened_date']) }}",
    "models/marts/utils/single.sql": (
        "-- depends_on: {{ ref('orders') }}\n"
        "select {{ dbt_utils.get_single_value('select count(*) from ' ~ ref('orders')) }} as orders, "
        "'{{ dbt_utils.slugify('An Order') }}' as slug, {{ dbt_utils.safe_divide('1', '0') }} as nothing"
    ),
    "models/marts/utils/utils.yml": """
models:
  - name: last_orders
    data_tests:
      - dbt_utils.unique_combination_of_columns: {arguments: {combination_of_columns: [customer_id, order_id]}}
      - dbt_utils.fewer_rows_than: {arguments: {compare_model: ref('orders')}}
      - dbt_utils.equal_rowcount: {arguments: {compare_model: ref('customers')}}
  - name: starred
    data_tests:
      - dbt_utils.equality: {arguments: {compare_model: ref('customers'), exclude_columns: [customer_name]}}
    columns:
      - name: customer_type
        data_tests: [dbt_utils.not_empty_string, dbt_utils.not_constant, dbt_utils.at_least_one]
      - name: lifetime_spend
        data_tests: [{dbt_utils.accepted_range: {arguments: {min_value: 0}}}]
""",
}


def make_repository(folder: Path, files: dict[str, str], *, tag: str) -> Path:
    """A bare git repository with the files in one commit."""
    write_files(folder / "work", files)
    git = ["git", "-C", str(folder / "work"), "-c", "user.name=a", "-c", "user.email=a@x.example", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "One"], ["tag", tag]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(folder / "work"), str(folder / "bare.git")], check=True, capture_output=True)
    return folder / "bare.git"


@contextmanager
def serve_hub(folder: Path) -> Iterator[HTTPServer]:
    """A hub of dbt packages with one release of dbt_utils."""
    archive = folder / "dbt_utils.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(ROOT / "dbt_project" / "dbt_packages" / "dbt_utils", arcname="dbt-utils")
    with HTTPServer() as hub:
        release = {"id": "dbt_utils", "name": "dbt_utils", "version": HUB_VERSION, "packages": [], "works_with": [], "require_dbt_version": [">=1.3.0"]}
        release["downloads"] = {"tarball": hub.url_for("/dbt_utils.tar.gz"), "format": "tgz", "sha1": ""}
        package = {"name": "dbt_utils", "namespace": "dbt-labs", "latest": HUB_VERSION, "versions": {HUB_VERSION: release}}
        hub.expect_request("/api/v1/index.json").respond_with_json(["dbt-labs/dbt_utils"])
        hub.expect_request("/api/v1/dbt-labs/dbt_utils.json").respond_with_json(package)
        hub.expect_request("/dbt_utils.tar.gz").respond_with_data(archive.read_bytes())
        yield hub


def copy_toast_shop(folder: Path) -> Path:
    """Copy the project, with the platform's macros."""
    shutil.copytree(Path(__file__).parent / "jaffle", folder)
    for macro in MACROS:
        shutil.copy(ROOT / "dbt_project" / "macros" / f"{macro}.sql", folder / "macros")
    return folder


def run_prepare(settings: Settings, **environ: str) -> str:
    """Run `fabric prepare`; gives its output, or raises its error."""
    variables = {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir),
        "FABRIC_DATA_DIR": str(settings.data_dir),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, **environ}.items():
            patch.setenv(name, value)
        result = CliRunner().invoke(app, ["prepare"])
    if result.exception is not None:
        raise result.exception
    return result.stdout
