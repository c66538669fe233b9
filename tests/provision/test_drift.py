"""What somebody has changed behind provisioning's back: `--check` names it, `--fix` takes it away, and a second `--check` finds nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric

pytestmark = pytest.mark.xdist_group("provision")

# What is done as the superuser, and what --check then says.
DRIFT: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "a role that is gone": (
        ("drop owned by fabric_acme_ro", "drop role fabric_acme_ro"),
        [
            "acme: role fabric_acme_ro is missing",
            "acme: role fabric_acme_bi is not a member of fabric_acme_ro",
            "acme: role fabric_acme_ro lacks CONNECT on database {database}",
            *(f"acme: role fabric_acme_ro lacks USAGE on schema acme_{name}" for name in ("fabric", "intermediate", "marts", "raw_shop", "staging")),
            "acme: role fabric_acme_ro will not read what fabric_acme makes in database {database}",
            "acme: role fabric_acme_ro cannot read every table of schema acme_marts",
        ],
    ),
    "a role that may do more": (
        ("alter role fabric_acme superuser createdb createrole replication bypassrls inherit", "alter role fabric_acme_ro login createdb"),
        [
            *(f"acme: role fabric_acme has {power}" for power in ("BYPASSRLS", "CREATEDB", "CREATEROLE", "INHERIT", "REPLICATION", "SUPERUSER")),
            "acme: role fabric_acme_ro has CREATEDB",
            "acme: role fabric_acme_ro has LOGIN",
        ],
    ),
    "a reader's login that was changed": (
        (
            "alter role fabric_acme_bi nologin noinherit createdb password 'guessed'",
            "alter role fabric_acme_bi reset default_transaction_read_only",
            "revoke fabric_acme_ro from fabric_acme_bi",
            "grant fabric_acme_bi to fabric_globex",
            "grant fabric_globex_ro to fabric_acme_bi",
            "grant insert on acme_marts.orders to fabric_acme_bi",
        ),
        [
            "acme: role fabric_acme_bi does not have the sealed password",
            "acme: role fabric_acme_bi has CREATEDB",
            "acme: role fabric_acme_bi has INSERT on table acme_marts.orders",
            "acme: role fabric_acme_bi is not a member of fabric_acme_ro",
            "acme: role fabric_acme_bi is not read-only by default",
            "acme: role fabric_acme_bi lacks INHERIT",
            "acme: role fabric_acme_bi lacks LOGIN",
            "acme: role fabric_globex is a member of fabric_acme_bi",
            "globex: role fabric_acme_bi is a member of fabric_globex_ro",
        ],
    ),
    "a reader's login that is gone": (
        ("drop role fabric_acme_bi",),
        ["acme: role fabric_acme_bi is missing", "acme: role fabric_acme_bi is not a member of fabric_acme_ro"],
    ),
    "a role that cannot log in": (
        ("alter role fabric_acme nologin valid until '2001-01-01'",),
        ["acme: role fabric_acme lacks LOGIN", "acme: the password of role fabric_acme expires"],
    ),
    "limits that were changed": (
        (
            "alter role fabric_acme connection limit -1",
            "alter role fabric_acme set statement_timeout = 0",
            "alter role fabric_acme reset temp_file_limit",
            "alter role fabric_acme set search_path = globex_marts",
            "alter role fabric_acme in database {database} set work_mem = '4GB'",
        ),
        [
            "acme: role fabric_acme has a connection limit of -1, not 40",
            "acme: role fabric_acme has statement_timeout 0, not 3600s",
            "acme: role fabric_acme has temp_file_limit unset, not 9765625kB",
            "acme: role fabric_acme has the setting search_path",
            "acme: role fabric_acme has the setting work_mem in database {database}",
        ],
    ),
    "members of the owner": (
        ("create role analyst login", "grant fabric_acme to analyst", "grant fabric_acme to fabric_globex"),
        ["acme: role analyst is a member of fabric_acme", "acme: role fabric_globex is a member of fabric_acme"],
    ),
    "a membership of the owner": (
        ("grant pg_read_all_data to fabric_acme", "grant fabric_globex_ro to fabric_acme"),
        ["acme: role fabric_acme is a member of pg_read_all_data", "globex: role fabric_acme is a member of fabric_globex_ro"],
    ),
    "a schema that is gone": (("drop schema acme_marts cascade",), ["acme: schema acme_marts is missing in database {database}"]),
    "a schema of another's": (
        ("alter schema acme_marts owner to fabric_globex",),
        ["acme: schema acme_marts is owned by fabric_globex"],
    ),
    "a table of another's": (
        (
            "create table acme_marts.foreign_one (i int)",
            "create function acme_marts.f() returns int language sql as 'select 1'",
            "create type acme_marts.mood as enum ('x')",
        ),
        [
            "acme: role fabric_acme_ro cannot read every table of schema acme_marts",
            "acme: routine acme_marts.f() is owned by postgres",
            "acme: table acme_marts.foreign_one is owned by postgres",
            "acme: type acme_marts.mood is owned by postgres",
        ],
    ),
    "grants to everyone": (
        (
            "grant usage, create on schema acme_marts to public",
            "grant select on acme_marts.orders to public",
            "grant connect, temporary on database {database} to public",
            "grant usage on schema public to public",
        ),
        [
            "acme: PUBLIC has CREATE, USAGE on schema acme_marts",
            "acme: PUBLIC has SELECT on table acme_marts.orders",
            "server: the database {database} lets PUBLIC CONNECT, TEMPORARY",
            "server: the schema public of database {database} lets PUBLIC USAGE",
        ],
    ),
    "grants to another": (
        (
            "grant usage on schema acme_marts to fabric_globex",
            "grant select, insert on acme_marts.orders to fabric_globex",
            "grant select (id) on acme_marts.orders to fabric_globex_ro",
            "grant insert on acme_marts.orders to fabric_acme_ro",
            "grant create on schema acme_marts to fabric_acme_ro",
        ),
        [
            "acme: role fabric_acme_ro has CREATE on schema acme_marts",
            "acme: role fabric_acme_ro has INSERT on table acme_marts.orders",
            "acme: role fabric_globex has INSERT, SELECT on table acme_marts.orders",
            "acme: role fabric_globex has USAGE on schema acme_marts",
            "acme: role fabric_globex_ro has SELECT on table acme_marts.orders",
        ],
    ),
    "rights on what is not the tenant's": (
        (
            "create schema platform",
            "create table platform.t (i int)",
            "grant usage on schema platform to fabric_acme",
            "grant select on platform.t to fabric_acme_ro",
            "grant create on database {database} to fabric_acme",
            "grant connect on database postgres to fabric_acme",
            "grant set on parameter log_statement to fabric_acme",
            "create table public.stray (i int)",
            "alter table public.stray owner to fabric_acme",
        ),
        [
            "acme: role fabric_acme has CONNECT on database postgres",
            "acme: role fabric_acme has CREATE on database {database}",
            "acme: role fabric_acme has rights on parameter ACL log_statement in database {database}",
            "acme: role fabric_acme has rights on schema platform in database {database}",
            "acme: role fabric_acme owns table public.stray in database {database}, outside of its schemas",
            "acme: role fabric_acme_ro has rights on table platform.t in database {database}",
        ],
    ),
    "default privileges for another": (
        (
            "alter default privileges for role fabric_acme grant select on tables to public",
            "alter default privileges for role fabric_acme in schema acme_marts grant insert on tables to fabric_globex",
        ),
        [
            "acme: PUBLIC will have SELECT on the tables that fabric_acme makes",
            'acme: role fabric_globex will have INSERT on the tables that fabric_acme makes in schema "acme_marts"',
        ],
    ),
    "default privileges that name a tenant": (
        (
            "alter default privileges for role postgres grant select on tables to fabric_acme with grant option",
            "alter default privileges for role postgres grant usage on schemas to fabric_acme_ro",
            "alter default privileges for role fabric_acme grant select on tables to fabric_acme_ro with grant option",
        ),
        [
            "acme: role fabric_acme will have GRANT OPTION FOR SELECT, SELECT on the tables that postgres makes",
            "acme: role fabric_acme_ro will have GRANT OPTION FOR SELECT on the tables that fabric_acme makes",
            "acme: role fabric_acme_ro will have USAGE on the schemas that postgres makes",
        ],
    ),
    "rights to pass on": (
        (
            "grant connect, temporary on database {database} to fabric_acme with grant option",
            "grant usage on schema acme_marts to fabric_acme_ro with grant option",
            "grant usage on schema acme_marts to fabric_globex with grant option",
        ),
        [
            "acme: role fabric_acme has GRANT OPTION FOR CONNECT, GRANT OPTION FOR TEMPORARY on database {database}",
            "acme: role fabric_acme_ro has GRANT OPTION FOR USAGE on schema acme_marts",
            "acme: role fabric_globex has GRANT OPTION FOR USAGE, USAGE on schema acme_marts",
        ],
    ),
    "a table that the reader cannot read": (
        ("revoke select on acme_marts.orders from fabric_acme_ro", "alter default privileges for role fabric_acme revoke select on tables from fabric_acme_ro"),
        [
            "acme: role fabric_acme_ro cannot read every table of schema acme_marts",
            "acme: role fabric_acme_ro will not read what fabric_acme makes in database {database}",
        ],
    ),
    "another tenant among the readers": (("grant fabric_acme_ro to fabric_globex",), ["acme: role fabric_globex is a member of fabric_acme_ro"]),
    "a database that lets everyone in": (
        ("create database dagster template template0", "grant connect on database template1 to public"),
        [
            "server: the database dagster lets PUBLIC CONNECT, TEMPORARY: every tenant's role may connect to it",
            "server: the database template1 lets PUBLIC CONNECT: every tenant's role may connect to it",
        ],
    ),
}


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> ManagedWarehouse:
    for name in ("acme", "globex"):
        write_tenant(name, get_managed())
    assert run_fabric("provision", "--all").code == 0
    warehouse.run_as("acme", "create table acme_marts.orders as select 1 as id")
    return warehouse


@pytest.mark.parametrize("kind", DRIFT)
def test_drift_is_reported_and_fixed(fleet: ManagedWarehouse, kind: str) -> None:
    planted, expected = DRIFT[kind]
    fleet.run(*(statement.format(database=fleet.database) for statement in planted))
    check = run_fabric("provision", "--all", "--check")
    assert sorted(check.lines) == sorted(line.format(database=fleet.database) for line in expected)
    assert check.code == 1
    assert run_fabric("provision", "--all", "--check").lines == check.lines, "a check changes nothing"
    fix = run_fabric("provision", "--all", "--fix")
    assert sorted(line.removeprefix("corrected\t") for line in fix.lines) == sorted(check.lines), fix
    assert fix.code == 0
    after = run_fabric("provision", "--all", "--check")
    assert (after.code, after.out) == (0, "")
    assert fleet.run_as("acme", "select * from acme_marts.orders") == [(1,)] if "is gone" not in kind else True


def test_a_schema_of_no_tenant_that_is_open_to_all_is_reported_and_left(fleet: ManagedWarehouse) -> None:
    """Provisioning takes nothing away that is no tenant's: it says what to run."""
    fleet.run("create schema ops", "grant usage on schema ops to public", "create table ops.t as select 1 as i", "grant select on ops.t to public")
    finding = f"server: the schema ops of database {fleet.database} lets PUBLIC USAGE: every tenant's role may use it; it is no tenant's, so decide: "
    remedy = 'revoke usage on schema "ops" from public'
    for names in (["--all"], ["acme"]):
        check = run_fabric("provision", *names, "--check")
        assert (check.code, check.lines) == (1, [finding + remedy])
    fix = run_fabric("provision", "--all", "--fix")
    assert (fix.code, fix.lines) == (1, [f"left\t{finding}{remedy}"])
    assert fleet.run_as("acme", "select * from ops.t") == [(1,)]
    fleet.run(remedy)
    assert run_fabric("provision", "--all", "--check").lines == []


def test_where_extensions_live_is_open_to_all_and_no_finding(fleet: ManagedWarehouse) -> None:
    """The tests' server brings no extension that could be put there, so the catalog is told that one was."""
    moved = "update pg_extension set extnamespace = 'extensions'::regnamespace where extname = 'plpgsql'"
    fleet.run("create schema extensions", "grant usage on schema extensions to public", moved)
    assert run_fabric("provision", "--all", "--check").lines == []
    fleet.run("create table extensions.notes (i int)")
    assert "the schema extensions of database" in run_fabric("provision", "--all", "--check").out
    fleet.run("drop table extensions.notes", "grant create on schema extensions to public")
    assert "lets PUBLIC CREATE: " in run_fabric("provision", "--all", "--check").out
