"""The demo as a newcomer runs it: three sources, one set of models, the same right marts; then again, then with more in the shop.

Each run is `fabric demo` in a process of its own, far from UTC, so that nobody's clock decides which day an order belongs to.
What the marts must hold is computed from the generator's files by `expected_marts`, which knows neither SQL nor dbt.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from fabric_assets.demo.ads import write_inbox
from fabric_assets.demo.data import DemoShop, prepare_demo, read_table
from fabric_assets.demo.shop import TABLES, insert_rows, write_csv, write_parquet
from tests.demo import expected_ads
from tests.demo.expected_marts import COLUMNS, Marts, compute_marts
from tests.support.dlt_reader import Ask, attach, compare, get_destination
from tests.support.lengths import AT_FULL_LENGTH, choose

ROOT = Path(__file__).resolve().parent.parent
TENANTS = ("demo_database", "demo_files", "demo_api", "demo_connectors")
ADS = "demo_ads"
STREAMS = ("customers", "items", "orders", "products", "stores", "supplies")
MAX_ORDERS = 2_000

# All in one worker: the runs build on each other.
pytestmark = [pytest.mark.xdist_group("end_to_end"), pytest.mark.timeout(600)]


@dataclass(frozen=True)
class DemoRun:
    """What a run of `fabric demo` printed, and what the tenants' warehouses held after it."""

    answer: dict[str, Any]
    marts: dict[str, Marts]
    raw_rows: dict[str, dict[str, int]]
    ad_marts: Marts

    def get_tenant(self, name: str) -> dict[str, Any]:
        return next(tenant for tenant in self.answer["tenants"] if tenant["tenant"] == name)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fabric")


@pytest.fixture(scope="module")
def shop(data_dir: Path) -> DemoShop:
    return prepare_demo(data_dir, max_orders=MAX_ORDERS)


@pytest.fixture(scope="module")
def first(data_dir: Path, shop: DemoShop) -> DemoRun:
    return run_demo(data_dir)


@pytest.fixture(scope="module")
def second(data_dir: Path, first: DemoRun) -> DemoRun:
    return run_demo(data_dir)


@pytest.fixture(scope="module")
def grown(data_dir: Path, shop: DemoShop, second: DemoRun) -> tuple[DemoRun, Marts]:
    """The run after new orders, and the marts that they make."""
    expected = compute_marts(add_orders(shop))
    return run_demo(data_dir), expected


