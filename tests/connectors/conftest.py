"""Fixtures of the connectors' tests."""

import pytest
from pytest_httpserver import HTTPServer

from fabric_assets.settings import Settings
from tests.connectors.rest_api.rest import Api, Warehouse, skip_pauses
from tests.support.databases import database, mariadb, postgres, sqlite

__all__ = ["database", "mariadb", "postgres", "sqlite"]


@pytest.fixture
def api(httpserver: HTTPServer) -> Api:
    """An HTTP API that knows no path yet."""
    return Api(httpserver)


@pytest.fixture
def warehouse(settings: Settings, api: Api) -> Warehouse:
    return Warehouse(settings, api)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time."""
    return skip_pauses(monkeypatch)


@pytest.fixture(params=["duckdb", "postgres"])
def any_warehouse(request: pytest.FixtureRequest, warehouse: Warehouse) -> Warehouse:
    if request.param == "postgres":
        warehouse.tenant.warehouse = request.getfixturevalue("postgres_database")
    return warehouse
