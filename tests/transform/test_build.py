"""Real builds of the fixture project, on DuckDB and on Postgres."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import psycopg2
import pytest

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError, DestinationUnavailable, InternalError, TransformError
from fabric_assets.settings import Settings
from fabric_assets.transform import build, project
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult
from fabric_assets.transform.process import WorkerProcess
from tests.support.lengths import AT_FULL_LENGTH
from tests.support.tracebacks import read_traceback
from tests.transform.conftest import Outcome, build_tenant, get_raw_statements, make_tenant, run_duckdb


def run_postgres(url: str, *statements: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def list_leftovers(settings: Settings, tenant: str) -> list[str]:
    return [path.name for path in naming.dbt_dir(settings.data_dir, tenant).iterdir() if path.name != ".lock"]


def test_a_build_reports_rows_columns_lineage_and_table_of_every_model(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60, 120, 180]))
    outcome = build_tenant(prepared, make_tenant("acme"))
    assert {name: (result.status, result.rows) for name, result in outcome.models.items()} == {
        "stg_contacts": ("success", 1),
        "stg_customers": ("success", 2),
        "stg_orders": ("success", 3),
        "orders": ("success", 3),
        "customers": ("success", 2),
        "order_log": ("success", 3),
        "people": ("success", 3),
        "vip_customers": ("success", 2),
    }
    orders = outcome.models["orders"]
    assert orders.table_name == "acme.acme_marts.orders"
    assert orders.columns == (
        ("order_id", "BIGINT"),
        ("ordered_at", "TIMESTAMP"),
        ("customer_name", "VARCHAR"),
        ("amount", "DECIMAL(18,2)"),
        ("order_size", "VARCHAR"),
    )
    assert orders.lineage["order_size"] == [("model.fabric.stg_orders", "amount")]
    assert outcome.models["stg_orders"].lineage["order_id"] == [(("shop", "orders"), "id")]
    assert outcome.models["people"].lineage == {
        "email": [("model.fabric.stg_contacts", "email"), ("model.fabric.stg_customers", "customer_name")],
        "kind": [],
    }
    assert {result.status for result in outcome.tests.values()} == {"pass"}
    assert {"an_order_of_a_hundred_is_large", "amounts_add_up", "unique_vip_customers_customer_id", "source_unique_shop_orders_id"} <= {
        name.replace("acme__", "") for name in outcome.tests
    }
    assert list_leftovers(prepared, "acme") == []


def test_two_tenants_builds_stay_in_their_own_schemas(prepared: Settings, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED_URL", postgres_database)
    destination = {"type": "postgres", "url": {"env": "SHARED_URL"}}
    rows = {"acme": [60.0, 120.0], "globex": [1.0, 2.0, 3.0, 4.0, 500.0]}
    for tenant, amounts in rows.items():
        run_postgres(postgres_database, *get_raw_statements(tenant, amounts=amounts))
    outcomes = {tenant: build_tenant(prepared, make_tenant(tenant, destination=destination)) for tenant in rows}
    for tenant, amounts in rows.items():
        assert outcomes[tenant].models["orders"].rows == len(amounts)
        assert {result.status for result in outcomes[tenant].models.values()} == {"success"}
        assert {result.status for result in outcomes[tenant].tests.values()} == {"pass"}
        assert run_postgres(postgres_database, f"select amount from {tenant}_marts.orders order by order_id") == [(amount,) for amount in amounts]
    assert outcomes["globex"].models["orders_by_day"].table_name.endswith(".globex_reports.orders_by_day")
    assert outcomes["acme"].models["orders"].columns[3] == ("amount", "numeric(18,2)")
    assert outcomes["acme"].models["orders"].lineage["customer_name"] == [("model.fabric.stg_customers", "customer_name")]
    schemas = run_postgres(postgres_database, "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$|public$)' order by 1")
    own = {f"{tenant}_{part}" for tenant in rows for part in ("raw_shop", "raw_crm", "staging", "marts")} | {"globex_reports"}
    assert {name for (name,) in schemas} == own


def test_an_incremental_model_adds_and_a_full_refresh_rebuilds_and_vars_reach_the_models(prepared: Settings) -> None:
    tenant = make_tenant("acme", select=["+order_log", "+marts.sales.orders"], exclude=["tenants"], vars={"large_from": 1000})
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60, 120]))
    assert build_tenant(prepared, tenant).models["order_log"].rows == 2
    assert run_duckdb(prepared, "acme", "select distinct order_size from acme_marts.orders") == [("small",)]
    run_duckdb(prepared, "acme", "delete from acme_raw_shop.orders", "insert into acme_raw_shop.orders values (9, 1, 90, timestamp '2025-01-01')")
    assert build_tenant(prepared, tenant).models["order_log"].rows == 3
    assert build_tenant(prepared, tenant, full_refresh=True).models["order_log"].rows == 1


def test_a_failed_test_holds_up_what_is_below_it_and_a_warning_does_not(prepared: Settings) -> None:
    run_duckdb(
        prepared,
        "acme",
        *get_raw_statements("acme", amounts=[60, 120]),
        "insert into acme_raw_shop.customers values (1, 'Ada again')",
        "insert into acme_raw_shop.orders values (7, 99, 1, timestamp '2024-02-01')",
    )
    outcome = build_tenant(prepared, make_tenant("acme"))
    unique = outcome.tests["unique_stg_customers_customer_id"]
    assert (unique.status, unique.severity, unique.failures) == ("fail", "error", 1)
    assert (unique.message, unique.log_message) == ("1 value of customer_id is not unique ('1', 2 rows)", "1 value of customer_id is not unique")
    assert outcome.models["stg_customers"].status == "success"
    assert (outcome.models["orders"].status, outcome.models["orders"].message) == ("skipped", "not built: test unique_stg_customers_customer_id failed")
    relation = next(result for name, result in outcome.tests.items() if name.startswith("relationships_stg_orders"))
    assert (relation.status, relation.severity, relation.failures) == ("warn", "warn", 1)
    assert relation.message == "1 value of customer_id is not in stg_customers.customer_id: '99' (1 row)"
    assert outcome.models["order_log"].rows == 3


def test_models_without_raw_data_get_a_warehouse_file_that_only_its_owner_reads(prepared: Settings) -> None:
    outcome = build_tenant(prepared, make_tenant("acme", select=["environment"], exclude=["tenants"]))
    assert outcome.models["environment"].rows == 1
    assert stat.S_IMODE(naming.warehouse_file(prepared.data_dir, "acme").stat().st_mode) == 0o600


# One worker's, so that the models are built once.
ODD = pytest.mark.xdist_group("odd_models")


@pytest.fixture(scope="module")
def odd(prepared_project: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Settings]:
    """One build of models that go wrong, each in its own way, with secrets in the platform's environment and its file `.env`."""
    settings = replace(prepared_project, data_dir=tmp_path_factory.mktemp("odd"))
    shutil.copytree(prepared_project.data_dir / "dbt", settings.data_dir / "dbt")
    run_duckdb(settings, "acme", *get_raw_statements("acme", amounts=[60]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FABRIC_SECRET_KEYS", "key-canary")
        monkeypatch.setenv("WAREHOUSE_URL", "url-canary")
        # dbt 1.12 looks for the file in the run's own folder, and in those above.
        (settings.data_dir / ".env").write_text("FABRIC_SECRET_KEYS=file-canary\nWAREHOUSE_URL=file-canary\n")
        outcome = build_tenant(settings, make_tenant("acme", select=["bad_view", "environment", "+wrong_case"], exclude=["tenants"]))
    return outcome, settings


@ODD
def test_a_failing_unit_test_shows_the_difference_and_its_model_is_not_built(odd: tuple[Outcome, Settings]) -> None:
    outcome, _ = odd
    unit = outcome.tests["a_hundred_is_large"]
    assert unit.status == "fail"
    assert "large" in unit.message
    assert "small" in unit.message
    assert outcome.models["wrong_case"].message == "not built: test a_hundred_is_large failed"


@ODD
def test_a_view_that_cannot_be_counted_is_built_and_says_so(odd: tuple[Outcome, Settings]) -> None:
    bad = odd[0].models["bad_view"]
    assert (bad.status, bad.rows, bad.columns) == ("success", None, (("number", "INTEGER"),))
    assert "could not be counted" in bad.message


@ODD
def test_models_see_none_of_the_platforms_environment(odd: tuple[Outcome, Settings]) -> None:
    _, settings = odd
    keys, url, home, passwords, zone = run_duckdb(settings, "acme", "select * from acme_marts.environment")[0]
    assert (keys, url, passwords, zone) == ("unset", "unset", os.devnull, "UTC")
    assert Path(home).is_relative_to(naming.dbt_dir(settings.data_dir, "acme"))


def test_a_password_is_neither_on_disk_nor_for_models(prepared: Settings, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    password = "1234567-{{ x }}-'\"%:canary"
    monkeypatch.setenv("SHARED_URL", postgres_database.replace(":postgres@", f":{quote(password, safe='')}@"))
    run_postgres(postgres_database, *get_raw_statements("acme", amounts=[60]))
    tenant = make_tenant("acme", destination={"type": "postgres", "url": {"env": "SHARED_URL"}})
    worker = DbtWorker.start(prepared, adapter="postgres")
    found: list[ModelResult | TestResult] = []
    request = BuildRequest(tenant=tenant, models=("model.fabric.sleeping",), tests=(), settings=prepared)
    thread = threading.Thread(target=lambda: found.extend(worker.build(request)))
    thread.start()
    folder = wait_for_run(prepared, "acme")
    profile = folder / "profiles.yml"
    wait_for(profile.exists)
    time.sleep(1)
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [path for path in folder.rglob("*") if path.is_file() and b":canary" in path.read_bytes()]
    assert not [entry for entry in ("cmdline", "environ") if b":canary" in Path(f"/proc/{worker.pid}/{entry}").read_bytes()]
    thread.join()
    assert [(result.status, result.message) for result in found] == [("success", "")]
    assert list_leftovers(prepared, "acme") == []


def test_a_failing_model_names_its_file_and_the_cause(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]), "alter table acme_raw_shop.customers drop column name")
    outcome = build_tenant(prepared, make_tenant("acme"))
    failed = outcome.models["stg_customers"]
    assert failed.status == "error"
    assert "models/staging/shop/stg_customers.sql" in failed.message
    assert '"name"' in failed.message
    assert "\x1b" not in failed.message
    assert str(prepared.data_dir) not in failed.message
    assert (outcome.models["customers"].status, outcome.models["customers"].message) == ("skipped", "not built: stg_customers failed")
    assert outcome.models["stg_orders"].status == "success"


def wait_for(condition: Callable[[], object]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def wait_for_run(settings: Settings, tenant: str) -> Path:
    """The folder of the tenant's running build."""
    folder = naming.dbt_dir(settings.data_dir, tenant)
    return wait_for(lambda: next((path for path in folder.iterdir() if path.is_dir()), None) if folder.is_dir() else None)


def test_a_build_that_takes_too_long_is_ended_and_leaves_nothing(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    worker = DbtWorker.start(prepared)
    worker.wait_until_ready()
    request = BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.endless",), tests=(), settings=prepared, timeout_seconds=3)
    with pytest.raises(TransformError, match=r"tenant acme: dbt was ended: it took longer than 3 seconds(.|\n)*endless"):
        list(worker.build(request))
    assert_ended(worker.pid)
    assert list_leftovers(prepared, "acme") == []
    run_duckdb(prepared, "acme", "select 1")


def test_a_dbt_that_dies_is_reported_with_its_last_lines(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    worker = DbtWorker.start(prepared)
    results = worker.build(BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.endless",), tests=(), settings=prepared))

    def kill() -> None:
        wait_for_run(prepared, "acme")
        time.sleep(1)
        os.kill(worker.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(TransformError, match="ended early, by signal SIGKILL"):
        list(results)
    thread.join()
    assert list_leftovers(prepared, "acme") == []


def test_a_worker_ends_with_its_parent_and_takes_its_folder_along(prepared: Settings) -> None:
    """The parent here is a process of its own, killed without a chance to tidy up."""
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    script = f"""
from pathlib import Path
from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker
from tests.transform.conftest import make_tenant
settings = Settings(tenants_dir=Path("x"), dbt_project_dir=Path({str(prepared.dbt_project_dir)!r}), data_dir=Path({str(prepared.data_dir)!r}))
worker = DbtWorker.start(settings)
print(worker.pid, flush=True)
list(worker.build(BuildRequest(tenant=make_tenant("acme"), models=("model.fabric.endless",), tests=(), settings=settings)))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        wait_for_run(prepared, "acme")
        time.sleep(1)
        parent.kill()
    assert_ended(pid)
    assert list_leftovers(prepared, "acme") == []


def test_a_worker_that_waits_for_a_request_ends_with_its_parent(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    script = f"""
import time
from pathlib import Path
from fabric_assets.settings import Settings
from fabric_assets.transform.build import DbtWorker
worker = DbtWorker.start(Settings(tenants_dir=Path("x"), dbt_project_dir=Path({str(prepared.dbt_project_dir)!r}), data_dir=Path({str(prepared.data_dir)!r})))
worker.wait_until_ready()
print(worker.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    assert_ended(pid)


def assert_ended(pid: int) -> None:
    def has_ended() -> bool:
        try:
            return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return True

    wait_for(has_ended)


def test_an_unreachable_warehouse_may_be_tried_again(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED_URL", "postgresql://someone:pass-canary@127.0.0.1:1/nowhere")
    tenant = make_tenant("acme", destination={"type": "postgres", "url": {"env": "SHARED_URL"}}, select=["stg_customers"], exclude=["tenants"])
    with pytest.raises(DestinationUnavailable, match="tenant acme") as caught:
        build_tenant(prepared, tenant)
    assert "canary" not in str(caught.value)


def test_a_postgres_parameter_that_dbt_cannot_use_is_refused(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED_URL", "postgresql://someone:pw@127.0.0.1:1/nowhere?options=-crole=root")
    tenant = make_tenant("acme", destination={"type": "postgres", "url": {"env": "SHARED_URL"}}, select=["stg_customers"], exclude=["tenants"])
    with pytest.raises(ConfigurationError, match="the parameter options"):
        build_tenant(prepared, tenant)


@AT_FULL_LENGTH
def test_a_warehouse_file_in_use_elsewhere_may_be_tried_again(prepared: Settings) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    with duckdb.connect(str(naming.warehouse_file(prepared.data_dir, "acme"))), pytest.raises(DestinationUnavailable, match="tenant acme"):
        build_tenant(prepared, make_tenant("acme", select=["stg_customers"], exclude=["tenants"]))


def test_a_fault_of_ours_in_dbts_process_is_reported_as_ours(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run_duckdb(prepared, "acme", *get_raw_statements("acme", amounts=[60]))
    build_message = build._build_message

    def leave_out(*arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in build_message(*arguments).items() if name != "models"}

    monkeypatch.setattr(build, "_build_message", leave_out)
    with pytest.raises(InternalError) as caught:
        build_tenant(prepared, make_tenant("acme"))
    assert "tenant acme: the dbt process: a fault of ETL Fabric (KeyError at fabric_assets/transform/worker/building.py:" in caught.value.message
    assert "KeyError: 'models'" in caught.value.traceback
    assert "KeyError: 'models'" in read_traceback(prepared, "acme", caught.value.message)
    assert list_leftovers(prepared, "acme") == []


class ForgetfulProcess(WorkerProcess):
    """Leaves a part of the request out, so that the worker's own line fails."""

    def request(self, request: dict[str, Any], **options: Any) -> Iterator[dict[str, Any]]:
        return super().request({name: value for name, value in request.items() if name != "graph_file"}, **options)


def test_a_fault_of_ours_as_the_project_is_prepared_is_reported_as_ours(own_project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_project.dbt_project_dir / "models" / "more.sql").write_text("select 1 as one")
    monkeypatch.setattr(project, "WorkerProcess", ForgetfulProcess)
    message = r"the dbt process: a fault of ETL Fabric \(KeyError at fabric_assets/transform/worker/parse/preparing\.py:"
    with pytest.raises(InternalError, match=message) as caught:
        project.prepare_project(own_project)
    assert "KeyError: 'graph_file'" in caught.value.traceback
    assert "KeyError: 'graph_file'" in read_traceback(own_project, "", caught.value.message)
