"""Each type of each tested source, with a value of it, the value that arrives and the type that carries it.

tests/loading/test_types.py loads every one into both destinations; `make reference` writes the table in docs/types.md from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC

_NOON = datetime(2024, 2, 29, 12, 34, 56, 789012)  # noqa: DTZ001 - a source's own moment without a zone
_MOMENT = datetime(2024, 2, 29, 10, 34, 56, 789012, tzinfo=UTC)
_LAST = time(23, 59, 59, 999999)
_UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
_FIFTY_DIGITS = "12345678901234567890123456789012345678901234567890.5"


@dataclass(frozen=True)
class Case:
    """Args:
    declared: the column's type at the source.
    literal: a value, in the source's SQL.
    value: what arrives; of JSON its text.
    kind: the type that carries it.
    """

    declared: str
    literal: str
    value: Any
    kind: pa.DataType


POSTGRES: Mapping[str, Case] = {
    "small": Case("smallint", "-32768", -32768, BIGINT),
    "whole": Case("integer", "-5", -5, BIGINT),
    "large": Case("bigint", "9223372036854775807", 2**63 - 1, BIGINT),
    "price": Case("numeric(12,4)", "12345678.9012", Decimal("12345678.9012"), pa.decimal128(12, 4)),
    "wide": Case("numeric(38,10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789"), pa.decimal128(38, 10)),
    "too_wide": Case("numeric(60,10)", _FIFTY_DIGITS, f"{_FIFTY_DIGITS}000000000", TEXT),
    "undeclared": Case("numeric", "0.1234567890123456", Decimal("0.1234567890123456"), pa.decimal128(38, 18)),
    "single": Case("real", "0.5", 0.5, DOUBLE),
    "double": Case("double precision", "0.1", 0.1, DOUBLE),
    "cash": Case("money", "'1234.56'", "$1,234.56", TEXT),
    "word": Case("text", "'ümlaut 🤷 ''quoted'''", "ümlaut 🤷 'quoted'", TEXT),
    "short": Case("varchar(9)", "'ab'", "ab", TEXT),
    "fixed": Case("char(4)", "'ab'", "ab  ", TEXT),
    "flag": Case("boolean", "true", True, BOOL),
    "raw": Case("bytea", "'\\x00ff10'", b"\x00\xff\x10", BINARY),
    "day": Case("date", "'1066-10-14'", date(1066, 10, 14), DATE),
    "clock": Case("time", "'23:59:59.999999'", _LAST, TIME),
    "zoned_clock": Case("timetz", "'12:00:00+02'", "12:00:00+02", TEXT),
    "naive": Case("timestamp", "'2024-02-29 12:34:56.789012'", _NOON, TIMESTAMP),
    "moment": Case("timestamptz", "'2024-02-29 12:34:56.789012+02'", _MOMENT, TIMESTAMP_UTC),
    "span": Case("interval", "'1 month 2 days 03:04:05'", "1 mon 2 days 03:04:05", TEXT),
    "id": Case("uuid", f"'{_UUID}'", _UUID, TEXT),
    "doc": Case("json", """'{"a": 1.10, "b": [null]}'""", '{"a": 1.10, "b": [null]}', JSON),
    "docb": Case("jsonb", """'{"a": 12345678901234567890.10}'""", '{"a": 12345678901234567890.10}', JSON),
    "mood": Case("mood", "'happy'", "happy", TEXT),
    "positive": Case("positive", "7", 7, BIGINT),
    "thing": Case("thing", """row(1, 'a b')""", '(1,"a b")', TEXT),
    "address": Case("inet", "'10.0.0.1'", "10.0.0.1", TEXT),
    "network": Case("cidr", "'10.0.0.0/8'", "10.0.0.0/8", TEXT),
    "card": Case("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03", TEXT),
    "bits": Case("bit(3)", "B'101'", "101", TEXT),
    "more_bits": Case("varbit(9)", "B'0101'", "0101", TEXT),
    "object": Case("oid", "4294967295", 4294967295, BIGINT),
    "range": Case("int4range", "'[1,5)'", "[1,5)", TEXT),
    "days": Case("daterange", "'[2024-01-01,2024-02-01)'", "[2024-01-01,2024-02-01)", TEXT),
    "ranges": Case("int4multirange", "'{[1,3),[5,7)}'", "{[1,3),[5,7)}", TEXT),
    "lexemes": Case("tsvector", "'a:1'", "'a':1", TEXT),
    "spot": Case("point", "'(1,2)'", "(1,2)", TEXT),
    "area": Case("polygon", "'((0,0),(1,1))'", "((0,0),(1,1))", TEXT),
    "numbers": Case("integer[]", "'{1,2,null}'", [1, 2, None], pa.list_(BIGINT)),
    "large_numbers": Case("bigint[]", "'{9223372036854775807}'", [2**63 - 1], pa.list_(BIGINT)),
    "prices": Case("numeric(12,2)[]", "'{1.50,null}'", [Decimal("1.50"), None], pa.list_(pa.decimal128(12, 2))),
    "undeclared_list": Case("numeric[]", "'{0.1234567890123456}'", [Decimal("0.123456789012345600")], pa.list_(pa.decimal128(38, 18))),
    "doubles": Case("double precision[]", "'{0.1,null}'", [0.1, None], pa.list_(DOUBLE)),
    "words": Case("text[]", """'{a,"b,c",null,"NULL",""}'""", ["a", "b,c", None, "NULL", ""], pa.list_(TEXT)),
    "fixed_words": Case("char(3)[]", "'{ab}'", ["ab "], pa.list_(TEXT)),
    "flags": Case("boolean[]", "'{t,f,null}'", [True, False, None], pa.list_(BOOL)),
    "dates": Case("date[]", "'{2024-01-31,null}'", [date(2024, 1, 31), None], pa.list_(DATE)),
    "clocks": Case("time[]", "'{10:00}'", [time(10)], pa.list_(TIME)),
    "naives": Case("timestamp[]", "'{\"2024-02-29 12:34:56.789012\"}'", [_NOON], pa.list_(TIMESTAMP)),
    "moments": Case("timestamptz[]", "'{\"2024-02-29 12:34:56.789012+02\"}'", [_MOMENT], pa.list_(TIMESTAMP_UTC)),
    "raws": Case("bytea[]", "array['\\x00ff'::bytea]", [b"\x00\xff"], pa.list_(BINARY)),
    "ids": Case("uuid[]", f"'{{{_UUID}}}'", [_UUID], pa.list_(TEXT)),
    "moods": Case("mood[]", "'{happy,null}'", ["happy", None], pa.list_(TEXT)),
    "addresses": Case("inet[]", "'{10.0.0.1}'", ["10.0.0.1"], pa.list_(TEXT)),
    "docs": Case("jsonb[]", """array['{"a": 1}'::jsonb]""", ['{"a": 1}'], pa.list_(TEXT)),
    "spans": Case("interval[]", "'{1 day}'", ["1 day"], pa.list_(TEXT)),
    "nothing": Case("integer[]", "'{}'", [], pa.list_(BIGINT)),
}

MARIADB: Mapping[str, Case] = {
    "tiny": Case("tinyint(1)", "7", 7, BIGINT),
    "whole": Case("int unsigned", "4294967295", 2**32 - 1, BIGINT),
    "large": Case("bigint", "-9223372036854775808", -(2**63), BIGINT),
    "unsigned": Case("bigint unsigned", "18446744073709551615", Decimal(2**64 - 1), pa.decimal128(20, 0)),
    "price": Case("decimal(12,4)", "12345678.9012", Decimal("12345678.9012"), pa.decimal128(12, 4)),
    "too_wide": Case("decimal(60,10)", _FIFTY_DIGITS, f"{_FIFTY_DIGITS}000000000", TEXT),
    "single": Case("float", "16777215", 16777215.0, DOUBLE),
    "double": Case("double", "0.1", 0.1, DOUBLE),
    "word": Case("text", "'ümlaut 🤷'", "ümlaut 🤷", TEXT),
    "short": Case("varchar(9)", "'ab'", "ab", TEXT),
    "long": Case("longtext", "'ab'", "ab", TEXT),
    "raw": Case("blob", "x'00ff10'", b"\x00\xff\x10", BINARY),
    "fixed_raw": Case("binary(3)", "x'00ff10'", b"\x00\xff\x10", BINARY),
    "day": Case("date", "'2024-02-29'", date(2024, 2, 29), DATE),
    "clock": Case("time(6)", "'23:59:59.999999'", _LAST, TIME),
    "naive": Case("datetime(6)", "'2024-02-29 12:34:56.789012'", _NOON, TIMESTAMP),
    "moment": Case("timestamp(6) null", "'2024-02-29 12:34:56.789012'", _NOON.replace(tzinfo=UTC), TIMESTAMP_UTC),
    "vintage": Case("year", "1999", 1999, BIGINT),
    "mood": Case("enum('happy','sad')", "'sad'", "sad", TEXT),
    "tags": Case("set('a','b')", "'a,b'", "a,b", TEXT),
    "doc": Case("json", """'{"a": 1.10}'""", '{"a": 1.10}', TEXT),
    "bits": Case("bit(9)", "b'100000001'", Decimal(257), pa.decimal128(20, 0)),
    "id": Case("uuid", f"'{_UUID}'", _UUID, TEXT),
    "address": Case("inet6", "'::1'", "::1", TEXT),
}

SQLITE: Mapping[str, Case] = {
    "number": Case("integer", "9223372036854775807", 2**63 - 1, BIGINT),
    "price": Case("decimal(10,2)", "0.1", Decimal("0.10"), pa.decimal128(10, 2)),
    "fraction": Case("real", "0.1", 0.1, DOUBLE),
    "word": Case("varchar(20)", "'007'", "007", TEXT),
    "flag": Case("boolean", "1", True, BOOL),
    "raw": Case("blob", "x'00ff'", b"\x00\xff", BINARY),
    "day": Case("date", "'2024-02-29'", date(2024, 2, 29), DATE),
    "naive": Case("datetime", "'2024-02-29 12:34:56.789012'", _NOON, TIMESTAMP),
    "moment": Case("timestamp", "'2024-02-29T12:34:56+02:00'", datetime(2024, 2, 29, 10, 34, 56, tzinfo=UTC), TIMESTAMP_UTC),
    "doc": Case("json", """'{"a": 1.10}'""", '{"a": 1.10}', TEXT),
    "loose": Case("", "5", 5, BIGINT),
}

DUCKDB: Mapping[str, Case] = {
    "tiny": Case("tinyint", "-128", -128, BIGINT),
    "large": Case("bigint", "9223372036854775807", 2**63 - 1, BIGINT),
    "unsigned": Case("ubigint", "18446744073709551615", Decimal(2**64 - 1), pa.decimal128(20, 0)),
    "huge": Case("hugeint", "12345678901234567890123456789012345678", Decimal("12345678901234567890123456789012345678"), pa.decimal128(38, 0)),
    "price": Case("decimal(12,4)", "12345678.9012", Decimal("12345678.9012"), pa.decimal128(12, 4)),
    "wide": Case("decimal(38,10)", "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789"), pa.decimal128(38, 10)),
    "single": Case("float", "0.5", 0.5, DOUBLE),
    "double": Case("double", "0.1", 0.1, DOUBLE),
    "flag": Case("boolean", "true", True, BOOL),
    "word": Case("varchar", "'ümlaut 🤷'", "ümlaut 🤷", TEXT),
    "raw": Case("blob", "'\\x00\\xFF'::blob", b"\x00\xff", BINARY),
    "day": Case("date", "'1066-10-14'", date(1066, 10, 14), DATE),
    "clock": Case("time", "'23:59:59.999999'", _LAST, TIME),
    "fine_clock": Case("time_ns", "'23:59:59.999999'", _LAST, TIME),
    "zoned_clock": Case("timetz", "'12:00:00+02'", "12:00:00+02", TEXT),
    "naive": Case("timestamp", "'2024-02-29 12:34:56.789012'", _NOON, TIMESTAMP),
    "seconds": Case("timestamp_s", "'2024-02-29 12:34:56'", _NOON.replace(microsecond=0), TIMESTAMP),
    "fine": Case("timestamp_ns", "'2024-02-29 12:34:56.789012'", _NOON, TIMESTAMP),
    "moment": Case("timestamptz", "'2024-02-29 12:34:56.789012+02'", _MOMENT, TIMESTAMP_UTC),
    "span": Case("interval", "interval '1 month 2 days 03:04:05'", "1 month 2 days 03:04:05", TEXT),
    "id": Case("uuid", f"'{_UUID}'", _UUID, TEXT),
    "doc": Case("json", """'{"a": 1.10}'""", '{"a": 1.10}', JSON),
    "numbers": Case("integer[]", "[1, 2, null]", [1, 2, None], pa.list_(BIGINT)),
    "pair": Case("integer[2]", "[1, 2]", [1, 2], pa.list_(BIGINT)),
    "prices": Case("decimal(12,2)[]", "[1.50, null]", [Decimal("1.50"), None], pa.list_(pa.decimal128(12, 2))),
    "words": Case("varchar[]", "['a', null, 'b c']", ["a", None, "b c"], pa.list_(TEXT)),
    "ids": Case("uuid[]", f"['{_UUID}']", [_UUID], pa.list_(TEXT)),
    "moods": Case("enum('happy', 'sad')[]", "['sad']", ["sad"], pa.list_(TEXT)),
    "huge_list": Case("hugeint[]", "[12345678901234567890]", [Decimal(12345678901234567890)], pa.list_(pa.decimal128(38, 0))),
    "lists": Case("integer[][]", "[[1, 2], [null]]", "[[1,2],[null]]", JSON),
    "thing": Case("struct(a integer, b varchar)", "{'a': 1, 'b': 'x'}", '{"a":1,"b":"x"}', JSON),
    "things": Case("struct(a integer)[]", "[{'a': 1}]", '[{"a":1}]', JSON),
    "pairs": Case("map(varchar, integer)", "map {'k': 1}", '{"k":1}', JSON),
    "either": Case("union(a integer, b varchar)", "union_value(a := 1)", '{"a":1}', JSON),
    "mood": Case("enum('happy', 'sad')", "'sad'", "sad", TEXT),
    "bits": Case("bit", "'101'::bit", "101", TEXT),
}

MATRIX: Mapping[str, Mapping[str, Case]] = {"postgres": POSTGRES, "mariadb": MARIADB, "sqlite": SQLITE, "duckdb": DUCKDB}
# What a Postgres database needs before it can have each of the columns.
POSTGRES_TYPES = (
    "create type mood as enum ('happy', 'sad')",
    "create type thing as (number integer, word text)",
    "create domain positive as integer check (value > 0)",
)


def build_types_table(source: str) -> str:
    """One row per type of a source: what it becomes in each destination."""
    from fabric_assets.warehouse.duckdb import DuckDbSession
    from fabric_assets.warehouse.postgres import PostgresSession

    rows = ["| at the source | in DuckDB | in Postgres |", "| --- | --- | --- |"]
    for case in MATRIX[source].values():
        declared = f"`{_DESCRIBED.get(case.declared, case.declared)}`" if case.declared else "none declared"
        row = f"| {declared} | `{DuckDbSession.name_type(case.kind).lower()}` | `{PostgresSession.name_type(case.kind)}` |"
        if row not in rows:
            rows.append(row)
    return "\n".join(rows)


_DESCRIBED = {"mood": "enum", "mood[]": "enum[]", "thing": "composite type", "positive": "domain over integer"}
