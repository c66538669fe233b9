"""The isolation check on a real server: green on what provisioning makes, red for each hole in it, with the hole's name."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import psycopg2
import pytest

from fabric_assets.isolation.check import check_isolation
from fabric_assets.isolation.own_schemas import is_own_schema
from fabric_assets.isolation.report import IsolationReport
from tests.isolation.conftest import DATABASE, PostgresFleet, make_tenant

# The server, and what is planted in it, is shared.
pytestmark = pytest.mark.xdist_group("isolation")


def list_found(report: IsolationReport) -> list[str]:
    return [str(attempt) for attempt in report.list("succeeded")]


@contextlib.contextmanager
def planted(fleet: PostgresFleet, plant: str, undo: str, *, database: str = DATABASE) -> Iterator[None]:
    fleet.run(*plant.split(";"), database=database)
    try:
        yield
    finally:
        fleet.run(*undo.split(";"), database=database)


@pytest.mark.parametrize("tenant", ["acme", "globex", "initech"])
def test_a_fleet_as_provisioning_makes_it_is_green(fleet: PostgresFleet, tenant: str) -> None:
    report = check_isolation(fleet.tenants[tenant], fleet.settings)
    assert [str(attempt) for attempt in report.attempts if attempt.outcome != "denied"] == []
    assert report.passed
    assert len(report.attempts) > 80


def test_what_is_tried_reaches_every_other_tenant_of_the_server(fleet: PostgresFleet) -> None:
    tried = {(attempt.action, attempt.target) for attempt in check_isolation(fleet.tenants["acme"], fleet.settings).attempts}
    assert {
        ("read", "globex_raw_shop.orders"),
        ("write to", "globex_raw_shop.orders"),
        ("delete from", "globex_raw_shop.orders"),
        ("read", "globex_marts.orders"),
        ("list", "schema globex_marts"),
        ("create in", "schema globex_fabric"),
        ("create in", "schema public"),
        ("become by set role", "fabric_globex"),
        ("become by set session authorization", "postgres"),
        ("connect to", "database fabric_initech"),
    } <= tried
    assert not [target for _, target in tried if target.startswith(("acme_", "schema acme_"))]


LEAKS = {
    "a table that PUBLIC may read": (
        "grant usage on schema globex_raw_shop to public; grant select on globex_raw_shop.orders to public",
        "revoke all on schema globex_raw_shop from public; revoke all on globex_raw_shop.orders from public",
        ["read globex_raw_shop.orders", "list schema globex_raw_shop", "use (SELECT) globex_raw_shop.orders"],
    ),
    "a table without its schema": (
        "grant insert on globex_raw_shop.orders to fabric_acme",
        "revoke all on globex_raw_shop.orders from fabric_acme",
        ["use (INSERT) globex_raw_shop.orders"],
    ),
    "one column": (
        "grant usage on schema globex_raw_shop to fabric_acme; grant select (marker) on globex_raw_shop.orders to fabric_acme",
        "revoke all on schema globex_raw_shop from fabric_acme; revoke all (marker) on globex_raw_shop.orders from fabric_acme",
        ["read globex_raw_shop.orders"],
    ),
    "a table that may be emptied": (
        "grant usage on schema globex_raw_shop to fabric_acme; grant delete on globex_raw_shop.orders to fabric_acme",
        "revoke all on schema globex_raw_shop from fabric_acme; revoke all on globex_raw_shop.orders from fabric_acme",
        ["delete from globex_raw_shop.orders"],
    ),
    "a schema to create in": (
        "grant create, usage on schema globex_marts to fabric_acme",
        "revoke all on schema globex_marts from fabric_acme",
        ["create in schema globex_marts", "create in (CREATE) schema globex_marts"],
    ),
    "another tenant's role": (
        "grant fabric_globex to fabric_acme",
        "revoke fabric_globex from fabric_acme",
        ["become by set role fabric_globex", "act as a member of fabric_globex"],
    ),
    "another tenant's reader": (
        "grant fabric_globex_ro to fabric_acme",
        "revoke fabric_globex_ro from fabric_acme",
        ["act as a member of fabric_globex_ro"],
    ),
    "create in the database": (
        f"grant create on database {DATABASE} to fabric_acme",
        f"revoke create on database {DATABASE} from fabric_acme",
        ["create a schema in the database"],
    ),
    "create in public": (
        "grant create, usage on schema public to public",
        "revoke all on schema public from public",
        ["create in schema public"],
    ),
    "a superuser": (
        "alter role fabric_acme superuser",
        "alter role fabric_acme nosuperuser",
        ["be a superuser", "read passwords (pg_authid)", "run a program with copy to", "become by set session authorization fabric_globex"],
    ),
    "a role that creates roles": (
        "alter role fabric_acme createrole",
        "alter role fabric_acme nocreaterole",
        ["create a role", "be one who creates roles (CREATEROLE)"],
    ),
    "the server's files": (
        "grant pg_read_server_files to fabric_acme",
        "revoke pg_read_server_files from fabric_acme",
        ["act as a member of pg_read_server_files"],
    ),
    "the server's files by inheritance": (
        "alter role fabric_acme inherit; grant pg_read_server_files to fabric_acme with inherit true",
        "revoke pg_read_server_files from fabric_acme; alter role fabric_acme noinherit",
        ["read a file with copy"],
    ),
    "programs of the server": (
        "grant pg_execute_server_program to fabric_acme with inherit true",
        "revoke pg_execute_server_program from fabric_acme",
        ["run a program with copy to", "run a program with copy from"],
    ),
    "one function that reads files": (
        "grant execute on function pg_read_file(text, bigint, bigint) to fabric_acme",
        "revoke execute on function pg_read_file(text, bigint, bigint) from fabric_acme",
        ["read a file with pg_read_file", "execute pg_read_file(text,bigint,bigint)"],
    ),
    "a foreign data wrapper": (
        "create foreign data wrapper odd; grant usage on foreign data wrapper odd to fabric_acme",
        "drop foreign data wrapper odd cascade",
        ["use foreign data wrapper odd"],
    ),
    "a function with the superuser's rights": (
        (
            "create schema odd; grant usage on schema odd to public;"
            "create function odd.peek() returns text language sql security definer as 'select marker from globex_raw_shop.orders'"
        ),
        "drop schema odd cascade",
        ["execute with the rights of postgres odd.peek()", "list schema odd"],
    ),
    "another's view in the tenant's own schema": (
        "create view acme_marts.leak as select * from globex_raw_shop.orders; grant select on acme_marts.leak to fabric_acme",
        "drop view acme_marts.leak",
        ["read acme_marts.leak", "use (SELECT) acme_marts.leak"],
    ),
    "a function with the superuser's rights in the tenant's own schema": (
        "create function acme_marts.peek() returns text language sql security definer as 'select marker from globex_raw_shop.orders'",
        "drop function acme_marts.peek()",
        ["execute with the rights of postgres acme_marts.peek()"],
    ),
    "tables that are to come": (
        "alter default privileges for role fabric_globex in schema globex_marts grant select on tables to public",
        "alter default privileges for role fabric_globex in schema globex_marts revoke select on tables from public",
        ["use what is to come (default privileges: SELECT) of role fabric_globex in schema globex_marts"],
    ),
    "another tenant's schema as its owner": (
        "alter schema globex_marts owner to fabric_acme",
        "alter schema globex_marts owner to fabric_globex",
        ["own schema globex_marts", "create in schema globex_marts"],
    ),
    "everyone's queries": (
        "grant pg_read_all_stats to fabric_acme with inherit true",
        "revoke pg_read_all_stats from fabric_acme",
        ["act as a member of pg_read_all_stats"],
    ),
    "a server parameter": (
        "grant set on parameter session_replication_role to fabric_acme",
        "revoke set on parameter session_replication_role from fabric_acme",
        ["switch off triggers and foreign keys", "set the server parameter session_replication_role"],
    ),
    "the platform's own schema": (
        (
            "create schema platform; create table platform.secrets (value text);"
            " grant usage on schema platform to fabric_acme; grant select on platform.secrets to fabric_acme"
        ),
        "drop schema platform cascade",
        ["read platform.secrets", "list schema platform"],
    ),
}


@pytest.mark.parametrize(("plant", "undo", "expected"), list(LEAKS.values()), ids=list(LEAKS))
def test_each_hole_in_the_walls_is_found_and_named(fleet: PostgresFleet, plant: str, undo: str, expected: list[str]) -> None:
    with planted(fleet, plant, undo):
        report = check_isolation(fleet.tenants["acme"], fleet.settings)
    assert not report.passed
    assert report.severity == "error"
    assert set(expected) <= set(list_found(report))
    assert not report.list("untried")
    # Rolled back, and never looked at.
    assert "row of globex" not in repr(report)
    assert fleet.run("select count(*) from globex_raw_shop.orders") == [(1,)]
    assert fleet.run("select count(*) from pg_class where relname like 'fabric_isolation%'") == [(0,)]
    assert fleet.run("select count(*) from pg_roles where rolname like 'fabric_isolation%'") == [(0,)]
    assert check_isolation(fleet.tenants["acme"], fleet.settings).passed


def test_anothers_table_that_the_tenant_cannot_reach_is_not_a_finding(fleet: PostgresFleet) -> None:
    plant = "create table acme_marts.theirs (i int); create function acme_marts.closed() returns int language sql security definer as 'select 1'"
    plant += "; revoke all on function acme_marts.closed() from public"
    with planted(fleet, plant, "drop table acme_marts.theirs; drop function acme_marts.closed()"):
        report = check_isolation(fleet.tenants["acme"], fleet.settings)
    assert report.passed, report.message
    assert ("read", "acme_marts.theirs") in {(attempt.action, attempt.target) for attempt in report.attempts}


def test_a_database_that_is_open_to_everyone_is_a_leak_when_it_holds_something(fleet: PostgresFleet) -> None:
    fleet.run("create database dagster template template0 strategy file_copy", database="postgres")
    try:
        assert check_isolation(fleet.tenants["acme"], fleet.settings).passed
        fleet.run("create table runs (id bigint)", database="dagster")
        found = list_found(check_isolation(fleet.tenants["acme"], fleet.settings))
        assert found == ["connect to database dagster, which holds 1 tables and views"]
        fleet.run("revoke all on database dagster from public", database="postgres")
        assert check_isolation(fleet.tenants["acme"], fleet.settings).passed
    finally:
        fleet.run("drop database dagster with (force)", database="postgres")


def test_the_database_of_a_tenant_is_a_leak_when_another_tenant_gets_in(fleet: PostgresFleet) -> None:
    with planted(fleet, "grant connect on database fabric_initech to fabric_acme", "revoke all on database fabric_initech from fabric_acme"):
        found = list_found(check_isolation(fleet.tenants["acme"], fleet.settings))
    assert [text.split(",")[0] for text in found] == ["connect to database fabric_initech"]


def test_a_shared_login_that_takes_on_a_role_can_put_it_off_again(fleet: PostgresFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the platform never does, and the reason why: one statement brings the login back, with all that it may do."""
    plant = "create role shared login password 'shared' noinherit in role fabric_acme; alter role shared set role fabric_acme;"
    plant += f"grant connect on database {DATABASE} to shared"
    monkeypatch.setenv("SHARED_URL", fleet.server.get_url(DATABASE).replace("postgres:postgres@", "shared:shared@"))
    with planted(fleet, plant, f"revoke all on database {DATABASE} from shared; drop role shared"):
        report = check_isolation(make_tenant("acme", {"type": "postgres", "url": {"env": "SHARED_URL"}}), fleet.settings)
    assert "become by set role none shared" in list_found(report)


