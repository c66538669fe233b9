"""A batch comes out as rows that its tables can take, and each row that they cannot take is accounted for."""

import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.drivers.kinds import KINDS
from fabric_assets.errors import DataError, SourceError
from fabric_assets.loading.shaping.shaper import Shaped, Shaper
from fabric_assets.loading.shaping.table_types import Layout
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DATE, DOUBLE, LARGE, TEXT, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.rows.batches import Batch, Reject, Row, StreamPlan
from fabric_assets.rows.stream_names import StreamNames

TABLE = {"orders": {"id": BIGINT, "price": BIGINT}}
WHERE = "tenant acme, source shop, stream orders"
MODES = ("evolve", "freeze", "discard")


class Warehouse:
    """What a load's shaped batches leave in the tables, a column's type altered as they say."""

    def __init__(
        self,
        layout: Layout | None = None,
        *,
        key: tuple[str, ...] = (),
        destination: str = "duckdb",
        columns: str = "evolve",
        data_type: str = "evolve",
        kept: str | None = None,
    ) -> None:
        contract = SchemaContract.model_validate({"columns": columns, "data_type": data_type})
        plan = StreamPlan("orders", "merge" if key else "append", key, contract=contract)
        self.names = StreamNames("orders", layout=layout or {}, kept=kept, where=WHERE)
        self.shaper = Shaper(plan, names=self.names, refuse_nul=not KINDS[destination].takes_nul_in_text, load_id="L1", where=WHERE)
        self.batches: list[Shaped] = []
        self.rejects: list[Reject] = []

    def load(self, rows: pa.Table | list[Row], **batch: Any) -> "Warehouse":
        shaped = self.shaper.shape(Batch("orders", rows, **batch))
        assert shaped.read == shaped.loaded + len(shaped.rejects)
        assert shaped.loaded == (shaped.tables["orders"].num_rows if "orders" in shaped.tables else 0)
        self.batches.append(shaped)
        self.rejects += shaped.rejects
        return self

    def get_types(self, table: str = "orders") -> dict[str, pa.DataType]:
        return {field.name: field.type for shaped in self.batches if table in shaped.tables for field in shaped.tables[table].schema}

    def read(self, *columns: str, table: str = "orders") -> list[tuple[Any, ...]]:
        types, rows = self.get_types(table), []
        for shaped in self.batches:
            if table in shaped.tables:
                found = shaped.tables[table]
                # Altering a column is a safe cast or a fault of the shaper.
                values = [found[name].cast(types[name]).to_pylist() if name in found.column_names else [None] * found.num_rows for name in columns]
                rows += list(zip(*values, strict=True))
        return rows

    def get_reasons(self) -> list[tuple[str, str | None]]:
        return [(reject.reason, reject.column) for reject in self.rejects]

    def get_changes(self) -> list[tuple[str, str, str, str]]:
        return [(change.change, change.column, change.before, change.after) for change in self.shaper.changes]


def arrow(**columns: Any) -> pa.Table:
    return pa.table(columns)


# --- what fits


def test_a_batch_of_the_tables_types_is_passed_on_as_it_is() -> None:
    rows = arrow(id=[1, 2], price=[3, None])
    shaped = Warehouse(TABLE, key=("id",)).load(rows).batches[0]
    assert shaped.tables["orders"].equals(rows)
    assert [column.chunk(0).buffers()[1].address for column in shaped.tables["orders"].columns] == [
        column.chunk(0).buffers()[1].address for column in rows.columns
    ]


def test_names_are_the_warehouses_and_types_the_carried_ones() -> None:
    rows = pa.table([pa.array([1], pa.int8()), pa.array(["a"], pa.large_string()), pa.array([[1, None]])], names=["userId", "Größe in cm", "tags"])
    warehouse = Warehouse().load(rows)
    assert warehouse.get_types() == {"user_id": BIGINT, "grosse_in_cm": TEXT, "tags": pa.list_(BIGINT)}
    assert warehouse.read("user_id", "grosse_in_cm", "tags") == [(1, "a", [1, None])]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["a b", "a_b"], ["a_b_2", "a_b"]),
        (["userId", "user_id"], ["user_id_2", "user_id"]),
        (["город", "улица", "城市"], ["gorod", "ulitsa", "cheng_shi"]),
        (["", " "], ["_empty", "_empty_2"]),
        (["price ($)", "price (€)", "PRICE (€)"], ["pricex", "price_eur_2", "price_eur"]),
    ],
)
def test_two_columns_never_become_one(names: list[str], columns: list[str]) -> None:
    values = list(range(len(names)))
    for order in (values, values[::-1]):
        warehouse = Warehouse().load(pa.table([[value] for value in order], names=[names[index] for index in order]))
        assert warehouse.read(*columns) == [tuple(values)]


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=f"^{WHERE}: the source has two columns 'a'"):
        Warehouse().load(pa.table([[1], [2]], names=["a", "a"]))


