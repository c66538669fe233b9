"""A Postgres of these tests' own, which asks everyone but its superuser for a password; and `fabric provision` on it."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.config.base import SecretRef
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.security.roles.belongings import Belongings, drop_belongings, list_belongings
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.server import Server, open_server
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import build_entitlements, get_server_login
from tests.factories.shop import STREAMS, make_shop
from tests.faults.conftest import start
from tests.support.services import PostgresServer, start_server

__all__ = ["start"]

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class ManagedWarehouse:
    """A database of the server, and the settings of those who provision and load there."""

    def __init__(self, server: PostgresServer, database: str, settings: Settings) -> None:
        self.server, self.database, self.settings = server, database, settings

    @property
    def address(self) -> str:
        """The url of a managed destination."""
        return f"postgresql://127.0.0.1:{self.server.port}/{self.database}"

    def get_url(self, user: str = "postgres", password: str = "postgres", database: str = "") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.server.port}/{database or self.database}"

    def run(self, *statements: str, user: str = "postgres", password: str = "postgres", database: str = "") -> Rows:
        """Run SQL, by default as the superuser; gives the last one's rows."""
        with contextlib.closing(psycopg2.connect(self.get_url(user, password, database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def run_as(self, tenant: str, *statements: str, database: str = "") -> Rows:
        """Run SQL as the tenant."""
        return self.run(*statements, user=f"fabric_{tenant}", password=self.get_password(tenant), database=database)

    def get_password(self, tenant: str) -> str:
        return resolve_secret(SecretRef(secret="warehouse_login"), tenant=tenant, settings=self.settings)

    def get_config(self, tenant: str) -> TenantConfig:
        fleet = load_fleet(self.settings)
        assert not fleet.broken, fleet.broken
        return fleet.tenants[tenant].config

    def get_entitlements(self, tenant: str) -> ServerEntitlements:
        return build_entitlements(self.get_config(tenant), None, self.settings)

    @contextlib.contextmanager
    def open(self, tenant: str) -> Iterator[tuple[Server, ServerEntitlements]]:
        with open_server(get_server_login(self.get_config(tenant), self.settings)) as server:
            yield server, self.get_entitlements(tenant)

    def list(self, tenant: str, **options: Any) -> Belongings:
        with self.open(tenant) as (server, entitlements):
            return list_belongings(server, entitlements, **options)

    def drop(self, tenant: str, **options: Any) -> Belongings:
        with self.open(tenant) as (server, entitlements):
            return drop_belongings(server, entitlements, **options)


@pytest.fixture(scope="session")
def walled_server() -> Iterator[PostgresServer]:
    with start_server(asks_for_passwords=True) as server:
        yield server


@pytest.fixture
def warehouse(
    walled_server: PostgresServer, settings: Settings, settings_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[ManagedWarehouse]:
    """A fresh database on a server without tenants; the environment of a command that provisions."""
    warehouse = ManagedWarehouse(walled_server, f"wh_{uuid.uuid4().hex[:8]}", settings)
    warehouse.run(f"create database {warehouse.database} template template0", database="postgres")
    # As in a new server: earlier tests have taken these rights away.
    warehouse.run("grant connect, temporary on database postgres to public", "grant connect on database template1 to public", database="postgres")
    monkeypatch.setenv("WAREHOUSE_ADDRESS", warehouse.address)
    monkeypatch.setenv("FABRIC_PROVISION_URL", warehouse.get_url())
    yield warehouse
    for (name,) in warehouse.run("select datname from pg_database where datname not in ('postgres', 'template0', 'template1')", database="postgres"):
        warehouse.run(f'drop database "{name}" with (force)', database="postgres")
    for (name,) in warehouse.run("select rolname from pg_roles where rolname <> 'postgres' and rolname not like 'pg\\_%'", database="postgres"):
        warehouse.run(f'drop owned by "{name}" cascade', f'drop role "{name}"', database="postgres")


@pytest.fixture
def prepared(settings: Settings, prepared_data: Path) -> None:
    """The parsed dbt project in the data folder."""
    shutil.copytree(prepared_data, settings.data_dir / "dbt" / "prepared")


def run_fabric(*arguments: str) -> Answer:
    """Run a command in this process, as `fabric_assets.cli.main.main` does."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, FabricError):
        code = 2 if isinstance(result.exception, ConfigurationError) else 1
        return Answer(code, result.stdout, f"{result.stderr}error: {result.exception}")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def get_managed(*sources: str, **destination: Any) -> dict[str, Any]:
    """The YAML of a managed tenant with sources that nobody loads."""
    source = {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {"orders": {"primary_key": "id"}}}
    return {
        "destination": {"type": "postgres", "url": {"env": "WAREHOUSE_ADDRESS"}, "managed": True, **destination},
        "sources": {name: deepcopy(source) for name in sources or ("shop",)},
    }


# --- a tenant that loads a shop

SOURCE = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": STREAMS}
CHECKS = {"raw/shop/orders": [{"type": "row_count", "min": 1}, {"type": "unique", "columns": ["id"]}]}


def build_tenant(*more: str, **destination: Any) -> dict[str, Any]:
    """Args:
    more: sources beside the shop, of one stream each.
    """
    sources = {"shop": deepcopy(SOURCE)} | {name: {**deepcopy(SOURCE), "streams": {"stores": {"primary_key": "id"}}} for name in more}
    return {**get_managed(**destination), "sources": sources, "transform": {"select": ["staging.shop", "marts.sales"]}, "checks": CHECKS}


@pytest.fixture
def shop(warehouse: ManagedWarehouse, prepared: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_URL", make_shop(tmp_path / "shop.db"))
    return tmp_path / "shop.db"
