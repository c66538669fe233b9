"""Each field of a source has its own column, the same in every load, in any script and beside any other field."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fabric_assets.config.checks import AnyCheck
from fabric_assets.errors import FabricError
from fabric_assets.loading.checks import run_check
from fabric_assets.loading.shaping.frames import build_frame
from fabric_assets.rows.column_names import compose, number_name, spell_column
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import FIRST
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

COMPOSED, DECOMPOSED = "Stra\u00dfe \u00e9t\u00e9", "Stra\u00dfe e\u0301te\u0301"
SCRIPTS = ["имя", "сумма", "Ποσό", "日付", "金額", "שם", "اسم", "नाम", "ชื่อ", "이름", "Größe", "🤷", "€", "%", "#", "price ($)", "price (€)", "a%", "a#"]
NAMES = st.sampled_from([*SCRIPTS, "name", "Name", "NAME", "a b", "a_b", "aB", "x", "x_2", "y" * 70, "y" * 70 + "z"]) | st.text(max_size=8)


@given(st.text(max_size=90), st.integers(2, 999))
def test_every_name_is_a_fixed_point_of_dlts_rule_also_with_a_number(name: str, number: int) -> None:
    normalize = NamingConvention(max_length=63).normalize_path
    for column in (spell_column(compose(name)), number_name(spell_column(compose(name)), number)):
        assert normalize(column) == column
        assert 0 < len(column.encode()) <= 63


@given(st.lists(st.lists(NAMES, min_size=1, max_size=6, unique_by=compose), min_size=1, max_size=6), st.booleans())
def test_no_name_moves_and_no_two_fields_share_one(loads: list[list[str]], is_first: bool) -> None:
    """Load by load: what one has kept is all that the next one knows beside the table's columns."""
    kept, layout, owners = None, {"t": {}}, dict[str, str]()
    for fields in loads:
        names = StreamNames("t", layout=layout, kept=kept, value_forms=FIRST if is_first else 2)
        names.get_columns("t", fields)
        for field in fields:
            column = names.get_column("t", (compose(field),))
            assert owners.setdefault(column, compose(field)) == compose(field)
            layout["t"][column] = None
        assert all(names.find_column(field) == column for column, field in owners.items() if field in map(compose, fields))
        kept = names.export(layout)
    found = StreamNames("t", layout=layout, kept=kept, value_forms=FIRST if is_first else 2)
    assert {field: found.find_column(field) for field in owners.values()} == {field: column for column, field in owners.items()}


@given(st.lists(NAMES, min_size=2, max_size=8, unique_by=compose))
def test_the_order_of_fields_in_one_batch_does_not_matter(fields: list[str]) -> None:
    found = []
    for order in (fields, fields[::-1], random.Random(1).sample(fields, len(fields))):
        names = StreamNames("t", layout={})
        names.get_columns("t", order)
        found.append({field: names.get_column("t", (compose(field),)) for field in fields})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_columns_of_an_earlier_release_stay_with_their_fields(name: str) -> None:
    former = NamingConvention(max_length=63).normalize_path(name)
    names = StreamNames("t", layout={"t": {former: None, "id": None}}, value_forms=FIRST)
    assert names.get_column("t", (name,)) == former
    other = names.get_column("t", (name + "!",))
    assert other not in (former, "id")
    again = StreamNames("t", layout={"t": {former: None, "id": None, other: None}}, kept=names.export({"t": [former, other]}), value_forms=FIRST)
    assert (again.get_column("t", (name + "!",)), again.get_column("t", (name,))) == (other, former)


def test_two_fields_that_fit_one_column_of_an_earlier_release_are_refused_until_one_is_named() -> None:
    layout, rows = {"t": {"x": None}}, pa.table({"имя": ["a"], "город": ["b"]})
    with pytest.raises(FabricError, match="'имя' and 'город' both fit the column 'x'.*\n.*rename: {имя: x}"):
        build_frame("t", rows, StreamNames("t", layout=layout, value_forms=FIRST), "here")
    apart = pa.table({"имя": ["a", None], "город": [None, "b"]})
    assert list(build_frame("t", apart, StreamNames("t", layout=layout, value_forms=FIRST), "here").columns) == ["x", "gorod"]
    named = StreamNames("t", layout=layout, value_forms=FIRST, rename={"город": "x"})
    assert {name: column.label for name, column in build_frame("t", rows, named, "here").columns.items()} == {"imya": "имя", "x": "город"}
    again = StreamNames("t", layout=layout, kept=named.export({"t": ["x", "imya"]}), value_forms=FIRST)
    assert list(build_frame("t", rows, again, "here").columns) == ["imya", "x"]


