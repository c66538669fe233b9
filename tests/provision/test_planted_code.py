"""No command of the platform's runs what a tenant plants in its schemas with another login than the tenant's.

Planted are views, rules, triggers, policies, casts, operators and functions named like the server's. Each function writes into the server's log who calls it,
also from a read-only transaction.
"""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pyarrow.parquet as pq
import pytest

from fabric_assets.loading.load import run_load
from fabric_assets.offboarding import postgres_rows
from fabric_assets.rows.reports import LoadRequest
from fabric_assets.security.roles.entitlements import ServerLogin
from fabric_assets.security.secrets import remove_secret, write_secret
from tests.factories.shop import make_shop
from tests.provision.conftest import Answer, ManagedWarehouse, build_tenant, run_fabric
from tests.provision.test_managed_runs import run

pytestmark = [pytest.mark.xdist_group("provision"), pytest.mark.timeout(600)]

_WITNESS = "begin raise log 'WITNESS session=% current=%', session_user, current_user; "
# What the platform calls, as the server's own; and what it reads of the catalog.
_FUNCTIONS = (
    ("has_table_privilege", "regclass, text", "boolean", "true"),
    ("has_schema_privilege", "oid, text", "boolean", "true"),
    ("format_type", "oid, integer", "text", "'x'"),
    ("to_regclass", "text", "regclass", "null"),
    ("set_config", "text, text, boolean", "text", "'x'"),
    ("current_setting", "text, boolean", "text", "'x'"),
    ("pg_backend_pid", "", "integer", "1"),
    ("pg_try_advisory_lock", "bigint", "boolean", "true"),
    ("pg_terminate_backend", "integer, bigint", "boolean", "true"),
    ("coalesce_", "text", "text", "'x'"),
    ("host", "inet", "text", "'x'"),
    ("to_json", "anyelement", "json", "'{}'"),
    ("text", "integer", "text", "'x'"),
)
_VIEWS = ("pg_class", "pg_namespace", "pg_roles", "pg_database", "pg_auth_members", "pg_locks", "pg_stat_activity", "pg_depend", "pg_attribute", "pg_shdepend")
_LEDGER = ("loads", "rejected_rows", "imported_files", "stream_state")


def build_plants(schema: str) -> list[str]:
    """The statements of a tenant who plants everything that a login without privileges can make in a schema of its own."""
    s = f'"{schema}"'
    plants = [
        f"create function {s}.witness() returns text language plpgsql volatile as $$ {_WITNESS} return 's'; end $$",
        f"create function {s}.constant(text) returns text language plpgsql immutable as $$ {_WITNESS} return $1; end $$",
        f"create function {s}.is_fine(text) returns boolean language plpgsql immutable as $$ {_WITNESS} return true; end $$",
        f"create function {s}.fires() returns trigger language plpgsql as $$ {_WITNESS} return coalesce(new, old); end $$",
        f"create function {s}.equals(text, text) returns boolean language plpgsql immutable as $$ {_WITNESS} return true; end $$",
        f"create operator {s}.= (leftarg = text, rightarg = text, function = {s}.equals)",
        f"create function {s}.names_equal(name, name) returns boolean language plpgsql immutable as $$ {_WITNESS} return true; end $$",
        f"create operator {s}.= (leftarg = name, rightarg = name, function = {s}.names_equal)",
        f"create type {s}.mood as enum ('fine')",
        f"create function {s}.tell(mood {s}.mood) returns text language plpgsql immutable as $$ {_WITNESS} return 'fine'; end $$",
        f"create cast ({s}.mood as text) with function {s}.tell({s}.mood) as implicit",
        f"create domain {s}.short as text check ({s}.is_fine(value))",
        f"create table {s}.planted (a text default {s}.witness(), b {s}.mood, c {s}.short, d text check ({s}.is_fine(d)))",
        f"alter table {s}.planted add column e text generated always as ({s}.constant(d)) stored",
        f"insert into {s}.planted (b, c, d) values ('fine', 'x', 'y')",
        f"create table {s}.child () inherits ({s}.planted)",
        f"create table {s}.by_index (a text)",
        f"create index on {s}.by_index (({s}.constant('x')))",
        f"create table {s}.by_predicate (a text)",
        f"create index on {s}.by_predicate (a) where {s}.is_fine('x')",
        f"create table {s}.by_statistics (a text, b text)",
        f"create statistics {s}.kept on (({s}.constant('x'))), a from {s}.by_statistics",
        f"create table {s}.by_policy (a text)",
        f"insert into {s}.by_policy values ('1')",
        f"alter table {s}.by_policy enable row level security",
        f"create policy looks on {s}.by_policy using ({s}.is_fine(a) and {s}.witness() = 's')",
        f"create table {s}.by_rule (a text)",
        f"create rule looks as on insert to {s}.by_rule do also select {s}.witness()",
        f"create table {s}.by_trigger (a text)",
        f"create trigger looks before insert or update or delete or truncate on {s}.by_trigger for each statement execute function {s}.fires()",
        f"create table {s}.parts (a text) partition by list ({s}.constant(a))",
        f"create table {s}.part partition of {s}.parts for values in ('x')",
        f"create view {s}.stolen as select {s}.witness() as stolen",
        f"create view {s}.revoked as select {s}.witness() as stolen",
        f"revoke all on {s}.revoked from current_user",
        f"revoke all on {s}.by_index, {s}.by_policy, {s}.planted from current_user",
        f"create materialized view {s}.kept_view as select {s}.witness() as stolen",
    ]
    for name, arguments, result, value in _FUNCTIONS:
        plants.append(f"create function {s}.{name}({arguments}) returns {result} language plpgsql as $$ {_WITNESS} return {value}; end $$")
    plants += [f"create view {s}.{name} as select {s}.witness() as nspname, {s}.witness() as relname from pg_catalog.{name}" for name in _VIEWS]
    if schema.endswith("_fabric"):
        for table in _LEDGER:
            plants += [
                f"drop table if exists {s}.{table}",
                f"create view {s}.{table} as select {s}.witness() as source, {s}.witness() as stream, {s}.witness() as status",
            ]
    return plants


