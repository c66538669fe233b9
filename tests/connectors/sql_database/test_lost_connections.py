"""A connection that is lost, in whatever words, is worth another try: from a source and to a destination, over TLS and without."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from fabric_assets.connectors.sql_database.database import Database, parse_url
from fabric_assets.drivers.outages import is_outage
from fabric_assets.errors import DestinationUnavailable, SourceError, SourceUnavailable
from fabric_assets.loading.failures import build_error
from fabric_assets.settings import Settings
from tests.connectors.sql_database.sql import Reading
from tests.faults.proxy import Proxy
from tests.support.certificates import Authority
from tests.support.services import PostgresServer
from tests.support.shop import SourceDatabase, Tenant, write_secret_file
from tests.support.tls_front import TlsFront

WORDS = [
    "SSL error: unexpected eof while reading",
    "SSL SYSCALL error: EOF detected",
    "SSL connection has been closed unexpectedly",
    "[Errno 104] Connection reset by peer",
    "could not send data to server: Broken pipe",
    "could not receive data from server: Connection timed out",
    "no connection to the server",
    "EOF occurred in violation of protocol (_ssl.c:2417)",
    "ERROR: canceling statement due to conflict with recovery",
    "ERROR: deadlock detected",
    "(1213, 'Deadlock found when trying to get lock; try restarting transaction')",
    "FATAL: sorry, too many clients already",
    "FATAL: the database system is starting up",
    "database is locked",
]


@pytest.fixture
def tls(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Proxy]:
    """A way to the tests' Postgres over TLS, which can be cut."""
    with TlsFront(postgres_server.port, Authority(tmp_path / "ca").issue("server", "localhost")) as front, Proxy(front.port) as proxy:
        yield proxy


@pytest.mark.parametrize("words", WORDS)
def test_a_lost_connection_is_retried_whatever_its_message(settings: Settings, words: str) -> None:
    database = Database(parse_url("postgresql://reader@localhost/shop", label="shop", origin="url"), None, "shop", 60)
    assert isinstance(database.explain(psycopg2.OperationalError(words), label="shop"), SourceUnavailable)
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    assert isinstance(build_error(psycopg2.OperationalError(words), tenant=tenant, settings=settings, where="shop", writing=True), DestinationUnavailable)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "whatever it says"), ConnectionAbortedError(), BrokenPipeError()])
def test_a_connection_error_is_worth_another_try_whatever_it_says(settings: Settings, error: Exception) -> None:
    database = Database(parse_url("mysql://reader@localhost/shop", label="shop", origin="url"), None, "shop", 60)
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"orders": {}}}).config
    assert isinstance(database.explain(error, label="shop"), SourceUnavailable)
    assert isinstance(build_error(error, tenant=tenant, settings=settings, where="shop"), SourceUnavailable)
    assert isinstance(build_error(error, tenant=tenant, settings=settings, where="shop", writing=True), DestinationUnavailable)


@pytest.mark.parametrize("words", ['column "locked" does not exist', 'relation "timeouts" does not exist', "password authentication failed for user"])
def test_a_refusal_that_only_sounds_like_it_is_not(settings: Settings, words: str) -> None:
    database = Database(parse_url("postgresql://reader@localhost/shop", label="shop", origin="url"), None, "shop", 60)
    assert isinstance(database.explain(psycopg2.OperationalError(words), label="shop"), SourceError)


def test_an_error_without_a_message_is_reported_by_its_type() -> None:
    database = Database(parse_url("postgresql://reader@localhost/shop", label="shop", origin="url"), None, "shop", 60)
    told = database.explain(MemoryError(), label="shop")
    assert isinstance(told, SourceError)
    assert told.message == "shop: the database answers with an error: MemoryError without a word, as when memory has run out"


def test_a_quoted_statement_is_not_an_outage() -> None:
    assert not is_outage(psycopg2.ProgrammingError("cannot cast: select session_timeout, deadlocks from unlocked_doors"))


def test_a_server_that_speaks_another_language_is_understood_by_its_code(postgres_database: str) -> None:
    database = Database(parse_url(postgres_database, label="shop", origin="url"), None, "shop", 60)
    with psycopg2.connect(postgres_database) as connection, connection.cursor() as cursor, pytest.raises(psycopg2.Error) as caught:
        cursor.execute("do $$ begin raise exception 'Verklemmung entdeckt' using errcode = '40P01'; end $$")
    assert isinstance(database.explain(caught.value, label="shop"), SourceUnavailable)


@pytest.mark.parametrize("cut", [Proxy.end, Proxy.reset])
def test_a_source_that_is_lost_over_tls_is_retried(postgres_database: str, settings: Settings, tls: Proxy, cut: Callable[[Proxy], None]) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table orders as select n as id, repeat('x', 1000) as pad from generate_series(1, 50000) as n")
    write_secret_file(settings, "shop_url", _over_tls(postgres_database, tls))
    tls.after(5_000_000, lambda: cut(tls))
    with pytest.raises(SourceUnavailable, match="stream orders"):
        Reading(database, settings, orders={}).read()


@pytest.mark.parametrize("cut", [Proxy.end, Proxy.reset])
def test_a_destination_that_is_lost_over_tls_is_retried(
    postgres_database: str, mariadb_url: str, settings: Settings, tls: Proxy, cut: Callable[[Proxy], None]
) -> None:
    source = SourceDatabase(mariadb_url, settings)
    source.run("create table orders (id integer, pad varchar(1000))", "insert into orders select seq, repeat('x', 1000) from seq_1_to_50000")
    tenant = Tenant(settings, source.build_source(orders={}), warehouse=_over_tls(postgres_database, tls))
    tls.after(5_000_000, lambda: cut(tls))
    with pytest.raises(DestinationUnavailable):
        tenant.load()
    assert tenant.ask("select status, retriable from acme_fabric.loads") == [("failed", True)]
    assert tenant.load()["orders"].rows_total == 50_000


@pytest.mark.parametrize("cut", [Proxy.end, Proxy.reset])
def test_a_mariadb_that_is_lost_while_it_is_read_is_retried(mariadb_url: str, settings: Settings, cut: Callable[[Proxy], None]) -> None:
    database = SourceDatabase(mariadb_url, settings)
    database.run("create table orders (id integer, pad varchar(1000))", "insert into orders select seq, repeat('x', 1000) from seq_1_to_50000")
    with Proxy(urlsplit(mariadb_url).port or 3306) as proxy:
        write_secret_file(settings, "shop_url", mariadb_url.replace(f":{urlsplit(mariadb_url).port}", f":{proxy.port}"))
        proxy.after(5_000_000, lambda: cut(proxy))
        with pytest.raises(SourceUnavailable, match="stream orders"):
            Reading(database, settings, orders={}).read()


def _over_tls(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    return f"postgresql://postgres:postgres@localhost:{proxy.port}{parts.path}?sslmode=require"
