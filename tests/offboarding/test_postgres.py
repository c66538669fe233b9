"""Tenants in Postgres, with a login of the operator's and with roles of their own, and Dagster's records in Postgres, too."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow.parquet as pq
import pytest

from fabric_assets import naming
from fabric_assets.config.loader import load_fleet
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.provisioning import provision
from fabric_assets.security.roles.server import open_server
from fabric_assets.security.secrets import write_secret
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import build_entitlements, get_server_login
from tests.faults.processes import Case, Process
from tests.offboarding import world as worlds
from tests.offboarding.test_offboarding import finish
from tests.offboarding.world import NAMED, canary, find_traces, get_environ, get_records_of_others, read_records
from tests.support.lengths import choose
from tests.support.services import PostgresServer

# One worker's, so that the fleet is made once.
pytestmark = pytest.mark.xdist_group("offboarding_postgres")
Start = Callable[..., Process]
SCHEMAS = "select nspname from pg_namespace where nspname ~ 'acm' order by 1"
KILLS = choose(("exported.after:2", "destination.before", "drop.after:1", "drop.after:2", "drop.after:3", "destination.after"), 3)
ROLES = "select rolname from pg_roles where rolname ~ 'acm' order by 1"


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def make_database(postgres_server: PostgresServer) -> Iterator[Callable[[str], str]]:
    made = list[str]()

    def make(name: str) -> str:
        ask_alone(postgres_server.get_url(), f"create database {name} template template0 strategy file_copy")
        made.append(name)
        return postgres_server.get_url(name)

    yield make
    for name in made:
        ask_alone(postgres_server.get_url(), f"drop database if exists {name} with (force)")
    for (role,) in ask(postgres_server.get_url(), ROLES):
        ask_alone(postgres_server.get_url(), f"drop role if exists {role}")


def ask_alone(url: str, sql: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql)


@pytest.fixture(scope="module")
def fleet(postgres_server: PostgresServer, make_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str, str]:
    """`acme` and `acme_two` are managed, `acm` is not; with the URLs of their database and of Dagster's."""
    warehouse, storage = make_database("offboard_warehouse"), make_database("offboard_dagster")
    folder = tmp_path_factory.mktemp("fleet")
    managed = {"type": "postgres", "url": {"secret": "place"}, "managed": True}
    destinations = {"acme": managed, "acme_two": managed, "acm": {"type": "postgres", "url": {"secret": "login"}}}

    def prepare(settings: Settings) -> None:
        for tenant in ("acme", "acme_two"):
            write_secret(tenant, "place", f"postgresql://127.0.0.1:{postgres_server.port}/offboard_warehouse", settings=settings)
        write_secret("acm", "login", warehouse, settings=settings)
        tenants = [loaded.config for loaded in load_fleet(settings).tenants.values() if loaded.config.tenant != "acm"]
        with open_server(get_server_login(tenants[0], settings, {"FABRIC_PROVISION_URL": warehouse})) as server:
            provision(server, [build_entitlements(tenant, None, settings) for tenant in tenants], Logins(settings))

    return worlds.build_world(folder, storage=storage, destinations=destinations, prepare=prepare), warehouse, storage


