"""A login that lacks a field gets an error or nothing, never a login from the process's environment or home. That would be another tenant's, or the operator's.

Each test plants a working login where libraries look for one. It shows that the library alone would use it, and that the platform does not.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg2
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.files.listing import open_bucket
from fabric_assets.connectors.sql_database import readers as sql_readers
from fabric_assets.drivers.destinations import connect
from fabric_assets.drivers.postgres_destination import Postgres
from fabric_assets.errors import ConfigurationError, FabricError, SourceError
from fabric_assets.offboarding.postgres_schemas import PostgresSchemas
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Relation
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.server import open_server
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import get_server_login
from fabric_assets.warehouse.postgres import open_sessions
from tests.support.services import Bucket, PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that asks for passwords."""
    server = PostgresServer()
    try:
        server.start()
        with closing(psycopg2.connect(server.get_url())) as admin, admin, admin.cursor() as cursor:
            cursor.execute("create role operator superuser login password 'operator-pw'; create role tenant_a login password 'tenant-a-pw'")
            cursor.execute("create table secrets (id int); insert into secrets values (1); grant select on secrets to tenant_a")
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        os.kill(int((server.data / "postmaster.pid").read_text().splitlines()[0]), 1)
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg2.connect(server.get_url(), passfile=os.devnull + "/none").close()
                assert time.monotonic() < deadline
            except psycopg2.OperationalError:
                break
        yield server
    finally:
        server.remove()


