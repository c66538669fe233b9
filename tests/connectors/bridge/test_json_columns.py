"""Lines of JSON as columns: whatever Arrow's parser takes has the values, types, faults and tables of the same lines read one by one."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.connectors.bridge.json_columns import list_present, read_columns, read_fields
from fabric_assets.connectors.bridge.json_lines import read_line
from fabric_assets.connectors.bridge.json_schema import read_types
from fabric_assets.errors import FabricError
from fabric_assets.loading.shaping.shaper import Shaper
from fabric_assets.rows.batches import Batch, StreamPlan
from fabric_assets.rows.stream_names import StreamNames

TYPES: dict[str, dict[str, Any]] = {
    "id": {"type": "integer"},
    "amount": {"type": ["null", "number"]},
    "price": {"type": "number", "multipleOf": 0.01},
    "name": {"type": "string"},
    "at": {"type": ["string", "null"], "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "is_new": {"type": "boolean"},
    "address": {"type": ["null", "object"], "properties": {"city": {"type": "string"}, "floor": {"type": "integer"}}},
}
WHOLE = st.one_of(st.integers(-9, 9), st.integers(-(2**70), 2**70), st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63)]))
NUMBER = st.one_of(WHOLE, st.floats(), st.sampled_from([0.1, 1e22, 1e-300, 5e-324, 0.30000000000000004, -0.0]))
TEXTS = st.one_of(st.text(max_size=4), st.sampled_from(["", "\0", '"id":', "😀", "é", "2024-01-01T00:00:00Z", "2024-01-01 10:00", "2024-02-30", "NaN", "12"]))
ANY = st.one_of(st.none(), NUMBER, TEXTS, st.booleans(), st.just([]), st.just({}), st.just({"city": 5}))
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "id": WHOLE,
    "amount": NUMBER,
    "price": st.one_of(st.integers(-99, 99), st.decimals(-99, 99, places=2).map(float)),
    "name": TEXTS,
    "at": st.sampled_from(["2024-01-01T00:00:00Z", "2024-05-06T07:08:09.123456+02:00", "2024-01-01 10:00", "soon", "0000-01-01T00:00:00Z"]),
    "day": st.sampled_from(["2024-01-01", "2024-02-30", "x"]),
    "is_new": st.booleans(),
    "address": st.fixed_dictionaries({}, optional={"city": TEXTS, "floor": WHOLE}),
}
PLAIN = st.fixed_dictionaries({}, optional={name: st.one_of(st.none(), values) for name, values in FITTING.items()})
SMALL = st.fixed_dictionaries(
    {"id": st.integers(0, 99)}, optional={"amount": st.integers(-5, 5) | st.sampled_from([0.5, 2.25]), "name": st.text("ab", max_size=3)}
)
ODD = st.fixed_dictionaries({}, optional={**dict.fromkeys(FITTING, ANY), "more": ANY})


def write(rows: list[dict[str, Any]], *, ascii_only: bool = True) -> list[bytes]:
    """Write rows as Python's taps do: NaN as it is, and each text whatever it holds."""
    return [json.dumps(row, ensure_ascii=ascii_only).encode(errors="surrogatepass") for row in rows]


def get_schema(names: Mapping[str, Any]) -> pa.Schema:
    form = read_fields({"properties": dict(names)})
    assert form is not None
    return pa.schema(list(form))


def drop_absent(value: Any) -> Any:
    """Drop what makes no column: NULL, and objects without a value."""
    if not isinstance(value, dict):
        return value
    found = {key: drop_absent(inner) for key, inner in value.items()}
    return {key: inner for key, inner in found.items() if inner is not None and inner != {}}


