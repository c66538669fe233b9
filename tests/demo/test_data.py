"""The demo's data: made once, whole or not at all, and the same rows in each of its forms."""

import json
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fabric_assets.demo.data import DemoShop, prepare_demo, read_table
from tests.support.lengths import AT_FULL_LENGTH

ORDERS = 400
# One worker's: the year takes longer to make than the tests.
pytestmark = pytest.mark.xdist_group("demo_data")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def shop(data_dir: Path) -> DemoShop:
    return prepare_demo(data_dir, max_orders=ORDERS)


@AT_FULL_LENGTH
def test_a_smaller_year_spans_all_months_and_keeps_orders_with_their_items(shop: DemoShop) -> None:
    rows = list(read_table(shop.raw, "orders"))
    orders = {order["id"] for order in rows}
    items = list(read_table(shop.raw, "items"))
    assert ORDERS / 2 < len(orders) <= ORDERS
    assert len({order["ordered_at"][:7] for order in rows}) == 12
    assert items
    assert {item["order_id"] for item in items} <= orders


def test_database_and_exports_hold_the_generators_rows(shop: DemoShop) -> None:
    connection = sqlite3.connect(shop.database)
    try:
        in_database = {row[0]: row[1:] for row in connection.execute("select id, customer, ordered_at, subtotal from orders")}
        assert in_database == {
            order["id"]: (order["customer"], order["ordered_at"].replace("T", " "), int(order["subtotal"])) for order in read_table(shop.raw, "orders")
        }
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        lines = {row[0]: row[1] for row in connection.execute("select id, ordered_at from items")}
    finally:
        connection.close()
    exported = [row for file in sorted((shop.exports / "items").iterdir()) for row in pq.read_table(file).to_pylist()]
    assert {row["id"]: row["ordered_at"].isoformat(sep=" ") for row in exported} == lines
    assert len(exported) == len(lines)
    customers = [json.loads(line) for line in (shop.exports / "customers.jsonl").read_text().splitlines()]
    assert customers == list(read_table(shop.raw, "customers"))


def test_secrets_are_readable_by_their_owner_only(shop: DemoShop) -> None:
    assert (shop.folder / "shop_url").read_text() == f"sqlite:///{shop.database}"
    assert len(shop.api_token.read_text()) > 30
    assert {file.stat().st_mode & 0o777 for file in (shop.folder / "shop_url", shop.api_token)} == {0o600}
    assert shop.folder.stat().st_mode & 0o777 == 0o700


def test_an_existing_year_is_not_made_again(data_dir: Path, shop: DemoShop) -> None:
    before, lines = shop.database.stat().st_mtime_ns, []
    assert prepare_demo(data_dir, report=lines.append) == shop
    assert shop.database.stat().st_mtime_ns == before
    assert lines == []


@AT_FULL_LENGTH
def test_an_interrupted_year_is_made_again(data_dir: Path, shop: DemoShop) -> None:
    (shop.folder / "made.json").write_text('{"layout"')
    cut_off = data_dir / "demo.part-xyz"
    cut_off.mkdir()
    first = next(read_table(shop.raw, "orders"))["id"]
    lines: list[str] = []
    prepare_demo(data_dir, max_orders=ORDERS, report=lines.append)
    assert next(read_table(shop.raw, "orders"))["id"] != first
    assert len(lines) == 1
    assert not cut_off.exists()
    assert sorted(path.name for path in data_dir.iterdir()) == ["demo", "demo.lock", "inbox"]