def plant(where: str, server: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a login that works where libpq looks."""
    host, port = "127.0.0.1", server.port
    if where == "variables":
        for name, value in {"PGUSER": "operator", "PGPASSWORD": "operator-pw", "PGHOST": host, "PGPORT": str(port), "PGDATABASE": "postgres"}.items():
            monkeypatch.setenv(name, value)
    elif where == "password file":
        (folder / "pgpass").write_text("*:*:*:*:operator-pw\n*:*:*:tenant_a:tenant-a-pw\n")
        (folder / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(folder / "pgpass"))
    elif where == "home":
        (folder / ".pgpass").write_text("*:*:*:tenant_a:tenant-a-pw\n")
        (folder / ".pgpass").chmod(0o600)
        monkeypatch.delenv("PGPASSFILE", raising=False)
        monkeypatch.setenv("HOME", str(folder))
    elif where == "service":
        (folder / "services").write_text(f"[operator]\nhost={host}\nport={port}\nuser=operator\npassword=operator-pw\ndbname=postgres\n")
        monkeypatch.setenv("PGSERVICEFILE", str(folder / "services"))
        monkeypatch.setenv("PGSERVICE", "operator")
    else:
        monkeypatch.setenv("PGHOSTADDR", host)
    # The control: what is planted does open the door.
    login = {"user": "tenant_a"} if where in ("password file", "home") else {}
    known = {} if where in ("variables", "service") else {"host": "nowhere.invalid" if where == "address" else host, "port": port, "dbname": "postgres"}
    if where == "address":
        login = {"user": "tenant_a", "password": "tenant-a-pw"}
    if where == "password file":
        (folder / "pgpass").write_text("*:*:*:tenant_a:tenant-a-pw\n")
    psycopg2.connect(**{**known, **login}, connect_timeout=5).close()
    adbc.connect("connect_timeout=5 " + " ".join(f"{key}='{value}'" for key, value in {**known, **login}.items())).close()


def build_tenant(url_variable: str = "TENANT_URL") -> TenantConfig:
    return TenantConfig.model_validate(
        {
            "version": 1,
            "tenant": "acme",
            "destination": {"type": "postgres", "url": {"env": url_variable}},
            "sources": {"shop": {"type": "sql_database", "url": {"env": url_variable}, "streams": {"secrets": {}}}},
        }
    )


def _open_adbc(tenant: TenantConfig, settings: Settings) -> None:
    with open_sessions(Postgres(tenant, settings)) as open_session:
        open_session().abort()


def _open_source(tenant: TenantConfig, settings: Settings) -> Any:
    source = tenant.sources["shop"]
    return sql_readers.open_database(source, os.environ["TENANT_URL"], label="tenant acme, source shop")


def _reflect(database: Any) -> None:
    with closing(database):
        database.reflect(["secrets"])


def _read_with_adbc(database: Any) -> None:
    from fabric_assets.connectors.sql_database.postgres_reader import _begin

    with closing(database), _begin(database, "tenant acme, source shop") as cursor:
        cursor.execute("select current_user::text")
        assert cursor.fetchall() == [("tenant_a",)]


def _provision(tenant: TenantConfig, settings: Settings) -> None:
    with open_server(get_server_login(tenant, settings)):
        pass


def _export(tenant: TenantConfig, settings: Settings) -> None:
    login = get_server_login(tenant, settings)
    schemas = PostgresSchemas(TenantNameMatcher("acme"), ServerEntitlements("acme", "postgres", ()), login=login, reader=None, is_managed=False)
    schemas.get_columns(Relation("public", "secrets", database="postgres"), as_text=False)


USES: dict[str, Callable[[TenantConfig, Settings], Any]] = {
    "psycopg2, of a destination": lambda tenant, settings: connect(tenant, settings).close(),
    "ADBC, of a destination": _open_adbc,
    "SQLAlchemy, of a source": lambda tenant, settings: _reflect(_open_source(tenant, settings)),
    "ADBC, of a source": lambda tenant, settings: _read_with_adbc(_open_source(tenant, settings)),
    "psycopg2, of who provisions": _provision,
    "psycopg2, of an export": _export,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("where", ["variables", "password file", "home", "service", "address"])
def test_a_postgres_login_is_completed_from_nowhere(
    where: str, use: str, server: PostgresServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(where, server, tmp_path, monkeypatch)
    host = "nowhere.invalid" if where == "address" else "127.0.0.1"
    password = ":tenant-a-pw" if where == "address" else ""
    monkeypatch.setenv("TENANT_URL", f"postgresql://tenant_a{password}@{host}:{server.port}/postgres")
    with pytest.raises((FabricError, psycopg2.OperationalError), match="no password supplied|could not translate host name"):
        USES[use](build_tenant(), settings)


@pytest.mark.parametrize("use", USES)
def test_a_complete_login_is_used_whatever_the_environment_says(
    use: str, server: PostgresServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("variables", server, tmp_path, monkeypatch)
    monkeypatch.setenv("PGOPTIONS", "-crole=nobody")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("TENANT_URL", f"postgresql://tenant_a:tenant-a-pw@127.0.0.1:{server.port}/postgres")
    USES[use](build_tenant(), settings)


@pytest.mark.parametrize("lacking", ["postgresql://127.0.0.1:{port}/postgres", "postgresql://tenant_a:x@/postgres", "postgresql:///postgres"])
@pytest.mark.parametrize("use", USES)
def test_a_postgres_url_without_a_user_or_a_host_is_refused(
    use: str, lacking: str, server: PostgresServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("variables", server, tmp_path, monkeypatch)
    monkeypatch.setenv("TENANT_URL", lacking.format(port=server.port))
    with pytest.raises(ConfigurationError, match="lacks a host|has no user"):
        USES[use](build_tenant(), settings)


@pytest.mark.parametrize("parameter", ["passfile", "service", "servicefile"])
@pytest.mark.parametrize("use", USES)
def test_a_postgres_url_that_names_a_login_of_this_machine_is_refused(use: str, parameter: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT_URL", f"postgresql://tenant_a:x@127.0.0.1:1/postgres?{parameter}=/etc/other")
    with pytest.raises(ConfigurationError, match=f"the parameter {parameter}, which takes a login from a file of this machine"):
        USES[use](build_tenant(), settings)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://127.0.0.1/shop", "lacks a host or a user"),
        ("mysql://tenant_a@/shop", "lacks a host or a user"),
        ("mysql+pymysql://tenant_a@127.0.0.1/shop?read_default_file=/etc/my.cnf", "read_default_file"),
        ("mariadb://tenant_a@127.0.0.1/shop?local_infile=1", "local_infile"),
    ],
)
def test_a_mysql_login_is_completed_from_nowhere(url: str, reason: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "operator")
    monkeypatch.setenv("TENANT_URL", url)
    with pytest.raises(ConfigurationError, match=reason):
        _open_source(build_tenant(), settings)


def test_a_mysql_password_is_not_read_from_the_environment(mariadb_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(mariadb_url)
    (tmp_path / ".my.cnf").write_text(f"[client]\nuser={url.username}\npassword={url.password or ''}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MYSQL_PWD", url.password or "")
    monkeypatch.setenv("TENANT_URL", f"mysql://nobody_here@{url.host}:{url.port or 3306}/{url.database}")
    with pytest.raises(SourceError, match="refuses the login"):
        _open_source(build_tenant(), settings).reflect(["secrets"])


# --- buckets


def open_files(credentials: dict[str, Any], settings: Settings) -> Any:
    source = {"type": "files", "path": "s3://drop/acme", "credentials": credentials, "streams": {"tickets": {"glob": "*.csv", "format": "csv"}}}
    tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"exports": source}})
    config: Any = tenant.sources["exports"]
    return open_bucket(SourceContext("acme", "exports", config, ("tickets",), settings), config, "tenant acme, source exports")


def test_an_s3_login_is_complete_whatever_the_environment_and_the_home_say(s3: Bucket, settings: Settings, tmp_path: Path) -> None:
    """In a process of its own: fsspec reads its variables when it is imported."""
    program = f"""
import json
from pathlib import Path
from tests.connectors.test_credentials import open_files
from fabric_assets.settings import Settings
settings = Settings(Path({str(tmp_path)!r}), Path(), Path({str(settings.data_dir)!r}))
bucket = open_files({{"access_key_id": {{"env": "TENANT_KEY"}}, "secret_access_key": {{"env": "TENANT_SECRET"}}}}, settings)
bucket.connect()
client = bucket.s3
found = client._request_signer._credentials
print(json.dumps([found.access_key, found.secret_key, found.token, client.meta.endpoint_url, client.meta.region_name]))
"""
    (tmp_path / "config").write_text(f"[default]\nregion=eu-north-1\nendpoint_url={s3.endpoint_url}\n")
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id=operator\naws_secret_access_key=operator\naws_session_token=operator\n")
    planted = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_ACCESS_KEY_ID": "operator",
        "AWS_SECRET_ACCESS_KEY": "operator",
        "AWS_SESSION_TOKEN": "operator",
        "AWS_ENDPOINT_URL": s3.endpoint_url,
        "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
        "AWS_DEFAULT_REGION": "eu-north-1",
        "FSSPEC_S3_TOKEN": "operator",
        "FSSPEC_S3_ENDPOINT_URL": s3.endpoint_url,
        "FSSPEC_S3_ANON": "true",
        "FSSPEC_S3_PROFILE": "operator",
    }
    environ = {**os.environ, **planted, "TENANT_KEY": "tenant-key", "TENANT_SECRET": "tenant-secret"}
    run = subprocess.run([sys.executable, "-c", program], env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == ["tenant-key", "tenant-secret", None, "https://s3.amazonaws.com", "us-east-1"]


@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key"])
def test_an_s3_login_without_one_of_its_halves_is_refused(field: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "operator")
    login = {"access_key_id": {"env": "TENANT_KEY"}, "secret_access_key": {"env": "TENANT_KEY"}}
    monkeypatch.setenv("TENANT_KEY", "x")
    with pytest.raises(FabricError, match="NOT_SET is not set"):
        open_files({**login, field: {"env": "NOT_SET"}}, settings)
    with pytest.raises(ValueError, match=field):
        open_files({name: ref for name, ref in login.items() if name != field}, settings)
