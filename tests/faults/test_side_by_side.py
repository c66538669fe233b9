"""Fault 33: eight tenants' dbt builds at the same time, each in its own process; and what was prepared for them, damaged."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult
from fabric_assets.transform.fingerprint import get_graph_file, get_prepared_file
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.project import is_prepared, prepare_project
from tests.support.lengths import AT_FULL_LENGTH, IS_FULL
from tests.transform.conftest import copy_project, get_raw_statements, make_tenant, run_duckdb

TENANTS = [f"tenant_{number}" for number in range(8 if IS_FULL else 4)]
MODELS = ("model.fabric.stg_orders", "model.fabric.stg_customers", "model.fabric.orders", "model.fabric.customers")
pytestmark = pytest.mark.xdist_group("side_by_side")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("side_by_side")
    settings = Settings(root / "tenants", copy_project(root / "project"), root / "data")
    prepare_project(settings)
    return settings


@pytest.fixture
def prepared(project: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(project.data_dir / "dbt" / "prepared", tmp_path / "data" / "dbt" / "prepared")
    return replace(project, data_dir=tmp_path / "data")


def load(settings: Settings, tenant: str, amount: float) -> None:
    run_duckdb(settings, tenant, *get_raw_statements(tenant, amounts=[amount, amount + 100], names=[f"Ada of {tenant}", f"Bob of {tenant}"]))


def list_folders(settings: Settings, tenant: str) -> set[str]:
    folder = naming.dbt_dir(settings.data_dir, tenant)
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()


def build(settings: Settings, tenant: str) -> list[ModelResult]:
    request = BuildRequest(tenant=make_tenant(tenant), models=MODELS, tests=(), settings=settings, run_id=f"run-{tenant}", timeout_seconds=240)
    found = []
    for result in DbtWorker.start(settings).build(request):
        assert isinstance(result, ModelResult)
        found.append(result)
    return found


@pytest.mark.timeout(600)
def test_builds_at_once_make_each_tenants_own_marts(prepared: Settings) -> None:
    for number, tenant in enumerate(TENANTS):
        load(prepared, tenant, 100.0 + number)
    start, built, folders = threading.Barrier(len(TENANTS)), {}, {tenant: set[str]() for tenant in TENANTS}

    def work(tenant: str) -> None:
        start.wait()
        built[tenant] = build(prepared, tenant)

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in TENANTS]
    for thread in threads:
        thread.start()
    # Looked at all the while: a result may be read when its build has ended already.
    while any(thread.is_alive() for thread in threads):
        for tenant, seen in folders.items():
            seen.update(list_folders(prepared, tenant))
        time.sleep(0.05)
    for number, tenant in enumerate(TENANTS):
        assert {result.unique_id: result.status for result in built[tenant]} == dict.fromkeys(MODELS, "success")
        assert {result.table_name.split(".")[1].removeprefix(f"{tenant}_") for result in built[tenant]} == {"staging", "marts"}
        marts = run_duckdb(prepared, tenant, f"select customer_name, amount from {tenant}_marts.orders order by 1")
        assert [(name, float(amount)) for name, amount in marts] == [(f"Ada of {tenant}", 200.0 + number), (f"Bob of {tenant}", 100.0 + number)]
        foreign = f"select schema_name from information_schema.schemata where schema_name ~ '^tenant_' and schema_name !~ '^{tenant}_'"
        assert run_duckdb(prepared, tenant, foreign) == []
        # Profile, target and log lay in one folder of the run's own, and went with it.
        (folder,) = folders[tenant]
        assert folder.startswith(f"run-{tenant.replace('_', '')}-")
        assert list_folders(prepared, tenant) == set()
    assert not (prepared.dbt_project_dir / "target").exists()
    assert not (prepared.dbt_project_dir / "logs").exists()


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def scramble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def fill_with_garbage(file: Path) -> None:
    file.write_bytes(b"\x00garbage" * 1000)


@pytest.mark.parametrize("damage", [truncate, scramble, fill_with_garbage])
def test_a_damaged_manifest_is_not_taken_for_a_prepared_one(prepared: Settings, damage: Callable[[Path], None]) -> None:
    assert is_prepared(prepared)
    damage(get_prepared_file(prepared))
    assert not is_prepared(prepared)


def test_a_damaged_manifest_is_parsed_anew_and_the_build_goes_on(prepared: Settings) -> None:
    load(prepared, "acme", 60)
    truncate(get_prepared_file(prepared))
    assert {result.status for result in build(prepared, "acme")} == {"success"}
    assert is_prepared(prepared)


@AT_FULL_LENGTH
def test_a_damaged_graph_is_reported_with_its_remedy(prepared: Settings) -> None:
    truncate(get_graph_file(prepared))
    with pytest.raises(ConfigurationError, match=r"is damaged(.|\n)*fabric validate"):
        load_graph(prepared)
    prepare_project(prepared)
    assert "model.fabric.orders" in load_graph(prepared).models
