"""On Postgres a merged table's key is kept by the database itself: rows are found by it, and it refuses a second one."""

import contextlib
import random
import string

import psycopg2
import pytest

from fabric_assets.drivers.destinations import connect
from fabric_assets.errors import DataError, DestinationError
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

ITEMS = "create table items (id integer, sku varchar(4000), updated_at timestamp)"
MERGED = {"primary_key": "id", "cursor": {"field": "updated_at"}}


def build(sqlite: SourceDatabase, settings: Settings, url: str, **changes: object) -> Tenant:
    return Tenant(settings, sqlite.build_source(items={**MERGED, **changes}), warehouse=url)


def fill(sqlite: SourceDatabase, *rows: tuple[int, str, str]) -> None:
    sqlite.fill("items", rows)


def read_keys(tenant: Tenant) -> list[str]:
    found = tenant.ask("select indexdef from pg_indexes where schemaname = 'acme_raw_shop' and indexname = '_fabric_key_items'")
    return [definition[definition.index("(") :] for (definition,) in found if definition.startswith("CREATE UNIQUE")]


def test_the_database_refuses_a_second_row_with_the_same_key(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    sqlite.run(ITEMS)
    fill(sqlite, (1, "a", "2024-01-01 10:00:00"), (2, "b", "2024-01-01 11:00:00"))
    tenant = build(sqlite, settings, postgres_database)
    tenant.load()

    assert read_keys(tenant) == ["(id)"]
    with contextlib.closing(connect(tenant.config, settings)) as connection, pytest.raises(psycopg2.errors.UniqueViolation):
        connection.cursor().execute("insert into acme_raw_shop.items (id, sku) values (2, 'twice')")

    tenant.load(full_refresh=True)
    assert read_keys(tenant) == ["(id)"]


def test_a_table_that_was_emptied_merges_repeats_of_one_load(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    sqlite.run(ITEMS)
    tenant = build(sqlite, settings, postgres_database)
    assert tenant.load()["items"].rows_total == 0
    assert read_keys(tenant) == ["(id)"]

    fill(sqlite, (1, "old", "2024-01-01 10:00:00"), (1, "new", "2024-01-02 10:00:00"), (2, "b", "2024-01-01 11:00:00"))
    tenant.load()
    assert tenant.read("items", "id", "sku") == [(1, "new"), (2, "b")]


def test_a_key_with_a_new_column_is_refused_until_the_stream_is_loaded_anew(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table items (id integer, sku varchar(20))")
    sqlite.fill("items", [(1, "a"), (2, "b")])
    tenant = Tenant(settings, sqlite.build_source(items={"primary_key": "id"}), warehouse=warehouse)
    tenant.load()

    sqlite.run("alter table items add column line integer default 7")
    tenant.source = sqlite.build_source(items={"primary_key": ["id", "line"]})
    with pytest.raises(DataError, match="the primary key has the column line, which the table lacks") as caught:
        tenant.load()
    assert "--full-refresh" in caught.value.remedy
    assert tenant.read("items", "id", "sku") == [(1, "a"), (2, "b")]

    tenant.load(full_refresh=True)
    sqlite.run("insert into items values (1, 'c', 8)")
    tenant.load()
    assert tenant.read("items", "id", "line", "sku") == [(1, 7, "a"), (1, 8, "c"), (2, 7, "b")]


def test_another_primary_key_takes_the_old_ones_place(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    sqlite.run(ITEMS)
    fill(sqlite, (1, "a", "2024-01-01 10:00:00"))
    build(sqlite, settings, postgres_database).load()

    fill(sqlite, (1, "b", "2024-01-02 10:00:00"))
    tenant = build(sqlite, settings, postgres_database, primary_key="sku")
    tenant.load()
    assert tenant.read("items", "id", "sku") == [(1, "a"), (1, "b")]
    assert read_keys(tenant) == []

    tenant.load(full_refresh=True)
    assert read_keys(tenant) == ["(sku)"]


def test_a_key_too_long_for_an_index_is_loaded_without_one(sqlite: SourceDatabase, settings: Settings, postgres_database: str) -> None:
    # Nothing in it comes twice, so it does not compress.
    long = "".join(random.Random(1).choices(string.ascii_letters, k=3900))
    sqlite.run(ITEMS)
    fill(sqlite, (1, "a", "2024-01-01 10:00:00"))
    tenant = build(sqlite, settings, postgres_database, primary_key="sku")
    tenant.load()

    fill(sqlite, (2, long, "2024-01-02 10:00:00"))
    with pytest.raises(DestinationError, match=r"primary key is longer than Postgres keeps in an index(.|\n)*--full-refresh"):
        tenant.load()
    assert tenant.load(full_refresh=True)["items"].rows_total == 2
    assert (read_keys(tenant), tenant.load()["items"].rows_total) == ([], 2)
