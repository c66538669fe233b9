"""A tenant leaves a server; its neighbours there have names that are nearly its own, and lose nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.settings import Settings
from tests.offboarding.world import make_home
from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric

pytestmark = pytest.mark.xdist_group("provision")

NEIGHBOURS = ("acm", "acme_raw", "acme_raw_b", "acme_two", "my_acme")
# Not made by us, each owned by the superuser; those of the first line have a name that acme's could have.
ALIKE = ("acme_raw_archive", "acme_staging", "stg_acme_raw_archive")
FOREIGN = (
    "acme_raw_b_raw_c",
    "acme",
    "acme__operator",
    "acme_marts_old",
    "app-acme_marts",
    "stg_acme",
    "stg_acme_marts",
    "acme_fabric_2",
    "rej_acme_raw_shop",
    "acme_raw_",
    "acme_ro",
)

Write = Callable[..., Path]


@pytest.fixture
def server(warehouse: ManagedWarehouse, settings: Settings) -> ManagedWarehouse:
    make_home(settings)
    return warehouse


def read_all(warehouse: ManagedWarehouse, leaving: str = "") -> dict[str, Any]:
    """Every table, schema and role of the server that is not the leaving tenant's."""
    own = f"fabric_{leaving}"
    found = warehouse.run(
        "select n.nspname::text, o.rolname::text, array_agg(c.relname::text order by 1) from pg_namespace as n join pg_roles as o on o.oid = n.nspowner"
        " left join pg_class as c on c.relnamespace = n.oid where n.nspname !~ '^pg_|^information' group by 1, 2 order by 1"
    )
    roles = warehouse.run("select rolname::text from pg_roles where rolname !~ '^pg_' order by 1")
    return {"schemas": [row for row in found if row[1] != own], "roles": [name for (name,) in roles if name not in (own, f"{own}_ro", f"{own}_bi")]}


def fill(warehouse: ManagedWarehouse, tenant: str, user: str = "") -> None:
    """A table in the tenant's raw schema, and a ledger that also names a source which left the YAML long ago."""
    statements = [f"create table {tenant}_raw_shop.orders as select 1 as id", f"create table {tenant}_fabric.loads as select 'old'::text as source"]
    warehouse.run_as(tenant, *statements)


def provision(warehouse: ManagedWarehouse, write_tenant: Write, *tenants: str) -> None:
    for tenant in tenants:
        write_tenant(tenant, get_managed())
    done = run_fabric("provision", *tenants)
    assert done.code == 0, done.err
    for tenant in tenants:
        fill(warehouse, tenant)


def make_foreign(warehouse: ManagedWarehouse, *names: str) -> None:
    for name in names:
        warehouse.run(f'create schema "{name}"', f'create table "{name}".kept as select 1 as id')


@pytest.mark.parametrize("has_yaml", [True, False], ids=["yaml", "no_yaml"])
def test_a_tenant_with_roles_leaves_and_neighbours_of_nearly_its_name_stay(server: ManagedWarehouse, write_tenant: Write, has_yaml: bool) -> None:
    provision(server, write_tenant, "acme", *NEIGHBOURS)
    foreign = ["acme_raw_archive", "stg_acme_raw_archive", *FOREIGN]
    make_foreign(server, *foreign, "acme_raw_old", "stg_acme_raw_old")  # the last two are in the ledger
    server.run("create table public.acme_raw_shop (id int)", "create database fabric_acme template template0", "revoke all on database fabric_acme from public")
    server.run("create table orders (id int)", database="fabric_acme")
    before = read_all(server, "acme")
    if not has_yaml:
        server.settings.tenants_dir.joinpath("acme.yaml").unlink()

    done = run_fabric("offboard", "acme", "--yes", "--json")

    assert done.code == 0, done.err
    gone = [row for row in before["schemas"] if row[0] in ("acme_raw_old", "stg_acme_raw_old")]
    assert len(gone) == 2
    assert read_all(server) == {"schemas": [row for row in before["schemas"] if row not in gone], "roles": before["roles"]}
    assert server.run("select count(*) from pg_namespace where nspname in ('acme_raw_shop', 'acme_fabric', 'acme_marts')") == [(0,)]
    reported = [entry.split(" (")[0] for entry in done.json["outside_of_this_proof"] if "called like its own" in entry]
    assert reported == ["schema acme_raw_archive", "schema stg_acme_raw_archive", "database fabric_acme"]
    assert server.run("select count(*) from orders", database="fabric_acme") == [(0,)]
    assert run_fabric("provision", *NEIGHBOURS, "--check").lines == []


