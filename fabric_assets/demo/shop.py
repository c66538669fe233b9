"""The shop's rows -> a typed SQLite database, and a folder of exports in three file formats.

Each table is exported in the format that such data has in practice. So the three demo tenants have the same rows with text dates, sniffed dates, JSON types
and Parquet types, but the same marts.
"""

import csv
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

# The generator's tables and columns; a parent comes before its children.
TABLES: dict[str, tuple[str, ...]] = {
    "customers": ("id", "name"),
    "stores": ("id", "name", "opened_at", "tax_rate"),
    "products": ("sku", "name", "type", "price", "description"),
    "supplies": ("id", "name", "cost", "perishable", "sku"),
    "orders": ("id", "customer", "ordered_at", "store_id", "subtotal", "tax_paid", "order_total"),
    "items": ("id", "order_id", "sku"),
}

_INTEGERS = frozenset({"price", "cost", "subtotal", "tax_paid", "order_total"})

# A supply's id alone is not a key: one supply is in many products.
_SCHEMA = """
create table customers (id varchar(36) primary key, name varchar(200) not null);
create table stores (id varchar(36) primary key, name varchar(200) not null, opened_at timestamp not null, tax_rate numeric(6, 4) not null);
create table products (sku varchar(20) primary key, name varchar(200) not null, type varchar(20) not null, price integer not null, description text);
create table supplies (
    id varchar(20) not null, name varchar(200) not null, cost integer not null, perishable boolean not null,
    sku varchar(20) not null references products (sku), primary key (id, sku));
create table orders (
    id varchar(36) primary key, customer varchar(36) not null references customers (id), ordered_at timestamp not null,
    store_id varchar(36) not null references stores (id), subtotal integer not null, tax_paid integer not null, order_total integer not null);
create table items (
    id varchar(36) primary key, order_id varchar(36) not null references orders (id), sku varchar(20) not null references products (sku),
    ordered_at timestamp not null);
create index orders_by_time on orders (ordered_at, id);
create index items_by_time on items (ordered_at, id);
"""

Rows = Sequence[Mapping[str, str]]


def write_database(path: Path, tables: Mapping[str, Rows]) -> None:
    """Write the SQLite database of the shop."""
    connection = sqlite3.connect(path)
    try:
        connection.executescript(_SCHEMA)
        for table in TABLES:
            insert_rows(connection, table, tables[table])
        connection.commit()
    finally:
        connection.close()


def insert_rows(connection: sqlite3.Connection, table: str, rows: Rows) -> None:
    """Add rows of the generator's form to a table of the shop's database."""
    columns = _columns(table)
    statement = f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' for _ in columns)})"
    connection.executemany(statement, ([_to_sqlite(column, row[column]) for column in columns] for row in rows))


def write_exports(folder: Path, tables: Mapping[str, Rows]) -> None:
    """Write the shop's exports: orders as CSV and items as parquet, a file a month; the rest as JSON lines or CSV."""
    folder.mkdir()
    for month, orders in _by_month(tables["orders"]):
        write_csv(folder / "orders" / f"{month}.csv", TABLES["orders"], orders)
    for month, items in _by_month(tables["items"]):
        write_parquet(folder / "items" / f"{month}.parquet", items)
    for table in ("customers", "products"):
        lines = (json.dumps({column: to_json(column, row[column]) for column in TABLES[table]}) for row in tables[table])
        (folder / f"{table}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for table in ("supplies", "stores"):
        write_csv(folder / f"{table}.csv", TABLES[table], tables[table])


def write_tickets(folder: Path, orders: Iterable[Mapping[str, str]]) -> None:
    """Write the tickets that customers have opened, as JSON lines: one for each hundredth order."""
    folder.mkdir()
    chosen = sorted(orders, key=lambda order: (order["ordered_at"], order["id"]))[::100]
    lines = (
        json.dumps({"id": number, "customer": order["customer"], "order": order["id"], "opened_at": to_json("opened_at", order["ordered_at"])})
        for number, order in enumerate(chosen, 1)
    )
    (folder / "tickets.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write one CSV export."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, items: Iterable[Mapping[str, str]]) -> None:
    """Write one parquet export of order items."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(exist_ok=True)
    rows = list(items)
    columns = {column: pa.array([row[column] for row in rows]) for column in _columns("items")}
    columns["ordered_at"] = columns["ordered_at"].cast(pa.timestamp("us"))
    pq.write_table(pa.table(columns), path)


def to_json(column: str, value: object) -> object:
    """Convert a cell to its JSON value: a number, a boolean, or an ISO time in UTC.

    Args:
        value: the generator's text, or SQLite's value.
    """
    if column in _INTEGERS:
        return int(str(value))
    if column == "tax_rate":
        return float(str(value))
    if column == "perishable":
        return value in ("True", 1)
    if column.endswith("_at"):
        return f"{str(value).replace(' ', 'T')}Z"
    return value


def _to_sqlite(column: str, value: str) -> object:
    if column in _INTEGERS:
        return int(value)
    if column == "tax_rate":
        return float(value)
    if column == "perishable":
        return int(value == "True")
    return value.replace("T", " ") if column.endswith("_at") else value


def _columns(table: str) -> tuple[str, ...]:
    return (*TABLES[table], "ordered_at") if table == "items" else TABLES[table]


def _by_month(rows: Rows) -> Iterable[tuple[str, list[Mapping[str, str]]]]:
    ordered = sorted(rows, key=lambda row: (row["ordered_at"], row["id"]))
    return ((month, list(group)) for month, group in groupby(ordered, key=lambda row: row["ordered_at"][:7]))
