"""Everything of a tenant on a server: listed with its rows, dropped whole, and dropped to the end after a kill."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.security.roles.belongings import TableContent
from fabric_assets.security.roles.server import Server
from tests.faults.breakages import wrap
from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric
from tests.provision.test_faults import fork, wait

pytestmark = pytest.mark.xdist_group("provision")


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> ManagedWarehouse:
    for name in ("acme", "acme_raw", "globex"):
        write_tenant(name, get_managed(isolation="database" if name == "globex" else "schema"))
    assert run_fabric("provision", "--all").code == 0
    fill(warehouse)
    return warehouse


def fill(warehouse: ManagedWarehouse) -> None:
    for tenant, database in (("acme", ""), ("acme_raw", ""), ("globex", "fabric_globex")):
        warehouse.run_as(
            tenant,
            f"create table {tenant}_raw_shop.orders as select * from generate_series(1, 5) as id",
            f"create view {tenant}_marts.orders as select * from {tenant}_raw_shop.orders",
            f"create materialized view {tenant}_marts.kept as select * from {tenant}_raw_shop.orders",
            database=database,
        )


def get_neighbours(warehouse: ManagedWarehouse) -> list[object]:
    return [warehouse.list("acme_raw"), warehouse.list("globex")]


def test_what_belongs_to_a_tenant_is_listed_by_the_catalog_alone(fleet: ManagedWarehouse) -> None:
    found = fleet.list("acme")
    assert found.roles == ("fabric_acme", "fabric_acme_bi", "fabric_acme_ro")
    assert found.databases == ()
    tables = {schema.name: schema.tables for schema in found.schemas}
    assert tables["acme_marts"] == (TableContent("kept", "materialized view"), TableContent("orders", "view"))
    assert tables["acme_raw_shop"] == (TableContent("orders", "table"),)
    assert set(tables) == {"acme_fabric", "acme_intermediate", "acme_marts", "acme_raw_shop", "acme_staging", "stg_acme_raw_shop"}
    assert fleet.list("globex").databases == ("fabric_globex",)


def test_a_tenant_is_dropped_whole_and_its_neighbours_stay(fleet: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    neighbours = get_neighbours(fleet)
    write_tenant("acme", get_managed("crm"))  # the source shop is declared no more, and still is the tenant's
    fleet.run("create role analyst login", "grant fabric_acme_ro to analyst", "create schema bi authorization analyst")
    fleet.run(
        "create view bi.orders as select * from acme_raw_shop.orders", "create table public.stray (i int)", "alter table public.stray owner to fabric_acme"
    )
    reported: list[str] = []
    assert not fleet.drop("acme", report=reported.append)
    assert "schema acme_raw_shop" in reported
    assert reported[-3:] == ["role fabric_acme", "role fabric_acme_bi", "role fabric_acme_ro"]
    assert fleet.run("select count(*) from pg_namespace where nspname like '%acme\\_%' and nspname not like '%acme\\_raw\\_%'") == [(0,)]
    assert fleet.run("select count(*) from pg_roles where rolname in ('fabric_acme', 'fabric_acme_bi', 'fabric_acme_ro')") == [(0,)]
    assert fleet.run("select count(*) from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid not in (select oid from pg_authid)") == [(0,)]
    assert get_neighbours(fleet) == neighbours
    assert not fleet.drop("acme"), "a second call finds nothing"
    assert run_fabric("provision", "acme_raw", "globex", "--check").lines == []


def test_a_database_of_its_own_is_dropped_with_who_is_in_it(fleet: ManagedWarehouse) -> None:
    session = psycopg2.connect(fleet.get_url("fabric_globex", fleet.get_password("globex"), "fabric_globex"))
    session.cursor().execute("select * from globex_raw_shop.orders")
    assert not fleet.drop("globex")
    assert fleet.run("select count(*) from pg_database where datname = 'fabric_globex'") == [(0,)]
    with pytest.raises(psycopg2.OperationalError):
        session.cursor().execute("select 1")
    session.close()


def test_sessions_of_the_tenant_are_ended_whatever_they_do(fleet: ManagedWarehouse) -> None:
    url = fleet.get_url("fabric_acme", fleet.get_password("acme"))
    waiting, ended = psycopg2.connect(url), []
    waiting.cursor().execute("insert into acme_raw_shop.orders values (6)")

    def sleep() -> None:
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(url).cursor().execute("select pg_sleep(60)")
        ended.append(True)

    busy = threading.Thread(target=sleep)
    busy.start()
    assert not fleet.drop("acme")
    busy.join(10)
    assert ended
    waiting.close()


def test_dropping_that_is_killed_at_any_point_is_finished_by_the_next_call(fleet: ManagedWarehouse) -> None:
    neighbours = get_neighbours(fleet)

    def drop_and_die(number: int) -> int:
        reached = 0

        def run(original, *arguments, **named):
            nonlocal reached
            original(*arguments, **named)
            reached += 1
            if reached == number:
                os.kill(os.getpid(), signal.SIGKILL)

        wrap(Server, "run", run)
        return int(bool(fleet.drop("acme")))

    number = 0
    for number in range(1, 30):
        code = wait(fork(lambda number=number: drop_and_die(number)))
        assert not fleet.drop("acme")
        assert get_neighbours(fleet) == neighbours
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert run_fabric("provision", "acme").code == 0
        fleet.run_as("acme", "create table acme_raw_shop.orders as select 1 as id")
    assert number > 8


def test_of_an_unmanaged_tenant_the_schemas_go_and_nothing_else(
    warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FABRIC_PROVISION_URL")
    warehouse.run("create role loader login password 'loader-password'", f"grant create on database {warehouse.database} to loader")
    monkeypatch.setenv("WAREHOUSE_URL", warehouse.get_url("loader", "loader-password"))
    for name in ("acme", "globex"):
        write_tenant(name, {**get_managed(), "destination": {"type": "postgres", "url": {"env": "WAREHOUSE_URL"}}, "transform": {}})
        statements = [f"create schema {name}_raw_shop", f"create table {name}_raw_shop.orders as select 1 as id", f"create schema {name}_marts"]
        warehouse.run(*statements, user="loader", password="loader-password")
    found = warehouse.list("acme", is_managed=False)
    assert [(schema.name, schema.tables) for schema in found.schemas] == [("acme_marts", ()), ("acme_raw_shop", (TableContent("orders", "table"),))]
    assert (found.roles, found.databases) == ((), ())
    assert not warehouse.drop("acme", is_managed=False)
    assert len(warehouse.list("globex", is_managed=False).schemas) == 2
