"""Value by value: what the source holds is what the warehouse holds, on both destinations."""

import contextlib
import json
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.errors import DataError, SourceError
from fabric_assets.rows.arrow_types import JSON
from fabric_assets.settings import Settings
from fabric_assets.warehouse.duckdb import DuckDbSession
from fabric_assets.warehouse.postgres import PostgresSession
from scripts.type_matrix import MATRIX, POSTGRES_TYPES
from tests.support.duck import DuckSource
from tests.support.shop import SourceDatabase, Tenant, build_sqlite_url


@pytest.mark.filterwarnings("ignore:Did not recognize type")
@pytest.mark.parametrize("kind", MATRIX)
def test_each_type_keeps_its_value(kind: str, request: pytest.FixtureRequest, tmp_path: Path, warehouse: str | None, settings: Settings) -> None:
    cases = MATRIX[kind]
    source = _open_source(kind, request, tmp_path, settings)
    mark = "`" if kind == "mariadb" else '"'
    columns = ", ".join(f"{mark}{name}{mark} {case.declared}" for name, case in cases.items())
    source.run(
        *(POSTGRES_TYPES if kind == "postgres" else ()),
        *(["set time_zone = '+00:00'"] if kind == "mariadb" else []),
        f"create table every (no integer, {columns})",
        f"insert into every values (1, {', '.join(case.literal for case in cases.values())})",
        "insert into every (no) values (2)",
    )
    tenant = Tenant(settings, source.build_source(every={"primary_key": "no"}), warehouse=warehouse)
    name_type = PostgresSession.name_type if warehouse else DuckDbSession.name_type
    selected = ", ".join(f'"{name}"::varchar' if case.kind == JSON else f'"{name}"' for name, case in cases.items())
    # Once as a new table, and once merged into the types that it has.
    for _ in range(2):
        report = tenant.load()["every"]
        assert report.record.rows_rejected == 0
        first, second = tenant.ask(f"select {selected} from acme_raw_shop.every order by no")
        assert {name: _plain(value) for name, value in zip(cases, first, strict=True)} == {name: _plain(case.value) for name, case in cases.items()}
        assert set(second) == {None}
        assert [column.name for column in report.columns] == ["no", *cases]
        types = {column.name: column.type for column in report.columns if not column.type.startswith("array")}
        assert types.items() <= {"no": "bigint", **{name: name_type(case.kind).lower() for name, case in cases.items()}}.items()


_GOOD = {
    "integer[]": "'{1,2}'",
    "text[]": "'{a}'",
    "numeric(5,2)[]": "'{1.5}'",
    "json": "'{}'",
    "uhugeint": "1",
    "uhugeint[]": "[1]",
    "hugeint": "1",
    "time_ns": "'10:00:00'",
    "timestamp_ns": "'2024-01-01 10:00:00'",
    "struct(a double)": "{'a': 0.5}",
}


@pytest.mark.parametrize(
    ("kind", "declared", "literal", "text"),
    [
        ("postgres", "integer[]", "'{{1,2},{3,null}}'", "[[1,2],[3,null]]"),
        ("postgres", "text[]", """'{{a,"b c"},{null,"{}"}}'""", '[["a","b c"],[null,"{}"]]'),
        ("postgres", "numeric(5,2)[]", "'{1.5,NaN}'", '["1.50", "NaN"]'),
        ("postgres", "json", """'{"a": "\\u0000"}'""", '{"a": "\\u0000"}'),
        ("postgres", "json", """'{"a": 1e99999}'""", '{"a": 1e99999}'),
        ("duckdb", "uhugeint", "340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211455"),
        ("duckdb", "uhugeint[]", "[340282366920938463463374607431768211455::uhugeint]", '["340282366920938463463374607431768211455"]'),
        ("duckdb", "hugeint", "(-170141183460469231731687303715884105727)::hugeint", "-170141183460469231731687303715884105727"),
        ("duckdb", "time_ns", "'10:00:00.123456789'", "10:00:00.123456789"),
        ("duckdb", "timestamp_ns", "'2024-01-01 10:00:00.123456789'", "2024-01-01 10:00:00.123456789"),
        ("duckdb", "struct(a double)", "{'a': 'NaN'::double}", '{"a":NaN}'),
    ],
)
def test_a_value_at_a_types_limit_is_kept_beside_the_others(
    request: pytest.FixtureRequest, tmp_path: Path, warehouse: str | None, settings: Settings, kind: str, declared: str, literal: str, text: str
) -> None:
    source = _open_source(kind, request, tmp_path, settings)
    source.run(f"create table odd (no integer, v {declared})", f"insert into odd values (1, {literal}), (2, {_GOOD[declared]}), (3, null)")
    tenant = Tenant(settings, source.build_source(odd={"primary_key": "no"}), warehouse=warehouse)
    for _ in range(2):
        assert tenant.load()["odd"].record.rows_rejected == 0
        assert tenant.ask("select no, v__v_text, v is not null from acme_raw_shop.odd order by no") == [(1, text, False), (2, None, True), (3, None, False)]