def test_a_table_without_rows_still_shows_its_columns() -> None:
    warehouse = Warehouse(key=("id",)).load(arrow(id=pa.array([], pa.int32()), name=pa.array([], pa.string())))
    assert warehouse.get_types() == {"id": BIGINT, "name": TEXT}
    assert Warehouse(key=("id",)).load([]).batches == [Shaped()]


def test_text_that_spells_a_value_of_the_columns_type_is_stored_as_that_value() -> None:
    warehouse = Warehouse(TABLE).load(arrow(id=["1", "2", "3"], price=["12", "007", "1.0"]))
    assert warehouse.read("id", "price", "price__v_text") == [(1, 12, None), (2, None, "007"), (3, None, "1.0")]


def test_rows_of_json_get_the_types_that_their_values_have() -> None:
    warehouse = Warehouse().load(
        [{"a": 1, "b": 0.5, "c": True, "d": "x", "e": "2024-01-31T12:00:00+02:00", "f": "2024-01-31", "g": None, "h": 2**63}, {"e": "2024-01-31 12:00:00"}]
    )
    types = {"a": BIGINT, "b": DOUBLE, "c": BOOL, "d": TEXT, "e": TIMESTAMP_UTC, "f": TEXT, "h": LARGE, "_dlt_load_id": TEXT, "_dlt_id": TEXT}
    assert warehouse.get_types() == types
    assert [moment.astimezone(UTC) for (moment,) in warehouse.read("e")] == [datetime(2024, 1, 31, 10, tzinfo=UTC), datetime(2024, 1, 31, 12, tzinfo=UTC)]
    assert warehouse.read("h") == [(Decimal(2**63),), (None,)]


@pytest.mark.parametrize("texts", [["2024-01-31T12:00:00Z", "soon"], ["2024-01-31T12:00:00.123456789Z"], ["2024-01-31T25:00:00Z"]])
def test_a_field_with_one_text_that_is_not_a_timestamp_is_text(texts: list[str]) -> None:
    warehouse = Warehouse().load([{"at": text} for text in texts])
    assert warehouse.get_types()["at"] == TEXT
    assert warehouse.read("at") == [(text,) for text in texts]


def test_nested_rows_have_the_types_of_their_own_tables() -> None:
    layout = {"orders": {"id": BIGINT}, "orders__lines": {"sku": TEXT, "qty": BIGINT}}
    warehouse = Warehouse(layout).load([{"id": 1, "lines": [{"sku": 5, "qty": 1}, {"sku": "a", "qty": 0.5}]}])
    assert warehouse.read("sku", "qty", "qty__v_double", "_dlt_list_idx", table="orders__lines") == [("5", 1, None, 0), ("a", None, 0.5, 1)]
    assert ("type_changed", "qty", "bigint", "double") in warehouse.get_changes()


# --- numbers that turn out to be of another kind


@pytest.mark.parametrize("pages", [[[3, 3.5, None]], [[3], [3.5], [None]], [[3.5], [3, None]], [[None], [3], [3.5]]])
def test_whole_and_broken_numbers_of_a_load_share_a_column(pages: list[list[Any]]) -> None:
    warehouse = Warehouse()
    for page in pages:
        warehouse.load([{"price": value} for value in page])
    assert warehouse.get_types()["price"] == DOUBLE
    assert {value for (value,) in warehouse.read("price")} == {3.0, 3.5, None}
    assert "price__v_double" not in warehouse.get_types()


def test_whole_and_broken_numbers_of_two_tables_share_a_column() -> None:
    warehouse = Warehouse().load(arrow(price=[3])).load(arrow(price=[3.5])).load(arrow(price=[4]))
    assert warehouse.read("price") == [(3.0,), (3.5,), (4.0,)]


