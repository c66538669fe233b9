"""A reflected database column -> how to read it: the SQL expression, and the Arrow type that carries its values.

Types that some warehouse lacks (uuid, inet, interval, enum, array, json) are read as text that the source itself writes. It is readable, exact, and can be cast
in a model. A type without a text form is refused by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cache
from typing import Any

import pyarrow as pa
from sqlalchemy import Dialect
from sqlalchemy import types as sa
from sqlalchemy.engine.default import StrCompileDialect

from fabric_assets.errors import SourceError
from fabric_assets.rows import arrow_types
from fabric_assets.rows.nested_types import SOURCE_JSON
from fabric_assets.rows.value_forms import CURRENT

# Postgres's numeric without declared precision: a number where all values fit this one, else text, which holds NaN as well.
UNDECLARED_DECIMAL = pa.decimal128(38, 18)
UNDECLARED_MISFIT = "{c} = 'NaN' or abs({c}) >= 1e20 or scale({c}) > 18"


@dataclass(frozen=True)
class SqlColumn:
    """How to read a column.

    Args:
        sql: the expression that reads it, quoted.
        kind: the Arrow type of its values; None if only the values show it (SQLite, numbers of undeclared precision).
        convert: driver value -> value for `kind`; None for no conversion.
        beside: the expression that reads, as text, the values that `sql` leaves out.
    """

    name: str
    sql: str
    declared: str
    kind: pa.DataType | None
    convert: Callable[[Any], Any] | None = None
    beside: str | None = None


class UnknownType(sa.NullType):
    """A type that SQLAlchemy does not know.

    Args:
        name: the database's name of the type.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def build_column(name: str, kind: sa.TypeEngine[Any], *, quoted: str, dialect: str, label: str, value_forms: int = CURRENT) -> SqlColumn:
    """Plan how to read a column.

    Args:
        value_forms: the version in which the stream's values are written (value_forms.py).

    Raises:
        SourceError: its type cannot be carried.
    """
    if dialect == "sqlite":
        return SqlColumn(name, quoted, "" if isinstance(kind, sa.NullType) else describe_type(kind), None)
    declared = describe_type(kind)
    builder = {"postgresql": _build_postgres, "mysql": _build_mysql}.get(dialect, _build_generic)
    new = _NEW_FORMS.get(dialect, _build_none)(name, kind, quoted, declared) if value_forms >= 2 else None
    column = new or builder(name, kind, quoted, declared)
    if column is None:
        raise SourceError(
            f"{label}: column {name} has the type {declared}, which cannot be carried",
            remedy="leave it out: list the wanted ones under the stream's columns, or read a view that casts it",
        )
    return column


def is_category(declared: Any) -> bool:
    """Whether a reflected type has few values by declaration: a flag or an enum."""
    if isinstance(declared, str):
        return declared.startswith("ENUM") or declared == "BOOLEAN"
    if type(declared).__name__ == "DOMAIN":
        return is_category(declared.data_type)
    # What MySQL makes of BOOLEAN.
    is_flag = type(declared).__name__ == "TINYINT" and getattr(declared, "display_width", None) == 1
    return is_flag or isinstance(declared, sa.Boolean | sa.Enum) or type(declared).__name__ in {"ENUM", "SET"}


def get_kind(column: SqlColumn) -> pa.DataType:
    """The Arrow type of a column whose type is decided."""
    assert column.kind is not None
    return column.kind


def describe_type(kind: sa.TypeEngine[Any]) -> str:
    if isinstance(kind, UnknownType):
        return kind.name
    if isinstance(kind, sa.Enum) and kind.name:
        return f"ENUM {kind.name}"  # SQLAlchemy writes it as the VARCHAR that other databases have instead
    dialect = _get_dialect()
    try:
        return kind.compile(dialect=dialect)
    except Exception:  # noqa: BLE001 - a type of a foreign dialect may fail in any way to write itself down
        return type(kind).__name__


@cache
def _get_dialect() -> Dialect:
    """The dialect of `str(type)`. SQLAlchemy creates one for each type, which is a third of the time to look up 200 tables."""
    return StrCompileDialect()


def get_decimal(kind: Any) -> pa.DataType | None:
    """The exact decimal of a declared precision; None if it is undeclared, TEXT if it is too wide."""
    if kind.precision is None:
        return None
    scale = kind.scale or 0
    if kind.precision > arrow_types.MAX_PRECISION or not 0 <= scale <= kind.precision:
        return arrow_types.TEXT
    return pa.decimal128(kind.precision, scale)


