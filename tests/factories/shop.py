"""A tiny shop in SQLite, and a tenant that loads it: what the factories' tests run on."""

import sqlite3
from pathlib import Path
from typing import Any

TABLES = {
    "customers": ("id text primary key, name text", [("c1", "Ada"), ("c2", "Grace")]),
    "orders": (
        "id text primary key, customer text, ordered_at text, store_id text, subtotal integer, tax_paid integer, order_total integer",
        [
            ("o1", "c1", "2024-01-01T09:00:00", "s1", 1000, 60, 1060),
            ("o2", "c1", "2024-01-02T09:00:00", "s1", 500, 30, 530),
            ("o3", "c2", "2024-01-02T10:00:00", "s1", 500, 30, 530),
        ],
    ),
    "items": ("id text primary key, order_id text, sku text", [("i1", "o1", "JAF-1"), ("i2", "o2", "BEV-1"), ("i3", "o3", "BEV-1")]),
    "products": (
        "sku text primary key, name text, type text, price integer, description text",
        [("JAF-1", "one", "jaffle", 1000, "a"), ("BEV-1", "two", "beverage", 500, "b")],
    ),
    "stores": ("id text primary key, name text, opened_at text, tax_rate real", [("s1", "Berlin", "2023-01-01T00:00:00", 0.06)]),
    "supplies": (
        "id text, name text, cost integer, perishable text, sku text, primary key (id, sku)",
        [("u1", "cup", 10, "False", "BEV-1"), ("u2", "bread", 20, "True", "JAF-1")],
    ),
}

STREAMS: dict[str, Any] = {
    "customers": {"primary_key": "id"},
    "orders": {"primary_key": "id", "cursor": {"field": "ordered_at"}, "description": "Orders of the shop."},
    "items": {"primary_key": "id"},
    "products": {"primary_key": "sku"},
    "stores": {"primary_key": "id"},
    "supplies": {"primary_key": ["id", "sku"]},
}


def make_shop(path: Path) -> str:
    """Make the database and give its SQLAlchemy URL."""
    with sqlite3.connect(path) as database:
        for table, (columns, rows) in TABLES.items():
            database.execute(f"create table {table} ({columns})")
            database.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)
    database.close()
    return f"sqlite:///{path}"


def get_tenant(**changes: Any) -> dict[str, Any]:
    """A tenant's YAML; `changes` replace whole keys."""
    return {
        "owners": ["team:growth", "data@acme.example"],
        "timezone": "Europe/Berlin",
        "sources": {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "retries": {"max": 0}, "streams": STREAMS}},
        "transform": {"select": ["staging.shop", "marts.sales"]},
        "checks": {"raw/shop/orders": [{"type": "row_count", "min": 1}, {"type": "freshness", "max_age": "26h", "severity": "warn"}]},
        "schedules": {
            "nightly": {"cron": "0 3 * * *"},
            "hourly_shop": {"cron": "15 * * * *", "timezone": "UTC", "target": ["raw/shop/orders", "+marts/daily_revenue"]},
        },
    } | changes
