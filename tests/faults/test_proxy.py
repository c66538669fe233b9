"""The proxy does to a connection what the tests of servers rely on."""

from collections.abc import Callable, Iterator

import psycopg2
import pytest

from tests.faults.proxy import Proxy, reroute
from tests.support.services import PostgresServer


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(postgres_server.port) as proxy:
        yield proxy


def test_it_forwards_both_ways(make_database: Callable[[], str], proxy: Proxy) -> None:
    connection = psycopg2.connect(reroute(make_database(), proxy))
    with connection, connection.cursor() as cursor:
        cursor.execute("select repeat('x', 1000000)")
        assert cursor.fetchone() == ("x" * 1_000_000,)
    connection.close()


def test_a_reset_ends_connections(make_database: Callable[[], str], proxy: Proxy) -> None:
    connection = psycopg2.connect(reroute(make_database(), proxy))
    proxy.reset()
    with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
        cursor.execute("select 1")
    connection.close()


def test_a_hole_swallows_new_connections_too_until_it_is_healed(make_database: Callable[[], str], proxy: Proxy) -> None:
    url = reroute(make_database(), proxy)
    proxy.after(1, proxy.hole)
    with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
        psycopg2.connect(url, connect_timeout=2)
    proxy.heal()
    psycopg2.connect(url, connect_timeout=5).close()


def test_a_lost_commit_has_happened(make_database: Callable[[], str], proxy: Proxy) -> None:
    direct = make_database()
    connection = psycopg2.connect(reroute(direct, proxy))
    with connection.cursor() as cursor:
        cursor.execute("create table t (i integer)")
        connection.commit()
        proxy.lose_commit("t")
        cursor.copy_expert("copy t from stdin", _File())
        with pytest.raises(psycopg2.OperationalError):
            connection.commit()
    connection.close()
    assert proxy.lost_answers == 1
    with psycopg2.connect(direct) as second, second.cursor() as cursor:
        cursor.execute("select i from t")
        assert cursor.fetchall() == [(1,)]
    second.close()


class _File:
    def __init__(self) -> None:
        self._rest = "1\n"

    def read(self, _: int) -> str:
        text, self._rest = self._rest, ""
        return text
