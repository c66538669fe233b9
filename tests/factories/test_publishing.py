"""Each kind of run of a tenant ends in the file for its readers; a failure to write that file is a warning."""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from fabric_assets import naming
from fabric_assets.cli.headless import run_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.factories.conftest import copy_world
from tests.factories.shop import get_tenant, make_shop
from tests.support.lengths import AT_FULL_LENGTH

# One worker, so that there is one first run.
pytestmark = pytest.mark.xdist_group("publishing")

REVENUE = "select count(*), sum(subtotal) from acme_marts.orders"


def run_tenant(settings: Settings, tenant: str = "acme", **options):
    """Run a tenant as `fabric run` does; gives its result and the lines of its log."""
    events = []
    (result,) = run_tenants(load_fleet(settings), (tenant,), settings=settings, on_event=events.append, **options)
    return result, [event.message for event in events if event.kind == "log"]


@pytest.fixture(scope="module")
def world(prepared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[str]]:
    """Settings and the log of acme after its first run; to be copied."""
    root = tmp_path_factory.mktemp("publishing")
    settings = Settings(tenants_dir=root / "tenants", dbt_project_dir=ROOT / "dbt_project", data_dir=root / "data", publish_dir=root / "published")
    settings.tenants_dir.mkdir()
    (settings.data_dir / "dagster").mkdir(parents=True, mode=0o700)
    shutil.copytree(prepared_data, settings.data_dir / "dbt" / "prepared")
    (settings.tenants_dir / "acme.yaml").write_text(yaml.safe_dump({"version": 1, "tenant": "acme", **get_tenant()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_URL", make_shop(root / "shop.db"))
        patch.setenv("DAGSTER_HOME", str(settings.data_dir / "dagster"))
        result, log = run_tenant(settings)
    assert result.status == "success", result.error
    return settings, log


@pytest.fixture
def loaded(world: tuple[Settings, list[str]], settings: Settings, write_tenant: Callable, shop_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings over a copy of that data, and acme."""
    copy_world(world[0], settings)
    monkeypatch.setenv("DAGSTER_HOME", str(settings.data_dir / "dagster"))
    write_tenant("acme", get_tenant())
    return settings


def read(settings: Settings, sql: str, tenant: str = "acme") -> list[tuple]:
    with duckdb.connect(str(naming.published_file(settings.publish_dir, tenant)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def change(settings: Settings, sql: str) -> None:
    with duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme"))) as connection:
        connection.execute(sql)


def test_a_run_publishes_its_marts_and_nothing_else(world):
    settings, log = world
    assert read(settings, REVENUE) == [(3, Decimal("20.00"))]
    assert read(settings, "select distinct schema_name from duckdb_tables()") == [("acme_marts",)]
    (line,) = [line for line in log if line.startswith("published ")]
    assert line.endswith(f" bytes: {settings.publish_dir}/acme/acme.duckdb")


def test_a_mart_that_is_materialised_alone_is_published_too(loaded):
    """As the UI does it: over the code location's own job, and a selection of one asset."""
    change(loaded, "delete from acme_raw_shop.orders where id = 'o3'")
    file = naming.published_file(loaded.publish_dir, "acme")
    before = file.stat().st_ino
    definitions = build_definitions(loaded)
    job = definitions.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(["acme", "marts", "orders"])]
    with dg.DagsterInstance.from_config(str(loaded.data_dir / "dagster")) as instance:
        assert job.execute_in_process(instance=instance, asset_selection=keys).success
    assert file.stat().st_ino != before
    assert read(loaded, REVENUE) == [(2, Decimal("15.00"))]


def test_models_that_were_built_are_published_though_another_one_failed(loaded):
    change(loaded, "delete from acme_raw_shop.orders where id = 'o3'; alter table acme_raw_shop.stores drop column name")
    result, _ = run_tenant(loaded, selection=("marts/orders", "marts/stores"))
    assert result.status == "failure", result.assets
    statuses = {asset.key: asset.status for asset in result.assets}
    assert (statuses["acme/marts/stores"], statuses["acme/marts/orders"]) == ("failure", "success"), result.error
    assert read(loaded, REVENUE) == [(2, Decimal("15.00"))]


@pytest.mark.parametrize("why", ["folder", "max"])
def test_what_keeps_the_file_from_being_written_is_a_warning_and_the_old_file_stays(loaded, write_tenant, why):
    if why == "folder":
        folder = naming.published_dir(loaded.publish_dir, "acme")
        folder.rename(loaded.publish_dir / "kept")
        folder.write_text("")
    else:
        write_tenant("acme", get_tenant(destination={"type": "duckdb", "publish": {"max": "10KB"}}))
    result, log = run_tenant(loaded, selection=("marts/orders",))
    assert (result.status, result.error) == ("success", None)
    told = {"folder": "acme.duckdb for readers cannot be written", "max": "more than 10,000 bytes, the `max` of destination.publish; readers keep the file of"}
    assert len([line for line in log if told[why] in line]) == 1, log
    with dg.DagsterInstance.from_config(str(loaded.data_dir / "dagster")) as instance:
        assert {entry.level for entry in instance.all_logs(result.run_id) if told[why] in entry.user_message} == {logging.WARNING}
    if why == "max":
        assert read(loaded, REVENUE) == [(3, Decimal("20.00"))]


def test_a_load_alone_publishes_the_views_that_show_its_rows(loaded):
    file = naming.published_file(loaded.publish_dir, "acme")
    before = file.stat().st_ino
    run_tenant(loaded, selection=("raw",))
    assert file.stat().st_ino == before
    change(loaded, "create view acme_marts.raw_orders as select count(*) as n from acme_raw_shop.orders; delete from acme_raw_shop.orders")
    run_tenant(loaded, selection=("raw",), full_refresh=True)
    assert read(loaded, "from acme_marts.raw_orders") == [(3,)]


def test_two_tenants_have_a_folder_each_that_holds_their_own_rows_alone(loaded, write_tenant):
    write_tenant("acme_two", get_tenant())
    run_tenant(loaded, "acme_two")
    for tenant in ("acme", "acme_two"):
        file = naming.published_file(loaded.publish_dir, tenant)
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
        assert read(loaded, "select distinct schema_name from duckdb_tables()", tenant) == [(f"{tenant}_marts",)]


READ = "import duckdb, sys, time\nc = duckdb.connect(sys.argv[1], read_only=True)\nprint('held', flush=True)\ntime.sleep(float(sys.argv[2]))\n"


@pytest.mark.parametrize("selection", [("raw/shop/orders",), ("marts/orders",)], ids=["a load", "models"])
def test_a_run_waits_for_a_program_that_reads_the_tenants_own_file(loaded, selection):
    file = naming.warehouse_file(loaded.data_dir, "acme")
    with subprocess.Popen([sys.executable, "-c", READ, str(file), "6"], stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"held\n"
        began = time.monotonic()
        result, log = run_tenant(loaded, selection=selection)
        assert reader.wait() == 0
    assert (result.status, result.error) == ("success", None)
    assert time.monotonic() - began >= 4
    told = [line for line in log if f"acme.duckdb is open in another program: process {reader.pid} (python" in line]
    assert len(told) == (1 if selection == ("raw/shop/orders",) else 0), log


@AT_FULL_LENGTH
@pytest.mark.timeout(300)
def test_a_run_that_waits_in_vain_names_the_program_and_the_next_one_is_whole(loaded):
    file = naming.warehouse_file(loaded.data_dir, "acme")
    with subprocess.Popen([sys.executable, "-c", READ, str(file), "1000"], stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"held\n"
        began = time.monotonic()
        result, _ = run_tenant(loaded)
        assert time.monotonic() - began >= 60
        reader.kill()
    assert result.status == "failure"
    assert f"acme.duckdb is open in another program: process {reader.pid} (python" in result.error
    assert run_tenant(loaded)[0].status == "success"
    assert read(loaded, REVENUE) == [(3, Decimal("20.00"))]
