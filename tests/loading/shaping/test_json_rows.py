"""JSON objects become the tables that dlt makes of them, whatever their keys and values are."""

from collections import defaultdict
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from dlt.common.configuration.container import Container
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.schema import Schema
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.frames import Frame
from fabric_assets.loading.shaping.json_rows import JsonRows, split_by_type
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DOUBLE, LARGE, TEXT
from fabric_assets.rows.column_names import normalize_column
from fabric_assets.rows.stream_names import StreamNames

Rows = dict[str, list[dict[str, Any]]]

KEYS = st.sampled_from(["id", "aB", "a_b2", "Gr+e", "a.b", "a b", "%", "1st", "_x", "x_", "items", "list", "value", "y" * 70, "deep__er"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text("aé🤷\n", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_tables_names_links_and_values_are_dlts(rows: list[dict[str, Any]]) -> None:
    names = StreamNames("orders", layout={})
    frames, faults = JsonRows("orders", names, load_id="L1", with_root=True, where="p").flatten(rows, range(len(rows)))
    assert faults == {}
    # Of two fields that become one column dlt keeps one.
    assume(not names.get_changes({frame.table: frame.columns for frame in frames}))
    found = {frame.table: read(frame) for frame in frames if frame.size}
    ids = [row["_dlt_id"] for row in found.get("orders", [])]
    assert found == flatten_with_dlt([{"_dlt_id": row_id, **leave_nulls_out(row)} for row_id, row in zip(ids, rows, strict=True)])


def leave_nulls_out(value: Any) -> Any:
    """Of two keys that become one column dlt keeps the last one even if it is null, and the other's value is lost."""
    if isinstance(value, dict):
        return {key: leave_nulls_out(inner) for key, inner in value.items() if inner is not None}
    return [leave_nulls_out(inner) for inner in value] if isinstance(value, list) else value


def test_two_fields_that_dlt_would_mix_have_a_column_each() -> None:
    (frame,), _ = JsonRows("orders", StreamNames("orders", layout={}), load_id="L1", with_root=True, where="p").flatten(
        [{"aB": False, "a.b": None}, {"aB": None, "a.b": 1}], [0, 1]
    )
    assert [(row.get("a_b"), row.get("a_b_2")) for row in read(frame)] == [(False, None), (None, 1)]


@cache
def build_schema() -> Schema:
    capabilities = DestinationCapabilitiesContext.generic_capabilities()
    capabilities.max_identifier_length = capabilities.max_column_identifier_length = 63
    links = {"propagation": {"tables": {"orders": {"_dlt_id": "_dlt_root_id"}}}}
    with Container().injectable_context(capabilities):
        schema = Schema("shop", normalizers={"names": "snake_case", "json": {"module": "dlt.common.normalizers.json.relational", "config": links}})  # type: ignore[typeddict-item]
    schema.update_table({"name": "orders", "columns": {}})
    return schema


def flatten_with_dlt(rows: list[dict[str, Any]]) -> Rows:
    tables: Rows = defaultdict(list)
    for row in rows:
        for (table, _, _), flat in build_schema().normalize_data_item(row, "L1", "orders"):
            tables[table].append({name: value for name, value in flat.items() if value is not None})
    return dict(tables)


def read(frame: Frame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(frame.size)]
    for name, column in frame.columns.items():
        for part in column.parts:
            for row, value in zip(rows, part.to_pylist(), strict=True):
                if value is not None:
                    row[name] = value
    return rows


def flatten(*rows: dict[str, Any], with_root: bool = False) -> tuple[Rows, dict[int, str]]:
    frames, faults = JsonRows("orders", StreamNames("orders", layout={}), load_id="L1", with_root=with_root, where="tenant acme").flatten(
        rows, range(len(rows))
    )
    return {frame.table: read(frame) for frame in frames}, {row: fault.reason for row, fault in faults.items()}


def test_a_list_becomes_a_table_that_is_linked_to_its_row() -> None:
    tables, _ = flatten({"id": 1, "lines": [{"sku": "a"}, {"sku": "b", "tags": ["x", None]}]}, with_root=True)
    (order,) = tables["orders"]
    first, second = tables["orders__lines"]
    assert order == {"id": 1, "_dlt_load_id": "L1", "_dlt_id": order["_dlt_id"]}
    assert [(line["sku"], line["_dlt_list_idx"], line["_dlt_parent_id"], line["_dlt_root_id"]) for line in (first, second)] == [
        ("a", 0, order["_dlt_id"], order["_dlt_id"]),
        ("b", 1, order["_dlt_id"], order["_dlt_id"]),
    ]
    assert [(tag.get("value"), tag["_dlt_parent_id"], tag["_dlt_root_id"]) for tag in tables["orders__lines__tags"]] == [
        ("x", second["_dlt_id"], order["_dlt_id"]),
        (None, second["_dlt_id"], order["_dlt_id"]),
    ]


def test_ids_differ_between_rows_and_loads_and_are_the_same_for_the_same_rows() -> None:
    def get_ids(load_id: str) -> list[str]:
        frames, _ = JsonRows("orders", StreamNames("orders", layout={}), load_id=load_id, with_root=False, where="p").flatten([{"a": 1}, {"a": 1}], [0, 1])
        return [row["_dlt_id"] for row in read(frames[0])]

    assert get_ids("L1") == get_ids("L1")
    assert len({*get_ids("L1"), *get_ids("L2")}) == 4


@pytest.mark.parametrize(
    ("row", "table", "values"),
    [
        ({"userId": 1, "user_id": 2}, "orders", {"user_id": 1, "user_id_2": 2}),
        ({"home": {"city": "a"}, "home__city": "b"}, "orders", {"home__city": "a", "home__city_2": "b"}),
        ({"home": {"город": 1, "улица": 2}}, "orders", {"home__gorod": 1, "home__ulitsa": 2}),
        ({"#": 1, "%": 2, "x_2": 3}, "orders", {"x": 1, "x_2": 2, "x_2_2": 3}),
        ({"lines": [{"aB": 1, "a_b": 2}]}, "orders__lines", {"a_b": 1, "a_b_2": 2}),
        ({"a": {"b": [{"c": 1}]}, "a__b": [{"c": 2}]}, "orders__a__b", {"c": 1}),
        ({"a": {"b": [{"c": 1}]}, "a__b": [{"c": 2}]}, "orders__a__b_2", {"c": 2}),
        ({"tagNames": [1], "tag_names": [2]}, "orders__tag_names_2", {"value": 2}),
        ({"позиции": [{"цена": 1}]}, "orders__pozitsii", {"tsena": 1}),
        ({"y" * 70: 1, "y" * 70 + "z": 2}, "orders", {normalize_column("y" * 70): 1, normalize_column("y" * 70 + "z"): 2}),
    ],
)
def test_two_fields_of_a_row_never_share_a_column_or_a_table(row: dict[str, Any], table: str, values: dict[str, Any]) -> None:
    tables, _ = flatten({"id": 1}, row)
    assert {name: value for name, value in tables[table][-1].items() if not name.startswith("_dlt_")} == values


def test_two_fields_in_two_rows_have_a_column_each() -> None:
    tables, _ = flatten({"userId": 1}, {"user_id": 2})
    assert [(row.get("user_id"), row.get("user_id_2")) for row in tables["orders"]] == [(1, None), (None, 2)]


@pytest.mark.parametrize("value", [1, [1]])
def test_two_unicode_spellings_of_a_name_are_one_field_and_refused_in_one_row(value: Any) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    with pytest.raises(DataError, match=r"^tenant acme: the fields '\\xe9t\\xe9' and 'e\\u0301te\\u0301' are one name in two Unicode spellings"):
        flatten({composed: value, decomposed: value})
    tables, _ = flatten({composed: 1}, {decomposed: 2})
    assert [row["ete"] for row in tables["orders"]] == [1, 2]


@pytest.mark.parametrize("name", ["_dlt_id", "_dlt_load_id", "_dlt_anything"])
def test_a_field_with_a_name_of_the_warehouses_own_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"the source has a field '{name}'"):
        flatten({name: "x"})


def test_an_empty_object_is_a_row_and_empty_values_leave_nothing() -> None:
    tables, _ = flatten({}, {"a": {}, "b": [], "c": None, "d": {"e": {}}})
    assert [set(row) for row in tables["orders"]] == [{"_dlt_id", "_dlt_load_id"}] * 2
    assert set(tables) == {"orders"}


def nest(levels: int, *, lists: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [True, False])
def test_an_object_is_rejected_once_it_is_nested_too_deep(lists: bool) -> None:
    tables, faults = flatten({"id": 1, "x": nest(99, lists=lists)}, {"id": 2, "x": nest(500, lists=lists)}, {"id": 3})
    assert faults == {1: "too_deep"}
    assert {row.get("id") for row in tables["orders"]} >= {1, 3}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([1, None, 2], {BIGINT: [1, None, 2]}),
        ([1, 2.5], {BIGINT: [1, None], DOUBLE: [None, 2.5]}),
        (["a", 1, True], {TEXT: ["a", None, None], BIGINT: [None, 1, None], BOOL: [None, None, True]}),
        ([2**63, 1], {LARGE: [Decimal(2**63), None], BIGINT: [None, 1]}),
        ([-(2**63)], {BIGINT: [-(2**63)]}),
        ([2**200], {TEXT: [str(2**200)]}),
        ([1e308, 1e308], {DOUBLE: [1e308, 1e308]}),
        ([None, None], {}),
    ],
)
def test_values_of_several_types_keep_each_its_own(values: list[Any], parts: dict[pa.DataType, list[Any]]) -> None:
    arrays, faults = split_by_type(values, "x")
    assert {array.type: array.to_pylist() for array in arrays} == parts
    assert list(parts) == [array.type for array in arrays]
    assert faults == {}


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ([1.0, float("nan"), 2.0], {1: "bad_number"}),
        ([float("inf")], {0: "bad_number"}),
        (["a", "\ud800", "b\udfff"], {1: "bad_text", 2: "bad_text"}),
        (["a", float("-inf"), "\ud800"], {1: "bad_number", 2: "bad_text"}),
    ],
)
def test_numbers_and_texts_that_are_not_valid_are_found(values: list[Any], faults: dict[int, str]) -> None:
    arrays, found = split_by_type(values, "x")
    assert {row: fault.reason for row, fault in found.items()} == faults
    for row, value in enumerate(values):
        assert [array[row].as_py() for array in arrays if array[row].is_valid] == ([] if row in faults else [value])


def test_half_a_surrogate_pair_in_a_fields_name_harms_nothing() -> None:
    tables, faults = flatten({"id": 1, "a\ud800": 1}, {"id": 2, "b" * 80 + "\ud800": 1})
    assert faults in ({1: "bad_text"}, {})
    assert tables["orders"][0]["id"] == 1
