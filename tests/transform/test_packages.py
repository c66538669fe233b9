"""Packages of dbt, and a project of the shape of jaffle-shop, which runs as it is: for two tenants, on DuckDB and on Postgres."""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, UnresolvedPackages
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import list_schemas
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import is_prepared, prepare_project
from tests.faults.processes import wait_until
from tests.support.lengths import AT_FULL_LENGTH
from tests.transform import outside
from tests.transform.conftest import Outcome, build_tenant, make_tenant, run_duckdb, write_files

# Its project is installed and parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("packages")

Ask = Callable[..., list[tuple[Any, ...]]]
STREAMS = {"ecom": ["raw_customers", "raw_orders", "raw_items", "raw_stores", "raw_products", "raw_supplies"]}
CENTS = ("subtotal", "tax_paid", "order_total")
SELECT = ["toast_shop", "billing", "calendar"]

# A test of a package counts as any other.
FOUND = {"is_positive_rates_rate": "1 row found: country 'NL', rate '0'"}


@dataclass
class Installed:
    """The prepared project, what `fabric prepare` said, and the paths that the hub was asked for."""

    settings: Settings
    said: str
    asked: list[str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The project with its packages, as `fabric prepare` has installed them; read-only."""
    root = tmp_path_factory.mktemp("toast_shop")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=outside.copy_toast_shop(root / "project"), data_dir=root / "data")
    repository = outside.make_repository(root / "calendar", outside.CALENDAR, tag="1.0")
    project = settings.dbt_project_dir
    write_files(project, outside.UTILS)
    write_files(project / "packages" / "billing", outside.BILLING)
    write_files(project, {"packages.yml": outside.PACKAGES.format(repository=repository)})
    with outside.serve_hub(root) as hub:
        said = outside.run_prepare(settings, DBT_PACKAGE_HUB_URL=hub.url_for("/"))
        asked = [request.path for request, _ in hub.log]
    prepare_graph([make_shop(name) for name in ("acme", "globex")], settings)
    return Installed(settings, said, asked)


def make_shop(name: str, destination: dict[str, Any] | None = None) -> TenantConfig:
    return make_tenant(name, destination=destination, streams=STREAMS, select=SELECT)


@pytest.fixture
def shops(installed: Installed, tmp_path: Path) -> Settings:
    """The same, with a data folder of the test's own."""
    shutil.copytree(installed.settings.data_dir / "dbt" / "prepared", tmp_path / "data" / "dbt" / "prepared")
    return replace(installed.settings, data_dir=tmp_path / "data")


@pytest.fixture
def ask(destination: dict[str, Any], shops: Settings) -> Ask:
    def run(*statements: str, tenant: str = "acme") -> list[tuple[Any, ...]]:
        if destination["type"] == "duckdb":
            return run_duckdb(shops, tenant, *statements)
        with contextlib.closing(psycopg2.connect(os.environ["SEEDED_URL"])) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


def get_statements(tenant: str, *, toasts: int) -> list[str]:
    """SQL that makes the raw tables: three orders, the first one of some toasts."""
    raw = naming.raw_dataset(tenant, "ecom")
    items = ", ".join(f"({index}, 1, 'T')" for index in range(10, 10 + toasts))
    return [
        f"create schema {raw}",
        f"create table {raw}.raw_customers as select 1 as id, 'Ada' as name union all select 2, 'Bob'",
        f"create table {raw}.raw_stores (id bigint, name varchar, opened_at timestamp, tax_rate double precision)",
        f"insert into {raw}.raw_stores values (1, 'Ghent', '2023-05-01 10:00', 0.1)",
        f"create table {raw}.raw_products (sku varchar, name varchar, type varchar, price bigint)",
        f"insert into {raw}.raw_products values ('T', 'Toast', 'toast', 500), ('B', 'Tea', 'beverage', 300)",
        f"create table {raw}.raw_supplies (id varchar, sku varchar, cost bigint, perishable boolean)",
        f"insert into {raw}.raw_supplies values ('bread', 'T', 100, true), ('box', 'T', 50, false), ('box', 'B', 20, false)",
        f"create table {raw}.raw_orders (id bigint, store_id bigint, customer bigint, {', '.join(f'{name} bigint' for name in CENTS)}, ordered_at timestamp)",
        f"insert into {raw}.raw_orders values (1, 1, 1, {500 * toasts}, {50 * toasts}, {550 * toasts}, '2024-01-05 10:00')",
        f"insert into {raw}.raw_orders values (2, 1, 1, 300, 30, 330, '2024-01-06 11:00'), (3, 1, 2, 500, 50, 550, '2024-01-07 12:00')",
        f"create table {raw}.raw_items (id bigint, order_id bigint, sku varchar)",
        f"insert into {raw}.raw_items values {items}, (2, 2, 'B'), (3, 3, 'T')",
    ]


def is_running(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def find_bad(outcome: Outcome) -> dict[str, str]:
    found = {name: result.message for name, result in outcome.models.items() if result.status != "success"}
    return found | {name: result.message for name, result in outcome.tests.items() if result.status != "pass"}


# --- where packages come from


def test_prepare_installs_packages_of_a_hub_a_repository_and_a_folder(installed: Installed) -> None:
    project = installed.settings.dbt_project_dir
    lock = yaml.safe_load((project / "package-lock.yml").read_text())["packages"]
    assert {entry["name"]: entry.get("version") for entry in lock} == {"dbt_utils": outside.HUB_VERSION, "billing": None, "calendar": None}
    assert installed.said.startswith("packages: installed\n")
    assert "/dbt_utils.tar.gz" in installed.asked
    assert (project / "dbt_packages" / "dbt_utils" / "macros").is_dir()


def test_a_second_prepare_installs_nothing(shops: Settings) -> None:
    said = outside.run_prepare(shops, DBT_PACKAGE_HUB_URL="http://127.0.0.1:9/")
    assert said.startswith("packages: unchanged\n")


@pytest.fixture
def edited(shops: Settings, tmp_path: Path) -> Settings:
    """The project with another version of dbt_utils in packages.yml."""
    project = shutil.copytree(shops.dbt_project_dir, tmp_path / "project", symlinks=True)
    text = (project / "packages.yml").read_text()
    (project / "packages.yml").write_text(text.replace("1.3.0", "1.4.0"))
    return replace(shops, dbt_project_dir=project)


def test_a_run_with_unresolved_packages_is_refused_and_downloads_nothing(edited: Settings) -> None:
    with pytest.raises(UnresolvedPackages) as caught:
        prepare_project(edited)
    assert "packages.yml or package-lock.yml has changed since `fabric prepare`" in caught.value.message
    assert "run `fabric prepare`" in caught.value.remedy


def test_a_hub_that_cannot_be_reached_is_named_and_the_installed_packages_stay(edited: Settings) -> None:
    lock = (edited.dbt_project_dir / "package-lock.yml").read_text()
    with pytest.raises(ConfigurationError) as caught:
        outside.run_prepare(edited, DBT_PACKAGE_HUB_URL="http://u:hush-hush@127.0.0.1:9/", DBT_ENV_SECRET_TOKEN="hush-hush")
    assert "cannot be installed" in caught.value.message
    assert "Traceback" not in caught.value.message
    assert 'File "' not in caught.value.message
    assert "127.0.0.1" in caught.value.message
    assert "let this machine reach hub.getdbt.com" in caught.value.remedy
    assert "hush-hush" not in str(caught.value)
    assert (edited.dbt_project_dir / "package-lock.yml").read_text() == lock
    assert (edited.dbt_project_dir / "dbt_packages" / "dbt_utils" / "macros").is_dir()
    assert not list(edited.dbt_project_dir.glob(".packages-*"))


def test_a_killed_installation_is_put_back_by_the_next_prepare(edited: Settings, tmp_path: Path) -> None:
    project, lock = edited.dbt_project_dir, (edited.dbt_project_dir / "package-lock.yml").read_text()
    environ = {"FABRIC_TENANTS_DIR": str(edited.tenants_dir), "FABRIC_DBT_PROJECT_DIR": str(project), "FABRIC_DATA_DIR": str(edited.data_dir)}
    asked, release = threading.Event(), threading.Event()

    def hang(request: Request) -> Response:
        asked.set()
        release.wait(60)
        return Response()

    with outside.serve_hub(tmp_path) as hub:
        hub.expect_oneshot_request("/api/v1/dbt-labs/dbt_utils.json").respond_with_handler(hang)
        command = [str(Path(sys.executable).with_name("fabric")), "prepare"]
        with subprocess.Popen(command, env={**os.environ, **environ, "DBT_PACKAGE_HUB_URL": hub.url_for("/")}, stdout=subprocess.DEVNULL) as prepare:
            assert asked.wait(60)
            children = Path(f"/proc/{prepare.pid}/task/{prepare.pid}/children").read_text().split()
            prepare.kill()
        try:
            wait_until(lambda: not any(map(is_running, children)), seconds=10)
        finally:
            release.set()
    shutil.rmtree(project / "dbt_packages", ignore_errors=True)  # what dbt may have come to
    assert list(project.glob(".packages-*"))
    with pytest.raises(ConfigurationError, match="installed before are still there"):
        outside.run_prepare(edited, DBT_PACKAGE_HUB_URL="http://127.0.0.1:9/")
    assert (project / "package-lock.yml").read_text() == lock
    assert (project / "dbt_packages" / "dbt_utils" / "macros").is_dir()
    assert not list(project.glob(".packages-*"))


@AT_FULL_LENGTH
def test_the_secret_in_the_address_of_an_archive_is_kept_nowhere(tmp_path: Path) -> None:
    settings = Settings(tenants_dir=tmp_path / "tenants", dbt_project_dir=outside.copy_toast_shop(tmp_path / "project"), data_dir=tmp_path / "data")
    write_files(tmp_path / "billing-1.0", outside.BILLING)
    with tarfile.open(tmp_path / "billing.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "billing-1.0", arcname="billing-1.0")
    with HTTPServer() as server:
        server.expect_request("/hush-hush-hush/billing.tar.gz").respond_with_data((tmp_path / "billing.tar.gz").read_bytes())
        address = server.url_for("/{{ env_var('DBT_ENV_SECRET_TOKEN') }}/billing.tar.gz")
        write_files(settings.dbt_project_dir, outside.UTILS | {"packages.yml": f'packages:\n  - tarball: "{address}"\n    name: billing\n'})
        assert outside.run_prepare(settings, DBT_ENV_SECRET_TOKEN="hush-hush-hush").startswith("packages: installed")
    files = [file for folder in (settings.dbt_project_dir, settings.data_dir) for file in folder.rglob("*") if file.is_file()]
    assert [file for file in files if b"hush-hush" in file.read_bytes()] == []
    assert is_prepared(settings)
    # A run, and a second prepare, need neither the secret nor the server.
    assert outside.run_prepare(settings).startswith("packages: unchanged")


def test_an_edit_of_a_package_from_a_folder_is_noticed(edited: Settings) -> None:
    (edited.dbt_project_dir / "packages.yml").write_text((edited.dbt_project_dir / "packages.yml").read_text().replace("1.4.0", "1.3.0"))
    link = edited.dbt_project_dir / "dbt_packages" / "billing"
    link.unlink()
    link.symlink_to(edited.dbt_project_dir / "packages" / "billing")
    assert is_prepared(edited)
    (edited.dbt_project_dir / "packages" / "billing" / "models" / "totals.sql").write_text("select 1 as customer_id, 2 as total\n")
    assert not is_prepared(edited)


# --- what is built


def test_a_project_of_the_shape_of_jaffle_shop_runs_as_it_is_for_two_tenants(shops: Settings, destination: dict[str, Any], ask: Ask) -> None:
    for tenant, toasts in (("acme", 2), ("globex", 4)):
        ask(*get_statements(tenant, toasts=toasts), tenant=tenant)
        outcome = build_tenant(shops, make_shop(tenant, destination))
        assert find_bad(outcome) == FOUND
        spend = ask(f"select customer_name, count_lifetime_orders, lifetime_spend, customer_type from {tenant}_marts.customers order by 1", tenant=tenant)
        assert spend == [("Ada", 2, Decimal(550 * toasts + 330) / 100, "returning"), ("Bob", 1, Decimal("5.50"), "new")]
        assert ask(f"select count(*) from {tenant}_marts.metricflow_time_spine", tenant=tenant) == [(31,)]
        assert ask(f"select orders, slug, nothing from {tenant}_marts.single", tenant=tenant) == [(3, "an_order", None)]
        # Two packages have a model of one name, each in a schema of its own.
        assert ask(f"select total from {tenant}_billing.totals order by 1", tenant=tenant) == [(550,), (550 * toasts + 330,)]
        assert ask(f"select days from {tenant}_calendar.totals", tenant=tenant) == [(31,)]
        assert ask(f"select country from {tenant}_seeds.rates order by 1", tenant=tenant) == [("BE",), ("NL",)]
    raw = naming.raw_dataset("acme", "ecom")
    ask(f"insert into {raw}.raw_orders values (4, 1, 1, 300, 30, 330, '2024-01-08 09:00')", f"insert into {raw}.raw_items values (4, 4, 'B')")
    if destination["type"] == "duckdb":
        assert find_bad(build_tenant(shops, make_shop("acme", destination))) == FOUND
        assert ask("select count(*) from acme_marts.order_log") == [(4,)]


def test_models_of_packages_are_known_by_their_files_schemas_and_checks(shops: Settings) -> None:
    graph = load_graph(shops)
    found = {key: (model.schema, model.name, model.file) for key, model in graph.models.items() if not model.unique_id.startswith("model.toast_shop")}
    assert found == {
        "model.billing.totals": ("billing", "totals", "dbt_packages/billing/models/totals.sql"),
        "model.calendar.totals": ("calendar", "totals", "dbt_packages/calendar/models/totals.sql"),
        "seed.billing.rates": ("seeds", "rates", "dbt_packages/billing/seeds/rates.csv"),
    }
    assert all((shops.dbt_project_dir / file).is_file() for _, _, file in found.values())
    assert graph.models["model.billing.totals"].depends_on_sources == (("ecom", "raw_orders"),)
    assert [test.name for test in graph.models["model.billing.totals"].checks] == ["billing_is_positive_totals_total"]
    schemas = list_schemas(make_shop("acme"), graph)
    assert {"acme_billing", "acme_calendar", "acme_seeds"} <= set(schemas)
    # The project's own config disables the seed of this schema.
    assert "acme_raw" not in schemas