class Fleet:
    """The warehouse with what was planted, and what the server has logged since."""

    def __init__(self, warehouse: ManagedWarehouse) -> None:
        self.warehouse, self._log = warehouse, warehouse.server.data / "log"
        self._begun = self._log.stat().st_size

    def read_witnesses(self) -> set[tuple[str, str]]:
        """Who has run a planted function: session's and current user."""
        return set(re.findall(r"WITNESS session=(\w+) current=(\w+)", self._log.read_bytes()[self._begun :].decode()))

    def forget(self) -> None:
        self._begun = self._log.stat().st_size


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, prepared: None, write_tenant: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Two tenants that have loaded, and all schemas of one planted; one table of its own it may not read, though it is plain."""
    monkeypatch.setenv("SHOP_URL", make_shop(tmp_path / "shop.db"))
    for tenant in ("acme", "globex"):
        write_tenant(tenant, build_tenant())
    assert run_fabric("provision", "--all").code == 0
    for tenant in ("acme", "globex"):
        list(run_load(LoadRequest(warehouse.get_config(tenant), "shop", ("orders", "items"), warehouse.settings)))
    schemas = [name for (name,) in warehouse.run("select nspname from pg_namespace where nspowner = 'fabric_acme'::regrole order by 1")]
    assert len(schemas) == 6
    for schema in schemas:
        warehouse.run_as("acme", *build_plants(schema))
    warehouse.run("create table acme_marts.left_behind as select 7 as seven", "create index on acme_marts.left_behind (seven)")
    path = ", ".join([*schemas, "pg_catalog"])
    warehouse.run_as("acme", f"alter role fabric_acme set search_path = {path}")
    fleet = Fleet(warehouse)
    assert fleet.read_witnesses() == set()
    return fleet


def test_no_command_runs_what_a_tenant_planted_with_another_login(fleet: Fleet, tmp_path: Path) -> None:
    warehouse = fleet.warehouse
    for command in (("provision", "--all", "--check"), ("provision", "acme"), ("provision", "acme", "--dry-run", "--fix"), ("provision", "globex", "--fix")):
        run_fabric(*command)
        assert fleet.read_witnesses() == set(), command
    preview = run_fabric("offboard", "acme")
    assert "nothing was deleted" in preview.err
    run_fabric("isolation", "acme", "globex")
    run_fabric("rejects", "list", "acme")
    run(warehouse, "acme")
    assert run(warehouse, "globex").returncode == 0
    assert fleet.read_witnesses() == {("fabric_acme", "fabric_acme")}, "the planted code works, and none ran as anybody else"

    fleet.forget()
    gone = run_fabric("offboard", "acme", "--yes", "--export", str(tmp_path / "handover"))
    assert gone.code == 0, gone
    assert fleet.read_witnesses() == {("fabric_acme", "fabric_acme")}
    folder = tmp_path / "handover" / "acme"
    assert pq.read_table(folder / "acme_marts" / "revoked.parquet").to_pylist() == [{"stolen": "s"}], "the owner got back what it had revoked from itself"
    assert pq.read_table(folder / "acme_marts" / "by_policy.parquet").num_rows == 1
    assert pq.read_table(folder / "acme_marts" / "left_behind.parquet").to_pylist() == [{"seven": 7}], "a plain table of another owner's"
    assert warehouse.run("select count(*) from pg_roles where rolname like 'fabric_acme%' or rolsuper and rolname <> 'postgres'") == [(0,)]
    assert warehouse.run("select count(*) from globex_raw_shop.orders") == [(3,)]


def test_where_the_tenants_own_login_is_lost_offboarding_says_so_and_counts_and_runs_nothing(fleet: Fleet) -> None:
    for lose in (lambda: remove_secret("acme", "warehouse_login", settings=fleet.warehouse.settings), lambda: None):
        lose()
        shown = run_fabric("offboard", "acme", "--json")
        relations = shown.json["would_delete"]["relations"]
        assert {each["rows"] for each in relations} == {None}
        assert "left_behind" in {each["table"] for each in relations}
        assert any("the tenant's own login is lost" in entry for entry in shown.json["outside"])
    write_secret("acme", "warehouse_login", "another password", settings=fleet.warehouse.settings)
    refused = run_fabric("offboard", "acme")
    assert "the tenant's own login is lost" in refused.out
    assert "password authentication failed" in refused.out
    assert fleet.read_witnesses() == set()


def test_what_is_not_plain_is_never_read_by_the_login_that_drops(fleet: Fleet, tmp_path: Path) -> None:
    remove_secret("acme", "warehouse_login", settings=fleet.warehouse.settings)
    refused: Answer = run_fabric("offboard", "acme", "--yes", "--export", str(tmp_path))
    assert refused.code == 1
    assert "and it is not a plain table" in refused.err
    assert "fabric provision acme" in refused.err
    assert fleet.read_witnesses() == set()
    assert fleet.warehouse.run("select count(*) from acme_raw_shop.orders") == [(3,)], "nothing was deleted"


@pytest.mark.parametrize("table", ["planted", "child", "by_index", "by_predicate", "by_statistics", "by_policy", "parts", "part", "stolen", "kept_view"])
def test_the_catalog_says_which_tables_are_plain(fleet: Fleet, table: str) -> None:
    login = ServerLogin("test", "127.0.0.1", fleet.warehouse.server.port, fleet.warehouse.database, "postgres", "postgres", {})
    with postgres_rows.PostgresRows("acme", own=None, login=login, where="here") as rows:
        assert rows.count(postgres_rows.Relation("acme_marts", "left_behind", database=fleet.warehouse.database)) == 1
        assert rows.count(postgres_rows.Relation("acme_marts", "by_trigger", database=fleet.warehouse.database)) == 0
        with pytest.raises(postgres_rows.Unreadable, match="not a plain table"):
            rows.count(postgres_rows.Relation("acme_marts", table, database=fleet.warehouse.database))
    assert fleet.read_witnesses() == set()


def test_the_lock_keeps_a_plain_table_plain_and_waits_for_it_in_vain_at_most_ten_seconds(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert postgres_rows._SETTINGS["lock_timeout"] == "10s"
    monkeypatch.setitem(postgres_rows._SETTINGS, "lock_timeout", "200ms")
    warehouse = fleet.warehouse
    warehouse.run("alter table acme_marts.left_behind owner to fabric_acme")
    login = ServerLogin("test", "127.0.0.1", warehouse.server.port, warehouse.database, "postgres", "postgres", {})
    relation = postgres_rows.Relation("acme_marts", "left_behind", database=warehouse.database)
    changes = (
        "create index on acme_marts.left_behind ((acme_marts.constant('x')))",
        "create statistics on (acme_marts.constant('x')), seven from acme_marts.left_behind",
        "alter table acme_marts.left_behind add check (acme_marts.is_fine('x'))",
        "alter table acme_marts.left_behind enable row level security",
        "alter table acme_marts.left_behind rename to another",
        "create rule looks as on insert to acme_marts.left_behind do also select acme_marts.witness()",
        "create table acme_marts.younger () inherits (acme_marts.left_behind)",
    )
    with postgres_rows.PostgresRows("acme", own=None, login=login, where="here") as rows, rows.open_arrow(relation) as (connection, source):
        for change in changes:
            with pytest.raises(Exception, match="lock timeout"):
                warehouse.run_as("acme", "set lock_timeout = '100ms'", change)
        with connection.cursor() as cursor:
            cursor.execute(f"select count(*) from {source}")
            assert cursor.fetchall() == [(1,)]
            warehouse.run_as("acme", "insert into acme_marts.left_behind values (8)")
            cursor.execute(f"select seven from {source}")
            assert cursor.fetchall() == [(7,)], "of one moment"
    holder = psycopg2.connect(warehouse.get_url("fabric_acme", warehouse.get_password("acme")))
    with contextlib.closing(holder), postgres_rows.PostgresRows("acme", own=None, login=login, where="here") as rows:
        holder.cursor().execute("lock table acme_marts.left_behind in access exclusive mode")
        with pytest.raises(postgres_rows.Unreadable, match="lock timeout"):
            rows.count(relation)
