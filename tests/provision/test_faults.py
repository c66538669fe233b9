"""Provisioning that is killed, that runs twice at once, and that is done by a login which is no superuser."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.offboarding.journal import open_journal
from fabric_assets.security.roles import logins, provisioning
from fabric_assets.security.roles.server import Server
from fabric_assets.security.secrets import list_sealed_tenants, list_secrets, remove_secret
from tests.faults.breakages import wrap
from tests.faults.processes import wait_until
from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric

pytestmark = pytest.mark.xdist_group("provision")

TENANTS = ("acme", "globex", "initech")


def fork(work: Callable[[], int]) -> int:
    """Do the work in a process of its own; gives its id. It shares nothing that is open: every connection is made by the work."""
    if process := os.fork():
        return process
    code = 70
    try:
        code = work()
    except BaseException:  # noqa: BLE001 - pytest's own process must not go on twice
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def provision_and_die(point: str, number: int) -> int:
    """Provision, a tenant a transaction, until the number-th time that the point is reached.

    Args:
        point: `before` a transaction, or when a password is `sealed`.
    """
    reached = 0

    def reach(here: str) -> None:
        nonlocal reached
        reached += here == point
        if here == point and reached == number:
            die()

    def run(original, *arguments, **named):
        reach("before")
        original(*arguments, **named)

    def seal(original, *arguments, **named):
        original(*arguments, **named)
        reach("sealed")

    provisioning._BATCH = 1
    wrap(Server, "run", run)
    wrap(logins, "write_secret", seal)
    return run_fabric("provision", "--all").code


def run_to_files(warehouse: ManagedWarehouse, *arguments: str) -> int:
    answer = run_fabric(*arguments)
    (warehouse.settings.data_dir.parent / "said").write_text(answer.out + answer.err)
    return answer.code


def assert_sound(warehouse: ManagedWarehouse) -> None:
    check = run_fabric("provision", "--all", "--check")
    assert (check.code, check.out) == (0, ""), check
    for tenant, database in zip(TENANTS, ("", "", "fabric_initech"), strict=True):
        assert warehouse.run_as(tenant, "select current_user", database=database) == [(f"fabric_{tenant}",)]


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> ManagedWarehouse:
    for name in TENANTS:
        write_tenant(name, get_managed(isolation="database" if name == "initech" else "schema"))
    return warehouse


def test_a_call_that_is_killed_at_any_point_is_finished_by_the_next(fleet: ManagedWarehouse) -> None:
    died = []
    for point, numbers in (("sealed", range(1, 5)), ("before", range(1, 20))):
        for number in numbers:
            for name in TENANTS:
                assert not fleet.drop(name)
                if number % 2 and list_secrets(name, settings=fleet.settings):
                    # The next password is a new one then; else it is there before its role is.
                    remove_secret(name, "warehouse_login", settings=fleet.settings)
            code = wait(fork(lambda point=point, number=number: provision_and_die(point, number)))
            if code == 0:
                break
            assert code == -signal.SIGKILL, (point, number)
            died.append((point, number))
            assert run_fabric("provision", "--all").code == 0
            assert_sound(fleet)
    assert {point for point, _ in died} == {"sealed", "before"}
    assert len(died) >= 10


def test_a_call_that_is_killed_between_the_store_and_the_server_is_finished_by_the_next(fleet: ManagedWarehouse) -> None:
    """The role is there with the password of before, and the store already has the new one."""
    assert run_fabric("provision", "--all").code == 0
    before = fleet.get_password("acme")
    remove_secret("acme", "warehouse_login", settings=fleet.settings)
    assert wait(fork(lambda: provision_and_die("sealed", 1))) == -signal.SIGKILL
    assert fleet.get_password("acme") != before
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        fleet.run_as("acme", "select 1")
    assert run_fabric("provision", "--all").code == 0
    assert_sound(fleet)


def test_a_call_that_is_killed_at_a_random_moment_is_finished_by_the_next(fleet: ManagedWarehouse) -> None:
    began = time.monotonic()
    assert wait(fork(lambda: run_fabric("provision", "--all").code)) == 0
    whole = time.monotonic() - began
    for part in (0.2, 0.5, 0.8):
        for name in TENANTS:
            assert not fleet.drop(name)
        process = fork(lambda: run_fabric("provision", "--all").code)
        time.sleep(whole * part)
        os.kill(process, signal.SIGKILL)
        wait(process)
        assert run_fabric("provision", "--all").code == 0
        assert_sound(fleet)


def test_calls_at_the_same_time_do_not_get_into_each_others_way(fleet: ManagedWarehouse) -> None:
    processes = [fork(lambda: run_fabric("provision", "--all").code) for _ in range(4)]
    assert [wait(process) for process in processes] == [0, 0, 0, 0]
    assert_sound(fleet)


# --- a login that is no superuser


@pytest.fixture
def keeper(fleet: ManagedWarehouse, monkeypatch: pytest.MonkeyPatch) -> ManagedWarehouse:
    """A login that may create roles and databases, and owns the tenants' database. A superuser has closed the server's own databases."""
    fleet.run("revoke all on database postgres from public", "revoke all on database template1 from public")
    fleet.run("create role keeper login createrole createdb password 'keeper-password'", f"alter database {fleet.database} owner to keeper")
    monkeypatch.setenv("FABRIC_PROVISION_URL", fleet.get_url("keeper", "keeper-password"))
    return fleet


def test_a_login_that_may_create_roles_is_enough(keeper: ManagedWarehouse) -> None:
    done = run_fabric("provision", "--all")
    assert done.code == 0, done
    assert "temp_file_limit is not set: keeper may not set it; let a superuser run: grant set on parameter temp_file_limit to" in done.err
    for tenant, database in zip(TENANTS, ("", "", "fabric_initech"), strict=True):
        assert keeper.run_as(tenant, "create table fresh.t as select 1 as i".replace("fresh", f"{tenant}_marts"), "select current_user", database=database)
    # It acts as a tenant's role within a transaction alone.
    roles = "select bool_or(pg_has_role('keeper', rolname, 'usage')) from pg_roles where rolname like 'fabric%'"
    assert keeper.run(roles) == [(False,)]
    assert run_fabric("provision", "--all", "--check").lines == []
    # A message names what this login cannot fix: only a superuser can revoke a right that everybody has on another's database.
    keeper.run("grant connect on database postgres to public")
    (line,) = run_fabric("provision", "--all", "--check").lines
    assert line.startswith("server: the database postgres lets PUBLIC CONNECT")


def test_a_right_that_was_given_to_that_login_is_used(keeper: ManagedWarehouse) -> None:
    keeper.run("grant set on parameter temp_file_limit to keeper")
    try:
        done = run_fabric("provision", "acme")
        assert "temp_file_limit" not in done.err
        assert keeper.run_as("acme", "show temp_file_limit") == [("9765625kB",)]
    finally:
        keeper.run("revoke set on parameter temp_file_limit from keeper")


def test_that_login_fixes_and_drops_what_it_has_created(keeper: ManagedWarehouse) -> None:
    assert run_fabric("provision", "--all").code == 0
    keeper.run_as(
        "acme", "create table acme_marts.orders as select 1 as id", "grant usage on schema acme_marts to public", "grant select on acme_marts.orders to public"
    )
    keeper.run("grant fabric_acme to fabric_globex", user="keeper", password="keeper-password")
    fix = run_fabric("provision", "acme", "--fix")
    assert sorted(fix.lines) == [
        "corrected\tacme: PUBLIC has SELECT on table acme_marts.orders",
        "corrected\tacme: PUBLIC has USAGE on schema acme_marts",
        "corrected\tacme: role fabric_globex is a member of fabric_acme",
    ]
    found = keeper.list("acme")
    assert [table.kind for schema in found.schemas for table in schema.tables] == ["table"]
    assert not keeper.drop("acme")
    assert not keeper.drop("initech")
    assert keeper.run("select rolname::text from pg_roles where rolname like 'fabric%' order by 1") == [
        ("fabric_globex",),
        ("fabric_globex_bi",),
        ("fabric_globex_ro",),
    ]


def test_a_login_with_too_few_rights_gets_a_message_that_names_them(fleet: ManagedWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.run("create role helper login createrole password 'helper-password'")
    monkeypatch.setenv("FABRIC_PROVISION_URL", fleet.get_url("helper", "helper-password"))
    done = run_fabric("provision", "acme", "initech")
    assert done.code == 1
    assert f"left\tacme: schema acme_marts is missing in database {fleet.database} (permission denied for database {fleet.database})" in done.lines
    assert "left\tinitech: the database fabric_initech is missing (permission denied to create database)" in done.lines
    with pytest.raises(psycopg2.OperationalError):
        fleet.run_as("initech", "select 1", database="fabric_initech")


def test_a_tenant_that_left_while_provisioning_waited_for_its_turn_is_not_brought_back(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    for tenant in TENANTS:
        write_tenant(tenant, get_managed())
    with warehouse.open("acme"):
        waiting = fork(lambda: run_to_files(warehouse, "provision", "--all"))
        wait_until(lambda: warehouse.run("select 1 from pg_stat_activity where application_name = 'fabric provision' having count(*) > 3"))
        open_journal("globex", warehouse.settings.data_dir, {})
    assert wait(waiting) == 1
    said = (warehouse.settings.data_dir.parent / "said").read_text()
    assert "globex: role fabric_globex is missing (tenant globex is being offboarded, and takes no work)" in said
    assert warehouse.run("select rolname from pg_roles where rolname ~ 'globex' union select nspname from pg_namespace where nspname ~ 'globex'") == []
    assert list_sealed_tenants(warehouse.settings) == ("acme", "initech")
    assert run_fabric("provision", "acme", "initech", "--check").code == 0
