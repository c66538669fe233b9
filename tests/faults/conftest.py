import uuid
from collections.abc import Callable, Iterator, Mapping

import psycopg2
import pytest

from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.faults.world import World
from tests.support.services import PostgresServer


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Makes fresh, empty Postgres databases and gives their URLs."""
    made = list[str]()
    admin = psycopg2.connect(postgres_server.get_url())
    admin.autocommit = True

    def make() -> str:
        made.append(f"fault_{uuid.uuid4().hex[:12]}")
        with admin.cursor() as cursor:
            cursor.execute(f"create database {made[-1]} template template0 strategy file_copy")
        return postgres_server.get_url(made[-1])

    yield make
    with admin.cursor() as cursor:
        for name in made:
            cursor.execute(f"drop database if exists {name} with (force)")
    admin.close()


@pytest.fixture(params=["duckdb", "postgres"])
def destination(request: pytest.FixtureRequest) -> str | None:
    """A fresh warehouse of each kind: None for DuckDB, else a Postgres URL."""
    return None if request.param == "duckdb" else request.getfixturevalue("make_database")()


@pytest.fixture
def world(settings: Settings, destination: str | None) -> World:
    return World(settings, destination)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts cases; whatever still runs at the end of the test is killed."""
    started = list[Process]()

    def start(case: Case, *, environ: Mapping[str, str] | None = None, heed_modes: bool = False) -> Process:
        started.append(Process(case, environ=environ, heed_modes=heed_modes))
        return started[-1]

    yield start
    for process in started:
        process.close()
