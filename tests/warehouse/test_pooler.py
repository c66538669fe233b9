"""Postgres destinations behind pgbouncer: loads work in session mode; where sessions share a connection by turns they are refused by name."""

import contextlib
from urllib.parse import urlsplit

import psycopg2
import pytest

from fabric_assets.drivers.destinations import connect
from fabric_assets.errors import DestinationError, LeaseHeld, SourceError
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import load_lease
from tests.support.services import PostgresServer, start_pgbouncer
from tests.support.shop import SourceDatabase, Tenant
from tests.warehouse.test_lease import build_tenant

ORDERS = "create table orders (id integer primary key, note varchar(20))"


def through(url: str, port: int) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{port}/")


@pytest.mark.parametrize("more", ["", "ignore_startup_parameters = options,extra_float_digits", "default_pool_size = 6\nserver_round_robin = 1"])
def test_in_session_mode_loads_and_their_leases_work(
    sqlite: SourceDatabase, settings: Settings, postgres_server: PostgresServer, postgres_database: str, more: str
) -> None:
    sqlite.run(ORDERS)
    sqlite.fill("orders", [(1, "é"), (2, "Ω")])
    with start_pgbouncer(postgres_server, "session", more=more) as port:
        tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=through(postgres_database, port))
        for count in (2, 3):
            assert tenant.load()["orders"].rows_total == count
            sqlite.fill("orders", [(count + 1, "more")])
        assert tenant.read("orders", "id", "note") == [(1, "é"), (2, "Ω"), (3, "more")]
        pooled, direct = build_tenant(settings, through(postgres_database, port)), build_tenant(settings, postgres_database)
        with contextlib.closing(connect(pooled, settings)) as connection, connection.cursor() as cursor:
            cursor.execute("show search_path")
            assert cursor.fetchone() == ("pg_catalog",)
        for first, second in ((pooled, direct), (direct, pooled)):
            # The secret's file holds one url for both: the first one's until it is connected.
            build_tenant(settings, through(postgres_database, port) if first is pooled else postgres_database)
            with load_lease(first, "shop", settings, timeout_seconds=5):
                build_tenant(settings, postgres_database if first is pooled else through(postgres_database, port))
                with pytest.raises(LeaseHeld, match="fabric load, process"), load_lease(second, "shop", settings, timeout_seconds=0):
                    pass


@pytest.mark.parametrize("more", ["", "default_pool_size = 1", "server_round_robin = 1\ndefault_pool_size = 4", "ignore_startup_parameters = options"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_in_other_modes_a_load_is_refused_by_name_and_leaves_nothing_behind(
    sqlite: SourceDatabase, settings: Settings, postgres_server: PostgresServer, postgres_database: str, mode: str, more: str
) -> None:
    sqlite.run(ORDERS)
    with start_pgbouncer(postgres_server, mode, more=more) as port:
        url = through(postgres_database, port)
        tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=url)
        for _ in range(2):
            with pytest.raises(DestinationError, match=r"behind a connection pooler in transaction mode.*\n  remedy: set pool_mode = session"):
                tenant.load()
        # What other clients of the pool find is as they left it.
        for _ in range(3):
            with contextlib.closing(psycopg2.connect(url)) as other:
                other.autocommit = True
                with other.cursor() as cursor:
                    cursor.execute("select current_setting('search_path'), current_setting('statement_timeout')")
                    assert cursor.fetchone() == ('"$user", public', "0")
    with contextlib.closing(psycopg2.connect(postgres_database)) as admin, admin.cursor() as cursor:
        cursor.execute("select nspname from pg_namespace where nspname !~ '^(pg_|information_schema|public)'")
        assert cursor.fetchall() == []


def test_a_source_whose_pooler_refuses_the_sessions_settings_is_named_with_what_to_change(
    settings: Settings, postgres_server: PostgresServer, postgres_database: str
) -> None:
    for more, is_refused in (("", True), ("ignore_startup_parameters = options", False)):
        with start_pgbouncer(postgres_server, "transaction", more=more) as port:
            shop = SourceDatabase(postgres_database, settings)
            if is_refused:
                shop.run(ORDERS)
                shop.fill("orders", [(1, "one")])
            tenant = Tenant(settings, SourceDatabase(through(postgres_database, port), settings).build_source(orders={"primary_key": "id"}))
            if is_refused:
                with pytest.raises(SourceError, match=r"the pooler .* refuses .*\n  remedy: add to pgbouncer.ini: ignore_startup_parameters"):
                    tenant.load()
            else:
                assert tenant.load()["orders"].rows_total == 1
                assert tenant.read("orders", "id", "note") == [(1, "one")]
