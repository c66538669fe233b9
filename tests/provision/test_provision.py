"""`fabric provision`: what a tenant gets, what it does not get, and that nothing of a password is anywhere but in the sealed store."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.provisioning import provision
from fabric_assets.security.secrets import list_secrets, remove_secret
from fabric_assets.transform.entitlements import list_schemas
from fabric_assets.transform.graph import ModelNode, ProjectGraph
from fabric_assets.transform.selections import Evaluation, Selection
from tests.provision.conftest import ManagedWarehouse, get_managed, run_fabric

pytestmark = pytest.mark.xdist_group("provision")

SCHEMAS = {"acme_fabric", "acme_raw_shop", "stg_acme_raw_shop", "acme_staging", "acme_intermediate", "acme_marts"}


@pytest.fixture
def acme(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> ManagedWarehouse:
    write_tenant("acme", get_managed())
    done = run_fabric("provision", "acme")
    assert (done.code, done.err) == (0, ""), done
    return warehouse


def test_a_tenant_gets_its_roles_its_schemas_and_its_limits(acme: ManagedWarehouse) -> None:
    owned = {name for (name,) in acme.run("select nspname from pg_namespace where nspowner = 'fabric_acme'::regrole")}
    assert owned == SCHEMAS
    attributes = "rolcanlogin, rolsuper, rolinherit, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolconnlimit, rolconfig"
    assert acme.run(f"select {attributes} from pg_roles where rolname = 'fabric_acme'") == [
        (True, False, False, False, False, False, False, 40, ["statement_timeout=3600s", "temp_file_limit=9765625kB"])
    ]
    assert acme.run("select rolcanlogin, rolsuper, rolcreaterole from pg_roles where rolname = 'fabric_acme_ro'") == [(False, False, False)]
    assert acme.run_as("acme", "select current_user, session_user") == [("fabric_acme", "fabric_acme")]
    assert acme.run_as("acme", "show statement_timeout") == [("1h",)]


def test_limits_are_the_yamls(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", get_managed(limits={"statement_timeout": "5m", "connections": 3, "temp_files": "500MB"}))
    assert run_fabric("provision", "acme").code == 0
    assert warehouse.run_as("acme", "show temp_file_limit") == [("488281kB",)]
    assert warehouse.run_as("acme", "show statement_timeout") == [("5min",)]
    kept = [psycopg2.connect(warehouse.get_url("fabric_acme", warehouse.get_password("acme"))) for _ in range(3)]
    with pytest.raises(psycopg2.OperationalError, match="too many connections for role"):
        warehouse.run_as("acme", "select 1")
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("create schema globex_marts", "permission denied for database"),
        ("create schema if not exists acme_marts", "permission denied for database"),
        ("create table public.t (i int)", "permission denied for schema public"),
        ("create role other", "permission denied"),
        ("create database other", "permission denied"),
        ("set role fabric_globex", "permission denied"),
        ("set session authorization fabric_globex", "permission denied"),
        ("select * from globex_marts.orders", "permission denied for schema globex_marts"),
        ("create table globex_marts.t (i int)", "permission denied for schema globex_marts"),
        ("drop schema globex_marts", "must be owner of schema globex_marts"),
        ("alter role fabric_acme connection limit 100", "permission denied"),
        ("set temp_file_limit = -1", "permission denied to set parameter"),
        ("copy (select 1) to program 'true'", "permission denied|must be superuser"),
        ("select pg_read_file('/etc/passwd')", "permission denied"),
    ],
)
def test_a_tenant_reaches_nothing_beside_its_own(acme: ManagedWarehouse, write_tenant: Callable[..., Path], statement: str, message: str) -> None:
    write_tenant("globex", get_managed())
    assert run_fabric("provision", "globex").code == 0
    acme.run_as("globex", "create table globex_marts.orders as select 1 as id")
    with pytest.raises(psycopg2.Error, match=message):
        acme.run_as("acme", statement)


def test_a_tenant_can_connect_to_no_other_database(acme: ManagedWarehouse) -> None:
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            acme.run_as("acme", "select 1", database=database)


def test_a_reader_reads_what_is_there_and_what_will_be(acme: ManagedWarehouse) -> None:
    acme.run_as("acme", "create table acme_marts.orders as select 1 as id", "create view acme_staging.stg as select 2 as id")
    acme.run("create role analyst login password 'analyst'", "grant fabric_acme_ro to analyst")
    assert acme.run("select * from acme_marts.orders, acme_staging.stg", user="analyst", password="analyst") == [(1, 2)]
    # As a full refresh does: made in the staging schema, then moved.
    acme.run_as("acme", "create table stg_acme_raw_shop.items as select 3 as id", "alter table stg_acme_raw_shop.items set schema acme_raw_shop")
    assert acme.run("select * from acme_raw_shop.items", user="analyst", password="analyst") == [(3,)]
    with pytest.raises(psycopg2.Error, match="permission denied"):
        acme.run("insert into acme_raw_shop.items values (4)", user="analyst", password="analyst")
    acme.run_as("acme", "create table stg_acme_raw_shop.under_way as select 1 as id")
    with pytest.raises(psycopg2.Error, match="permission denied for schema stg_acme_raw_shop"):
        acme.run("select * from stg_acme_raw_shop.under_way", user="analyst", password="analyst")
    assert run_fabric("provision", "acme", "--check").lines == []


def test_a_second_call_finds_nothing_to_do(acme: ManagedWarehouse) -> None:
    before = (acme.get_password("acme"), acme.run("select xmin::text, rolname from pg_authid order by 2"))
    again = run_fabric("provision", "--all")
    assert (again.code, again.out) == (0, "acme\tnothing to do\n")
    check = run_fabric("provision", "--all", "--check")
    assert (check.code, check.out) == (0, "")
    assert (acme.get_password("acme"), acme.run("select xmin::text, rolname from pg_authid order by 2")) == before


def test_a_dry_run_shows_the_sql_without_a_password_and_changes_nothing(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", get_managed(isolation="database"))
    shown = run_fabric("provision", "acme", "--dry-run")
    assert shown.code == 0
    assert {
        "create database \"fabric_acme\" template template0 encoding 'UTF8';",
        "alter role \"fabric_acme\" password '***';",
        'create schema "acme_marts" authorization "fabric_acme";',
        'revoke all on database "fabric_acme" from public;',
    } <= set(shown.lines)
    assert "SCRAM" not in shown.out
    assert warehouse.run("select count(*) from pg_roles where rolname like 'fabric%'") == [(0,)]
    assert list_secrets("acme", settings=warehouse.settings) == ()
    assert {entry["tenant"] for entry in run_fabric("provision", "acme", "--dry-run", "--json").json} == {None, "acme"}


def test_what_a_dry_run_shows_is_what_a_call_does(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    """Run by hand, with a password where *** stands, it leaves nothing for the call to do but the sealed password."""
    write_tenant("acme", get_managed())
    script = run_fabric("provision", "acme", "--dry-run").out
    warehouse.run(script.replace("'***'", "'by-hand'"))
    assert run_fabric("provision", "acme", "--check").lines == [
        f"acme: role {role} does not have the sealed password" for role in ("fabric_acme", "fabric_acme_bi")
    ]


def test_the_server_never_sees_a_password(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    log = warehouse.server.data / "log"
    warehouse.run("alter system set log_statement = 'all'", "select pg_reload_conf()")
    try:
        write_tenant("acme", get_managed())
        assert run_fabric("provision", "acme").code == 0
    finally:
        warehouse.run("alter system reset log_statement", "select pg_reload_conf()")
    text = log.read_text()
    assert re.search(r'alter role "fabric_acme" password \'SCRAM-SHA-256\$4096', text)
    assert warehouse.get_password("acme") not in text
    assert warehouse.get_password("acme") not in "".join(file.read_text(errors="replace") for file in warehouse.settings.data_dir.rglob("*.json"))
    assert len(warehouse.get_password("acme")) >= 40


def test_a_password_that_somebody_changed_or_forgot_is_set_anew(acme: ManagedWarehouse) -> None:
    acme.run_as("acme", "alter role fabric_acme password 'mine'")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        acme.run_as("acme", "select 1")
    assert run_fabric("provision", "acme", "--check").lines == ["acme: role fabric_acme does not have the sealed password"]
    assert run_fabric("provision", "acme").code == 0
    assert acme.run_as("acme", "select 1") == [(1,)]
    remove_secret("acme", "warehouse_login", settings=acme.settings)
    assert run_fabric("provision", "acme").code == 0
    assert acme.run_as("acme", "select 1") == [(1,)]


def test_the_schemas_of_a_tenants_models_are_among_its_schemas() -> None:
    model = ModelNode("model.fabric.pulse", "pulse", "reports", ("fabric", "reports", "pulse"), "pulse.sql", "table")
    tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", **get_managed(), "transform": {"select": ["pulse"]}})
    known = {Selection("", ("pulse",), ()): Evaluation(frozenset({model.unique_id}))}
    assert set(list_schemas(tenant, ProjectGraph({model.unique_id: model}, selections=known))) == SCHEMAS | {"acme_reports"}
    assert set(list_schemas(tenant, None)) == SCHEMAS


def test_a_new_source_is_provisioned_by_the_next_call(acme: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", get_managed("shop", "crm"))
    assert run_fabric("provision", "acme", "--check").lines == [
        f"acme: schema {name} is missing in database {acme.database}" for name in ("acme_raw_crm", "stg_acme_raw_crm")
    ]


def test_a_tenant_may_have_a_database_of_its_own(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", get_managed(isolation="database"))
    write_tenant("globex", get_managed(isolation="database"))
    write_tenant("initech", get_managed())
    assert run_fabric("provision", "--all").code == 0
    assert warehouse.run_as("acme", "create table acme_marts.t as select 1 as i", "select current_database() from acme_marts.t", database="fabric_acme") == [
        ("fabric_acme",)
    ]
    for tenant, database in (("globex", "fabric_acme"), ("initech", "fabric_acme"), ("acme", "fabric_globex"), ("acme", warehouse.database)):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            warehouse.run_as(tenant, "select 1", database=database)
    assert run_fabric("provision", "--all", "--check").lines == []
    with pytest.raises(psycopg2.Error, match="permission denied for database"):
        warehouse.run_as("acme", "create schema more", database="fabric_acme")


def test_who_had_something_in_the_database_goes_on_connecting(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    warehouse.run("create role loader login password 'loader'", "create schema legacy authorization loader", "create role stranger login password 'stranger'")
    warehouse.run("create table public.settings as select 1 as i", "alter table public.settings owner to loader")
    write_tenant("acme", get_managed())
    assert run_fabric("provision", "acme").code == 0
    assert warehouse.run("create table legacy.t as select 1 as i", "select * from legacy.t", user="loader", password="loader") == [(1,)]
    assert warehouse.run("select * from public.settings", user="loader", password="loader") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        warehouse.run("select 1", user="stranger", password="stranger")


def test_the_answer_as_json_says_what_was_found_and_what_became_of_it(acme: ManagedWarehouse) -> None:
    acme.run("grant usage on schema acme_marts to public", "drop schema acme_staging")
    check = run_fabric("provision", "acme", "--check", "--json")
    assert check.code == 1
    findings = {entry["finding"]: (entry["tenant"], entry["kind"], entry["status"]) for entry in check.json["findings"]}
    gone, granted = f"schema acme_staging is missing in database {acme.database}", "PUBLIC has USAGE on schema acme_marts"
    assert findings == {gone: ("acme", "missing", "found"), granted: ("acme", "surplus", "found")}
    plain = run_fabric("provision", "acme", "--json")
    assert (plain.code, plain.json["tenants"][0]["mended"], plain.json["tenants"][0]["left"]) == (0, 1, 1)
    fix = run_fabric("provision", "acme", "--fix", "--json")
    assert [(entry["finding"], entry["status"]) for entry in fix.json["findings"]] == [(granted, "mended")]
    assert "SCRAM" not in check.out + plain.out + fix.out


def test_a_check_fixes_nothing(acme: ManagedWarehouse) -> None:
    for option in ("--fix", "--dry-run"):
        assert run_fabric("provision", "acme", "--check", option).code == 2
    assert run_fabric("provision", "nobody").code == 2
    assert run_fabric("provision").code == 2


@pytest.mark.parametrize(
    ("changes", "environ", "message"),
    [
        ({}, {"FABRIC_PROVISION_URL": ""}, "FABRIC_PROVISION_URL is not set"),
        ({}, {"FABRIC_PROVISION_URL": "postgresql://postgres:hunter2@10.1.2.3:5432/postgres"}, "but FABRIC_PROVISION_URL is of 10.1.2.3:5432"),
        ({}, {"FABRIC_PROVISION_URL": "mysql://root:hunter2@127.0.0.1/db"}, "must be for postgres"),
        ({}, {"WAREHOUSE_ADDRESS": "postgresql://me:hunter2@127.0.0.1/db"}, "carries a login, but the destination is managed"),
        ({}, {"WAREHOUSE_ADDRESS": "postgresql://127.0.0.1/db?user=me&password=hunter2"}, "carries a login, but the destination is managed"),
    ],
)
def test_what_cannot_be_provisioned_is_refused_in_plain_words(
    warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, changes: dict, environ: dict[str, str], message: str
) -> None:
    write_tenant("acme", get_managed(**changes))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    answer = run_fabric("provision", "acme")
    assert (answer.code, message in answer.err) == (2, True), answer
    assert "hunter2" not in answer.out + answer.err
    assert "nothing to provision" not in answer.err


RIVAL = "schema acme_eu_marts is tenant acme_eu's: rename one of the two, or the model's schema; or give one isolation: database"


def claim_rivals_schema(warehouse: ManagedWarehouse) -> ServerEntitlements:
    """What acme is to have where one of its models makes the schema's name of acme_eu's marts."""
    entitlements = warehouse.get_entitlements("acme")
    return replace(entitlements, schemas=(*entitlements.schemas, "acme_eu_marts"))


@pytest.mark.parametrize("chosen", [["acme"], ["acme", "acme_eu"], ["acme_eu", "acme"]], ids="+".join)
@pytest.mark.parametrize("fix", [False, True])
def test_another_tenants_tables_stay_that_tenants(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], chosen: list[str], fix: bool) -> None:
    for name in ("acme", "acme_eu"):
        write_tenant(name, get_managed())
    assert run_fabric("provision", "--all").code == 0
    warehouse.run_as(
        "acme_eu", "create table acme_eu_marts.orders as select 1 as id", "create function acme_eu_marts.f() returns int language sql as 'select 1'"
    )
    warehouse.run_as("acme_eu", "create type acme_eu_marts.mood as enum ('x')")
    rights = "select relacl::text, relowner::regrole::text from pg_class where relname = 'orders'"
    before = warehouse.run(rights)
    all_entitlements = [claim_rivals_schema(warehouse) if name == "acme" else warehouse.get_entitlements(name) for name in chosen]
    with warehouse.open("acme") as (server, _):
        done = provision(server, all_entitlements, Logins(warehouse.settings), fix=fix)
    assert [step.finding for step in done.done] == []
    assert [(step.tenant, step.finding) for step, _ in done.left] == [("acme", RIVAL)]
    assert warehouse.run(rights) == before
    assert warehouse.run_as("acme_eu", "select * from acme_eu_marts.orders") == [(1,)]
    assert run_fabric("provision", "--all", "--check").lines == []


def test_a_schema_that_two_tenants_would_make_holds_up_neither(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    for name in ("acme", "acme_eu"):
        write_tenant(name, get_managed())
    all_entitlements = [warehouse.get_entitlements("acme_eu"), claim_rivals_schema(warehouse)]
    with warehouse.open("acme") as (server, _):
        done = provision(server, all_entitlements, Logins(warehouse.settings))
    assert [(step.tenant, step.finding) for step, _ in done.left] == [("acme", RIVAL)]
    assert warehouse.run("select nspowner::regrole::text from pg_namespace where nspname in ('acme_marts', 'acme_eu_marts') order by nspname") == [
        ("fabric_acme_eu",),
        ("fabric_acme",),
    ]


def test_a_schema_that_the_other_tenant_has_already_is_not_taken_from_it(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path]) -> None:
    """The tenant with the longer name came later."""
    for name in ("acme", "acme_eu"):
        write_tenant(name, get_managed())
    with warehouse.open("acme") as (server, _):
        assert not provision(server, [claim_rivals_schema(warehouse)], Logins(warehouse.settings)).left
        warehouse.run_as("acme", "create table acme_eu_marts.orders as select 1 as id")
        done = provision(server, [claim_rivals_schema(warehouse), warehouse.get_entitlements("acme_eu")], Logins(warehouse.settings), fix=True)
    assert [(step.tenant, step.finding) for step, _ in done.left] == [("acme_eu", RIVAL.replace("is tenant acme_eu's", "is tenant acme's"))]
    assert warehouse.run_as("acme", "select * from acme_eu_marts.orders") == [(1,)]
    with pytest.raises(psycopg2.Error, match="permission denied"):
        warehouse.run_as("acme_eu", "select * from acme_eu_marts.orders")


def test_a_url_that_names_no_database_or_anothers_holds_up_no_other_tenant(
    warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tenant("acme", get_managed(isolation="database"))
    write_tenant("globex", get_managed(url={"env": "OTHER_ADDRESS"}))
    write_tenant("initech", get_managed(url={"env": "NO_ADDRESS"}))
    write_tenant("umbrella", get_managed())
    monkeypatch.setenv("OTHER_ADDRESS", warehouse.address.replace(warehouse.database, "fabric_acme"))
    monkeypatch.setenv("NO_ADDRESS", warehouse.address.replace(warehouse.database, "nowhere"))
    found = [
        "globex: the database fabric_acme of its destination's url is tenant acme's own: name another one",
        "initech: there is no database nowhere: create it, or correct the destination's url",
    ]
    check = run_fabric("provision", "--all", "--check")
    assert check.code == 1
    assert check.lines[:2] == found
    assert "umbrella: role fabric_umbrella is missing" in check.lines
    assert run_fabric("provision", "--all", "--dry-run").lines[:2] == [f"-- {finding}" for finding in found]
    done = run_fabric("provision", "--all")
    assert done.code == 1
    assert [line for line in done.lines if line.startswith("left")] == [f"left\t{finding}" for finding in found]
    assert {"globex\tnothing done", "initech\tnothing done"} < set(done.lines)
    made = [("fabric_acme",), ("fabric_acme_bi",), ("fabric_umbrella",), ("fabric_umbrella_bi",)]
    assert warehouse.run("select rolname::text from pg_roles where rolname like 'fabric%' and rolcanlogin order by 1") == made
    assert warehouse.run_as("umbrella", "create table umbrella_marts.t as select 1 as i", "select * from umbrella_marts.t") == [(1,)]
    again = run_fabric("provision", "--all", "--check")
    assert (again.code, again.lines) == (1, found)
    fix = run_fabric("provision", "initech", "--fix")
    assert (fix.code, fix.lines) == (1, [f"left\t{found[1]}"])


def test_an_unmanaged_tenant_needs_no_provisioning(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABRIC_PROVISION_URL")
    write_tenant("acme", {"destination": {"type": "duckdb"}})
    answer = run_fabric("provision", "acme")
    assert answer.code == 0
    assert "acme: its destination is not managed" in answer.err


def test_a_wrong_login_is_said_without_its_password(warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    write_tenant("acme", get_managed())
    monkeypatch.setenv("FABRIC_PROVISION_URL", warehouse.get_url("nobody", "hunter2hunter2"))
    answer = run_fabric("provision", "acme")
    assert (answer.code, "password authentication failed" in answer.err) == (1, True), answer
    assert "hunter2" not in answer.out + answer.err


@pytest.mark.parametrize(
    "command", [("provision", "acme"), ("offboard", "acme", "--yes"), ("offboard", "gone", "--yes")], ids=["provision", "offboard", "no_yaml"]
)
@pytest.mark.parametrize("password", ["half@Hunter2#Hunter3", "half@Hunter2/Hunter3"])
def test_a_login_whose_password_is_not_escaped_is_said_without_any_part_of_it(
    warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, password: str, command: tuple[str, ...]
) -> None:
    write_tenant("acme", get_managed())
    monkeypatch.setenv("FABRIC_PROVISION_URL", warehouse.get_url("nobody", password))
    answer = run_fabric(*command)
    assert (answer.code in {1, 2}, "FABRIC_PROVISION_URL" in answer.err) == (True, True), answer
    assert "Hunter" not in answer.out + answer.err
    if "#" in password:
        assert "remedy: write @ as %40, / as %2F, ? as %3F and # as %23" in answer.err


def test_a_database_that_cannot_hold_every_text_is_a_finding(
    warehouse: ManagedWarehouse, write_tenant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.run(f"create database {warehouse.database}_old encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'", database="postgres")
    monkeypatch.setenv("WAREHOUSE_ADDRESS", f"{warehouse.address}_old")
    write_tenant("acme", get_managed())
    finding = f"acme: the database {warehouse.database}_old has the encoding LATIN1, and no load writes into it: make another one with encoding 'UTF8'"
    assert finding in run_fabric("provision", "acme", "--check").lines
    assert run_fabric("provision", "acme").code == 0
    assert [line for line in run_fabric("provision", "acme", "--check").lines if line.startswith("acme:")] == [finding]