@pytest.mark.parametrize(
    ("declared", "literal", "values"),
    [
        ("integer[]", "'[2:3]={1,null}'", [1, None]),
        ("integer[]", "'[0:0]={1}'", [1]),
        ("text[]", """'[-1:0]={a,"b c"}'""", ["a", "b c"]),
        ("numeric(5,2)[]", "'[5:5]={1.5}'", [Decimal("1.50")]),
        ("mood[]", "'[3:4]={sad,happy}'", ["sad", "happy"]),
        ("numbers", "'[7:8]={1,2}'", [1, 2]),
    ],
)
def test_an_array_that_begins_at_another_number_is_the_same_list(
    postgres_database: str, warehouse: str | None, settings: Settings, declared: str, literal: str, values: list[Any]
) -> None:
    postgres = SourceDatabase(postgres_database, settings)
    postgres.run(
        "create type mood as enum ('happy', 'sad')",
        "create domain numbers as integer[]",
        f"create table odd (no integer, v {declared})",
        f"insert into odd values (1, {literal}), (2, '{{}}'), (3, null)",
    )
    tenant = Tenant(settings, postgres.build_source(odd={"primary_key": "no"}), warehouse=warehouse)
    assert tenant.load()["odd"].record.schema_changes == ()
    assert tenant.ask("select no, v from acme_raw_shop.odd order by no") == [(1, values), (2, []), (3, None)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_duration_of_parquet_is_a_text_below_zero_too(settings: Settings, warehouse: str | None, unit: str) -> None:
    (settings.data_dir / "in").mkdir()
    second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    spans = pa.array([90_000 * second, -second, 0, None], pa.duration(unit))
    pq.write_table(pa.table({"no": [1, 2, 3, 4], "v": spans}), settings.data_dir / "in" / "a.parquet")
    source = {"type": "files", "path": "in", "streams": {"odd": {"glob": "*", "format": "parquet", "primary_key": "no"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    for _ in range(2):
        tenant.load(full_refresh=True)
        assert tenant.ask("select no, v from acme_raw_shop.odd order by no") == [(1, "25:00:00"), (2, "-00:00:01"), (3, "00:00:00"), (4, None)]


def test_a_rejected_row_keeps_a_time_of_24_hours(postgres_database: str, settings: Settings) -> None:
    postgres = SourceDatabase(postgres_database, settings)
    postgres.run("create table odd (no integer, d date, v time)", "insert into odd values (1, 'infinity', '24:00:00')")
    tenant = Tenant(settings, postgres.build_source(odd={"primary_key": "no"}))
    tenant.load()
    assert tenant.ask("select raw from acme_fabric.rejected_rows") == [('{"no": 1, "d": "infinity", "v": "24:00:00"}',)]


@pytest.mark.parametrize("kind", ["postgres", "parquet"])
def test_a_key_of_lists_is_refused_by_name(request: pytest.FixtureRequest, settings: Settings, warehouse: str | None, kind: str) -> None:
    if kind == "postgres":
        postgres = SourceDatabase(request.getfixturevalue("postgres_database"), settings)
        postgres.run("create table odd (no integer[] primary key)", "insert into odd values ('{1}')")
        source = postgres.build_source(odd={"primary_key": "no"})
    else:
        (settings.data_dir / "in").mkdir()
        pq.write_table(pa.table({"no": [[1], [2]]}), settings.data_dir / "in" / "a.parquet")
        source = {"type": "files", "path": "in", "streams": {"odd": {"glob": "*", "format": "parquet", "primary_key": "no"}}}
    with pytest.raises(DataError, match="stream odd: the primary key no holds lists"):
        Tenant(settings, source, warehouse=warehouse).load()


@pytest.mark.parametrize(
    ("declared", "values", "expected"),
    [
        ("integer", [1, "two", 2.5], ["1", "two", "2.5"]),
        ("integer", [1, 2.5], [1.0, 2.5]),
        ("integer", [2**53 + 1, 2.5], ["9007199254740993", "2.5"]),
        ("text", ["a", b"\xff"], ["a", "ff"]),
        ("date", ["2024-01-31", "2024-02-31"], ["2024-01-31", "2024-02-31"]),
        ("datetime", ["2024-01-31 10:00:00", "soon"], ["2024-01-31 10:00:00", "soon"]),
        ("datetime", [1700000000], [1700000000]),
        ("boolean", [1, 2], [1, 2]),
        ("decimal(5,2)", [1.25, 1.255], [1.25, 1.255]),
        ("decimal(5,2)", [5], [Decimal("5.00")]),
        ("", ["a", 1, None], ["a", "1", None]),
    ],
)
def test_a_sqlite_column_that_breaks_its_declaration_loses_no_value(
    sqlite: SourceDatabase, settings: Settings, declared: str, values: list[Any], expected: list[Any]
) -> None:
    sqlite.run(f"create table odd (no integer, v {declared})")
    sqlite.fill("odd", list(enumerate(values)))
    tenant = Tenant(settings, sqlite.build_source(odd={}))
    tenant.load()
    assert [row[0] for row in tenant.read("odd", "v", order="no")] == expected


@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_value_that_the_loaded_type_cannot_hold_is_kept_beside_it(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings, disposition: str
) -> None:
    sqlite.run("create table odd (id integer, v integer)")
    sqlite.fill("odd", [(1, 1)])
    tenant = Tenant(settings, sqlite.build_source(odd={"primary_key": "id", "write_disposition": disposition}), warehouse=warehouse)
    tenant.load()
    sqlite.fill("odd", [(2, 2.5), (3, "three"), (4, 4)])

    report = tenant.load()["odd"]
    assert tenant.read("odd", "id", "v", "v__v_text") == [(1, 1, None), (2, None, "2.5"), (3, None, "three"), (4, 4, None)]
    assert [(change.column, change.change) for change in report.record.schema_changes] == [("v", "type_changed")]
    tenant.load(full_refresh=True)
    assert tenant.read("odd", "id", "v") == [(1, "1"), (2, "2.5"), (3, "three"), (4, "4")]


def test_values_of_an_undeclared_numeric_that_are_not_numbers_go_into_the_variant_column(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table odd (id integer, v numeric)", "insert into odd values (1, 1.5), (2, 'NaN'), (3, 'Infinity')")
    tenant = Tenant(settings, source.build_source(odd={}))
    tenant.load()
    assert tenant.read("odd", "id", "v", "v__v_text") == [(1, Decimal("1.5"), None), (2, None, "NaN"), (3, None, "Infinity")]


def test_a_later_value_of_an_undeclared_numeric_that_is_not_a_number_goes_into_the_variant_column(
    postgres_database: str, warehouse: str | None, settings: Settings
) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table odd (id integer, v numeric)", "insert into odd values (1, 1.5)")
    tenant = Tenant(settings, source.build_source(odd={"primary_key": "id"}), warehouse=warehouse)
    tenant.load()
    source.run("insert into odd values (2, 'NaN'), (3, 2.25)")
    tenant.load()
    assert tenant.read("odd", "id", "v", "v__v_text") == [(1, Decimal("1.5"), None), (2, None, "NaN"), (3, Decimal("2.25"), None)]


def test_a_value_of_a_declared_numeric_that_is_not_a_number_goes_into_the_variant_column(
    postgres_database: str, warehouse: str | None, settings: Settings
) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table odd (id integer, v numeric(10,2))", "insert into odd values (1, 1.5), (2, 'NaN')")
    tenant = Tenant(settings, source.build_source(odd={}), warehouse=warehouse)
    tenant.load()
    assert tenant.read("odd", "id", "v", "v__v_text") == [(1, Decimal("1.50"), None), (2, None, "NaN")]


@pytest.mark.parametrize(("declared", "value"), [("date", "'infinity'"), ("timestamp", "'infinity'"), ("timestamptz", "'-infinity'")])
def test_a_row_with_a_date_that_no_warehouse_can_hold_is_set_aside(
    postgres_database: str, warehouse: str | None, settings: Settings, declared: str, value: str
) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run(f"create table odd (id integer, v {declared})", f"insert into odd values (1, {value}), (2, null)")
    tenant = Tenant(settings, source.build_source(odd={}), warehouse=warehouse)
    record = tenant.load()["odd"].record
    assert (record.rows_read, record.rows_loaded, record.rows_rejected) == (2, 1, 1)
    assert tenant.ask("select column_name, reason from acme_fabric.rejected_rows") == [("v", "out_of_range")]


def test_a_time_that_is_a_span_is_kept_beside_the_times(mariadb_url: str, warehouse: str | None, settings: Settings) -> None:
    source = SourceDatabase(mariadb_url, settings)
    source.run("create table odd (v time)", "insert into odd values ('100:00:00'), ('10:00:00')")
    tenant = Tenant(settings, source.build_source(odd={}), warehouse=warehouse)
    tenant.load()
    assert set(tenant.read("odd", "v", "v__v_text")) == {(None, "100:00:00"), (time(10), None)}


def test_a_table_may_have_as_many_columns_as_a_database_allows(postgres_database: str, warehouse: str | None, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    names = [f"c{number}" for number in range(1_600)]
    # Values for half of them: more do not fit a row of Postgres.
    values = [number if number % 2 else None for number in range(1_600)]
    source.run(f"create table wide ({', '.join(f'{name} smallint' for name in names)})")
    source.run(f"insert into wide values ({', '.join('null' if value is None else str(value) for value in values)})")
    tenant = Tenant(settings, source.build_source(wide={}), warehouse=warehouse)
    tenant.load()
    assert tenant.read("wide", *names, order="1") == [tuple(values)]


def test_a_type_that_cannot_be_carried_is_refused_by_name_and_can_be_left_out(mariadb_url: str, settings: Settings) -> None:
    source = SourceDatabase(mariadb_url, settings)
    source.run("create table places (id integer, spot point)", "insert into places values (1, point(1, 2))")
    with (
        pytest.warns(Warning, match="Did not recognize type"),
        pytest.raises(SourceError, match="column spot has the type point, which cannot be carried") as caught,
    ):
        Tenant(settings, source.build_source(places={})).load()
    assert "leave it out" in caught.value.remedy


def test_a_column_added_at_the_source_is_added_and_one_dropped_stays_empty(database: SourceDatabase, settings: Settings) -> None:
    database.run("create table items (id integer, a integer)", "insert into items values (1, 1)")
    tenant = Tenant(settings, database.build_source(items={"primary_key": "id"}))
    tenant.load()
    database.run("alter table items add column b varchar(9)", "insert into items values (2, 2, 'x')")
    tenant.load()
    assert tenant.read("items", "id", "a", "b") == [(1, 1, None), (2, 2, "x")]
    database.run("alter table items drop column a")
    tenant.load()
    assert tenant.read("items", "id", "a", "b") == [(1, None, None), (2, None, "x")]


def test_wide_rows_are_read_in_small_pieces(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table wide (id integer, body text)")
    sqlite.fill("wide", [(number, "x" * 20_000) for number in range(2_000)])
    tenant = Tenant(settings, sqlite.build_source(wide={}))
    assert tenant.load()["wide"].rows_total == 2_000
    assert tenant.ask("select count(distinct id), min(length(body)) from acme_raw_shop.wide") == [(2_000, 20_000)]


def _open_source(kind: str, request: pytest.FixtureRequest, folder: Path, settings: Settings) -> SourceDatabase:
    if kind == "duckdb":
        return DuckSource(folder / "shop.duckdb", settings)
    url = build_sqlite_url(folder) if kind == "sqlite" else request.getfixturevalue({"postgres": "postgres_database", "mariadb": "mariadb_url"}[kind])
    return SourceDatabase(url, settings)


def _plain(value: Any) -> Any:
    """Both drivers' ways to give the same value: bytes come as memoryview, moments in one zone or another, JSON with blanks or without."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return json.loads(value, parse_float=str, parse_int=str)
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    return value


def test_arrays_of_a_domain_are_lists_of_the_type_below(postgres_database: str, warehouse: str | None, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    kinds = {"integer": "{1,null}", "text": '{a,"b,c"}', "char(3)": "{ab}", "boolean": "{t}", "date": "{2024-01-31}", "numeric(5,2)": "{1.5}"}
    columns = [f"c{number}" for number in range(len(kinds))]
    source.run(
        *(f"create domain d{number} as {kind}" for number, kind in enumerate(kinds)),
        f"create table odd (id integer, {', '.join(f'{column} d{number}[]' for number, column in enumerate(columns))})",
        f"insert into odd values (1, {', '.join(map(repr, kinds.values()))}), (2{', null' * len(kinds)})",
    )
    tenant = Tenant(settings, source.build_source(odd={"primary_key": "id"}), warehouse=warehouse)
    for _ in range(2):
        assert tenant.load()["odd"].record.rows_rejected == 0
        first, second = tenant.read("odd", *columns, order="id")
        assert first == ([1, None], ["a", "b,c"], ["ab "], [True], [datetime(2024, 1, 31, tzinfo=UTC).date()], [Decimal("1.5")])
        assert set(second) == {None}


def test_times_and_durations_within_parquet_values_are_spelt_as_in_columns(settings: Settings, warehouse: str | None) -> None:
    span, clock = pa.duration("us"), pa.time64("us")
    nested = {
        "spans": (pa.list_(span), [[1_500_000, None], [-90_000_000_000], None], [["00:00:01.500000", None], ["-25:00:00"], None]),
        "shift": (pa.struct({"a": span}), [{"a": -90_000_000}, None, {"a": None}], [{"a": "-00:01:30"}, None, {"a": None}]),
        "days": (pa.map_(pa.string(), span), [[("x", 10**6)], [], None], [{"x": "00:00:01"}, {}, None]),
        "clock": (pa.struct({"t": clock}), [{"t": 86_400_000_000}, {"t": -1}, {"t": 0}], [{"t": "24:00:00"}, {"t": "-00:00:00.000001"}, {"t": "00:00:00"}]),
        "far": (pa.map_(pa.string(), pa.timestamp("us")), [[("x", 2**62)], [], None], [{"x": "148108-07-06 14:00:27.387904000"}, {}, None]),
    }
    times = pa.array([[3_600_000_000], [-1, 0], None], pa.list_(clock))
    table = pa.table({"no": [1, 2, 3], "times": times} | {name: pa.array(values, kind) for name, (kind, values, _) in nested.items()})
    tenant = _load_parquet(settings, warehouse, table)
    for name, (_, _, expected) in nested.items():
        found = [value for _, value in tenant.ask(f"select no, {name} from acme_raw_shop.odd order by no")]
        assert [value if warehouse or value is None else json.loads(value) for value in found] == expected
    assert tenant.ask("select times, times__v_text from acme_raw_shop.odd order by no") == [
        ([time(1)], None),
        (None, '["-00:00:00.000001", "00:00:00"]'),
        (None, None),
    ]


def test_a_parquet_row_beside_views_of_texts_can_be_rejected_alone(settings: Settings, warehouse: str | None) -> None:
    views = {
        "a": pa.array(["x", None], pa.string_view()),
        "b": pa.array([b"x", b"y"], pa.binary_view()),
        "c": pa.array([["x"], None], pa.list_(pa.string_view())),
        "d": pa.array([{"x": "y"}, None], pa.struct({"x": pa.string_view()})),
    }
    tenant = _load_parquet(settings, warehouse, pa.table({"no": [1, 2], "day": pa.array([0, 2**31 - 1], pa.date32())} | views))
    assert tenant.ask("select no, a, c from acme_raw_shop.odd") == [(1, "x", ["x"])]
    assert tenant.ask("select reason from acme_fabric.rejected_rows") == [("out_of_range",)]


def test_two_fields_of_one_name_in_a_parquet_struct_are_both_kept(settings: Settings, warehouse: str | None) -> None:
    struct = pa.StructArray.from_arrays([pa.array([1, None]), pa.array(["x", "y"])], names=["a", "a"])
    tenant = _load_parquet(settings, warehouse, pa.table({"no": [1, 2], "s": struct}))
    found = [value for _, value in tenant.ask("select no, s from acme_raw_shop.odd order by no")]
    assert [value if warehouse else json.loads(value) for value in found] == [[["a", 1], ["a", "x"]], [["a", None], ["a", "y"]]]


def _load_parquet(settings: Settings, warehouse: str | None, table: pa.Table) -> Tenant:
    (settings.data_dir / "in").mkdir()
    pq.write_table(table, settings.data_dir / "in" / "a.parquet")
    source = {"type": "files", "path": "in", "streams": {"odd": {"glob": "*", "format": "parquet", "primary_key": "no"}}}
    tenant = Tenant(settings, source, warehouse=warehouse)
    for _ in range(2):
        tenant.load(full_refresh=True)
    return tenant
