"""Real servers for tests: Postgres, S3 and what the machine offers (MariaDB, Redis, a browser).

Postgres and S3 are started by the tests themselves, so they are always there. What only the machine can offer is skipped
where it is missing, and fails instead under FABRIC_TEST_SERVICES=required: there a skip would hide a lost test.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

from scripts.local_postgres import PostgresServer, get_free_port

__all__ = ["PostgresServer", "get_free_port"]

MARIADB_URL = "mysql+pymysql://root@127.0.0.1:3306"
REDIS_URL = "redis://127.0.0.1:6379/15"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def report_missing(service: str, reason: str) -> NoReturn:
    """Skip, or fail where FABRIC_TEST_SERVICES=required."""
    if os.environ.get("FABRIC_TEST_SERVICES") == "required":
        pytest.fail(f"{service} is required and missing: {reason}", pytrace=False)
    pytest.skip(f"{service} is missing: {reason}")


def _name_database() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


# --- Postgres


@contextlib.contextmanager
def start_server(*, asks_for_passwords: bool = False, connections: int = 60) -> Iterator[PostgresServer]:
    """A Postgres of the caller's own.

    Args:
        asks_for_passwords: of everyone but the superuser; else it trusts every login.
    """
    server = PostgresServer()
    try:
        if asks_for_passwords:
            (server.data / "pg_hba.conf").write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.start(connections=connections)
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's (each xdist worker's) own Postgres."""
    with start_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """postgresql:// URL of the maintenance database: for tests that make databases or roles."""
    return postgres_server.get_url()


@contextlib.contextmanager
def making_databases(server: PostgresServer) -> Iterator[Callable[..., str]]:
    """A function that makes fresh Postgres databases and gives their URLs; they are dropped at the end.

    They are empty and in UTF-8, unless another encoding is named, or a database without sessions to copy.
    """
    import psycopg2

    made = list[str]()
    admin = psycopg2.connect(server.get_url())
    admin.autocommit = True
    with contextlib.closing(admin), admin.cursor() as cursor:

        def make(encoding: str = "UTF8", *, template: str = "template0") -> str:
            made.append(_name_database())
            # By the write-ahead log, which is the default, it takes 240 ms instead of 36.
            options = "strategy file_copy" if encoding == "UTF8" else f"encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
            cursor.execute(f"create database {made[-1]} template {template} {options}")
            return server.get_url(made[-1])

        yield make
        for name in made:
            cursor.execute(f"drop database if exists {name} with (force)")


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> Iterator[Callable[..., str]]:
    """Makes fresh, empty Postgres databases, in UTF-8 unless another encoding is named, and gives their URLs."""
    with making_databases(postgres_server) as make:
        yield make


@pytest.fixture
def postgres_database(make_database: Callable[..., str]) -> str:
    """postgresql:// URL of a fresh, empty database."""
    return make_database()


# --- what the machine offers

PGBOUNCER = "/usr/sbin/pgbouncer"
_PGBOUNCER_INI = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
logfile = {folder}/log
{more}
"""


@contextlib.contextmanager
def start_pgbouncer(server: PostgresServer, mode: str, *, more: str = "") -> Iterator[int]:
    """Run pgbouncer in front of a Postgres that trusts its superuser; gives its port.

    Args:
        more: further lines of its configuration.
    """
    if not Path(PGBOUNCER).exists():
        report_missing("pgbouncer", f"{PGBOUNCER} does not exist")
    port = get_free_port()
    # Not in a test's folder: pgbouncer refuses to run as root, and the user that runs it instead needs access.
    folder = Path(tempfile.mkdtemp(prefix="fabric-pgbouncer-"))
    (folder / "ini").write_text(_PGBOUNCER_INI.format(server=server.port, port=port, mode=mode, folder=folder, more=more))
    if server.user:
        for path in (folder, folder / "ini"):
            shutil.chown(path, server.user)
    process = subprocess.Popen([PGBOUNCER, "ini"], cwd=folder, user=server.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "pgbouncer did not start"
                assert time.monotonic() < deadline, "pgbouncer does not listen"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """mysql+pymysql:// URL of a fresh, empty MariaDB database (FABRIC_TEST_MARIADB_URL names another server)."""
    import pymysql

    url = os.environ.get("FABRIC_TEST_MARIADB_URL", MARIADB_URL)
    parts = urlsplit(url)
    try:
        admin = pymysql.connect(host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password or "", connect_timeout=3)
    except pymysql.err.OperationalError as error:
        report_missing("MariaDB", str(error))
    name = _name_database()
    with contextlib.closing(admin), admin.cursor() as cursor:
        cursor.execute(f"create database {name} character set utf8mb4")
        yield f"{url.rstrip('/')}/{name}"
        cursor.execute(f"drop database if exists {name}")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """redis:// URL of a database that tests may fill (FABRIC_TEST_REDIS_URL names another)."""
    url = os.environ.get("FABRIC_TEST_REDIS_URL", REDIS_URL)
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=3) as connection:
            connection.sendall(b"PING\r\n")
            if not connection.recv(64).startswith(b"+PONG"):
                report_missing("Redis", f"no PONG from {parts.hostname}:{parts.port}")
    except OSError as error:
        report_missing("Redis", str(error))
    return url


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium browser for playwright's `executable_path` (as root it needs `--no-sandbox`)."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    report_missing("a browser", f"none of {', '.join(BROWSERS)} is on PATH")


# --- S3


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a store that speaks S3.

    Args:
        client: boto3's, to fill the bucket with.
    """

    endpoint_url: str
    name: str
    access_key_id: str
    secret_access_key: str
    region: str
    client: Any

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> Bucket:
    """A fresh bucket."""
    import boto3

    name, login = f"test-{uuid.uuid4().hex[:12]}", {"aws_access_key_id": "tests", "aws_secret_access_key": "s3-test-secret"}
    client: Any = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1", **login)
    client.create_bucket(Bucket=name)
    return Bucket(s3_endpoint, name, login["aws_access_key_id"], login["aws_secret_access_key"], "us-east-1", client)
