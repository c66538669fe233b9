"""docs/loading.md shows what really comes of a file under each word of `schema_contract`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import DataError
from fabric_assets.loading.rejects.reader import open_rejects
from fabric_assets.settings import Settings
from tests.support.shop import Tenant

PAGE = (Path(__file__).parents[2] / "docs" / "loading.md").read_text()


def get_block(kind: str, name: str) -> str:
    found = re.search(rf"<!-- {kind}: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"docs/loading.md has no block {kind}: {name}"
    return found[1]


def load(settings: Settings, contract: str) -> Tenant:
    folder = settings.data_dir / "supplier"
    folder.mkdir()
    stream: dict[str, Any] = {"glob": "*.csv", "format": "csv", "schema_contract": contract}
    tenant = Tenant(settings, {"type": "files", "path": "supplier", "streams": {"items": stream}}, name="prices")
    for name in ("monday.csv", "tuesday.csv"):
        (folder / name).write_text(get_block("file", name))
        tenant.load()
    return tenant


def draw_table(tenant: Tenant) -> str:
    query = "select column_name from information_schema.columns where table_schema = 'prices_raw_shop' and table_name = 'items' order by ordinal_position"
    columns = [name for (name,) in tenant.ask(query) if not name.startswith("_fabric_")]
    rows = [columns, *([("" if value is None else str(value)) for value in row] for row in tenant.read("items", *columns, order="sku"))]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


@pytest.mark.parametrize("contract", ["evolve", "discard"])
def test_the_page_shows_the_table_that_each_contract_leaves(settings: Settings, contract: str) -> None:
    assert get_block("rows", contract) == draw_table(load(settings, contract))


def test_the_page_shows_the_rows_that_are_rejected(settings: Settings) -> None:
    tenant = load(settings, "discard")
    with open_rejects(tenant.config, settings) as found:
        rows = [row for portion in found.read() for row in portion]
    assert get_block("rejects", "discard") == "".join(f"{json.loads(row.raw)['sku']}: {row.reason}: {row.message}\n" for row in rows)


def test_the_page_shows_the_error_that_stops_a_load(settings: Settings) -> None:
    with pytest.raises(DataError) as caught:
        load(settings, "freeze")
    assert get_block("error", "freeze") == str(caught.value).replace("source shop", "source supplier") + "\n"


def test_the_page_names_every_reason_that_a_row_may_be_rejected_for() -> None:
    room = Path(__file__).parents[2] / "fabric_assets"
    files = [*room.glob("connectors/files/*.py"), *room.glob("loading/shaping/*.py")]
    code = "\n".join(file.read_text() for file in files)
    used = set(re.findall(r'(?:Fault\([^"\n]*|Fragment\([^"\n]*|return )"([a-z]+_[a-z]+)",', code))
    assert set(re.findall(r"^\| `([a-z]+_[a-z]+)` \|", PAGE, re.MULTILINE)) >= used
    assert {"null_key", "type_mismatch", "ragged_row", "bad_json"} <= used
