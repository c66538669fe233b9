"""`fabric migrate-values` makes lists of the texts that an earlier release has stored; a table loaded today is the measure."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fabric_assets.loading.older_forms.lists import ListForm
from fabric_assets.loading.older_forms.migration import Migrated, migrate
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.rows.value_forms import CURRENT, FIRST
from fabric_assets.settings import Settings
from tests.loading.older_forms.test_value_forms import forget_versions, get_version
from tests.support.shop import SourceDatabase, Tenant

# Type of the values -> arrays. Each column has the same number of them.
ARRAYS: dict[str, list[str | None]] = {
    "text": [
        "array['a', 'b c', '', null, 'NULL', 'null', 'x,y', '{z}', 'q\"r', E's\\\\t', E'new\\nline', ' pad ', 'ä→🙂', E'it''s']",
        "'{}'",
        None,
        "array[['a', 'b\"c'], [null, E'd\\\\e']]",
        "'[0:1]={a,b}'",
    ],
    "bigint": ["array[1, -2, null, 9223372036854775807]", "'{}'", None, "array[[1, 2], [3, null]]", "'[5:6][0:0]={{1},{2}}'"],
    "double precision": ["array[0.1, 1e300, -3e-7, 'NaN', 'Infinity', null]", "'{}'", None, "array[[1.5, 'NaN'], [1e20, 2]]", "array[123456789.125]"],
    "real": ["array[0.1, 1.5, -3e-7, null]", "'{}'", None, "array[[0.1, 2]]", "array['NaN'::real]"],
    "numeric": ["array[1.10, -2, null]", "'{}'", None, "array[[1.10, 'NaN'], [2, 3]]", "array[1, 'NaN']"],
    "numeric(10,2)": ["array[1.10, -2, null]", "'{}'", None, "array[[1.10, 3]]", "array[1, 'NaN']"],
    "boolean": ["array[true, false, null]", "'{}'", None, "array[[true, null]]", "array[false]"],
    "bytea": ["array['\\x00ff'::bytea, ''::bytea, null]", "'{}'", None, "array[['\\x00ff'::bytea]]", "array['a'::bytea]"],
    "date": ["array['2024-02-29'::date, '0001-01-01', null]", "'{}'", None, "array[['2024-02-29'::date]]", "array['9999-12-31'::date]"],
    "time": ["array['10:00'::time, '23:59:59.999999', null]", "'{}'", None, "array[['10:00:00.5'::time]]", "array['00:00'::time]"],
    "timestamp": ["array['2024-02-29 10:00'::timestamp, '2024-01-01 00:00:00.000001', null]", "'{}'", None, "array[['2024-02-29 10:00'::timestamp]]", "'{}'"],
    "timestamptz": ["array['2024-02-29 10:00+02'::timestamptz, null]", "'{}'", None, "array[['2024-02-29 10:00:00.25+00'::timestamptz]]", "'{}'"],
    "uuid": ["array['6f8a2f0e-0000-4000-8000-000000000002'::uuid, null]", "'{}'", None, "array[['6f8a2f0e-0000-4000-8000-000000000002'::uuid]]", "'{}'"],
    "jsonb": ["array['{\"a\": [1, \"x,y\"]}'::jsonb, 'null', null]", "'{}'", None, "array[['{\"a\": 1}'::jsonb, '\"t\"']]", "array['1.10'::jsonb]"],
    "inet": ["array['10.0.0.1'::inet, '10.0.0.0/8', null]", "'{}'", None, "array[['::1'::inet]]", "'{}'"],
}
MERGE: dict[str, Any] = {"primary_key": "id"}


@pytest.fixture
def source(postgres_database: str, settings: Settings) -> SourceDatabase:
    database = SourceDatabase(postgres_database, settings)
    database.run("create table orders (id integer primary key)", "insert into orders values (0)")
    return database


def load_in_the_first_form(tenant: Tenant, source: SourceDatabase, *changes: str) -> None:
    """Make the stream `orders` one of an earlier release before its table at the source has more than a key."""
    tenant.load("orders")
    forget_versions(tenant)
    source.run(*changes)
    tenant.load("orders")
    assert get_version(tenant) == (FIRST, FIRST)


def migrate_one(tenant: Tenant, settings: Settings, stream: str = "orders") -> Migrated:
    return next(found for found in migrate(tenant.config, settings) if found.stream == stream)


def test_a_migrated_array_is_what_a_load_of_today_writes(source: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    tenant = Tenant(settings, source.build_source(orders=MERGE, fresh={**MERGE, "table": "orders"}), warehouse=warehouse)
    added = ", ".join(f"add column c{number} {kind}[]" for number, kind in enumerate(ARRAYS))
    rows = [
        ", ".join([str(row), *("null" if value is None else f"({value})::{kind}[]" for kind, value in zip(ARRAYS, values, strict=True))])
        for row, values in enumerate(zip(*ARRAYS.values(), strict=True), start=1)
    ]
    load_in_the_first_form(tenant, source, f"alter table orders {added}", *(f"insert into orders values ({row})" for row in rows))
    assert {kind for name, kind in describe(tenant, "orders")[0].items() if name != "id"} <= {"VARCHAR", "character varying"}

    found = migrate_one(tenant, settings)
    assert (found.status, found.message, set(found.rewritten)) == ("migrated", "", {f"c{number}" for number in range(len(ARRAYS))})
    assert get_version(tenant) == (CURRENT, CURRENT)
    tenant.load("fresh")
    assert describe(tenant, "orders") == describe(tenant, "fresh")
    # What is read again is the same row, and a new one gets in.
    source.run("insert into orders (id, c0) values (9, '{}')")
    tenant.load()
    assert describe(tenant, "orders") == describe(tenant, "fresh")
    assert len(describe(tenant, "orders")[1]) == len(rows) + 2


def describe(tenant: Tenant, stream: str) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """A table's columns with their types, and its rows."""
    found = tenant.ask(f"select column_name, data_type from information_schema.columns where table_schema = 'acme_raw_shop' and table_name = '{stream}'")
    columns = {name: kind for name, kind in sorted(found) if not name.startswith("_")}
    read = [f'"{name}"::text' if kind == "ARRAY" else f'"{name}"' for name, kind in columns.items()]
    return columns, [tuple(map(repr, row)) for row in tenant.ask(f"select {', '.join(read)} from acme_raw_shop.{stream} order by id")]