@pytest.mark.parametrize("pages", [[[2**53 + 1, 0.5]], [[2**53 + 1], [0.5]], [[1], [2**53 + 1], [0.5]]])
def test_whole_numbers_that_a_double_cannot_hold_stay_exact(pages: list[list[Any]]) -> None:
    warehouse = Warehouse()
    for page in pages:
        warehouse.load([{"price": value} for value in page])
    assert {2**53 + 1, 0.5} <= {value for row in warehouse.read("price", "price__v_double") for value in row}
    assert warehouse.get_types()["price"] == BIGINT


@pytest.mark.parametrize("pages", [[[1, 2**63]], [[1], [2**63]], [[2**63], [1]]])
def test_whole_numbers_beyond_64_bits_widen_the_column_of_their_load(pages: list[list[Any]]) -> None:
    warehouse = Warehouse()
    for page in pages:
        warehouse.load([{"big": value} for value in page])
    assert {value for (value,) in warehouse.read("big")} == {Decimal(1), Decimal(2**63)}


def test_a_column_of_earlier_loads_keeps_its_type() -> None:
    warehouse = Warehouse(TABLE).load([{"id": 1, "price": 3.0}, {"id": 2, "price": 3.5}, {"id": 3, "price": 2**63}, {"id": 4, "price": 2**200}])
    assert warehouse.read("price", "price__v_double", "price__v_decimal", "price__v_text") == [
        (3, None, None, None),
        (None, 3.5, None, None),
        (None, None, Decimal(2**63), None),
        (None, None, None, str(2**200)),
    ]


def test_a_flag_does_not_fit_a_number_and_a_number_does_not_fit_a_flag() -> None:
    warehouse = Warehouse({"orders": {"n": BIGINT, "ok": BOOL}}).load([{"n": True, "ok": 1}, {"n": 1, "ok": True}])
    assert warehouse.read("n", "n__v_bool", "ok", "ok__v_bigint") == [(None, True, None, 1), (1, None, True, None)]


def test_text_among_numbers_loses_nothing() -> None:
    warehouse = Warehouse().load([{"v": 3}, {"v": "n/a"}]).load([{"v": "4"}, {"v": False}])
    assert warehouse.read("v", "v__v_text", "v__v_bool") == [(3, None, None), (None, "n/a", None), (4, None, None), (None, None, False)]


def test_a_variant_column_that_cannot_take_the_value_either_is_an_error() -> None:
    layout = {"orders": {"v": BIGINT, "v__v_text": BIGINT}}
    with pytest.raises(DataError, match="v does not fit its column, and the remaining values do not fit the type bigint of v__v_text either"):
        Warehouse(layout).load(arrow(v=["x"]))


def test_a_variant_column_does_not_overwrite_a_field_of_its_name() -> None:
    with pytest.raises(DataError, match="v needs the column v__v_text"):
        Warehouse({"orders": {"v": BIGINT}}).load(arrow(v=["x"], v__v_text=["mine"]))


# --- the contract


@pytest.mark.parametrize("as_arrow", [True, False])
@pytest.mark.parametrize(("columns", "data_type"), list(itertools.product(MODES, MODES)))
def test_the_contract_decides_about_new_columns_and_misfits(columns: str, data_type: str, as_arrow: bool) -> None:
    warehouse = Warehouse(TABLE, columns=columns, data_type=data_type)
    rows = [{"id": 1, "price": "5", "extra": None}, {"id": 2, "price": "x", "extra": None}, {"id": 3, "price": "7", "extra": "new"}]

    def load() -> Warehouse:
        return warehouse.load(pa.Table.from_pylist(rows) if as_arrow else rows, first_row=11)

    if "freeze" in (columns, data_type):
        entry = (
            r"a new column extra, and schema_contract.columns" if columns == "freeze" else r"text in the column price.*bigint, and schema_contract.data_type"
        )
        if columns == "freeze" and data_type == "freeze":
            entry = r"schema_contract\.(columns|data_type)"
        with pytest.raises(DataError, match=f"^{WHERE}: the source has .*{entry}.* is freeze") as caught:
            load()
        assert (
            "--full-refresh" in caught.value.remedy
            and f"schema_contract.{'data_type' if 'data_type is' in str(caught.value) else 'columns'}" in caught.value.remedy
        )
        return
    load()
    expected = {1: (5, None, None), 2: (None, "x", None), 3: (7, None, "new")}
    rejects, changes = [], []
    if columns == "discard":
        del expected[3]
        rejects.append((13, "extra", "unexpected_column", rows[2]))
    else:
        changes.append(("column_added", "extra", "", "text"))
    if data_type == "discard":
        del expected[2]
        rejects.insert(0, (12, "price", "type_mismatch", rows[1]))
    else:
        changes.append(("type_changed", "price", "bigint", "text"))
    assert warehouse.read("id", "price", "price__v_text", "extra") == [(number, *values) for number, values in expected.items()]
    assert [(reject.row_number, reject.column, reject.reason, json.loads(reject.raw)) for reject in warehouse.rejects] == rejects
    assert sorted(warehouse.get_changes()) == sorted(changes)
    assert ("price__v_text" in warehouse.get_types()) == (data_type == "evolve") and ("extra" in warehouse.get_types()) == (columns == "evolve")


