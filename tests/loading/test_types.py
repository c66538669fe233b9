"""Value by value: what the source holds is what the warehouse holds, on both destinations."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import SourceError
from fabric_assets.settings import Settings
from tests.loading.duck import DuckSource
from tests.loading.shop import SourceDatabase, Tenant, build_sqlite_url

# column: (type, literal, what the warehouse holds)
POSTGRES: dict[str, tuple[str, str, Any]] = {
    "small": ("smallint", "-32768", -32768),
    "large": ("bigint", "9223372036854775807", 2**63 - 1),
    "price": ("numeric(12,4)", "12345678.9012", Decimal("12345678.9012")),
    "wide": ("numeric(38,10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    "too_wide": ("numeric(60,10)", "12345678901234567890123456789012345678901234567890.5", "12345678901234567890123456789012345678901234567890.5000000000"),
    "undeclared": ("numeric", "0.1234567890123456", Decimal("0.1234567890123456")),
    "single": ("real", "0.5", 0.5),
    "double": ("double precision", "0.1", 0.1),
    "word": ("text", "'ümlaut 🤷 ''quoted'''", "ümlaut 🤷 'quoted'"),
    "fixed": ("char(4)", "'ab'", "ab  "),
    "flag": ("boolean", "true", True),
    "raw": ("bytea", "'\\x00ff10'", b"\x00\xff\x10"),
    "day": ("date", "'1066-10-14'", date(1066, 10, 14)),
    "clock": ("time", "'23:59:59.999999'", time(23, 59, 59, 999999)),
    "zoned_clock": ("timetz", "'12:00:00+02'", "12:00:00+02"),
    "naive": ("timestamp", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012)),
    "moment": ("timestamptz", "'2024-02-29 12:34:56.789012+02'", datetime(2024, 2, 29, 10, 34, 56, 789012, tzinfo=UTC)),
    "span": ("interval", "'1 month 2 days 03:04:05'", "1 mon 2 days 03:04:05"),
    "id": ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "doc": ("json", """'{"a": 1.10, "b": [null]}'""", '{"a": 1.10, "b": [null]}'),
    "docb": ("jsonb", """'{"a": 12345678901234567890.10}'""", '{"a": 12345678901234567890.10}'),
    "numbers": ("int[]", "'{1,2,null}'", "{1,2,NULL}"),
    "words": ("text[]", """'{a,"b,c"}'""", '{a,"b,c"}'),
    "mood": ("mood", "'happy'", "happy"),
    "address": ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    "cash": ("money", "'1234.56'", Decimal("1234.56")),
    "bits": ("bit(3)", "B'101'", "101"),
    "object": ("oid", "4294967295", 4294967295),
    "range": ("int4range", "'[1,5)'", "[1,5)"),
}


MARIADB: dict[str, tuple[str, str, Any]] = {
    "tiny": ("tinyint(1)", "7", 7),
    "large": ("bigint unsigned", "18446744073709551615", Decimal(2**64 - 1)),
    "price": ("decimal(12,4)", "12345678.9012", Decimal("12345678.9012")),
    "too_wide": ("decimal(60,10)", "12345678901234567890123456789012345678901234567890.5", "12345678901234567890123456789012345678901234567890.5000000000"),
    "single": ("float", "16777215", 16777215.0),
    "double": ("double", "0.1", 0.1),
    "word": ("text", "'ümlaut 🤷'", "ümlaut 🤷"),
    "raw": ("blob", "x'00ff10'", b"\x00\xff\x10"),
    "day": ("date", "'2024-02-29'", date(2024, 2, 29)),
    "clock": ("time(6)", "'23:59:59.999999'", time(23, 59, 59, 999999)),
    "naive": ("datetime(6)", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012)),
    "moment": ("timestamp(6) null", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=UTC)),
    "vintage": ("year", "1999", 1999),
    "mood": ("enum('happy','sad')", "'sad'", "sad"),
    "tags": ("set('a','b')", "'a,b'", "a,b"),
    "doc": ("json", """'{"a": 1.10}'""", '{"a": 1.10}'),
    "bits": ("bit(9)", "b'100000001'", Decimal(257)),
}


SQLITE: dict[str, tuple[str, str, Any]] = {
    "number": ("integer", "9223372036854775807", 2**63 - 1),
    "price": ("decimal(10,2)", "0.1", Decimal("0.10")),
    "fraction": ("real", "0.1", 0.1),
    "word": ("varchar(20)", "'007'", "007"),
    "flag": ("boolean", "1", True),
    "raw": ("blob", "x'00ff'", b"\x00\xff"),
    "day": ("date", "'2024-02-29'", date(2024, 2, 29)),
    "naive": ("datetime", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012)),
    "moment": ("timestamp", "'2024-02-29T12:34:56+02:00'", datetime(2024, 2, 29, 10, 34, 56, tzinfo=UTC)),
    "loose": ("", "5", 5),
}

DUCKDB: dict[str, tuple[str, str, Any]] = {
    "tiny": ("tinyint", "-128", -128),
    "large": ("bigint", "9223372036854775807", 2**63 - 1),
    "unsigned": ("ubigint", "18446744073709551615", Decimal(2**64 - 1)),
    "huge": ("hugeint", "12345678901234567890123456789012345678", Decimal("12345678901234567890123456789012345678")),
    "price": ("decimal(12,4)", "12345678.9012", Decimal("12345678.9012")),
    "wide": ("decimal(38,10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    "single": ("float", "0.5", 0.5),
    "double": ("double", "0.1", 0.1),
    "flag": ("boolean", "true", True),
    "word": ("varchar", "'ümlaut 🤷'", "ümlaut 🤷"),
    "raw": ("blob", "'\\x00\\xFF'::blob", b"\x00\xff"),
    "day": ("date", "'1066-10-14'", date(1066, 10, 14)),
    "clock": ("time", "'23:59:59.999999'", time(23, 59, 59, 999999)),
    "zoned_clock": ("timetz", "'12:00:00+02'", "12:00:00+02"),
    "naive": ("timestamp", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012)),
    "whole": ("timestamp_s", "'2024-02-29 12:34:56'", datetime(2024, 2, 29, 12, 34, 56)),
    "fine": ("timestamp_ns", "'2024-02-29 12:34:56.789012'", datetime(2024, 2, 29, 12, 34, 56, 789012)),
    "moment": ("timestamptz", "'2024-02-29 12:34:56.789012+02'", datetime(2024, 2, 29, 10, 34, 56, 789012, tzinfo=UTC)),
    "span": ("interval", "interval '1 month 2 days 03:04:05'", "1 month 2 days 03:04:05"),
    "id": ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "doc": ("json", """'{"a": 1.10}'""", '{"a": 1.10}'),
    "numbers": ("integer[]", "[1, 2, null]", "[1,2,null]"),
    "pair": ("integer[2]", "[1, 2]", "[1,2]"),
    "thing": ("struct(a integer, b varchar)", "{'a': 1, 'b': 'x'}", '{"a":1,"b":"x"}'),
    "pairs": ("map(varchar, integer)", "map {'k': 1}", '{"k":1}'),
    "mood": ("enum('happy', 'sad')", "'sad'", "sad"),
    "bits": ("bit", "'101'::bit", "101"),
}


MATRIX = {"postgres": POSTGRES, "mariadb": MARIADB, "sqlite": SQLITE, "duckdb": DUCKDB}


@pytest.mark.parametrize("kind", MATRIX)
def test_each_type_keeps_its_value(kind: str, request: pytest.FixtureRequest, tmp_path: Path, warehouse: str | None, settings: Settings) -> None:
    cases = MATRIX[kind]
    source = _open_source(kind, request, tmp_path, settings)
    mark = "`" if kind == "mariadb" else '"'
    columns = ", ".join(f"{mark}{name}{mark} {declared}" for name, (declared, _, _) in cases.items())
    source.run(
        *(["create type mood as enum ('happy', 'sad')"] if kind == "postgres" else []),
        *(["set time_zone = '+00:00'"] if kind == "mariadb" else []),
        f"create table every (no integer, {columns})",
        f"insert into every values (1, {', '.join(literal for _, literal, _ in cases.values())})",
        "insert into every (no) values (2)",
    )
    tenant = Tenant(settings, source.build_source(every={"primary_key": "no"}), warehouse=warehouse)
    # Once as a new table, and once merged into the types that it has.
    for _ in range(2):
        assert tenant.load()["every"].record.rows_rejected == 0
        first, second = tenant.read("every", *cases, order="no")
        assert {name: _plain(value) for name, value in zip(cases, first, strict=True)} == {name: expected for name, (_, _, expected) in cases.items()}
        assert set(second) == {None}
        assert [column.name for column in tenant.load()["every"].columns] == ["no", *cases]


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


def test_an_undeclared_numeric_with_nan_is_kept_as_text(postgres_database: str, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table odd (id integer, v numeric)", "insert into odd values (1, 1.5), (2, 'NaN'), (3, 'Infinity')")
    tenant = Tenant(settings, source.build_source(odd={}))
    tenant.load()
    assert tenant.read("odd", "id", "v") == [(1, "1.5"), (2, "NaN"), (3, "Infinity")]


def test_an_undeclared_numeric_that_becomes_none_is_kept_beside_the_numbers(postgres_database: str, warehouse: str | None, settings: Settings) -> None:
    source = SourceDatabase(postgres_database, settings)
    source.run("create table odd (id integer, v numeric)", "insert into odd values (1, 1.5)")
    tenant = Tenant(settings, source.build_source(odd={"primary_key": "id"}), warehouse=warehouse)
    tenant.load()
    source.run("insert into odd values (2, 'NaN'), (3, 2.25)")
    tenant.load()
    assert tenant.read("odd", "id", "v", "v__v_text") == [(1, Decimal("1.5"), None), (2, None, "NaN"), (3, Decimal("2.25"), None)]


def test_a_declared_numeric_that_is_none_is_kept_beside_the_numbers(postgres_database: str, warehouse: str | None, settings: Settings) -> None:
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
    with pytest.warns(Warning, match="Did not recognize type"), pytest.raises(SourceError, match="column spot has the type .*cannot be carried") as caught:
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
    """Both drivers' ways to give the same value: bytes come as memoryview, moments in one zone or another."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    return value
