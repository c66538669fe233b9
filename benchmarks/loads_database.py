"""The tables that the load benchmarks read: TPC-H's lineitem, in a Postgres of their own or a given one."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from tests.support.services import PostgresServer

ROWS_PER_SCALE = 5_999_000
STREAMS, STREAM_ROWS = 200, 1_000
_COLUMNS = (
    "l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber integer, l_quantity numeric(15,2), l_extendedprice numeric(15,2),"
    " l_discount numeric(15,2), l_tax numeric(15,2), l_returnflag char(1), l_linestatus char(1), l_shipdate date, l_commitdate date,"
    " l_receiptdate date, l_shipinstruct char(25), l_shipmode char(10), l_comment varchar(44)"
)


class Databases:
    """Makes databases on one server.

    Args:
        url: of the server's maintenance database, for a login that may create others.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, name: str) -> str:
        """Make a database anew and give its URL."""
        with contextlib.closing(psycopg2.connect(self._url)) as admin:
            admin.autocommit = True
            admin.cursor().execute(f"drop database if exists {name} with (force)")
            admin.cursor().execute(f"create database {name} template template0")
        return f"{self._url.rpartition('/')[0]}/{name}"

    def drop(self, name: str) -> None:
        with contextlib.closing(psycopg2.connect(self._url)) as admin:
            admin.autocommit = True
            admin.cursor().execute(f"drop database if exists {name} with (force)")


@contextlib.contextmanager
def open_server(url: str | None) -> Iterator[Databases]:
    if url:
        yield Databases(url)
        return
    server = PostgresServer()
    try:
        server.start()
        yield Databases(server.get_url())
    finally:
        server.remove()


def fill_lineitem(url: str, rows: int, *, generator: Path, folder: Path) -> None:
    """Make the table with so many rows: the first of TPC-H's."""
    scale = f"{rows / ROWS_PER_SCALE * 1.02 + 0.001:.3f}"
    subprocess.run([generator, "csv", "-s", scale, "--tables", "lineitem", "--output-dir", folder], check=True, capture_output=True)
    (file,) = folder.glob("lineitem*.csv")
    head = subprocess.Popen(["head", "-n", str(rows + 1), file], stdout=subprocess.PIPE)
    with head, contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        assert head.stdout
        cursor.execute(f"create table lineitem ({_COLUMNS}, primary key (l_orderkey, l_linenumber))")
        cursor.copy_expert("copy lineitem from stdin (format csv, header)", head.stdout, 1 << 20)
        assert cursor.rowcount == rows, (cursor.rowcount, rows)
        connection.commit()
        connection.autocommit = True
        cursor.execute("vacuum analyze lineitem")
    file.unlink()


def add_slices(url: str) -> None:
    """Add the schema `slices`: tables of a thousand rows each, and one with all of them."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("create schema slices")
        cursor.execute(f"create table slices.whole as select * from lineitem order by l_orderkey, l_linenumber limit {STREAMS * STREAM_ROWS}")
        for number in range(STREAMS):
            part = f"order by l_orderkey, l_linenumber offset {number * STREAM_ROWS} limit {STREAM_ROWS}"
            cursor.execute(f"create table slices.s{number} as select * from slices.whole {part}")
        connection.commit()


def add_changes(url: str) -> None:
    """Add the schema `changing`: lineitem with the moment of each row's last change."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("create schema changing")
        cursor.execute(
            "create table changing.lineitem as"
            " select *, timestamp '2026-01-01' + row_number() over (order by l_orderkey, l_linenumber) * interval '1 millisecond' as l_changed from lineitem"
        )
        cursor.execute("alter table changing.lineitem add primary key (l_orderkey, l_linenumber)")
        cursor.execute("create index on changing.lineitem (l_changed)")
        connection.commit()
        connection.autocommit = True
        # As a database in use is: without statistics Postgres reads the whole table for the one row that is newest.
        cursor.execute("vacuum analyze changing.lineitem")


def change_one_percent(url: str) -> int:
    """Change every hundredth row, and give their number."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "update changing.lineitem set l_quantity = l_quantity + 1,"
            " l_changed = (select max(l_changed) from changing.lineitem) + (l_orderkey * 7 + l_linenumber) * interval '1 millisecond'"
            " where (l_orderkey * 7 + l_linenumber) % 100 = 0"
        )
        changed = cursor.rowcount
        connection.commit()
    return changed


def sum_up(url: str, table: str) -> tuple[object, ...]:
    """What two copies of lineitem must agree on."""
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(build_sum(table))
        return cursor.fetchone() or ()


def build_sum(table: str) -> str:
    return f"select count(*), sum(l_orderkey), sum(l_quantity), sum(l_extendedprice), max(l_receiptdate), sum(length(l_comment)) from {table}"
