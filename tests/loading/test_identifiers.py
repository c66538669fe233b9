"""Names and conditions in YAML as an attack on databases: quoted or refused, on every kind of source and destination, for real."""

import contextlib
import sqlite3
from typing import Any

import duckdb
import pytest

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.settings import Settings
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, Tenant, write_secret_file

TABLE = "x\"`'; drop table victims; --"
KEY, COLUMN, CURSOR = 'k`"; --', "select", "or'der\" by 1; drop table victims"
VICTIMS = "create table victims (id integer)"


def quote(database: SourceDatabase, name: str) -> str:
    sign = "`" if "mysql" in database.url else '"'
    return sign + name.replace(sign, sign * 2) + sign


def fill(database: SourceDatabase, table: str) -> dict[str, Any]:
    """A table whose every name is an attack; gives the stream that reads it."""
    key, column, cursor = (quote(database, name) for name in (KEY, COLUMN, CURSOR))
    database.run(VICTIMS, "insert into victims values (1)")
    database.run(f"create table {table} ({key} integer, {column} varchar(20), {cursor} integer)")
    database.run(f"insert into {table} values (1, 'a', 10), (2, 'b', 20)")
    return {"table": TABLE, "primary_key": KEY, "columns": [KEY, COLUMN, CURSOR], "cursor": {"field": CURSOR, "initial": "5"}}


def test_hostile_names_are_quoted(database: SourceDatabase, settings: Settings) -> None:
    table = quote(database, TABLE)
    tenant = Tenant(settings, database.build_source(odd=fill(database, table), victims={}))
    tenant.load()
    database.run(f"insert into {table} values (2, 'c', 20), (3, 'd', 30)" if isinstance(database, DuckSource) else f"insert into {table} values (3, 'd', 30)")
    report = tenant.load()["odd"]
    names = [column.name for column in report.columns]
    assert all(name.replace("_", "").isalnum() for name in names)
    assert tenant.read("odd", *names[:2])[-1] == (3, "d")
    assert tenant.read("victims", "id") == [(1,)]