@pytest.mark.parametrize("columns", ["evolve", "discard"])
def test_a_new_column_without_values_rejects_nothing(columns: str) -> None:
    warehouse = Warehouse(TABLE, columns=columns).load(arrow(id=[1], price=[5], extra=pa.array([None], pa.int64())))
    assert warehouse.rejects == []
    assert ("extra" in warehouse.get_types()) == (columns == "evolve")


@pytest.mark.parametrize("columns", MODES)
def test_a_new_table_may_have_any_column_all_load_long(columns: str) -> None:
    warehouse = Warehouse(columns=columns).load([{"id": 1}]).load([{"id": 2, "extra": "x", "tags": ["a"]}])
    assert warehouse.read("id", "extra") == [(1, None), (2, "x")]
    assert (warehouse.read("value", table="orders__tags"), warehouse.get_changes(), warehouse.rejects) == ([("a",)], [], [])


def test_a_misfit_in_a_new_table_is_one_for_the_contract_too() -> None:
    with pytest.raises(DataError, match="data_type is freeze"):
        Warehouse(data_type="freeze").load([{"v": 3}, {"v": "n/a"}])
    assert Warehouse(data_type="discard").load([{"v": 3}, {"v": "n/a"}]).get_reasons() == [("type_mismatch", "v")]


@pytest.mark.parametrize("layout", [TABLE, {**TABLE, "orders__lines": {"sku": TEXT}}])
def test_the_contract_holds_for_nested_lists(layout: Layout) -> None:
    rows = [{"id": 1, "price": 1}, {"id": 2, "price": 2, "lines": [{"sku": "a"}, {"qty": 5}]}]
    with pytest.raises(DataError, match="columns is freeze"):
        Warehouse(layout, columns="freeze").load(rows)

    discarding = Warehouse(layout, columns="discard").load(rows)
    assert discarding.read("id") == [(1,)]
    assert [reject.reason for reject in discarding.rejects] == ["unexpected_column"]
    assert discarding.read("sku", table="orders__lines") == []

    evolving = Warehouse(layout).load(rows)
    assert evolving.read("sku", "qty", table="orders__lines") == [("a", None), (None, 5)]
    is_known = "orders__lines" in layout
    assert evolving.get_changes() == [("column_added", "qty", "", "bigint") if is_known else ("column_added", "orders__lines", "", "table")]


def test_each_change_is_reported_once_per_load() -> None:
    warehouse = Warehouse({"orders": {"id": BIGINT, "price": BIGINT, "gone": TEXT, "gone__v_text": TEXT, "_dlt_id": TEXT}})
    for number in range(3):
        warehouse.load(arrow(id=[number], price=["x"], extra=[1]))
    assert sorted(warehouse.get_changes()) == [
        ("column_added", "extra", "", "bigint"),
        ("column_missing", "gone", "text", ""),
        ("type_changed", "price", "bigint", "text"),
    ]


def test_a_column_that_some_batch_has_is_not_missing() -> None:
    layout = {"orders": {"id": BIGINT, "a": TEXT, "home__city": TEXT, "user_name": TEXT}}
    kept = '{"columns":{"orders":[[["userName"],"user_name"],[["home","city"],"home__city"]]}}'
    files = (
        Warehouse(layout, kept='{"columns":{"orders":[[["userName"],"user_name"]]}}')
        .load(arrow(id=[1], a=["x"]))
        .load(arrow(id=[2], home__city=["x"], userName=["x"]))
    )
    assert files.get_changes() == []
    pages = Warehouse(layout, kept=kept).load([{"id": 1, "a": None}]).load([{"id": 2, "home": None, "userName": None}])
    assert pages.get_changes() == []
    assert Warehouse(layout).load([]).get_changes() == []


