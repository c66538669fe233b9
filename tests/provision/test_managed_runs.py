"""A managed tenant end to end: loads, models and checks connect as its role and as nobody else, and that role may make no schema."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.errors import DestinationError, SecretError
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest, StreamReport
from fabric_assets.settings import Settings
from fabric_assets.transform.process import build_environment
from tests.provision.conftest import ManagedWarehouse, build_tenant, get_managed, run_fabric
from tests.support.lengths import AT_FULL_LENGTH

pytestmark = [pytest.mark.xdist_group("provision"), pytest.mark.timeout(300)]


def run(warehouse: ManagedWarehouse, *arguments: str, environ: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fabric")), "run", *arguments]
    return subprocess.run(command, cwd=warehouse.settings.data_dir, env={**os.environ, **environ}, capture_output=True, text=True, check=False)


def load(warehouse: ManagedWarehouse, source: str, *streams: str) -> list[StreamReport]:
    return list(run_load(LoadRequest(warehouse.get_config("acme"), source, streams, warehouse.settings)))


def list_owners(warehouse: ManagedWarehouse, database: str = "") -> set[str]:
    """Who owns the tables and views of the tenant."""
    sql = "select distinct relowner::regrole::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
    sql += " where nspname ~ 'acme' and relkind in ('r', 'v')"
    return {owner for (owner,) in warehouse.run(sql, database=database)}


def test_a_managed_tenant_loads_models_and_checks_as_its_role(warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", build_tenant())
    with pytest.raises(SecretError, match=r"its login has not been made yet\n  remedy: fabric provision acme"):
        load(warehouse, "shop", "orders")
    assert run_fabric("provision", "acme").code == 0
    # What cannot be used is not used: no load and no dbt process reads it.
    elsewhere = {"FABRIC_PROVISION_URL": "postgresql://nobody:nothing@203.0.113.1:1/none"}

    warehouse.run("alter system set log_connections = on", "select pg_reload_conf()")
    log = warehouse.server.data / "log"
    begun = log.stat().st_size
    first = run(warehouse, "acme", "--json", environ=elsewhere)
    assert first.returncode == 0, first.stderr + first.stdout
    (outcome,) = json.loads(first.stdout)["tenants"]
    assert [check["passed"] for check in outcome["checks"] if check["name"] == "source_freshness"] == [True]
    logins = re.findall(r"connection authorized: user=(\w+) database=(\w+)", log.read_text()[begun:])
    assert len(logins) > 5
    assert {login for login in logins if login[1] != "postgres"} == {("fabric_acme", warehouse.database)}
    warehouse.run("alter system reset log_connections", "select pg_reload_conf()")
    warehouse.run("create role analyst login password 'analyst'", "grant fabric_acme_ro to analyst")
    read = ["select count(*) from acme_raw_shop.orders", "select count(*) from acme_marts.orders", "select count(*) from acme_staging.stg_shop__orders"]
    assert [warehouse.run(sql, user="analyst", password="analyst") for sql in read] == [[(3,)]] * 3
    assert list_owners(warehouse) == {"fabric_acme"}

    with sqlite3.connect(shop) as database:
        database.execute("insert into orders values ('o4', 'c2', '2024-01-03T10:00:00', 's1', 500, 30, 530)")
        database.execute("insert into items values ('i4', 'o4', 'BEV-1')")
    second = run(warehouse, "acme", environ=elsewhere)
    assert second.returncode == 0, second.stderr + second.stdout
    assert warehouse.run("select rows_loaded from acme_fabric.loads where stream = 'orders' order by started_at") == [
        (3,),
        (2,),
    ]  # the newest one again, and the new one
    assert warehouse.run(read[1], user="analyst", password="analyst") == [(4,)]

    full = run(warehouse, "acme", "--full-refresh", environ=elsewhere)
    assert full.returncode == 0, full.stderr + full.stdout
    assert [warehouse.run(sql, user="analyst", password="analyst") for sql in read] == [[(4,)]] * 3
    assert list_owners(warehouse) == {"fabric_acme"}
    assert run_fabric("provision", "acme", "--check").lines == []

    write_tenant("acme", build_tenant("till"))
    with pytest.raises(DestinationError, match=r"there is no schema acme_raw_till, and the login may not make it\n  remedy: fabric provision acme"):
        load(warehouse, "till", "stores")
    assert run_fabric("provision", "acme").code == 0
    assert [report.rows_loaded for report in load(warehouse, "till", "stores")] == [1]


@AT_FULL_LENGTH
def test_a_tenant_with_a_database_of_its_own_runs_there(warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", build_tenant(isolation="database"))
    assert run_fabric("provision", "acme").code == 0
    done = run(warehouse, "acme")
    assert done.returncode == 0, done.stderr + done.stdout
    assert list_owners(warehouse, "fabric_acme") == {"fabric_acme"}
    assert warehouse.run_as("acme", "select count(*) from acme_marts.orders", database="fabric_acme") == [(3,)]
    assert [line for line in run_fabric("provision", "acme", "--check").lines if warehouse.database not in line] == []
    # A model's schema that is gone: dbt would only say that it may not make one.
    warehouse.run("drop schema acme_marts cascade", database="fabric_acme")
    lacking = run(warehouse, "acme", "--select", "marts/orders")
    assert lacking.returncode == 1
    assert "there is no schema acme_marts for its models" in lacking.stderr + lacking.stdout
    assert "fabric provision acme" in lacking.stderr + lacking.stdout


def test_no_process_of_dbts_has_the_provisioning_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_PROVISION_URL", "postgresql://admin:hunter2@localhost/db")
    assert "hunter2" not in str(build_environment())


def test_every_other_process_forgets_the_provisioning_login(settings: Settings) -> None:
    """Where a .env file has brought it in, too."""
    (settings.data_dir / ".env").write_text("FABRIC_PROVISION_URL=postgresql://admin:hunter2@localhost/db\n")
    show = "import os; print([value for value in os.environ.values() if 'hunter2' in value])"
    command = f"import sys; sys.argv = ['fabric', 'list', 'tenants']\nfrom fabric_assets.cli.main import main\ntry:\n    main()\nfinally:\n    {show}"
    location = f"from fabric_assets.definitions import defs\ndefs()\n{show}"
    environ = {**os.environ, "FABRIC_TENANTS_DIR": str(settings.tenants_dir), "FABRIC_DATA_DIR": str(settings.data_dir)}
    for program, more in ((command, {}), (location, {"FABRIC_PROVISION_URL": "postgresql://admin:hunter2@localhost/db"})):
        done = subprocess.run([sys.executable, "-c", program], cwd=settings.data_dir, env=environ | more, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_password_of_a_managed_tenant_opens_for_no_other(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    """A password sealed for one tenant opens for no other, and no other role has it."""
    write_tenant("acme", get_managed())
    write_tenant("globex", get_managed())
    assert run_fabric("provision", "--all").code == 0
    assert warehouse.get_password("acme") != warehouse.get_password("globex")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        warehouse.run("select 1", user="fabric_globex", password=warehouse.get_password("acme"))