class Files:
    """A stream of JSON Lines or Parquet, a file a load."""

    def __init__(self, settings: Settings, warehouse: str | None, kind: str, **stream: Any) -> None:
        self.folder, self.kind, self.count = settings.data_dir / "exports", kind, 0
        self.folder.mkdir(exist_ok=True)
        config = {"glob": f"*.{kind}", "format": kind, "primary_key": "id", **stream}
        self.tenant = Tenant(settings, {"type": "files", "path": "exports", "streams": {"t": config}}, warehouse=warehouse)

    def load(self, *rows: dict[str, Any], **options: Any) -> list[tuple[str, str, str]]:
        """The names that the load's changes say."""
        self.count += 1
        path = self.folder / f"{self.count}.{self.kind}"
        if self.kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        report = self.tenant.load(**options)["t"]
        return [(change.change, change.before, change.after) for change in report.record.schema_changes if change.change in ("column_named", "column_renamed")]

    def read(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.tenant.read("t", *columns, order="id")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_fields_that_meet_in_different_loads_have_a_column_each(settings: Settings, warehouse: str | None, kind: str) -> None:
    files = Files(settings, warehouse, kind)
    assert files.load({"id": 1, "город": "Oslo"}) == [("column_named", "город", "gorod")]
    assert files.load({"id": 2, "gorod": "Bergen", "улица": "Main St"}) == [("column_named", "gorod", "gorod_2"), ("column_named", "улица", "ulitsa")]
    assert files.load({"id": 3, "gorod": "Moss"}, {"id": 4, "город": "Voss"} if kind == "jsonl" else {"id": 4, "gorod": None}) == []
    last = "Voss" if kind == "jsonl" else None
    assert files.read("id", "gorod", "gorod_2", "ulitsa") == [
        (1, "Oslo", None, None),
        (2, None, "Bergen", "Main St"),
        (3, None, "Moss", None),
        (4, last, None, None),
    ]
    files.tenant.change("delete from acme_fabric.stream_state")
    assert files.load({"id": 5, "gorod": "Hamar"}) == []
    assert files.read("id", "gorod_2")[-1] == (5, "Hamar")
    assert files.load({"id": 6, "gorod": "Bodø"}, full_refresh=True) == []
    assert files.read("id", "gorod", "gorod_2")[::5] == [(1, "Oslo", None), (6, None, "Bodø")]


def test_composed_and_decomposed_names_are_one_field(settings: Settings, warehouse: str | None) -> None:
    files = Files(settings, warehouse, "parquet")
    files.load({"id": 1, COMPOSED: "a"})
    files.load({"id": 2, DECOMPOSED: "b"})
    assert files.read("id", "strasse_ete") == [(1, "a"), (2, "b")]
    with pytest.raises(FabricError, match="are one name in two Unicode spellings"):
        files.load({"id": 3, COMPOSED: "a", DECOMPOSED: "b"})
    assert files.read("id") == [(1,), (2,)]


@pytest.mark.parametrize("contract", ["freeze", "discard"])
def test_a_contract_judges_a_field_that_would_have_shared_a_column(settings: Settings, warehouse: str | None, contract: str) -> None:
    files = Files(settings, warehouse, "parquet", schema_contract=contract)
    files.load({"id": 1, "%": "a"})
    if contract == "freeze":
        with pytest.raises(FabricError, match="a new column #, whose name in the warehouse is that of %, and schema_contract.columns is freeze"):
            files.load({"id": 2, "#": "b"})
    else:
        files.load({"id": 2, "#": "b"})
        assert files.tenant.ask("select column_name, reason from acme_fabric.rejected_rows") == [("#", "unexpected_column")]
    assert files.read("id", "x") == [(1, "a")]


def test_keys_cursors_and_checks_find_their_columns_by_the_sources_names(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run('create table t ("ид" integer primary key, "ид!" text, "обновлено" datetime)')
    sqlite.fill("t", [(1, "a", "2024-01-01 10:00:00"), (2, "b", "2024-01-02 10:00:00")])
    stream = {"primary_key": ["ид"], "cursor": {"field": "обновлено"}}
    tenant = Tenant(settings, sqlite.build_source(t=stream), warehouse=warehouse)
    tenant.load()
    sqlite.run('update t set "ид!" = \'c\', "обновлено" = \'2024-01-03 10:00:00\' where "ид" = 1')
    assert tenant.load()["t"].rows_loaded == 2
    tenant.change("delete from acme_fabric.stream_state")
    assert tenant.load()["t"].rows_loaded == 1
    assert tenant.read("t", "id", "id_2") == [(1, "c"), (2, "b")]
    check: Any = TypeAdapter(AnyCheck).validate_python({"type": "accepted_values", "column": "ид!", "values": ["b", "c"]})
    assert run_check(check, tenant=tenant.config, source="shop", stream="t", settings=settings).passed


# --- rename


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_loaded_column_is_renamed_in_its_table_with_the_values_beside_it(settings: Settings, warehouse: str | None, kind: str) -> None:
    files = Files(settings, warehouse, kind)
    files.load({"id": 1, "цена": 5})
    files.load({"id": 2, "цена": "a lot"})
    files.tenant.source["streams"]["t"]["rename"] = {"цена": "price"}
    assert files.load({"id": 3, "цена": 7}) == [("column_renamed", "tsena", "price"), ("column_renamed", "tsena__v_text", "price__v_text")]
    assert files.load({"id": 4, "цена": "less"}) == []
    assert files.read("id", "price", "price__v_text") == [(1, 5, None), (2, None, "a lot"), (3, 7, None), (4, None, "less")]
    del files.tenant.source["streams"]["t"]["rename"]
    files.load({"id": 5, "цена": 9})
    assert files.read("id", "price")[-1] == (5, 9)


def test_two_columns_exchange_their_names(settings: Settings, warehouse: str | None) -> None:
    files = Files(settings, warehouse, "parquet")
    files.load({"id": 1, "a": "a1", "b": "b1"})
    files.tenant.source["streams"]["t"]["rename"] = {"a": "b", "b": "a"}
    files.load({"id": 2, "a": "a2", "b": "b2"})
    assert files.read("id", "b", "a") == [(1, "a1", "b1"), (2, "a2", "b2")]


def test_a_primary_key_is_renamed_and_still_tells_rows_apart(settings: Settings, warehouse: str | None) -> None:
    files = Files(settings, warehouse, "parquet", primary_key="ключ", write_disposition="merge")
    files.load({"id": 1, "ключ": "k", "v": "old"})
    files.tenant.source["streams"]["t"]["rename"] = {"ключ": "code"}
    files.load({"id": 2, "ключ": "k", "v": "new"})
    assert files.read("id", "code", "v") == [(2, "k", "new")]


def test_a_rename_to_a_column_of_another_field_is_refused_and_changes_nothing(settings: Settings, warehouse: str | None) -> None:
    files = Files(settings, warehouse, "parquet", rename={"город": "city"})
    files.tenant.source["streams"]["t"]["rename"] = {}
    files.load({"id": 1, "город": "Oslo", "city": "Bergen"})
    files.tenant.source["streams"]["t"]["rename"] = {"город": "city"}
    with pytest.raises(FabricError, match="rename gives 'город' the name 'city', and the table has a column of that name already"):
        files.load({"id": 2, "город": "Moss", "city": "Voss"})
    assert files.read("id", "gorod", "city") == [(1, "Oslo", "Bergen")]


def test_a_field_is_loaded_under_its_new_name_from_the_first_load_on(settings: Settings, warehouse: str | None, tmp_path: Path) -> None:
    files = Files(settings, warehouse, "jsonl", rename={"адрес": "address", "id": "number"})
    files.load({"id": 1, "адрес": "Main St"})
    assert files.tenant.read("t", "number", "address") == [(1, "Main St")]


SYSTEM_COLUMNS = ("xmin", "xmax", "cmin", "cmax", "ctid", "tableoid")


def test_fields_called_as_the_columns_that_every_postgres_table_has_are_numbered_and_stay_so(
    sqlite: SourceDatabase, warehouse: str | None, settings: Settings
) -> None:
    words = ("oid", "user", "order", "end", "select")
    declared = ", ".join(f'"{name}" integer' for name in (*SYSTEM_COLUMNS[:4], "tableoid", "xmin_2", *words))
    sqlite.run(f"create table odd (ctid integer primary key, {declared})")
    sqlite.fill("odd", [tuple(range(12))])
    tenant = Tenant(settings, sqlite.build_source(odd={"primary_key": "ctid"}), warehouse=warehouse)
    report = tenant.load()["odd"]
    columns = [column.name for column in report.columns]
    if warehouse is None:
        assert columns == ["ctid", *SYSTEM_COLUMNS[:4], "tableoid", "xmin_2", *words]
        return
    assert columns == ["ctid_2", "xmin_2", "xmax_2", "cmin_2", "cmax_2", "tableoid_2", "xmin_2_2", *words]
    named = {change.before: change.after for change in report.record.schema_changes if change.change == "column_named"}
    assert named == dict(
        zip(("xmin_2", "ctid", *SYSTEM_COLUMNS[:4], "tableoid"), ("xmin_2_2", "ctid_2", "xmin_2", "xmax_2", "cmin_2", "cmax_2", "tableoid_2"), strict=True)
    )
    sqlite.run("update odd set xmin = 100 where ctid = 0")
    sqlite.fill("odd", [(20, *range(11))])
    for refresh in (False, True):
        assert tenant.load(full_refresh=refresh)["odd"].rows_total == 2
        assert tenant.read("odd", "ctid_2", "xmin_2", "xmin_2_2") == [(0, 100, 6), (20, 0, 5)]