def have_same_values(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and found.keys() == wanted.keys() and all(have_same_values(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return type(found) is type(wanted) and found == wanted
    # A whole number in a column of doubles; what does not come back as it was must not be taken.
    return not isinstance(found, bool) and isinstance(found, int | float) and found == wanted and int(found) == int(wanted)


@given(rows=st.lists(st.one_of(PLAIN, SMALL, ODD), min_size=1, max_size=5), ascii_only=st.booleans())
def test_what_is_read_as_columns_are_the_values_of_the_lines(rows: list[dict[str, Any]], ascii_only: bool) -> None:
    lines = write(rows, ascii_only=ascii_only)
    table = read_columns(b"\n".join(lines), len(lines), get_schema(TYPES))
    if table is not None:
        read = [drop_absent(read_line(line)) for line in lines]
        found = [drop_absent(row) for row in table.to_pylist()]
        assert all(have_same_values(*pair) for pair in zip(found, read, strict=True)), (found, read)
        assert {name for row in rows for name in row} <= {*list_present(table, b"\n".join(lines))}


@given(
    batches=st.lists(st.lists(st.one_of(PLAIN, SMALL), min_size=1, max_size=4), min_size=1, max_size=3),
    key=st.sampled_from([(), ("id",), ("name",)]),
    data_type=st.sampled_from(["evolve", "discard", "freeze"]),
    columns=st.sampled_from(["evolve", "discard", "freeze"]),
    layout=st.sampled_from([{}, {"id": pa.int64(), "amount": pa.float64(), "name": pa.string()}, {"id": pa.int64(), "amount": pa.int64(), "day": pa.date32()}]),
)
def test_columns_and_lines_become_the_same_tables_changes_and_rejects(
    batches: list[list[dict[str, Any]]], key: tuple[str, ...], data_type: Any, columns: Any, layout: Mapping[str, pa.DataType]
) -> None:
    contract = SchemaContract(columns=columns, data_type=data_type)
    plan = StreamPlan("orders", "merge" if key else "append", key, contract=contract, is_json=True, types=read_types({"properties": TYPES}))
    known = {"orders": {**layout, "_dlt_load_id": pa.string(), "_dlt_id": pa.string()}} if layout else {}
    found, wanted = (load(plan, batches, known, as_columns=as_columns) for as_columns in (True, False))
    # Of a row with two faults, either may be named, and of two changes that are refused.
    assert leave_out_reasons(found) == leave_out_reasons(wanted)


def leave_out_reasons(result: Any) -> Any:
    loaded, *others = result
    return [(tables, [raw for *_, raw in rejects], count) for tables, rejects, count in loaded], [] if isinstance(others[0], str) else others


@pytest.mark.parametrize(
    "row",
    [{"id": None, "name": "x"}, {"name": "x"}, {"id": 2, "amount": 0.5}, {"id": 2, "name": "a\0b"}, {"id": 2, "day": "x"}, {"id": 2, "address": {"city": "x"}}],
)
@pytest.mark.parametrize("choice", ["evolve", "discard", "freeze"])
def test_a_row_that_does_not_fit_has_the_same_reason(row: dict[str, Any], choice: Any) -> None:
    plan = StreamPlan("orders", "merge", ("id",), contract=SchemaContract(columns=choice, data_type=choice), is_json=True)
    layout = {"orders": {"id": pa.int64(), "amount": pa.int64(), "day": pa.date32(), "_dlt_load_id": pa.string(), "_dlt_id": pa.string()}}
    batches = [[{"id": 1}, row]]
    assert load(plan, batches, layout, as_columns=True) == load(plan, batches, layout, as_columns=False)


def load(plan: StreamPlan, batches: list[list[dict[str, Any]]], layout: Any, *, as_columns: bool) -> Any:
    shaper = Shaper(plan, names=StreamNames("orders", layout=layout, kept=None, where="x"), refuse_nul=True, load_id="L1", where="x")
    found = list[Any]()
    try:
        for rows in batches:
            lines = write(rows)
            table = read_columns(b"\n".join(lines), len(lines), get_schema(TYPES)) if as_columns else None
            read = [read_line(line) for line in lines] if table is None else table.select(list_present(table, b"\n".join(lines)))
            shaped = shaper.shape(Batch("orders", read, is_json=table is not None))
            found.append((describe(shaped.tables), describe_rejects(shaped.rejects), shaped.loaded))
    except FabricError as error:
        return found, str(error)
    types = {table: dict(sorted((name, str(kind)) for name, kind in columns.items())) for table, columns in shaper.tables.items()}
    return found, types, sorted(map(str, shaper.changes))


def describe(tables: Mapping[str, pa.Table]) -> Any:
    """Describe the rows of tables without their ids, which are unique in either way."""
    for table in tables.values():
        ids = table["_dlt_id"].to_pylist() if "_dlt_id" in table.column_names else []
        assert len({*ids}) == len(ids)
    return {name: list(map(drop_ids, make_readable(table).to_pylist())) for name, table in tables.items()}


def make_readable(table: pa.Table) -> pa.Table:
    """Make numbers of the moments that Python has no value for."""
    for index, field in enumerate(table.schema):
        if pa.types.is_temporal(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.int32() if pa.types.is_date32(field.type) else pa.int64()))
    return table


def drop_ids(row: dict[str, Any]) -> dict[str, str]:
    return {key: repr(value) for key, value in row.items() if key != "_dlt_id" and value is not None}


def describe_rejects(rejects: Any) -> Any:
    return [(reject.column, reject.reason, reject.message, drop_absent(json.loads(reject.raw))) for reject in rejects]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 1, "id": 2}',
        '{"id": 1.0}',
        '{"id": true}',
        '{"id": 9223372036854775808}',
        '{"amount": 9007199254740993}',
        '{"amount": 0.12345678901234567}',
        '{"amount": 1e-400}',
        '{"amount": 1e400}',
        '{"amount": NaN}',
        '{"amount": -Infinity}',
        '{"name": "\\ud83d"}',
        '{"name": 5}',
        '{"name": {"x": 1}}',
        '{"other": 1}',
        '{"id": 1} {"id": 2}',
        '{"id": 1',
        "[1]",
    ],
)
def test_a_line_that_needs_care_is_not_taken(line: str) -> None:
    assert read_columns(b'{"id": 1}\n' + line.encode(), 2, get_schema(TYPES)) is None


def test_bytes_that_are_no_text_are_not_taken() -> None:
    assert read_columns(b'{"name": "\xff"}', 1, get_schema(TYPES)) is None


@pytest.mark.parametrize(
    "declared", [{"type": "array"}, {"type": ["string", "integer"]}, {}, {"type": "object"}, {"type": ["object", "string"], "properties": {}}]
)
def test_fields_that_may_hold_anything_are_read_line_by_line(declared: dict[str, Any]) -> None:
    assert read_fields({"properties": {"id": {"type": "integer"}, "any": declared}}) is None


def test_a_schema_that_is_nested_without_end_is_read_line_by_line() -> None:
    nested: dict[str, Any] = {"type": "integer"}
    for _ in range(500):
        nested = {"type": "object", "properties": {"a": nested}}
    assert read_fields(nested) is None


def test_whole_blocks_are_taken() -> None:
    """The control: the comparison above would hold for a reader that takes nothing."""
    rows = [{"id": number, "amount": number / 4, "name": f"n{number}", "at": "2024-01-01T00:00:00Z", "address": {"city": "é"}} for number in range(50)]
    table = read_columns(b"\n".join(write(rows)), len(rows), get_schema(TYPES))
    assert table is not None
    assert [drop_absent(row) for row in table.to_pylist()] == rows
    assert not math.isnan(table["amount"].to_pylist()[-1])
