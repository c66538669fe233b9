"""Fixtures: empty source databases of each kind, and a destination of each kind."""

from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, build_sqlite_url


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "duckdb"])
def database(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> SourceDatabase:
    """An empty database of each kind that is tested for real."""
    if request.param == "duckdb":
        return DuckSource(tmp_path / "shop.duckdb", settings)
    return request.getfixturevalue(request.param)


@pytest.fixture
def sqlite(settings: Settings, tmp_path: Path) -> SourceDatabase:
    return SourceDatabase(build_sqlite_url(tmp_path), settings)


@pytest.fixture
def postgres(postgres_database: str, settings: Settings) -> SourceDatabase:
    return SourceDatabase(postgres_database, settings)


@pytest.fixture
def mariadb(mariadb_url: str, settings: Settings) -> SourceDatabase:
    return SourceDatabase(mariadb_url, settings)


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest) -> str | None:
    """A fresh destination of each kind: None for DuckDB, else a Postgres URL."""
    return None if request.param == "duckdb" else request.getfixturevalue("make_database")()