@pytest.mark.parametrize(
    "text", ["a", "{1,x}", "{1", "{1}}", "{1},{2}", "{,}", "{1,}", "{1 2}", '{"1}', "", "{", "[1]=", "{[1,2]}", '{"1"2}', "{99999999999999999999}"]
)
def test_a_text_that_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError, pa.ArrowException)):
        ListForm.build("bigint").convert([text])


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ("bigint", "[1, null, -3]", [1, None, -3]),
        ("double", "[0.1, NaN, Infinity]", "[0.1, nan, inf]"),
        ("text", '["a,b", "{}", "", null, "\\u00e4"]', ["a,b", "{}", "", None, "ä"]),
        ("bool", "[true, null]", [True, None]),
        ("binary", '["00ff"]', [b"\x00\xff"]),
        ("decimal(10,2)", '["1.10"]', "[Decimal('1.10')]"),
    ],
)
def test_lists_of_parquet_files_were_json(values: str, text: str, expected: Any) -> None:
    lists, beside = ListForm.build(values).convert([text])
    assert beside.to_pylist() == [None]
    assert lists.to_pylist()[0] == expected or repr(lists.to_pylist()[0]) == expected


def test_a_value_that_is_not_a_list_stops_the_migration_and_changes_nothing(source: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    tenant = Tenant(settings, source.build_source(orders=MERGE), warehouse=warehouse)
    load_in_the_first_form(tenant, source, "alter table orders add column tags bigint[]", "insert into orders values (1, '{1,2}'), (2, '{3}')")
    tenant.change("update acme_raw_shop.orders set tags = 'none' where id = 2")
    before = tenant.read("orders", "id", "tags")
    found = migrate_one(tenant, settings)
    assert found.status == "failed"
    assert "column tags has a text that is not a list of bigint" in found.message
    assert "--full-refresh" in found.message
    assert tenant.read("orders", "id", "tags") == before == [(0, None), (1, "{1,2}"), (2, "none")]
    assert get_version(tenant) == (FIRST, FIRST)


def test_a_migration_that_is_killed_has_changed_nothing(source: SourceDatabase, warehouse: str | None, settings: Settings, tmp_path: Path) -> None:
    """Killed at its last statement, when all of the table is rewritten already."""
    tenant = Tenant(settings, source.build_source(orders=MERGE), warehouse=warehouse)
    load_in_the_first_form(tenant, source, "alter table orders add column tags text[]", "insert into orders values (1, '{a,b}')")
    program = tmp_path / "killed.py"
    program.write_text(
        textwrap.dedent("""
        import os, pickle, signal, sys
        from fabric_assets.loading.older_forms.migration import migrate
        from fabric_assets.warehouse.session import Session
        import fabric_assets.warehouse.duckdb as duck, fabric_assets.warehouse.postgres as postgres
        config, settings = pickle.load(sys.stdin.buffer)
        for kind in (duck.DuckDbSession, postgres.PostgresSession):
            def execute(self, sql, do=kind.execute):
                done = do(self, sql)
                if sql.startswith("update") and "column_names" in sql and '"loads"' in sql:
                    print(self.query("select * from acme_raw_shop.orders where id = 1")["tags"].to_pylist(), flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                return done
            kind.execute = execute
        list(migrate(config, settings))
        """)
    )
    done = subprocess.run([sys.executable, str(program)], input=pickle.dumps((tenant.config, settings)), capture_output=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout.decode().strip()) == (-signal.SIGKILL, "[['a', 'b']]"), done.stderr.decode()
    assert tenant.read("orders", "id", "tags") == [(0, None), (1, "{a,b}")]
    assert get_version(tenant) == (FIRST, FIRST)
    assert migrate_one(tenant, settings).status == "migrated"
    assert tenant.read("orders", "id", "tags") == [(0, None), (1, ["a", "b"])]


def test_views_on_a_rewritten_column_go_as_in_a_full_refresh(source: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    tenant = Tenant(settings, source.build_source(orders=MERGE), warehouse=warehouse)
    load_in_the_first_form(tenant, source, "alter table orders add column tags text[]", "insert into orders values (1, '{a,b}')")
    for name, query in {"named": "tags from acme_raw_shop.orders", "below": "* from acme_raw_shop.named", "kept": "id from acme_raw_shop.orders"}.items():
        tenant.change(f"create view acme_raw_shop.{name} as select {query}")
    (planned,) = migrate(tenant.config, settings, dry_run=True)
    done = migrate_one(tenant, settings)
    assert (planned.status, done.status, planned.message) == ("planned", "migrated", done.message)
    # DuckDB's views are read anew with each query.
    assert done.message.partition("again: ")[2] == ("acme_raw_shop.below, acme_raw_shop.named" if warehouse else "")
    assert tenant.ask("select id from acme_raw_shop.kept order by id") == [(0,), (1,)]
    assert tenant.read("orders", "id", "tags") == [(0, None), (1, ["a", "b"])]


def test_a_column_that_is_gone_keeps_the_stream_in_its_form(source: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    """It may return, with lists among its texts."""
    tenant = Tenant(settings, source.build_source(orders=MERGE), warehouse=warehouse)
    load_in_the_first_form(tenant, source, "alter table orders add column tags text[]", "insert into orders values (1, '{a,b}')")
    # As the earlier release has left it: no load since has read the column.
    forget_versions(tenant)
    source.run("alter table orders rename column tags to labels")
    tenant.load()
    found = migrate_one(tenant, settings)
    assert (found.status, "a row with tags" in found.message) == ("unknown", True)
    source.run("alter table orders rename column labels to tags")
    tenant.load()
    tenant.change("alter table acme_raw_shop.orders drop column labels")
    assert migrate_one(tenant, settings).status == "migrated"
    assert tenant.read("orders", "id", "tags") == [(0, None), (1, ["a", "b"])]


def test_a_rejected_row_of_the_earlier_form_is_replayed_in_todays(source: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    tenant = Tenant(settings, source.build_source(orders={**MERGE, "rejects": {"max": "100%"}}), warehouse=warehouse)
    load_in_the_first_form(
        tenant,
        source,
        "alter table orders add column tags text[], add column day date",
        "insert into orders values (1, array['a,b', null], 'infinity'), (2, array[array['c']], 'infinity'), (3, '{d}', '2024-01-01')",
    )
    rejects = tenant.ask("select row_id, raw from acme_fabric.rejected_rows order by raw")
    assert len(rejects) == 2
    assert "{" in rejects[0][1].partition('"tags"')[2]
    assert migrate_one(tenant, settings).status == "migrated"
    migrated = tenant.ask("select row_id, raw from acme_fabric.rejected_rows order by raw")
    # A load of today keeps them with the same ids: they are met again, and not doubled.
    tenant.load()
    assert tenant.ask("select row_id, raw from acme_fabric.rejected_rows order by raw") == migrated
    tenant.change("update acme_fabric.rejected_rows set reason = 'type_mismatch', raw = replace(raw, 'infinity', '2024-01-02')")
    (done,) = replay(tenant.config, settings)
    assert (done.replayed, done.rejected, done.error) == (2, 0, "")
    assert tenant.read("orders", "id", "tags", "tags__v_text") == [(0, None, None), (1, ["a,b", None], None), (2, None, '[["c"]]'), (3, ["d"], None)]
