"""The shop's database -> an HTTP API on loopback, as a shop's vendor would offer it.

Every list has another paging (numbers, links, cursors, offsets), so that the demo shows each of them. Each request reads SQLite again, so new rows of the
shop appear at once. `python -m fabric_assets.demo.api` runs the API by itself.
"""

import http.client
import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fabric_assets.demo.data import DemoShop, prepare_demo, write_private
from fabric_assets.demo.shop import TABLES, to_json
from fabric_assets.settings import load_settings

PAGE = 5_000
BASE = "/v1"
_BEGINNING = "0001-01-01T00:00:00Z"

Params = Mapping[str, str]
Answer = dict[str, Any]


class BadRequest(Exception):
    """A parameter that cannot be read; the answer is 400."""


@contextmanager
def serve_api(shop: DemoShop, *, port: int = 0) -> Iterator[str]:
    """Serve the shop while the context lasts, and write the address to `shop.api_url`.

    Args:
        port: 0 for a free one.

    Yields:
        The base URL, e.g. http://127.0.0.1:40123/v1.
    """
    token = shop.api_token.read_text(encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", port), _build_handler(shop, token))
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}{BASE}"
    thread = threading.Thread(target=server.serve_forever, name="demo-api", daemon=True)
    thread.start()
    try:
        write_private(shop.api_url, url)
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def reach_api(shop: DemoShop) -> Iterator[str]:
    """Use the API if another process already serves it, e.g. `make dev`; otherwise serve it."""
    if url := _find_running(shop):
        yield url
    else:
        with serve_api(shop) as url:
            yield url


def _find_running(shop: DemoShop) -> str | None:
    try:
        url = shop.api_url.read_text(encoding="utf-8")
        parts = urlsplit(url)
        with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)) as connection:
            connection.request("GET", f"{parts.path}/products", headers={"Authorization": f"Bearer {shop.api_token.read_text(encoding='utf-8')}"})
            return url if connection.getresponse().status == HTTPStatus.OK else None
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _build_handler(shop: DemoShop, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open between pages

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            if not compare_digest(given.encode(), f"Bearer {token}".encode()):
                self._answer(HTTPStatus.UNAUTHORIZED, {"error": "a valid bearer token is needed"}, {"WWW-Authenticate": "Bearer"})
                return
            address = urlsplit(self.path)
            try:
                with closing(_open(shop)) as connection:
                    body = answer(
                        connection, address.path, dict(parse_qsl(address.query)), base_url=f"http://127.0.0.1:{self.connection.getsockname()[1]}{BASE}"
                    )
            except BadRequest as error:
                self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
                return
            self._answer(HTTPStatus.OK if body is not None else HTTPStatus.NOT_FOUND, body or {"error": "there is no such path"})

        def _answer(self, status: HTTPStatus, body: Answer, headers: Mapping[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
            """Stay silent: standard error belongs to the demo's progress."""

    return Handler


def _open(shop: DemoShop) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(shop.database))}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def answer(connection: sqlite3.Connection, path: str, params: Params, *, base_url: str) -> Answer | None:
    """Answer one request; None for an unknown path."""
    match path.removeprefix(BASE).strip("/").split("/") if path.startswith(f"{BASE}/") else []:
        case ["products", sku, "supplies"]:
            return {"data": _read(connection, "supplies", "where sku = ? order by id", (unquote(sku),))}
        case [table] if table in _LISTS:
            return _LISTS[table](connection, params, base_url)
    return None


def _list_orders(connection: sqlite3.Connection, params: Params, base_url: str) -> Answer:
    """List orders since a time (inclusive), each page with the address of the next one."""
    rows, next_cursor = _read_since(connection, "orders", params)
    address = f"{base_url}/orders?{urlencode({'cursor': next_cursor})}" if next_cursor else None
    return {"data": rows, "paging": {"next": address}}


def _list_items(connection: sqlite3.Connection, params: Params, _base_url: str) -> Answer:
    """List order items since a time (inclusive), each page with the cursor of the next one."""
    rows, next_cursor = _read_since(connection, "items", params)
    return {"data": rows, "next_cursor": next_cursor}


def _list_customers(connection: sqlite3.Connection, params: Params, _base_url: str) -> Answer:
    """List customers by page number, with the number of pages."""
    total = connection.execute("select count(*) from customers").fetchone()[0]
    page = _get_int(params, "page", 1)
    rows = _read(connection, "customers", "order by id limit ? offset ?", (PAGE, (page - 1) * PAGE))
    return {"data": rows, "page": page, "pages": -(-total // PAGE)}


def _list_stores(connection: sqlite3.Connection, params: Params, _base_url: str) -> Answer:
    """List stores by offset and limit, with their number."""
    total = connection.execute("select count(*) from stores").fetchone()[0]
    limit, offset = _get_int(params, "limit", PAGE), _get_int(params, "offset", 0)
    return {"data": _read(connection, "stores", "order by id limit ? offset ?", (min(limit, PAGE), offset)), "total": total}


def _list_products(connection: sqlite3.Connection, _params: Params, _base_url: str) -> Answer:
    """List all products at once."""
    return {"data": _read(connection, "products", "order by sku", ())}


_LISTS: dict[str, Callable[[sqlite3.Connection, Params, str], Answer]] = {
    "orders": _list_orders,
    "items": _list_items,
    "customers": _list_customers,
    "stores": _list_stores,
    "products": _list_products,
}


def _read_since(connection: sqlite3.Connection, table: str, params: Params) -> tuple[list[Answer], str | None]:
    """Read a page by time and id, so that rows that arrive meanwhile shift nothing. The cursor names the page's last row."""
    if cursor := params.get("cursor"):
        time, _, last_id = cursor.partition("_")
        condition, values = "where (ordered_at, id) > (?, ?)", (_to_sqlite(time), last_id)
    else:
        condition, values = "where ordered_at >= ?", (_to_sqlite(params.get("since", _BEGINNING)),)
    rows = _read(connection, table, f"{condition} order by ordered_at, id limit ?", (*values, PAGE + 1))
    if len(rows) <= PAGE:
        return rows, None
    return rows[:PAGE], f"{rows[PAGE - 1]['ordered_at']}_{rows[PAGE - 1]['id']}"


def _read(connection: sqlite3.Connection, table: str, rest: str, values: tuple[object, ...]) -> list[Answer]:
    columns = (*TABLES[table], "ordered_at") if table == "items" else TABLES[table]
    found = connection.execute(f"select {', '.join(columns)} from {table} {rest}", values)
    return [{column: to_json(column, row[column]) for column in columns} for row in found]


def _to_sqlite(value: str) -> str:
    """Write an ISO time as the database does, in UTC."""
    try:
        moment = _parse_time(value)
    except ValueError as error:
        raise BadRequest(f"{value!r} is not an ISO time, e.g. 2018-09-01T10:16:00Z") from error
    moment = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return moment.isoformat(sep=" ", timespec="seconds")


def _parse_time(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return datetime.fromisoformat(value[::-1].replace(" ", "+", 1)[::-1])  # the + of an offset that was not encoded arrives as a blank


def _get_int(params: Params, name: str, default: int) -> int:
    value = params.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadRequest(f"{name} must be a whole number")
    return max(int(value), 0 if name == "offset" else 1)


def main() -> None:
    """Make the data if it is missing, and serve it until the process is ended."""
    shop = prepare_demo(load_settings().data_dir, report=lambda line: print(line, file=sys.stderr))
    with serve_api(shop) as url:
        print(f"the demo's API answers at {url}", file=sys.stderr)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
