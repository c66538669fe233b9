"""A dlt source of the demo: the shop's exports, one resource per table. What `dlt init` writes, or a package brings, has this shape."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pyarrow.parquet as pq

Rows = Iterator[dict[str, Any]]


@dlt.source
def shop(folder: str) -> Iterator[Any]:
    """The tables of the shop.

    Args:
        folder: of the exports.
    """
    files = Path(folder)
    for table in ("customers", "products"):
        yield dlt.resource(read_lines(files / f"{table}.jsonl"), name=table, write_disposition="replace")
    for table in ("stores", "supplies"):
        yield dlt.resource(read_table(files / f"{table}.csv"), name=table, write_disposition="replace")
    yield dlt.resource(read_orders, name="orders", primary_key="id", write_disposition="merge")(files / "orders")
    yield dlt.resource(read_items, name="items", primary_key="id", write_disposition="merge")(files / "items")


def read_lines(file: Path) -> Rows:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def read_table(file: Path) -> Rows:
    with file.open(newline="", encoding="utf-8") as lines:
        yield from map(convert, csv.DictReader(lines))


def read_orders(folder: Path, ordered_at: Any = dlt.sources.incremental("ordered_at")) -> Iterator[list[dict[str, Any]]]:  # noqa: B008 - dlt's own way
    """Read a file a month, from the month of the last order that was loaded."""
    for file in sorted(folder.glob("*.csv")):
        if file.stem >= (ordered_at.last_value or "")[:7]:
            yield list(read_table(file))


def read_items(folder: Path) -> Iterator[Any]:
    """Read Arrow tables, which are loaded as they are."""
    yield from map(pq.read_table, sorted(folder.glob("*.parquet")))


def convert(row: dict[str, str]) -> dict[str, Any]:
    """Convert the texts of a CSV file."""
    return {name: _convert(name, text) for name, text in row.items()}


def _convert(name: str, text: str) -> Any:
    if name in ("cost", "subtotal", "tax_paid", "order_total"):
        return int(text)
    if name == "tax_rate":
        return float(text)
    if name == "perishable":
        return text == "True"
    return f"{text}Z" if name.endswith("_at") else text