def test_a_tenant_with_the_operators_login_leaves_and_neighbours_of_nearly_its_name_stay(
    server: ManagedWarehouse, write_tenant: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(server, write_tenant, *NEIGHBOURS)
    monkeypatch.setenv("WAREHOUSE_URL", server.get_url())
    write_tenant("acme", {**get_managed(), "destination": {"type": "postgres", "url": {"env": "WAREHOUSE_URL"}}})
    make_foreign(server, *ALIKE, *FOREIGN)
    before = read_all(server)
    make_foreign(server, "acme_fabric", "acme_raw_shop", "stg_acme_raw_shop", "acme_raw_old")
    server.run("create table acme_fabric.loads as select 'old'::text as source")

    done = run_fabric("offboard", "acme", "--yes", "--json")

    assert done.code == 0, done.err
    assert read_all(server) == before
    reported = [entry.split(" (")[0] for entry in done.json["outside_of_this_proof"] if "called like its own" in entry]
    assert reported == [f"schema {name}" for name in ALIKE]


def test_a_schema_that_a_source_of_long_ago_shares_with_a_tenant_of_today_stays(server: ManagedWarehouse, write_tenant: Write) -> None:
    provision(server, write_tenant, "acme", "acme_raw_b", "acme_raw_c")
    server.run("insert into acme_fabric.loads values ('b_marts'), ('c_raw_shop')")
    # This one is of another machine: its role alone tells.
    server.settings.tenants_dir.joinpath("acme_raw_c.yaml").unlink()
    for file in server.settings.data_dir.joinpath("secrets").glob("*acme_raw_c.*"):
        file.unlink()
    before = read_all(server, "acme")
    assert run_fabric("offboard", "acme", "--yes").code == 0
    assert read_all(server) == before


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "kept_elsewhere"])
@pytest.mark.parametrize(("there", "leaving"), [("acme_ro", "acme"), ("acme", "acme_ro"), ("acme_bi", "acme"), ("acme", "acme_bi")])
def test_a_role_that_is_another_tenants_by_another_rule_of_names_is_never_taken(
    server: ManagedWarehouse, write_tenant: Write, there: str, leaving: str, is_known: bool
) -> None:
    provision(server, write_tenant, there)
    if not is_known:
        server.settings.tenants_dir.joinpath(f"{there}.yaml").unlink()
    before = read_all(server)
    for arguments in ((), ("--yes",)):
        refused = run_fabric("offboard", leaving, *arguments)
        assert refused.code == (2 if is_known else 1)
        assert f"tenant {there}'s" in refused.err
    assert read_all(server) == before
    assert server.run(f"select count(*) from {there}_raw_shop.orders") == [(1,)]


def test_what_the_reader_owns_is_for_a_person_to_look_at(server: ManagedWarehouse, write_tenant: Write) -> None:
    provision(server, write_tenant, "acme")
    server.run("create schema notes authorization fabric_acme_ro", "create table notes.kept as select 1 as id")
    before = read_all(server)
    refused = run_fabric("offboard", "acme", "--yes")
    assert refused.code == 1
    assert "owns notes in database" in refused.err
    assert read_all(server) == before


def test_the_ledger_goes_last_as_it_names_what_else_is_to_go(server: ManagedWarehouse, write_tenant: Write) -> None:
    provision(server, write_tenant, "acme")
    reported: list[str] = []
    server.drop("acme", report=reported.append)
    assert [entry for entry in reported if entry.startswith("schema")][-1] == "schema acme_fabric"