def test_a_login_of_the_operators_own_is_shown_for_what_it_is_as_a_warning(fleet: PostgresFleet) -> None:
    report = check_isolation(fleet.tenants["loose"], fleet.settings)
    assert (report.passed, report.severity) == (False, "warn")
    assert {"be a superuser", "read acme_raw_shop.orders", "read globex_raw_shop.orders"} <= set(list_found(report))
    assert "managed: true" in report.message


def test_what_could_not_be_tried_counts_as_neither(fleet: PostgresFleet) -> None:
    """The table is locked by somebody: the answer is a time-out, and the check says that it has proved nothing of it."""
    usage = "schema globex_raw_shop"
    with (
        planted(fleet, f"grant usage on {usage} to fabric_acme", f"revoke all on {usage} from fabric_acme"),
        contextlib.closing(psycopg2.connect(fleet.server.get_url(DATABASE))) as other,
        other.cursor() as cursor,
    ):
        cursor.execute("lock table globex_raw_shop.orders in access exclusive mode")
        report = check_isolation(fleet.tenants["acme"], fleet.settings)
        other.rollback()
    untried = [str(attempt) for attempt in report.list("untried")]
    assert "read globex_raw_shop.orders (another session has it locked)" in untried
    assert "not proven" in report.message


def test_a_login_that_was_never_made_proves_nothing(fleet: PostgresFleet) -> None:
    stranger = make_tenant("umbrella", {"type": "postgres", "url": {"env": "MANAGED_URL"}, "managed": True})
    report = check_isolation(stranger, fleet.settings)
    assert (report.passed, report.severity) == (False, "warn")
    assert "fabric provision umbrella" in report.message or "umbrella" in report.message
    assert not report.list("denied")