def test_a_column_that_widens_is_reported_with_its_final_type() -> None:
    assert Warehouse({"orders": {"id": BIGINT}}).load([{"id": 1, "v": 3}]).load([{"id": 2, "v": 0.5}]).get_changes() == [("column_added", "v", "", "double")]


# --- rows that nothing can hold


@pytest.mark.parametrize("data_type", MODES)
@pytest.mark.parametrize("as_arrow", [True, False])
def test_a_null_in_the_key_is_rejected_whatever_the_contract(as_arrow: bool, data_type: str) -> None:
    rows = [{"id": 1, "no": 1}, {"id": None, "no": 2}, {"id": 3, "no": None}]
    warehouse = Warehouse(key=("id", "no"), data_type=data_type).load(pa.Table.from_pylist(rows) if as_arrow else rows, origin="a.csv", first_row=2)
    assert warehouse.read("id", "no") == [(1, 1)]
    assert [(reject.origin, reject.row_number, reject.column, reject.reason, json.loads(reject.raw)) for reject in warehouse.rejects] == [
        ("a.csv", 3, "id", "null_key", rows[1]),
        ("a.csv", 4, "no", "null_key", rows[2]),
    ]


def test_a_page_of_json_whose_keys_are_all_null_is_rejected() -> None:
    assert Warehouse(key=("id",)).load([{"id": None, "a": 1}]).get_reasons() == [("null_key", "id")]


def test_a_key_of_mixed_types_is_null_only_where_no_type_has_a_value() -> None:
    warehouse = Warehouse(key=("id",)).load([{"id": "a"}, {"id": 1}, {"id": None}, {}])
    assert (warehouse.read("id"), warehouse.get_reasons()) == ([("a",), ("1",)], [("null_key", "id")] * 2)


@pytest.mark.parametrize("rows", [arrow(contact_id=[1]), [{"contact_id": 1}]])
def test_a_key_that_the_source_does_not_have_is_named(rows: Any) -> None:
    with pytest.raises(SourceError, match="the source has no primary_key column 'id'.*known: contact_id"):
        Warehouse(key=("id",)).load(rows)


def test_a_key_is_found_by_the_sources_spelling() -> None:
    assert Warehouse(key=("Order ID",)).load(pa.table([[1, None]], names=["Order ID"])).get_reasons() == [("null_key", "Order ID")]


@pytest.mark.parametrize("as_arrow", [True, False])
def test_a_key_that_does_not_fit_its_type_is_rejected_instead_of_becoming_null(as_arrow: bool) -> None:
    rows = [{"id": "1", "price": 1}, {"id": "A1", "price": 2}]
    warehouse = Warehouse(TABLE, key=("id",)).load(pa.Table.from_pylist(rows) if as_arrow else rows)
    assert (warehouse.read("id"), warehouse.get_reasons()) == ([(1,)], [("type_mismatch", "id")])


@pytest.mark.parametrize(
    ("kind", "infinite"),
    [
        (pa.timestamp("us"), 2**63 - 1),
        (pa.timestamp("us"), -(2**63) + 1),
        (pa.timestamp("s", tz="UTC"), 2**62),
        (pa.timestamp("ms"), -(2**62)),
        (pa.date32(), 2**31 - 1),
        (pa.date32(), -(2**31)),
        (pa.date64(), 86_400_000 * 200_000_000),
    ],
)
def test_an_infinite_date_is_rejected(kind: pa.DataType, infinite: int) -> None:
    day = 86_400_000 if kind == pa.date64() else 1
    warehouse = Warehouse().load(arrow(id=[1, 2, 3], at=pa.array([0, infinite, 20_000 * day], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)))
    assert warehouse.read("id") == [(1,), (3,)]
    assert warehouse.get_reasons() == [("out_of_range", "at")]
    assert json.loads(warehouse.rejects[0].raw)["id"] == 2


def test_a_date_beyond_pythons_years_is_loaded_unchanged() -> None:
    far = pa.array([12_000 * 31_556_952_000_000], pa.int64()).cast(TIMESTAMP)
    assert Warehouse().load(arrow(at=far)).batches[0].tables["orders"]["at"].cast(pa.int64()).to_pylist() == [12_000 * 31_556_952_000_000]
    rejected = Warehouse(key=("id",)).load(arrow(id=pa.array([None], pa.int64()), at=far)).rejects[0]
    assert json.loads(rejected.raw) == {"id": None, "at": "13970-01-01 00:00:00.000000000"}


