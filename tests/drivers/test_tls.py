"""TLS options of a database's url, on every way that leads to it: looking up tables, reading rows, loading, leases and checks, dbt.

The tests' own Postgres was built without TLS, so a front speaks it; MariaDB is started with certificates of the tests' own.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pymysql
import pytest
import sqlalchemy as sqla

from fabric_assets.config.sources.models import SqlDatabaseSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.sql_database import readers as sql_readers
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import Query
from fabric_assets.drivers.destinations import connect
from fabric_assets.drivers.postgres_destination import Postgres
from fabric_assets.errors import ConfigurationError, DestinationError, FabricError, SourceError
from fabric_assets.offboarding.postgres_schemas import PostgresSchemas
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Relation
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.server import open_server
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import get_server_login
from fabric_assets.transform.process import build_environment
from fabric_assets.warehouse.lease import load_lease
from fabric_assets.warehouse.postgres import open_sessions
from tests.conftest import ROOT
from tests.support.certificates import Authority
from tests.support.services import PostgresServer, get_free_port, report_missing
from tests.support.shop import Tenant, write_secret_file
from tests.support.tls_front import TlsFront

ROWS = [(1, "Åre"), (2, "Bern")]


@dataclass(frozen=True)
class Tls:
    """Args:
    mutual: a front that wants the client's certificate as well.
    plain: the port of the server itself, which has no TLS.
    """

    front: TlsFront
    mutual: TlsFront
    plain: int
    database: str
    authority: Authority
    stranger: Authority
    client: tuple[Path, Path]

    def get_url(self, case: str) -> str:
        trust, (certificate, key) = self.authority.certificate, self.client
        full = {"sslmode": "verify-full", "sslrootcert": trust}
        urls: dict[str, Callable[[], str]] = {
            "verified": lambda: self.front.get_url(self.database, **full),
            "encrypted": lambda: self.front.get_url(self.database, sslmode="require"),
            "mutual": lambda: self.mutual.get_url(self.database, **full, sslcert=certificate, sslkey=key),
            "wrong authority": lambda: self.front.get_url(self.database, sslmode="verify-full", sslrootcert=self.stranger.certificate),
            "wrong host": lambda: self.front.get_url(self.database, host="127.0.0.1", **full),
            "no authority": lambda: self.front.get_url(self.database, sslmode="verify-full", sslrootcert="/nowhere/ca.pem"),
            "no client": lambda: self.mutual.get_url(self.database, **full, sslcert="/nowhere/client.pem"),
            "no tls": lambda: f"postgresql://postgres:postgres@localhost:{self.plain}/{self.database}?sslmode=require",
        }
        return urls[case]()


GOOD = ["verified", "encrypted", "mutual"]
BAD = {
    "wrong authority": ("certificate verify failed", "name the authority that signed the certificate"),
    "wrong host": ('does not match host name "127.0.0.1"', "write the host as the server's certificate names it"),
    "no authority": ('root certificate file "/nowhere/ca.pem" does not exist', "correct the path in the url"),
    "no client": ("certificate required", "with the client's certificate where the server wants one"),
    "no tls": ("server does not support SSL, but SSL was required", "let the server speak TLS"),
}


@pytest.fixture(scope="module")
def tls(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    authority, stranger = (Authority(tmp_path_factory.mktemp(name)) for name in ("ours", "strangers"))
    identity, client = authority.issue("server", "localhost"), authority.issue("client", "postgres")
    admin = psycopg2.connect(postgres_server.get_url())
    admin.autocommit = True
    with (
        TlsFront(postgres_server.port, identity) as front,
        TlsFront(postgres_server.port, identity, clients=authority.certificate) as mutual,
        contextlib.closing(admin),
        admin.cursor() as cursor,
    ):
        cursor.execute("create database behind_tls template template0 strategy file_copy")
        with contextlib.closing(psycopg2.connect(postgres_server.get_url("behind_tls"))) as shop, shop, shop.cursor() as inside:
            inside.execute("create table stores (id integer primary key, name text)")
            inside.executemany("insert into stores values (%s, %s)", ROWS)
        yield Tls(front, mutual, postgres_server.port, "behind_tls", authority, stranger, client)
        cursor.execute("drop database behind_tls with (force)")


# --- the ways to a Postgres


def open_database(url: str, settings: Settings) -> Database:
    write_secret_file(settings, "shop_url", url)
    config = SqlDatabaseSource.model_validate({"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"stores": {}}})
    return sql_readers.open_database(config, url, label="tenant acme, source shop")


def make_tenant(url: str, settings: Settings) -> TenantConfig:
    write_secret_file(settings, "warehouse_url", url)
    return TenantConfig.model_validate({"version": 1, "tenant": "acme", "destination": {"type": "postgres", "url": {"file": "warehouse_url"}}})


def look_up(url: str, settings: Settings) -> list[Any]:
    with contextlib.closing(open_database(url, settings)) as database:
        return sorted(database.reflect(["stores"])["stores"])


def read_rows(url: str, settings: Settings) -> list[Any]:
    with contextlib.closing(open_database(url, settings)) as database:
        names = {"id": sqla.Integer(), "name": sqla.Text()}
        columns = tuple(database.build_column(name, declared, label="here", value_forms=2) for name, declared in names.items())
        tables = list(sql_readers.read(database, Query(columns, database.quote_table("stores")), label="tenant acme, source shop, stream stores"))
        return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def open_session(url: str, settings: Settings) -> list[Any]:
    with open_sessions(Postgres(make_tenant(url, settings), settings)) as connect_session:
        session = connect_session()
        try:
            return [tuple(row.values()) for row in session.query("select id, name from public.stores order by id").to_pylist()]
        finally:
            session.abort()


def acquire_lease(url: str, settings: Settings) -> list[Any]:
    with load_lease(make_tenant(url, settings), "shop", settings):
        return []


def check(url: str, settings: Settings) -> list[Any]:
    with contextlib.closing(connect(make_tenant(url, settings), settings, read_only=True)) as connection, connection.cursor() as cursor:
        cursor.execute("select id, name from public.stores order by id")
        return cursor.fetchall()


WAYS = {look_up: ["id", "name"], read_rows: ROWS, open_session: ROWS, acquire_lease: [], check: ROWS}
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@pytest.mark.parametrize("case", GOOD)
@each_way
def test_a_trusted_connection_is_made_on_every_way(tls: Tls, settings: Settings, way: Callable[[str, Settings], list[Any]], case: str) -> None:
    assert way(tls.get_url(case), settings) == WAYS[way]


@pytest.mark.parametrize("case", BAD)
@each_way
def test_an_untrusted_server_is_refused_on_every_connection_with_a_clear_message(
    tls: Tls, settings: Settings, way: Callable[[str, Settings], list[Any]], case: str
) -> None:
    with pytest.raises(FabricError) as caught:
        way(tls.get_url(case), settings)
    reason, remedy = BAD[case]
    assert type(caught.value) in (SourceError, DestinationError)
    assert "no trusted TLS connection" in caught.value.message
    assert reason in caught.value.message
    assert remedy in caught.value.remedy
    assert ":postgres@" not in str(caught.value)


def test_rows_travel_encrypted_from_one_database_to_another(tls: Tls, settings: Settings) -> None:
    tenant = Tenant(settings, {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"stores": {}}}, warehouse=tls.get_url("verified"))
    write_secret_file(settings, "shop_url", tls.get_url("mutual"))
    tenant.load()
    assert tenant.read("stores", "id", "name") == ROWS


def provision(url: str, settings: Settings) -> list[Any]:
    with open_server(get_server_login(make_tenant(url, settings), settings)) as server:
        return sorted(server.ask("select id, name from public.stores"))


def export(url: str, settings: Settings) -> list[Any]:
    login = get_server_login(make_tenant(url, settings), settings)
    schemas = PostgresSchemas(TenantNameMatcher("acme"), ServerEntitlements("acme", login.database, ()), login=login, reader=None, is_managed=False)
    relation = Relation("public", "stores", database=login.database)
    with schemas.read(relation, schemas.get_columns(relation, as_text=False)) as (_, batches):
        return sorted(tuple(row.values()) for row in batches.read_all().to_pylist())


EVERY_WAY = {**WAYS, provision: ROWS, export: ROWS}


@pytest.mark.parametrize("mode", ["verified", "encrypted"])
@pytest.mark.parametrize("way", EVERY_WAY, ids=lambda way: way.__name__)
def test_tls_does_not_depend_on_the_home_folder(
    tls: Tls, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, Settings], list[Any]], mode: str
) -> None:
    """Root's is closed to the fleet's user, which libpq takes for a certificate that cannot be read."""
    (tmp_path / ".postgresql").symlink_to(".postgresql")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(psycopg2.OperationalError, match="could not open certificate file"):
        psycopg2.connect(tls.get_url(mode))
    assert way(tls.get_url(mode), settings) == EVERY_WAY[way]


def test_a_url_without_a_check_connects_without_a_check(tls: Tls, settings: Settings) -> None:
    """What the refusals above are worth: the same server, and nobody minds under which name it is reached."""
    assert look_up(tls.front.get_url(tls.database, host="127.0.0.1", sslmode="prefer"), settings) == ["id", "name"]


def test_the_front_takes_nothing_in_plain_text(tls: Tls) -> None:
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(tls.front.get_url(tls.database, sslmode="disable"))


SHOW = """
import sys, json
from pathlib import Path
from fabric_assets.transform.worker.profiles import write_profile
from fabric_assets.transform.worker.dbt_call import call_dbt
write_profile(Path(sys.argv[1]), json.loads(sys.stdin.read()))
sys.exit(not call_dbt("show", "--inline", "select 1 as connected", project_dir=sys.argv[2], folder=Path(sys.argv[1])).success)
"""


@pytest.mark.parametrize(("case", "reason"), [("mutual", ""), ("wrong authority", "certificate verify failed")])
def test_dbt_connects_by_the_same_options(tls: Tls, settings: Settings, tmp_path: Path, case: str, reason: str) -> None:
    """By the profile that a run writes, in the environment that it has."""
    from fabric_assets.transform.build import _get_destination

    destination = _get_destination(make_tenant(tls.get_url(case), settings), settings)
    (folder := tmp_path / "run").mkdir()
    (project := tmp_path / "project").mkdir()
    (project / "dbt_project.yml").write_text("{name: connecting, profile: fabric}")
    command = [sys.executable, "-c", SHOW, str(folder), str(project)]
    done = subprocess.run(command, input=json.dumps(destination), env=build_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not reason), done.stderr
    assert reason in done.stderr


# --- MariaDB


@dataclass(frozen=True)
class Maria:
    """A MariaDB of the tests' own that takes no plain connection over the network."""

    port: int
    authority: Authority
    stranger: Authority
    client: tuple[Path, Path]

    def get_url(self, query: str, *, host: str = "localhost") -> str:
        return f"mysql://tls:secret@{host}:{self.port}/shop?{query}"


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maria]:
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    install = shutil.which("mariadb-install-db")
    if server is None or install is None:
        report_missing("MariaDB's server", "mariadbd and mariadb-install-db are not on PATH")
    authority, stranger = (Authority(tmp_path_factory.mktemp(name)) for name in ("ours", "strangers"))
    (certificate, key), port = authority.issue("server", "localhost"), get_free_port()
    folder = Path(tempfile.mkdtemp(prefix="fabric-maria-"))
    (folder / "tmp").mkdir()
    # Without the kernel's asynchronous writing, whose memory two servers on one machine may not both get. And not in /tmp: a server
    # that starts there deletes the temporary tables of every other.
    server_options = ["--innodb-use-native-aio=0", f"--tmpdir={folder}/tmp", f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'nobody')}"]
    made = subprocess.run(
        [install, "--no-defaults", f"--datadir={folder}/data", "--auth-root-authentication-method=normal", "--skip-test-db", *server_options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert made.returncode == 0, made.stdout
    options = [f"--ssl-cert={certificate}", f"--ssl-key={key}", f"--ssl-ca={authority.certificate}", "--require-secure-transport=on"]
    options += [f"--datadir={folder}/data", f"--socket={folder}/socket", f"--port={port}", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([server, "--no-defaults", *options, *server_options], stdout=log, stderr=log)
    try:
        admin = connect_when_up(folder)
        with contextlib.closing(admin), admin.cursor() as cursor:
            cursor.execute("create database shop character set utf8mb4")
            cursor.execute("create user tls@'%' identified by 'secret'")
            cursor.execute("create user known@'%' identified by 'secret' require x509")
            for name in ("tls", "known"):
                cursor.execute(f"grant all on shop.* to {name}@'%'")
            cursor.execute("create table shop.stores (id integer primary key, name varchar(20))")
            cursor.executemany("insert into shop.stores values (%s, %s)", ROWS)
            admin.commit()
        yield Maria(port, authority, stranger, authority.issue("client", "known"))
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def connect_when_up(folder: Path) -> Any:
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(folder / "socket")) == 0:
                return pymysql.connect(unix_socket=str(folder / "socket"), user="root", charset="utf8mb4")
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.1)


def ask_cipher(database: Database) -> str:
    with database.engine.connect() as connection:
        return connection.exec_driver_sql("show status like 'Ssl_cipher'").one()[1]


@pytest.mark.parametrize("way", [look_up, read_rows], ids=lambda way: way.__name__)
def test_mariadb_is_read_over_a_checked_connection(maria: Maria, settings: Settings, way: Callable[[str, Settings], list[Any]]) -> None:
    url = maria.get_url(f"ssl_ca={maria.authority.certificate}&charset=utf8mb4")
    assert way(url, settings) == WAYS[way]
    with contextlib.closing(open_database(url, settings)) as database:
        assert ask_cipher(database).startswith("TLS_")


def test_mariadb_takes_the_clients_certificate(maria: Maria, settings: Settings) -> None:
    certificate, key = maria.client
    shown = maria.get_url(f"ssl_ca={maria.authority.certificate}&ssl_cert={certificate}&ssl_key={key}").replace("tls:", "known:")
    assert read_rows(shown, settings) == ROWS
    with pytest.raises(SourceError, match="refuses the login"):
        read_rows(maria.get_url(f"ssl_ca={maria.authority.certificate}").replace("tls:", "known:"), settings)


@pytest.mark.parametrize("way", [look_up, read_rows], ids=lambda way: way.__name__)
def test_a_mariadb_that_cannot_be_trusted_is_refused(maria: Maria, settings: Settings, way: Callable[[str, Settings], list[Any]]) -> None:
    wrong = {
        "certificate verify failed": maria.get_url(f"ssl_ca={maria.stranger.certificate}"),
        "IP address mismatch": maria.get_url(f"ssl_ca={maria.authority.certificate}", host="127.0.0.1"),
    }
    for reason, url in wrong.items():
        with pytest.raises(SourceError, match=f"no trusted TLS connection.*{reason}"):
            way(url, settings)


def test_a_mariadb_without_tls_is_refused_where_the_url_asks_for_it(mariadb_url: str, maria: Maria, settings: Settings) -> None:
    """PyMySQL before 1.2 sent the login in plain text instead."""
    with pytest.raises(SourceError, match="SSL is required but the server doesn't support it"):
        look_up(f"{mariadb_url}?ssl_ca={maria.authority.certificate}", settings)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("ssl_verify_identity=true", "ssl_verify_identity would have no effect"),
        ("ssl_mode=REQUIRED", "ssl_mode would have no effect"),
        ("ssl_check_hostname=yes", "ssl_check_hostname is neither true nor false"),
        ("ssl_check_hostname=true", "ssl_check_hostname checks nothing without ssl_ca or ssl_capath"),
        ("ssl_check_hostname=True&ssl_cert=/dev/null&ssl_key=/dev/null", "ssl_check_hostname checks nothing without ssl_ca or ssl_capath"),
        ("ssl_ca=/nowhere/ca.pem", "ssl_ca names '/nowhere/ca.pem', which does not exist"),
    ],
)
def test_parameters_of_a_mysql_url_without_an_effect_are_refused(settings: Settings, query: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_database(f"mysql://tls:secret@localhost/shop?{query}", settings)
    assert message in caught.value.message
