"""The generator's CSV files -> what every mart must hold, in plain Python: no SQL, no dbt, whole cents until the very end."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

COLUMNS = {
    "products": "product_id product_name product_type product_description is_food is_drink price supplies perishable_supplies supply_cost",
    "stores": "store_id store_name tax_rate opened_on",
    "order_items": "order_item_id order_id customer_id store_id product_id product_name is_food is_drink price supply_cost ordered_at",
    "orders": "order_id customer_id store_id ordered_at ordered_on items food_items drink_items food_revenue drink_revenue subtotal tax total"
    " supply_cost customer_order_number is_first_order currency",
    "customers": "customer_id customer_name customer_type orders first_ordered_at last_ordered_at lifetime_subtotal lifetime_tax lifetime_value currency",
    "daily_revenue": "daily_revenue_id store_id ordered_on orders first_orders revenue tax total supply_cost gross_profit currency",
}

Marts = dict[str, list[tuple[Any, ...]]]
Rows = Iterable[Mapping[str, str]]


def compute_marts(raw: Path) -> Marts:
    """Rows of each mart, sorted by key, in the columns' order of `COLUMNS`."""
    tables = {table: _read(raw / f"raw_{table}.csv") for table in ("customers", "stores", "products", "supplies", "orders", "items")}
    costs: dict[str, int] = defaultdict(int)
    counts: dict[str, list[bool]] = defaultdict(list)
    for supply in tables["supplies"]:
        costs[supply["sku"]] += int(supply["cost"])
        counts[supply["sku"]].append(supply["perishable"] == "True")
    products = {product["sku"]: product for product in tables["products"]}
    items_of: dict[str, list[str]] = defaultdict(list)
    for item in tables["items"]:
        items_of[item["order_id"]].append(item["sku"])
    orders = {order["id"]: order for order in tables["orders"]}
    orders_of: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for order in sorted(tables["orders"], key=lambda order: (order["ordered_at"], order["id"])):
        orders_of[order["customer"]].append(order)
    numbers = {order["id"]: number for history in orders_of.values() for number, order in enumerate(history, start=1)}
    marts: Marts = {
        "products": [
            (
                sku,
                product["name"],
                product["type"],
                product["description"],
                product["type"] == "jaffle",
                product["type"] == "beverage",
                _money(int(product["price"])),
                len(counts[sku]),
                sum(counts[sku]),
                _money(costs[sku]),
            )
            for sku, product in products.items()
        ],
        "stores": [
            (store["id"], store["name"], Decimal(store["tax_rate"]).quantize(Decimal("0.0001")), _time(store["opened_at"]).date()) for store in tables["stores"]
        ],
        "order_items": [_order_item(item, orders[item["order_id"]], products[item["sku"]], costs) for item in tables["items"]],
        "orders": [_order(order, items_of[order["id"]], products, costs, numbers[order["id"]]) for order in tables["orders"]],
        "customers": [_customer(customer, orders_of[customer["id"]]) for customer in tables["customers"]],
        "daily_revenue": _daily_revenue(tables["orders"], items_of, costs, numbers),
    }
    return {name: sorted(rows) for name, rows in marts.items()}


def _order_item(item: Mapping[str, str], order: Mapping[str, str], product: Mapping[str, str], costs: Mapping[str, int]) -> tuple[Any, ...]:
    kind = (product["type"] == "jaffle", product["type"] == "beverage")
    amounts = (_money(int(product["price"])), _money(costs[product["sku"]]))
    return (item["id"], order["id"], order["customer"], order["store_id"], product["sku"], product["name"], *kind, *amounts, _time(order["ordered_at"]))


def _order(order: Mapping[str, str], skus: list[str], products: Mapping[str, Mapping[str, str]], costs: Mapping[str, int], number: int) -> tuple[Any, ...]:
    food = [int(products[sku]["price"]) for sku in skus if products[sku]["type"] == "jaffle"]
    drinks = [int(products[sku]["price"]) for sku in skus if products[sku]["type"] == "beverage"]
    time = _time(order["ordered_at"])
    amounts = [sum(food), sum(drinks), int(order["subtotal"]), int(order["tax_paid"]), int(order["order_total"]), sum(costs[sku] for sku in skus)]
    counts = (len(skus), len(food), len(drinks))
    return (order["id"], order["customer"], order["store_id"], time, time.date(), *counts, *map(_money, amounts), number, number == 1, "USD")


def _customer(customer: Mapping[str, str], history: list[Mapping[str, str]]) -> tuple[Any, ...]:
    times = [_time(order["ordered_at"]) for order in history]
    amounts = [sum(int(order[column]) for order in history) for column in ("subtotal", "tax_paid", "order_total")]
    kind = "returning" if len(history) > 1 else "new"
    first, last = (times[0], times[-1]) if times else (None, None)
    return (customer["id"], customer["name"], kind, len(history), first, last, *map(_money, amounts), "USD")


def _daily_revenue(orders: Rows, items_of: Mapping[str, list[str]], costs: Mapping[str, int], numbers: Mapping[str, int]) -> list[tuple[Any, ...]]:
    days: dict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)
    for order in orders:
        days[order["store_id"], order["ordered_at"][:10]].append(order)
    rows = []
    for (store, day), group in days.items():
        revenue, tax, total = (sum(int(order[column]) for order in group) for column in ("subtotal", "tax_paid", "order_total"))
        cost = sum(costs[sku] for order in group for sku in items_of[order["id"]])
        first = sum(numbers[order["id"]] == 1 for order in group)
        amounts = map(_money, (revenue, tax, total, cost, revenue - cost))
        rows.append((f"{store}-{day}", store, _time(day).date(), len(group), first, *amounts, "USD"))
    return rows


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _money(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2).quantize(Decimal("0.01"))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
