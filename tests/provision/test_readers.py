"""Who reads a tenant: a login of the tenant's own, made by provisioning; whom an operator lets in besides is kept, and reported."""

from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.config.base import SecretRef
from fabric_assets.isolation.check import check_isolation
from fabric_assets.security.secrets import list_secrets, resolve_secret, write_secret
from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric
from tests.test_readers_page import run_notebook

pytestmark = pytest.mark.xdist_group("provision")


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> ManagedWarehouse:
    for tenant in ("acme", "globex", "initech"):
        write_tenant(tenant, get_managed())
    assert run_fabric("provision", "--all").code == 0
    for tenant in ("acme", "globex", "initech"):
        warehouse.run_as(tenant, f"create table {tenant}_marts.sales as select 'row of {tenant}' as v")
    return warehouse


def get_reader_password(warehouse: ManagedWarehouse, tenant: str) -> str:
    return resolve_secret(SecretRef(secret="warehouse_reader"), tenant=tenant, settings=warehouse.settings)


def test_each_tenant_has_a_login_that_reads_it_alone_and_changes_nothing(fleet: ManagedWarehouse) -> None:
    assert {"warehouse_login", "warehouse_reader"} == {*list_secrets("acme", settings=fleet.settings)}
    login = {"user": "fabric_acme_bi", "password": get_reader_password(fleet, "acme")}
    assert fleet.run("select v from acme_marts.sales", **login) == [("row of acme",)]
    # Also what comes later.
    fleet.run_as("acme", "create table acme_staging.later as select 1 as id")
    assert fleet.run("select id from acme_staging.later", **login) == [(1,)]
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        fleet.run("create temporary table t (i int)", **login)
    for statement in (
        "insert into acme_marts.sales values ('x')",
        "create table acme_marts.t (i int)",
        "select * from stg_acme_raw_shop.t",
        "select * from globex_marts.sales",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            fleet.run("set default_transaction_read_only = off", statement, **login)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        fleet.run("select 1", user="fabric_acme_bi", password=fleet.get_password("acme"))
    assert fleet.run("select member::regrole::text from pg_auth_members where roleid = 'fabric_acme_ro'::regrole") == [("fabric_acme_bi",)]
    assert fleet.run("select rolcanlogin from pg_roles where rolname = 'fabric_acme_ro'") == [(False,)]
    assert run_fabric("provision", "--all", "--check").lines == []


def test_the_notebook_of_the_docs_reads_the_marts_with_that_login(fleet: ManagedWarehouse) -> None:
    fleet.run_as("acme", "create table acme_marts.daily_revenue as select 10.50 as revenue union all select 20.25")
    url = fleet.get_url("fabric_acme_bi", get_reader_password(fleet, "acme")).replace("postgresql://", "postgresql+psycopg2://")
    assert run_notebook("Postgres", ACME_BI_URL=url) == "[(Decimal('30.75'),)]\n"


def test_the_operator_may_choose_its_password(fleet: ManagedWarehouse) -> None:
    write_secret("acme", "warehouse_reader", "a password for the BI tool", settings=fleet.settings)
    assert "acme: role fabric_acme_bi does not have the sealed password" in run_fabric("provision", "acme", "--check").lines
    assert run_fabric("provision", "acme").code == 0
    assert fleet.run("select 1", user="fabric_acme_bi", password="a password for the BI tool") == [(1,)]


def test_whom_an_operator_lets_read_is_kept_and_reported(fleet: ManagedWarehouse) -> None:
    fleet.run("create role analyst login", "grant fabric_acme_ro to analyst")
    fleet.run("create role bi login", "create role all_readers", "grant fabric_acme_ro, fabric_globex_ro to all_readers", "grant all_readers to bi")
    for arguments in (("acme", "--check"), ("acme",), ("acme", "--fix")):
        done = run_fabric("provision", *arguments)
        assert (done.code, done.lines[1:]) == (0, []), done
        notes = [line for line in done.err.splitlines() if line.startswith("note: role ")]
        assert notes[1] == "note: role analyst is a member of fabric_acme_ro, and stays one; fabric_acme_bi is the login that is made for reading"
        assert [note.partition(";")[0] for note in (notes[0], notes[2])] == [
            f"note: role {role} is a member of fabric_acme_ro, fabric_globex_ro, and stays one" for role in ("all_readers", "bi")
        ]
    assert fleet.run("select pg_has_role('analyst', 'fabric_acme_ro', 'MEMBER'), pg_has_role('bi', 'fabric_acme_ro', 'MEMBER')") == [(True, True)]
    assert run_fabric("provision", "initech", "--check").err == "1 tenants: as they should be\n"


def test_the_isolation_check_reports_who_reads_several_tenants_and_why_that_matters(fleet: ManagedWarehouse) -> None:
    fleet.run("create role bi login password 'bi'", "grant fabric_acme_ro, fabric_globex_ro to bi")
    fleet.run("create role analyst login", "grant fabric_initech_ro to analyst")
    # What the docs warn of: a view of acme's calls a function with the rights of the one who reads it.
    fleet.run_as(
        "acme",
        "create table acme_marts.loot (v text)",
        "grant insert on acme_marts.loot to public",
        "create function acme_marts.f() returns int language plpgsql as"
        " $$ begin insert into acme_marts.loot select v from globex_marts.sales; return 1; end $$",
        "create view acme_marts.looks as select acme_marts.f()",
    )
    fleet.run("select * from acme_marts.looks", user="bi", password="bi")
    assert fleet.run_as("acme", "select v from acme_marts.loot") == [("row of globex",)]
    with pytest.raises(psycopg2.Error):
        fleet.run("select * from acme_marts.looks", user="fabric_acme_bi", password=get_reader_password(fleet, "acme"))

    fleet.run_as("acme", "revoke insert on acme_marts.loot from public")
    reports = {tenant: check_isolation(fleet.get_config(tenant), fleet.settings) for tenant in ("acme", "globex", "initech")}
    for tenant, other in (("acme", "globex"), ("globex", "acme")):
        (found,) = reports[tenant].list("exposed")
        assert found.action == "run functions with the rights of"
        assert found.target.startswith("role bi, which also reads ")
        assert f"{other}_marts" in found.target
        assert (reports[tenant].passed, reports[tenant].severity) == (False, "warn"), reports[tenant].message
        assert "by grants that an operator has made, the tenant could run functions with the rights of role bi" in reports[tenant].message
    assert reports["initech"].passed, reports["initech"].message
    assert "With isolation: database it sees none of it" in reports["initech"].message


def test_offboarding_takes_the_reader_along(fleet: ManagedWarehouse) -> None:
    session = psycopg2.connect(fleet.get_url("fabric_acme_bi", get_reader_password(fleet, "acme")))
    assert run_fabric("offboard", "acme", "--yes").code == 0
    assert fleet.run("select rolname from pg_roles where rolname like 'fabric_acme%'") == []
    with pytest.raises(psycopg2.OperationalError):
        session.cursor().execute("select 1")
    session.close()
