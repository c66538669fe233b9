"""A shop's simulated year -> one folder with the data as a database, as exports and for an API.

The public generator `jafgen` makes another year each time, so the year is made once and kept; everything else is derived from its CSV files. The folder
gets its name only when it is complete, so an interrupted call leaves nothing behind that a later call would use.
"""

import csv
import importlib.metadata
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fabric_assets.demo.ads import write_inbox
from fabric_assets.demo.shop import TABLES, write_database, write_exports, write_tickets
from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import FileLock, make_private_folder, write_atomically

# The version of the folder's layout; a folder of another version is made again.
_LAYOUT = 1
# As the YAML of the tenant demo_ads names it.
INBOX = Path("inbox", "demo_ads", "ads")
_GENERATE = "import sys; from jafgen.cli import app; sys.argv = ['jafgen', '1']; app()"


@dataclass(frozen=True)
class DemoShop:
    """The folder of the demo's source data, and the files in it that the demo tenants' YAML names."""

    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def database(self) -> Path:
        return self.folder / "shop.db"

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def tickets(self) -> Path:
        return self.folder / "tickets"

    @property
    def api_url(self) -> Path:
        return self.folder / "api_url"

    @property
    def api_token(self) -> Path:
        return self.folder / "api_token"


def prepare_demo(data_dir: Path, *, max_orders: int | None = None, report: Callable[[str], None] = lambda _: None) -> DemoShop:
    """Make the shop's year and the inbox of its ad spend if they are missing, and return the shop.

    Args:
        max_orders: keep at most this many orders, spread over the year; default: all. It has an effect only when the year is made.

    Raises:
        ConfigurationError: the generator is not installed, or failed.
    """
    make_private_folder(data_dir)
    shop = DemoShop(data_dir / "demo")
    with FileLock(data_dir / "demo.lock"):
        if not _is_whole(shop):
            report("making a shop's year with jafgen (once, some seconds)")
            _make(shop, max_orders=max_orders)
        write_inbox(data_dir / INBOX)
        if not shop.tickets.is_dir():
            write_tickets(shop.tickets, read_table(shop.raw, "orders"))
        # Written each time: the data folder may have been moved.
        write_private(shop.folder / "shop_url", f"sqlite:///{shop.database.resolve()}")
    return shop


def read_table(raw: Path, table: str) -> Iterator[dict[str, str]]:
    """Yield the rows of one of the generator's CSV files, as text."""
    with (raw / f"raw_{table}.csv").open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _is_whole(shop: DemoShop) -> bool:
    try:
        return json.loads((shop.folder / "made.json").read_text(encoding="utf-8"))["layout"] == _LAYOUT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(shop: DemoShop, *, max_orders: int | None) -> None:
    for leftover in shop.folder.parent.glob("demo.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    part = DemoShop(Path(tempfile.mkdtemp(dir=shop.folder.parent, prefix="demo.part-")))
    try:
        part.raw.mkdir()
        _generate(part.raw)
        if max_orders is not None:
            _thin_out(part.raw, max_orders)
        tables = {table: list(read_table(part.raw, table)) for table in TABLES}
        ordered_at = {order["id"]: order["ordered_at"] for order in tables["orders"]}
        # Each item carries its order's time, as in real shop systems; it is the cursor of the items' loads.
        tables["items"] = [{**item, "ordered_at": ordered_at[item["order_id"]]} for item in tables["items"]]
        write_database(part.database, tables)
        write_exports(part.exports, tables)
        write_private(part.api_token, secrets.token_urlsafe(32))
        made = {"layout": _LAYOUT, "jafgen": importlib.metadata.version("jafgen"), "rows": {table: len(rows) for table, rows in tables.items()}}
        write_private(part.folder / "made.json", json.dumps(made))
        shutil.rmtree(shop.folder, ignore_errors=True)
        part.folder.rename(shop.folder)
    finally:
        shutil.rmtree(part.folder, ignore_errors=True)


def _generate(raw: Path) -> None:
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix="jafgen-") as scratch:
        done = subprocess.run([sys.executable, "-c", _GENERATE], cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigurationError(
                f"the demo's data could not be made: jafgen: {last}", remedy="jafgen is a development dependency: run `make demo`, or `uv sync`"
            )
        for table in TABLES:
            shutil.move(Path(scratch, "jaffle-data", f"raw_{table}.csv"), raw)


def _thin_out(raw: Path, max_orders: int) -> None:
    """Keep only some orders, spread over the year, and their items; all other tables stay complete."""
    orders = sorted(read_table(raw, "orders"), key=lambda order: (order["ordered_at"], order["id"]))
    orders = orders[:: -(-len(orders) // max_orders)]
    kept = {order["id"] for order in orders}
    _rewrite(raw, "orders", orders)
    _rewrite(raw, "items", [item for item in read_table(raw, "items") if item["order_id"] in kept])


def _rewrite(raw: Path, table: str, rows: list[dict[str, str]]) -> None:
    with (raw / f"raw_{table}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=TABLES[table])
        writer.writeheader()
        writer.writerows(rows)