def test_hostile_names_are_quoted_in_postgres_as_a_destination(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    tenant = Tenant(settings, sqlite.build_source(odd=fill(sqlite, quote(sqlite, TABLE)), victims={}), warehouse=postgres_database)
    tenant.load()
    assert tenant.load()["odd"].rows_total == 2
    assert tenant.read("victims", "id") == [(1,)]


def test_a_hostile_schema_is_quoted(postgres_database: str, settings: Settings) -> None:
    database = SourceDatabase(postgres_database, settings)
    database.run('create schema "s""; drop table victims; --"')
    stream = fill(database, '"s""; drop table victims; --".' + quote(database, TABLE))
    tenant = Tenant(settings, {**database.build_source(odd=stream), "schema": 's"; drop table victims; --'})
    assert tenant.load()["odd"].rows_total == 2


@pytest.mark.parametrize("word", ["user", "group", "order", "table", "default", "analyze", "primary", "null"])
def test_reserved_words_are_names(word: str, sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run(f'create table "{word}" ("{word}" integer, other text)', f"insert into \"{word}\" values (1, 'a')")
    stream = {"primary_key": word, "cursor": {"field": word}}
    tenant = Tenant(settings, sqlite.build_source(**{word: stream}), warehouse=warehouse)
    tenant.load()
    assert tenant.load()[word].rows_total == 1


def test_long_names_that_a_database_would_cut_to_the_same_are_kept_apart_or_refused(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    first, second = ("long_" * 14 + ending for ending in ("a", "b"))
    sqlite.run(f'create table wide (id integer, "{first}" text, "{second}" text)', "insert into wide values (1, 'in a', 'in b')")
    tenant = Tenant(settings, sqlite.build_source(wide={}), warehouse=warehouse)
    names = [column.name for column in tenant.load()["wide"].columns]
    assert len(set(names)) == len(names) == 3
    assert all(len(name.encode()) <= 63 for name in names)
    assert tenant.read("wide", *names) == [(1, "in a", "in b")]


@pytest.mark.parametrize("condition", ["1=1); drop table victims; --", "1=1\n); delete from victims; select (1", "1=1); insert into victims values (2); --"])
def test_a_condition_that_ends_its_statement_changes_nothing(condition: str, database: SourceDatabase, settings: Settings) -> None:
    database.run(VICTIMS, "insert into victims values (1)", "create table orders (id integer)", "insert into orders values (1)")
    tenant = Tenant(settings, database.build_source(orders={"where": condition}, victims={}))
    with pytest.raises(FabricError, match="stream orders"):
        tenant.load("orders")
    assert tenant.load("victims")["victims"].rows_total == 1
    assert tenant.read("victims", "id") == [(1,)]


@pytest.mark.parametrize(
    "condition",
    [
        "id in (select 1 from read_csv('{file}', header=false))",
        "id in (select 1 from read_text('{file}'))",
        "id in (select 1 from '{file}')",
        "1=1); attach '{file}' as other; --",
        "1=1); set enable_external_access = true; --",
        "1=1); copy orders to '{file}.csv'; --",
        "1=1); install httpfs; --",
    ],
)
def test_a_condition_reaches_no_file_of_this_machine(condition: str, settings: Settings) -> None:
    (settings.data_dir.parent / "keys.csv").write_text("FABRIC_SECRET_KEYS=x\n")
    duck = DuckSource(settings.data_dir.parent / "shop.duckdb", settings)
    duck.run("create table orders (id integer)", "insert into orders values (1)")
    file = settings.data_dir.parent / "keys.csv"
    with pytest.raises(FabricError, match="stream orders"):
        Tenant(settings, duck.build_source(orders={"where": condition.format(file=file)})).load()
    assert not file.with_name("keys.csv.csv").exists()


@pytest.mark.parametrize(
    "url",
    [
        "duckdb:///{data}/warehouse/other.duckdb",
        "duckdb:////{data}/warehouse/other.duckdb",
        "duckdb:///file:{data}/warehouse/other.duckdb?memory_limit=1GB",
        "sqlite:///{data}/dagster/runs.db",
        "sqlite:////{data}/dagster/runs.db",
        "sqlite:///{data}/../link/runs.db",
        "sqlite:///file:{data}/dagster/runs.db?uri=true",
        "sqlite:///file://localhost{data}/dagster/runs.db?uri=true",
        "sqlite:///file:{data}/%64agster/runs.db%00.txt?uri=true",
    ],
)
def test_a_database_file_of_the_platform_is_refused_as_a_source(url: str, settings: Settings) -> None:
    for name in ("warehouse", "dagster"):
        (settings.data_dir / name).mkdir()
    with contextlib.closing(duckdb.connect(str(settings.data_dir / "warehouse" / "other.duckdb"))) as connection:
        connection.execute("create table secrets as select 1 as id")
    with contextlib.closing(sqlite3.connect(settings.data_dir / "dagster" / "runs.db")) as runs:
        runs.execute("create table secrets as select 1 as id")
    (settings.data_dir.parent / "link").symlink_to(settings.data_dir / "dagster")
    write_secret_file(settings, "shop_url", url.format(data=settings.data_dir))
    source = {"type": "sql_database", "url": {"file": "shop_url"}, "streams": {"secrets": {}}}
    with pytest.raises(ConfigurationError, match="the platform's own"):
        Tenant(settings, source).load()


@pytest.mark.parametrize("field", ["table", "primary_key", "columns", "cursor", "schema", "where"])
def test_a_name_with_a_nul_is_refused_when_it_is_read(field: str) -> None:
    value: Any = {"columns": ["a\0b"], "cursor": {"field": "a\0b"}}.get(field, "a\0b")
    stream = {} if field == "schema" else {field: value}
    source = {"type": "sql_database", "url": {"env": "X"}, "streams": {"odd": stream}, **({"schema": value} if field == "schema" else {})}
    with pytest.raises(ValueError, match="pattern"):
        TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"shop": source}})