def run_fabric(data_dir: Path, *arguments: str, tenants_dir: Path = ROOT / "tenants") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {
        "FABRIC_TENANTS_DIR": str(tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project"),
        "FABRIC_DATA_DIR": str(data_dir),
        "FABRIC_CONNECTORS": str(ROOT / "connectors.yaml"),
        "FABRIC_CONNECTORS_DIR": str(data_dir.parent / "connectors"),
        "TZ": "America/New_York",
    }
    # The demo installs its connectors from PyPI, and the tests' own list of certificates is empty.
    environ.pop("SSL_CERT_FILE", None)
    return subprocess.run([str(Path(sys.executable).with_name("fabric")), *arguments], cwd=data_dir, env=environ, capture_output=True, text=True, check=False)


def run_demo(data_dir: Path) -> DemoRun:
    done = run_fabric(data_dir, "demo", "--json")
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    marts = {tenant: read_marts(connect(data_dir, tenant), tenant) for tenant in TENANTS}
    raw_rows = {tenant: count_raw_rows(connect(data_dir, tenant), tenant) for tenant in TENANTS}
    return DemoRun(json.loads(done.stdout), marts, raw_rows, read_marts(connect(data_dir, ADS), ADS, expected_ads.COLUMNS))


def connect(data_dir: Path, tenant: str):
    return duckdb.connect(str(data_dir / "warehouse" / f"{tenant}.duckdb"), read_only=True)


def read_marts(connection, tenant: str, marts_columns: Mapping[str, str] = COLUMNS) -> Marts:
    with closing(connection), closing(connection.cursor()) as cursor:
        marts = {}
        for mart, columns in marts_columns.items():
            cursor.execute(f"select {', '.join(columns.split())} from {tenant}_marts.{mart}")
            marts[mart] = sorted(cursor.fetchall())
        return marts


def count_raw_rows(connection, tenant: str) -> dict[str, int]:
    with closing(connection), closing(connection.cursor()) as cursor:
        counts = {}
        for stream in STREAMS:
            cursor.execute(f"select count(*) from {tenant}_raw_shop.{stream}")
            counts[stream] = cursor.fetchone()[0]
        return counts


def add_orders(shop: DemoShop) -> Path:
    """Sell more: a customer who comes back, and a new one, in each of the shop's three forms.

    Returns:
        a folder of CSV files with what the shop holds now.
    """
    tables = {table: list(read_table(shop.raw, table)) for table in TABLES}
    store, old = tables["stores"][1]["id"], max(tables["orders"], key=lambda order: order["ordered_at"])["customer"]
    customers = [{"id": "00000000-0000-4000-8000-00000000c001", "name": 'Åsa O\'Brien, "née" 李'}]
    orders = [
        _order("00000000-0000-4000-8000-000000000001", old, "2019-09-01T23:59:59", store, subtotal=1600, tax=64),
        _order("00000000-0000-4000-8000-000000000002", customers[0]["id"], "2019-09-02T00:00:00", store, subtotal=1100, tax=44),
        _order("00000000-0000-4000-8000-000000000003", customers[0]["id"], "2019-09-02T00:00:00", store, subtotal=0, tax=0),
    ]
    price = {product["sku"]: int(product["price"]) for product in tables["products"]}
    food = next(sku for sku in price if price[sku] == 1100)
    drink = next(sku for sku in price if price[sku] == 500)
    items = [
        {"id": f"00000000-0000-4000-8000-00000000100{number}", "order_id": orders[order]["id"], "sku": sku, "ordered_at": orders[order]["ordered_at"]}
        for number, (order, sku) in enumerate([(0, food), (0, drink), (1, food)])
    ]
    with closing(sqlite3.connect(shop.database)) as connection, connection:
        for table, rows in (("customers", customers), ("orders", orders), ("items", items)):
            insert_rows(connection, table, rows)
    write_csv(shop.exports / "orders" / "2019-09.csv", TABLES["orders"], orders)
    write_parquet(shop.exports / "items" / "2019-09.parquet", items)
    with (shop.exports / "customers.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(customer)}\n" for customer in customers)
    now = shop.folder.parent / "raw_now"
    shutil.copytree(shop.raw, now)
    for table, rows in (("customers", customers), ("orders", orders), ("items", items)):
        write_csv(now / f"raw_{table}.csv", TABLES[table], [*tables[table], *({column: row[column] for column in TABLES[table]} for row in rows)])
    return now


def _order(order_id: str, customer: str, ordered_at: str, store: str, *, subtotal: int, tax: int) -> dict[str, str]:
    amounts = {"subtotal": str(subtotal), "tax_paid": str(tax), "order_total": str(subtotal + tax)}
    return {"id": order_id, "customer": customer, "ordered_at": ordered_at, "store_id": store, **amounts}


@pytest.mark.parametrize("mart", COLUMNS)
@pytest.mark.parametrize("tenant", TENANTS)
def test_every_mart_of_every_tenant_equals_what_the_generated_files_add_up_to(first: DemoRun, shop: DemoShop, tenant: str, mart: str) -> None:
    assert first.marts[tenant][mart] == compute_marts(shop.raw)[mart]


def test_the_first_run_loads_every_row_of_every_stream_and_says_so(first: DemoRun, shop: DemoShop) -> None:
    expected = {table: sum(1 for _ in read_table(shop.raw, table)) for table in TABLES}
    for name in TENANTS:
        tenant = first.get_tenant(name)
        assert first.raw_rows[name] == expected
        loaded = {f"{name}/raw/shop/{table}": rows for table, rows in expected.items()}
        if name == "demo_connectors":
            loaded[f"{name}/raw/desk/tickets"] = MAX_ORDERS // 100
        assert {asset["key"]: asset["rows_loaded"] for asset in tenant["assets"] if "/raw/" in asset["key"]} == loaded
        assert tenant["rows_loaded"] == sum(loaded.values())
        assert tenant["incremental"] is False
        assert (tenant["status"], tenant["streams"], tenant["models"], tenant["error"]) == ("success", len(loaded), 19, None)
        assert {asset["status"] for asset in tenant["assets"]} == {"success"}


def test_all_checks_of_all_kinds_ran_and_passed(first: DemoRun) -> None:
    for name in TENANTS:
        checks = {(check["asset"], check["name"]): check["passed"] for check in first.get_tenant(name)["checks"]}
        assert set(checks.values()) == {True}
        assert {
            (f"{name}/raw/shop/customers", "freshness"),
            (f"{name}/raw/shop/customers", "row_count"),
            (f"{name}/raw/shop/customers", "unique_id"),
            (f"{name}/raw/shop/orders", "not_null_id_customer_ordered_at_store_id"),
            (f"{name}/raw/shop/orders", "source_freshness"),
            (f"{name}/raw/shop/products", "accepted_values_type"),
            (f"{name}/marts/orders", "orders_add_up"),
            (f"{name}/marts/orders", "unique_orders_order_id"),
        } <= set(checks)


def test_totals_are_equal_and_right(first: DemoRun, shop: DemoShop) -> None:
    orders = list(read_table(shop.raw, "orders"))
    cents = sum(int(order["order_total"]) for order in orders)
    assert first.answer["equal"] is True
    for name in TENANTS:
        totals = first.get_tenant(name)["totals"]
        assert totals["orders"] == len(orders)
        assert totals["lifetime_value"] == f"{cents // 100}.{cents % 100:02}"


def test_the_demo_tenants_have_neither_mistakes_nor_warnings(data_dir: Path, first: DemoRun) -> None:
    assert run_fabric(data_dir, "validate").stdout == "5 of 5 tenants are fine\n"


def test_a_second_run_finds_nothing_new_and_doubles_nothing(first: DemoRun, second: DemoRun) -> None:
    for name in TENANTS:
        tenant = second.get_tenant(name)
        assert (tenant["incremental"], tenant["new_rows"]) == (True, 0)
        assert second.raw_rows[name] == first.raw_rows[name]
        assert second.marts[name] == first.marts[name]


def test_the_demo_has_a_seed_and_a_snapshot_whose_history_no_run_changes_without_a_change(data_dir: Path, shop: DemoShop, grown: tuple[DemoRun, Marts]) -> None:
    run, _ = grown
    for name in TENANTS:
        assert f"{name}/snapshots/product_prices" in {asset["key"] for asset in run.get_tenant(name)["assets"]}
        with closing(connect(data_dir, name)) as connection:
            found = connection.execute(f"select count(*), count(dbt_valid_to) from {name}_snapshots.product_prices").fetchall()
        assert found == [(sum(1 for _ in read_table(shop.raw, "products")), 0)]
    with closing(connect(data_dir, ADS)) as connection:
        found = connection.execute(f"select channel, channel_group from {ADS}_seeds.ad_channels order by 1").fetchall()
    assert found == [("display", "brand"), ("email", "owned"), ("search", "performance"), ("social", "performance")]
    assert {(check["asset"], check["name"], check["passed"]) for check in run.get_tenant(ADS)["checks"]} >= {
        (f"{ADS}/seeds/ad_channels", "unique_ad_channels_channel", True),
        (f"{ADS}/marts/ad_spend_by_channel", "relationships_ad_spend_by_channel_channel__channel__ref_ad_channels_", True),
    }


def test_a_second_run_asks_for_what_is_new_only(first: DemoRun, second: DemoRun) -> None:
    for name, streams in {"demo_database": ("orders", "items"), "demo_api": ("orders", "items"), "demo_files": STREAMS}.items():
        loaded = {asset["key"].rpartition("/")[2]: asset["rows_loaded"] for asset in second.get_tenant(name)["assets"] if "/raw/" in asset["key"]}
        # Sources with a cursor answer with its last moment again; files that did not change are not read at all.
        limit = 0 if name == "demo_files" else 20
        assert max(loaded[stream] for stream in streams) <= limit, (name, loaded)
        assert first.raw_rows[name]["orders"] > 20


def test_new_orders_appear_in_every_tenant_and_nothing_else_changes(second: DemoRun, grown: tuple[DemoRun, Marts]) -> None:
    run, expected = grown
    for name in TENANTS:
        assert run.get_tenant(name)["new_rows"] == 3 + 3 + 1
        assert run.marts[name] == expected
        assert set(second.marts[name]["orders"]) <= set(run.marts[name]["orders"])


# --- dropped files


@pytest.fixture(scope="module")
def ad_marts(tmp_path_factory: pytest.TempPathFactory) -> Marts:
    """What the marts of the ad spend must hold, from the files as they are dropped."""
    inbox = tmp_path_factory.mktemp("dropped") / "ads"
    write_inbox(inbox)
    return expected_ads.compute_ad_marts(inbox)


def test_each_dropped_file_gets_its_status_and_the_marts_hold_the_totals_of_the_good_rows(first: DemoRun, ad_marts: Marts) -> None:
    tenant = first.get_tenant(ADS)
    fates = {file["name"]: (file["status"], file["reason"], file["rows_read"], file["rows_rejected"]) for file in tenant["files"]}
    assert fates == expected_ads.FATES
    assert all(file["rows_read"] == file["rows_loaded"] + file["rows_rejected"] for file in tenant["files"])
    assert (tenant["status"], tenant["rows_loaded"], tenant["streams"], tenant["models"]) == ("success", 759, 1, 12)
    assert first.ad_marts == ad_marts
    days = ad_marts["ad_spend_by_day"]
    totals = {"days": len(days), "clicks": sum(day[2] for day in days), "conversions": sum(day[3] for day in days)}
    assert {name: tenant["totals"][name] for name in totals} == totals
    assert Decimal(tenant["totals"]["spend"]) == sum(day[1] for day in days)


def test_bad_rows_are_kept_with_line_column_and_reason(data_dir: Path, first: DemoRun) -> None:
    with closing(connect(data_dir, ADS)) as connection:
        found = connection.execute(f"select row_number, column_name, reason, origin from {ADS}_fabric.rejected_rows").fetchall()
    assert {line: (column, reason) for line, column, reason, _ in found} == expected_ads.REJECTED
    assert {origin for *_, origin in found} == {"2019-01.csv"}


def test_a_second_run_moves_nothing_and_doubles_no_spend(data_dir: Path, first: DemoRun, second: DemoRun) -> None:
    tenant = second.get_tenant(ADS)
    assert (tenant["status"], tenant["rows_loaded"], tenant["new_rows"], tenant["incremental"]) == ("success", 0, 0, True)
    assert tenant["files"] == first.get_tenant(ADS)["files"]
    assert second.ad_marts == first.ad_marts
    inbox = data_dir / "inbox" / ADS / "ads"
    assert sorted(file.name for file in inbox.iterdir()) == ["archive", "quarantine"]
    quarantined = sorted(file.name for file in (inbox / "quarantine").glob("*.csv"))
    assert [name.partition(".")[0] for name in quarantined] == ["2019-02", "2019-03"]
    assert all((inbox / "quarantine" / f"{name}.reason.txt").is_file() for name in quarantined)


# --- dlt


@pytest.mark.parametrize("tenant", [*TENANTS, ADS])
def test_dlt_reads_each_raw_dataset_of_a_demo_tenant(data_dir: Path, grown: Any, tmp_path: Path, tenant: str) -> None:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        with closing(connect(data_dir, tenant)) as connection:
            return connection.execute(sql).fetchall()

    assert compare_with_dlt(get_destination(data_dir, tenant, None), tenant, ask, tmp_path) == {
        ADS: {"ads"},
        "demo_connectors": {"desk", "shop"},
    }.get(tenant, {"shop"})


def compare_with_dlt(destination: Any, tenant: str, ask: Ask, folder: Path) -> set[str]:
    """Compare what dlt reads of each raw dataset with the destination; return the sources."""
    prefix = f"{tenant}_raw_"
    datasets = [name for (name,) in ask(f"select distinct table_schema from information_schema.tables where table_schema like '{prefix}%'")]
    for dataset in datasets:
        pipeline = attach(destination, folder / "pipelines", tenant, dataset.removeprefix(prefix))
        assert sum(compare(pipeline, ask).values()) > 0
    return {dataset.removeprefix(prefix) for dataset in datasets}


# --- Postgres


@AT_FULL_LENGTH
def test_postgres_holds_the_same_marts_after_a_first_a_second_and_a_full_run(shop: DemoShop, tmp_path: Path, postgres_database: str) -> None:
    data_dir, tenants_dir = tmp_path / "data", tmp_path / "tenants"
    shutil.copytree(ROOT / "tenants", tenants_dir)
    shop_database = sqlite_copy(shop, tmp_path)
    data_dir.mkdir(mode=0o700)
    for name, value in (("warehouse_url", postgres_database), ("shop_url", f"sqlite:///{shop_database}")):
        (data_dir / name).write_text(value)
        (data_dir / name).chmod(0o600)
    text = (tenants_dir / "demo_database.yaml").read_text().replace("demo/shop_url", "shop_url").replace("demo_database", "in_postgres")
    # One stream that is replaced as a whole: dbt's views must stand over its table all the same.
    text = text.replace("    streams:\n", "    streams:\n      stores: {write_disposition: replace}\n")
    (tenants_dir / "in_postgres.yaml").write_text(f"{text}destination:\n  type: postgres\n  url: {{file: warehouse_url}}\n")
    expected = compute_marts(shop.raw)
    for arguments in choose([(), ("--full-refresh",), ()], 2):
        done = run_fabric(data_dir, "run", "in_postgres", "--json", *arguments, tenants_dir=tenants_dir)
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
        marts = read_marts(psycopg2.connect(postgres_database), "in_postgres")
        assert {mart: marts[mart] == expected[mart] for mart in COLUMNS} == dict.fromkeys(COLUMNS, True)

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(postgres_database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    assert compare_with_dlt(get_destination(data_dir, "in_postgres", postgres_database), "in_postgres", ask, tmp_path) == {"shop"}


def sqlite_copy(shop: DemoShop, folder: Path) -> Path:
    """The shop as it was made, whatever other tests have added to it since."""
    from fabric_assets.demo.shop import write_database

    tables: dict[str, Any] = {table: list(read_table(shop.raw, table)) for table in TABLES}
    times = {order["id"]: order["ordered_at"] for order in tables["orders"]}
    tables["items"] = [{**item, "ordered_at": times[item["order_id"]]} for item in tables["items"]]
    write_database(folder / "shop.db", tables)
    return folder / "shop.db"
