"""A correctly provisioned fleet on a Postgres of these tests' own: two tenants that share a database, one with its own, each with a row."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from cryptography.fernet import Fernet

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import connect
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.provisioning import provision
from fabric_assets.security.roles.server import open_server
from fabric_assets.settings import Settings
from fabric_assets.transform.entitlements import build_entitlements, get_server_login
from tests.support.services import PostgresServer, start_server

DATABASE = "warehouse"


def make_tenant(name: str, destination: dict[str, Any]) -> TenantConfig:
    source = {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {"orders": {}}}
    return TenantConfig.model_validate({"version": 1, "tenant": name, "destination": destination, "sources": {"shop": source}})


@dataclass(frozen=True)
class PostgresFleet:
    """The server and its tenants.

    Args:
        tenants: by name: acme and globex share a database, initech has its own, loose connects as the superuser.
    """

    server: PostgresServer
    settings: Settings
    tenants: dict[str, TenantConfig]

    def run(self, *statements: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser."""
        with contextlib.closing(psycopg2.connect(self.server.get_url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []


def fill(fleet: PostgresFleet, name: str) -> None:
    """Load a marked row as the tenant, as its loads would, and make a view of it."""
    raw, marts = naming.raw_dataset(name, "shop"), naming.dbt_schema(name, "marts")
    with contextlib.closing(connect(fleet.tenants[name], fleet.settings)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"create table {raw}.orders (id bigint, marker text)")
        cursor.execute(f"insert into {raw}.orders values (1, 'row of {name}')")
        cursor.execute(f"create view {marts}.orders as select * from {raw}.orders")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresFleet]:
    with start_server(asks_for_passwords=True) as server, pytest.MonkeyPatch.context() as monkeypatch:
        root = tmp_path_factory.mktemp("isolation")
        settings = Settings(root / "tenants", root / "dbt", root / "data", secret_keys=(Fernet.generate_key().decode(),))
        settings.data_dir.mkdir(mode=0o700)
        monkeypatch.setenv("MANAGED_URL", f"postgresql://127.0.0.1:{server.port}/{DATABASE}")
        monkeypatch.setenv("LOOSE_URL", server.get_url(DATABASE))
        managed = {"type": "postgres", "url": {"env": "MANAGED_URL"}, "managed": True}
        tenants = {name: make_tenant(name, managed) for name in ("acme", "globex")}
        tenants["initech"] = make_tenant("initech", {**managed, "isolation": "database"})
        made = PostgresFleet(server, settings, tenants)
        made.run(f"create database {DATABASE} template template0 strategy file_copy", database="postgres")
        login = get_server_login(tenants["acme"], settings, {"FABRIC_PROVISION_URL": server.get_url(DATABASE)})
        with open_server(login) as opened:
            provision(opened, [build_entitlements(tenant, None, settings) for tenant in tenants.values()], Logins(settings))
        for name in tenants:
            fill(made, name)
        tenants["loose"] = make_tenant("loose", {"type": "postgres", "url": {"env": "LOOSE_URL"}})
        yield made