@pytest.mark.parametrize("as_arrow", [True, False])
def test_a_nul_byte_is_rejected_where_the_destination_cannot_store_it(as_arrow: bool) -> None:
    rows = [{"id": 1, "name": "a\0b"}, {"id": 2, "name": "ab"}]
    data = pa.Table.from_pylist(rows) if as_arrow else rows
    assert Warehouse(destination="postgres").load(data).get_reasons() == [("nul_byte", "name")]
    assert Warehouse(destination="duckdb").load(data).read("name") == [("a\0b",), ("ab",)]


def test_a_slice_is_searched_for_nul_bytes_within_its_ends_only() -> None:
    rows = pa.Table.from_pylist([{"name": "\0"}, {"name": "b"}, {"name": None}, {"name": "\0"}])
    assert Warehouse(destination="postgres").load(rows.slice(1, 2)).rejects == []
    assert Warehouse(destination="postgres").load(rows.slice(1, 3), first_row=1).rejects[0].row_number == 3


def build_texts(*texts: bytes) -> pa.Array:
    """Texts as a careless driver gives them."""
    return pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts).buffers())


@pytest.mark.parametrize("nested", [False, True])
def test_bytes_that_are_no_text_are_rejected(nested: bool) -> None:
    texts = build_texts(b"ok", b"\xff", b"\xed\xa0\x80", "ü🤷".encode())
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), texts) if nested else texts
    warehouse = Warehouse().load(arrow(id=[1, 2, 3, 4], name=column))
    assert warehouse.read("id") == [(1,), (4,)]
    assert warehouse.get_reasons() == [("bad_text", "name")] * 2
    for reject in warehouse.rejects:
        reject.raw.encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [("\ud800", "bad_text"), (float("nan"), "bad_number"), (float("inf"), "bad_number"), (["a", "\udfff"], "bad_text"), ([[[[[1e400]]]]], "bad_number")],
)
def test_a_value_that_json_should_not_hold_is_rejected_with_all_that_hangs_on_it(value: Any, reason: str) -> None:
    rows: list[Row] = [{"id": 1, "tags": ["a"]}, {"id": 2, "tags": ["b"], "x": value}, {"id": 3, "tags": ["c"]}]
    warehouse = Warehouse().load(rows)
    assert warehouse.read("id") == [(1,), (3,)]
    assert warehouse.read("value", table="orders__tags") == [("a",), ("c",)]
    assert [found for found, _ in warehouse.get_reasons()] == [reason]
    warehouse.rejects[0].raw.encode()
    assert '"id": 2' in warehouse.rejects[0].raw


@pytest.mark.parametrize("levels", [101, 500, 5_000])
def test_an_object_that_is_nested_too_deep_is_rejected(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    warehouse = Warehouse().load([{"id": 1}, {"id": 2, "x": value}])
    assert (warehouse.read("id"), warehouse.get_reasons()) == ([(1,)], [("too_deep", None)])
    assert json.loads(warehouse.rejects[0].raw)["id"] == 2


def test_a_rejected_row_makes_no_column_and_chooses_no_type() -> None:
    rows: list[Row] = [{"id": None, "v": "text first", "extra": 1}, {"id": 1, "v": 5}]
    warehouse = Warehouse(key=("id",)).load(rows)
    assert warehouse.get_types()["v"] == BIGINT and "extra" not in warehouse.get_types()
    assert warehouse.get_changes() == []


def test_rows_that_the_reader_has_rejected_are_counted_and_passed_on() -> None:
    mine = Reject("a.csv", 7, None, "ragged_line", "too many fields", "1;2;3")
    shaped = Warehouse().load(arrow(id=[1]), rejects=(mine,)).batches[0]
    assert (shaped.read, shaped.loaded, shaped.rejects) == (2, 1, [mine])


def test_rows_without_an_order_have_no_number() -> None:
    assert Warehouse(key=("id",)).load([{"id": None}]).rejects[0].row_number is None


def test_a_text_of_ten_megabytes_arrives() -> None:
    text = "ü" * 5_000_000
    assert Warehouse(destination="postgres").load([{"t": text}]).read("t") == [(text,)]
    assert Warehouse(destination="postgres").load(arrow(t=[text])).read("t") == [(text,)]


# --- whatever comes

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(width=64)
    | st.sampled_from(["7", "007", "1.5", "true", "2024-01-31T12:00:00Z", "2024-01-31", "", "x\0y", "\ud800", "🤷"])
    | st.text(max_size=4)
)
PAGES = st.lists(st.lists(st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES, "c": VALUES}), max_size=6), max_size=4)