_POSTGRES_NATIVE: tuple[tuple[type[Any], pa.DataType], ...] = (
    (sa.Boolean, arrow_types.BOOL),
    (sa.Integer, arrow_types.BIGINT),
    (sa.Float, arrow_types.DOUBLE),
    (sa.LargeBinary, arrow_types.BINARY),
    (sa.Date, arrow_types.DATE),
)


def _build_postgres(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    if (inner := getattr(kind, "data_type", None)) is not None and type(kind).__name__ == "DOMAIN":
        return _build_postgres(name, inner, quoted, describe_type(inner))
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        return SqlColumn(name, f"{quoted}::text", declared, get_decimal(kind))
    if isinstance(kind, sa.CHAR | sa.VARCHAR | sa.TEXT) and type(kind).__name__ in {"CHAR", "VARCHAR", "TEXT"}:
        # Without a cast: char(4) to text drops the padding.
        return SqlColumn(name, quoted, declared, arrow_types.TEXT)
    if isinstance(kind, sa.DateTime):
        return SqlColumn(name, quoted, declared, arrow_types.TIMESTAMP_UTC if kind.timezone else arrow_types.TIMESTAMP)
    if isinstance(kind, sa.Time) and not kind.timezone:
        return SqlColumn(name, quoted, declared, arrow_types.TIME)
    for base, carried in _POSTGRES_NATIVE:
        if isinstance(kind, base):
            return SqlColumn(name, quoted, declared, carried)
    if type(kind).__name__ == "MONEY":
        return SqlColumn(name, f"{quoted}::numeric::text", declared, pa.decimal128(20, 2))
    if type(kind).__name__ == "BYTEA":
        return SqlColumn(name, quoted, declared, arrow_types.BINARY)
    if type(kind).__name__ == "OID":
        return SqlColumn(name, f"{quoted}::bigint", declared, arrow_types.BIGINT)
    return SqlColumn(name, f"{quoted}::text", declared, arrow_types.TEXT)


# Each value as the server shows it: a plain cast would make 10.0.0.1/32 of the address 10.0.0.1.
_AS_TEXTS = "::text::text[]"
_ARRAYS = {
    arrow_types.BOOL: "::boolean[]",
    arrow_types.BIGINT: "::bigint[]",
    arrow_types.DOUBLE: "::double precision[]",
    arrow_types.BINARY: "::bytea[]",
    arrow_types.DATE: "::date[]",
    arrow_types.TIME: "::time[]",
    arrow_types.TIMESTAMP: "::timestamp[]",
    arrow_types.TIMESTAMP_UTC: "::timestamptz[]",
}


def _build_new_postgres(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    """Lists, JSON, money and addresses; None of any other type."""
    word = type(kind).__name__
    if word == "DOMAIN" and (inner := getattr(kind, "data_type", None)) is not None:
        return _build_new_postgres(name, inner, quoted, describe_type(inner))
    if isinstance(kind, sa.ARRAY):
        return _build_postgres_array(name, kind, quoted, declared)
    if word in {"JSON", "JSONB"}:
        return SqlColumn(name, f"{quoted}::text", declared, SOURCE_JSON)
    if word == "HSTORE":
        return SqlColumn(name, f"to_json({quoted})::text", declared, SOURCE_JSON)
    if word == "INET":
        return SqlColumn(name, f"nullif(concat({quoted}), '')", declared, arrow_types.TEXT)
    # The server writes it as its own lc_monetary says, with the currency; as a number it would have none.
    return SqlColumn(name, f"{quoted}::text", declared, arrow_types.TEXT) if word == "MONEY" else None


def _build_postgres_array(name: str, kind: sa.ARRAY[Any], quoted: str, declared: str) -> SqlColumn:
    """Plan a list. Postgres lets each value have its own number of dimensions, so arrays of several are read beside it, as JSON text."""
    item: Any = kind.item_type
    while type(item).__name__ == "DOMAIN":
        item = item.data_type
    word = type(item).__name__
    if isinstance(item, sa.Numeric) and not isinstance(item, sa.Float):
        values, cast = get_decimal(item) or UNDECLARED_DECIMAL, _AS_TEXTS
    elif word == "OID":
        values, cast = arrow_types.BIGINT, "::bigint[]"
    else:
        element = _build_postgres(name, item, quoted, declared)
        is_native = element is not None and element.kind is not None and element.sql == quoted
        values, cast = (element.kind, "") if element is not None and element.kind is not None and is_native else (arrow_types.TEXT, _AS_TEXTS)
        if item is not kind.item_type:
            # The driver knows no arrays of a domain.
            cast = _ARRAYS.get(values, _AS_TEXTS)
    is_nested = f"array_ndims({quoted}) > 1"
    # The driver cannot read an array whose first index is not 1; a slice of the whole array begins at 1.
    listed = f"case when {is_nested} then null when array_lower({quoted}, 1) <> 1 then ({quoted})[:]{cast} else {quoted}{cast} end"
    nested = f"case when {is_nested} then to_json({quoted})::text end"
    return SqlColumn(name, listed, declared, pa.list_(values), beside=nested)


def _build_new_mysql(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    return SqlColumn(name, quoted, declared, SOURCE_JSON, _as_text) if type(kind).__name__ == "JSON" else None


def _build_none(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    return None


_NEW_FORMS = {"postgresql": _build_new_postgres, "mysql": _build_new_mysql}


def _build_mysql(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    word = type(kind).__name__
    if word in {"FLOAT", "REAL"}:
        # The server writes a FLOAT with six digits; as a double it writes all of them.
        return SqlColumn(name, f"({quoted} + 0.0e0)", declared, arrow_types.DOUBLE)
    if word == "BIGINT" and getattr(kind, "unsigned", False):
        return SqlColumn(name, quoted, declared, pa.decimal128(20, 0))
    if word == "TIMESTAMP":
        return SqlColumn(name, quoted, declared, arrow_types.TIMESTAMP_UTC)
    if word == "YEAR":
        return SqlColumn(name, quoted, declared, arrow_types.BIGINT)
    if word == "BIT":
        return SqlColumn(name, f"({quoted} + 0)", declared, pa.decimal128(20, 0))
    if word in {"TINYBLOB", "MEDIUMBLOB", "LONGBLOB"}:
        return SqlColumn(name, quoted, declared, arrow_types.BINARY)
    if word in {"SET", "ENUM", "JSON", "LONGTEXT", "UUID", "INET4", "INET6"}:
        return SqlColumn(name, quoted, declared, arrow_types.TEXT, _as_text)
    return _build_generic(name, kind, quoted, declared)


def _build_generic(name: str, kind: sa.TypeEngine[Any], quoted: str, declared: str) -> SqlColumn | None:
    def plan(carried: pa.DataType | None, convert: Callable[[Any], Any] | None = None) -> SqlColumn:
        return SqlColumn(name, quoted, declared, carried, convert)

    if isinstance(kind, sa.Boolean):
        return plan(arrow_types.BOOL, bool)
    if isinstance(kind, sa.Integer):
        return plan(arrow_types.BIGINT)
    if isinstance(kind, sa.Float):
        return plan(arrow_types.DOUBLE)
    if isinstance(kind, sa.Numeric):
        carried = get_decimal(kind) or arrow_types.TEXT
        return plan(carried, str if carried == arrow_types.TEXT else None)
    if isinstance(kind, sa.DateTime):
        return plan(arrow_types.TIMESTAMP_UTC if kind.timezone else arrow_types.TIMESTAMP)
    if isinstance(kind, sa.Date):
        return plan(arrow_types.DATE, _as_date)
    if isinstance(kind, sa.Time):
        return plan(arrow_types.TIME, _as_time)
    if isinstance(kind, sa.LargeBinary | sa.BINARY | sa.VARBINARY):
        return plan(arrow_types.BINARY)
    if isinstance(kind, sa.JSON):
        return plan(arrow_types.TEXT, lambda value: value if isinstance(value, str) else arrow_types.to_json(value))
    if isinstance(kind, sa.ARRAY):
        return plan(arrow_types.TEXT, arrow_types.to_json)
    if isinstance(kind, sa.String | sa.Uuid | sa.Interval | sa.Enum):
        return plan(arrow_types.TEXT, _as_text)
    return None


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, set | frozenset):
        return ",".join(sorted(value))
    return value if isinstance(value, str) else str(value)


def _as_date(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    if value.time() != time.min:
        raise ValueError(f"{value} has a time of day")
    return value.date()


def _as_time(value: Any) -> Any:
    """Convert MySQL's TIME, a span of up to 838 hours, into a time of day, which is what warehouses have."""
    if not isinstance(value, timedelta):
        return value
    if not timedelta(0) <= value < timedelta(days=1):
        raise ValueError(f"{value} is a span and no time of day")
    return (datetime(1, 1, 1) + value).time()  # noqa: DTZ001 - a time of day has no zone
