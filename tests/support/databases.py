"""Fixtures: empty source databases of each kind, and a destination of each kind."""

from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, build_sqlite_url


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "duckdb"])
def database(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> SourceDatabase:
    """An empty database of each kind that is tested for real."""
    if request.param == "sqlite":
        return SourceDatabase(build_sqlite_url(tmp_path), settings)
    if request.param == "duckdb":
        return DuckSource(tmp_path / "shop.duckdb", settings)
    return SourceDatabase(request.getfixturevalue({"postgres": "postgres_database", "mariadb": "mariadb_url"}[request.param]), settings)


@pytest.fixture
def sqlite(settings: Settings, tmp_path: Path) -> SourceDatabase:
    return SourceDatabase(build_sqlite_url(tmp_path), settings)


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest) -> str | None:
    """A destination of each kind: None for DuckDB, else a Postgres url."""
    if request.param == "duckdb":
        return None
    from tests.support.services import PostgresServer

    server: PostgresServer = request.getfixturevalue("postgres_server")
    import uuid

    import psycopg2

    name = f"wh_{uuid.uuid4().hex[:12]}"
    admin = psycopg2.connect(server.get_url())
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"create database {name} template template0 strategy file_copy")

    def drop() -> None:
        with admin.cursor() as cursor:
            cursor.execute(f"drop database if exists {name} with (force)")
        admin.close()

    request.addfinalizer(drop)
    return server.get_url(name)