def test_roles_schemas_and_records_of_one_tenant_go_and_nothing_of_the_others(fleet: tuple[Settings, str, str], tmp_path: Path, start: Start) -> None:
    settings, warehouse, _ = fleet
    ask(warehouse, "create schema acme_raw_forgotten authorization fabric_acme; create table acme_raw_forgotten.old (id int); create schema acme_two_extra")
    others, records = [row for row in ask(warehouse, SCHEMAS) if not NAMED.search(row[0]) and row[0] != "acme_raw_forgotten"], get_records_of_others(settings)
    counted = {schema: ask(warehouse, f"select count(*) from {schema}_raw_shop.orders") for schema in ("acme_two", "acm")}
    ask(warehouse, "create table acme_raw_shop.kinds (n numeric(38, 4), w numeric(60, 2), u numeric, t timestamptz, j jsonb, a int[], d date, x uuid, e text)")
    ask(
        warehouse,
        "insert into acme_raw_shop.kinds values ('12345678901234567890123456789012.0001', 1.5, 'NaN', '2026-01-01 12:00+02', '{\"a\": 1}', '{1,null,3}',"
        " '2026-02-28', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', null); grant select on acme_raw_shop.kinds to fabric_acme",
    )

    command = ("offboard", "acme", "--yes", "--json", "--export", str(tmp_path))
    # Each call goes on where the one before it was killed: in the export, before the deletion, in it, and after it.
    for kill in KILLS:
        killed = start(Case(command=command, kill=kill), environ={**get_environ(settings), "FABRIC_PROVISION_URL": warehouse})
        assert killed.wait() == -signal.SIGKILL, (kill, killed.log)
        assert {schema: ask(warehouse, f"select count(*) from {schema}_raw_shop.orders") for schema in counted} == counted
    certificate = finish(start(Case(command=command), environ={**get_environ(settings), "FABRIC_PROVISION_URL": warehouse}))

    assert ask(warehouse, SCHEMAS) == others
    assert {row[0] for row in ask(warehouse, ROLES)} == {"fabric_acme_two", "fabric_acme_two_bi", "fabric_acme_two_ro"}
    assert {schema: ask(warehouse, f"select count(*) from {schema}_raw_shop.orders") for schema in counted} == counted
    assert get_records_of_others(settings) >= records
    assert [row for row in read_records(settings) if any(canary("acme") in cell or NAMED.search(cell) for cell in row)] == []
    assert find_traces(settings, canary("acme"), "acme__", "acme_raw_") == []
    assert {"fabric_acme", "fabric_acme_bi", "fabric_acme_ro"} == {*certificate["deleted"]["database"]["roles"]}
    assert "acme_raw_forgotten" in certificate["deleted"]["database"]["schemas"]
    assert {each["table"]: each["rows"] for each in certificate["deleted"]["relations"] if each["schema"] == "acme_raw_shop"}["orders"] == 20

    (row,) = pq.read_table(tmp_path / "acme" / "acme_raw_shop" / "kinds.parquet").to_pylist()
    assert (row["n"], row["w"], row["u"]) == (Decimal("12345678901234567890123456789012.0001"), Decimal("1.50"), "NaN")
    assert row["t"].isoformat() == "2026-01-01T10:00:00+00:00"
    assert (json.loads(row["j"]), row["a"], row["d"].isoformat(), row["e"]) == ({"a": 1}, [1, None, 3], "2026-02-28", None)
    assert row["x"] == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


def test_a_view_of_another_tenant_is_never_taken_along(fleet: tuple[Settings, str, str], start: Start) -> None:
    settings, warehouse, _ = fleet
    ask(warehouse, "create view acme_two_raw_shop.peek as select id from acm_raw_shop.orders")
    refused = start(Case(command=("offboard", "acm", "--yes")), environ=get_environ(settings))
    assert refused.wait() == 1
    assert "acme_two_raw_shop.peek would go with its tables" in refused.log
    assert ask(warehouse, "select count(*) from acm_raw_shop.orders") == [(20,)]
    # Once it has gone, the next call goes on (below).
    ask(warehouse, "drop view acme_two_raw_shop.peek")


@pytest.mark.parametrize("tenant", ["acme_two", "acm"], ids=["managed", "unmanaged"])
def test_a_call_killed_after_the_deletion_is_finished_by_the_next_and_proves_that_the_database_holds_nothing(
    fleet: tuple[Settings, str, str], start: Start, tenant: str
) -> None:
    settings, warehouse, _ = fleet
    environ, command = {**get_environ(settings), "FABRIC_PROVISION_URL": warehouse}, ("offboard", tenant, "--yes", "--json")
    killed = start(Case(command=command, kill="search.before"), environ=environ)
    assert killed.wait() == -signal.SIGKILL, killed.log
    # A load from another machine, whose data folder holds no mark.
    ask(warehouse, f"create schema {tenant}_raw_shop; create table {tenant}_raw_shop.orders (id int)")

    # Its secrets are gone by then, and so is the login of who makes roles.
    killed = start(Case(command=command, kill="files.after:8"), environ=environ)
    assert killed.wait() == -signal.SIGKILL, killed.log
    assert ask(warehouse, f"select nspname from pg_namespace where nspname ~ '^(stg_)?{tenant}_(raw|fabric)'") == []
    assert not naming.sealed_secrets_file(settings.data_dir, tenant).exists()

    certificate = finish(start(Case(command=command), environ=get_environ(settings)))
    assert certificate["destination"].startswith("postgres, ")
    assert {each["table"]: each["rows"] for each in certificate["deleted"]["relations"] if each["schema"] == f"{tenant}_raw_shop"}["orders"] == 20