def test_a_lost_connection_proves_nothing(fleet: PostgresFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAGED_URL", "postgresql://127.0.0.1:1/warehouse")
    report = check_isolation(fleet.tenants["acme"], fleet.settings)
    assert not report.passed
    assert [attempt.outcome for attempt in report.attempts] == ["untried"]


def test_the_report_of_a_tenant_alone_says_that_there_was_no_other_to_try(fleet: PostgresFleet) -> None:
    report = check_isolation(fleet.tenants["initech"], fleet.settings)
    assert report.notes == ("no other tenant's schema is in this database",)
    assert not [attempt for attempt in report.attempts if attempt.action == "read" and "orders" in attempt.target]


@pytest.mark.parametrize(
    ("schema", "tenants", "is_own"),
    [
        ("acme_marts", {"globex"}, True),
        ("stg_acme_raw_shop", set(), True),
        ("acme_b_marts", set(), True),
        ("acme_b_marts", {"acme_b"}, False),
        ("stg_acme_b_raw_shop", {"acme_b"}, False),
        ("acmes_marts", set(), False),
        ("public", set(), False),
        ("globex_acme_marts", {"globex"}, False),
    ],
)
def test_a_schema_belongs_to_the_longest_tenants_name_that_it_begins_with(schema: str, tenants: set[str], is_own: bool) -> None:
    assert is_own_schema(schema, "acme", tenants) is is_own


def test_a_report_says_how_much_more_there_is() -> None:
    from fabric_assets.isolation.report import Attempt

    report = IsolationReport("acme", tuple(Attempt("read", f"table_{number}", "succeeded") for number in range(12)))
    assert report.message.endswith("table_9 and 2 more")
    assert replace(report, walls_are_ours=False).severity == "warn"