def number(pages: list[list[Row]]) -> list[list[Row]]:
    counter = itertools.count()
    return [[{"id": next(counter), **row} for row in page] for page in pages]


def check_nothing_is_lost(warehouse: Warehouse, rows: Iterable[Row]) -> None:
    types = warehouse.get_types()
    loaded = dict(zip((number for (number,) in warehouse.read("id")), warehouse.read(*types), strict=True)) if "id" in types else {}
    rejected = {json.loads(reject.raw)["id"] for reject in warehouse.rejects}
    for row in rows:
        assert (row["id"] in loaded) != (row["id"] in rejected)
        if row["id"] in loaded:
            found = dict(zip(types, loaded[row["id"]], strict=True))
            for name, value in row.items():
                copies = [item for column, item in found.items() if (column == name or column.startswith(f"{name}__v_")) and item is not None]
                assert len(copies) == (value is not None), (name, value, found)
                assert value is None or is_same(value, copies[0]), (name, value, found)


def is_same(value: Any, found: Any) -> bool:
    if isinstance(found, datetime):
        return datetime.fromisoformat(value).replace(tzinfo=datetime.fromisoformat(value).tzinfo or UTC) == found
    if isinstance(found, str):
        return found == (value if isinstance(value, str) else str(value).lower()) or (not isinstance(value, str | bool) and float(found) == float(value))
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value or value == str(found).lower()
    return Decimal(value) == Decimal(found) or Decimal(str(value)) == Decimal(str(found))


@settings(deadline=None)
@given(
    PAGES, st.sampled_from(["duckdb", "postgres"]), st.sampled_from([{}, {"orders": {"id": BIGINT, "a": BIGINT, "b": TIMESTAMP_UTC, "c": pa.decimal128(9, 2)}}])
)
def test_every_value_of_a_page_is_found_again_or_its_row_rejected(pages: list[list[Row]], destination: str, layout: Mapping[str, Any]) -> None:
    pages = number(pages)
    warehouse, again = Warehouse(layout, destination=destination), Warehouse(layout, destination=destination)
    for page in pages:
        warehouse.load(page)
        again.load(page)
    check_nothing_is_lost(warehouse, itertools.chain.from_iterable(pages))
    assert warehouse.batches == again.batches


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.fixed_dictionaries({}, optional={"a": VALUES}), max_size=3), min_size=2, max_size=3))
def test_no_order_of_the_pages_loses_a_value(pages: list[list[Row]]) -> None:
    pages = number(pages)
    for order in itertools.permutations(pages):
        warehouse = Warehouse()
        for page in order:
            warehouse.load(page)
        check_nothing_is_lost(warehouse, itertools.chain.from_iterable(pages))


COLUMNS = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.int64())),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.uint64())),
    st.lists(st.none() | st.floats(allow_nan=False), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.float64())),
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.bool_())),
    st.lists(st.none() | st.text(max_size=3) | st.sampled_from(["7", "1.5", "true"]), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.string())),
    st.lists(st.none() | st.decimals(-999, 999, places=2), min_size=3, max_size=3).map(lambda values: pa.array(values, pa.decimal128(5, 2))),
)


@settings(deadline=None)
@given(st.lists(COLUMNS, max_size=4), st.sampled_from([None, BIGINT, DOUBLE, BOOL, DATE, TEXT, pa.decimal128(4, 1)]))
def test_every_value_of_a_table_is_found_again(columns: list[pa.Array], known: pa.DataType | None) -> None:
    warehouse = Warehouse({"orders": {"id": BIGINT, "a": known}} if known else {})
    tables = [arrow(id=pa.array(range(3 * index, 3 * index + 3), BIGINT), a=column) for index, column in enumerate(columns)]
    for table in tables:
        warehouse.load(table)
    check_nothing_is_lost(warehouse, itertools.chain.from_iterable(table.to_pylist() for table in tables))
