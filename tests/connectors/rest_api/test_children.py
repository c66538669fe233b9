"""A child stream is read once for each row of its parent, also where nobody loads the parent."""

from typing import Any

import pytest
from werkzeug import Request

from fabric_assets.errors import SourceError, SourceUnavailable
from tests.connectors.rest_api.rest import Api, Warehouse, answer_json

ORDERS = {"path": "orders", "primary_key": "id"}
ITEMS = {"path": "orders/{orders.id}/items", "primary_key": ["_orders_id", "line"], "include_from_parent": ["id"]}


def serve_orders(api: Api, *numbers: Any) -> None:
    api.serve("/v1/orders", [{"id": number, "at": f"2024-01-{index + 1:02}"} for index, number in enumerate(numbers)])
    for number in numbers:
        api.serve(f"/v1/orders/{number}/items", [{"line": line, "sku": f"{number}-{line}"} for line in (1, 2)])


def test_children_carry_their_parents_key(api: Api, warehouse: Warehouse) -> None:
    serve_orders(api, 1, 2)
    reports = warehouse.load({"orders": ORDERS, "items": ITEMS})
    assert {name: report.rows_loaded for name, report in reports.items()} == {"orders": 2, "items": 4}
    assert warehouse.read("select _orders_id, line, sku from items order by 1, 2") == [(1, 1, "1-1"), (1, 2, "1-2"), (2, 1, "2-1"), (2, 2, "2-2")]
    assert api.get_paths().count("/v1/orders") == 1


def test_a_child_alone_reads_its_parent_and_does_not_load_it(api: Api, warehouse: Warehouse) -> None:
    serve_orders(api, 1, 2)
    assert set(warehouse.load({"orders": ORDERS, "items": ITEMS}, "items")) == {"items"}
    assert warehouse.read("select count(*) from items") == [(4,)]
    assert warehouse.list_tables() == ["items"]


def test_a_parent_alone_reads_no_child(api: Api, warehouse: Warehouse) -> None:
    serve_orders(api, 1, 2)
    warehouse.load({"orders": ORDERS, "items": ITEMS}, "orders")
    assert api.get_paths() == ["/v1/orders"]


def test_grandchildren_are_reached_through_children(api: Api, warehouse: Warehouse) -> None:
    serve_orders(api, 1)
    for sku in ("1-1", "1-2"):
        api.serve(f"/v1/skus/{sku}", {"sku": sku, "weight": 5})
    skus = {"path": "skus/{items.sku}", "primary_key": "sku", "include_from_parent": ["_orders_id"]}
    warehouse.load({"orders": ORDERS, "items": ITEMS, "skus": skus}, "skus")
    assert warehouse.read("select sku, weight, _items__orders_id from skus order by sku") == [("1-1", 5, 1), ("1-2", 5, 1)]


def test_a_parents_value_stays_one_segment_of_the_path(api: Api, warehouse: Warehouse) -> None:
    """A row must not be able to choose another endpoint."""
    served: list[str] = []

    def answer(request: Request) -> Any:
        served.append(request.environ["REQUEST_URI"])
        return [{"line": 1}]

    api.serve("/v1/orders", [{"id": "../admin?x=1#y"}, {"id": "a b/ü%"}])
    for path in ("/v1/orders/../admin?x=1#y/items", "/v1/orders/a b/ü%/items"):
        api.serve(path, answer)
    warehouse.load({"orders": ORDERS, "items": ITEMS}, "items")
    assert served == ["/v1/orders/..%2Fadmin%3Fx%3D1%23y/items", "/v1/orders/a%20b%2F%C3%BC%25/items"]


@pytest.mark.parametrize("value", ["", ".", "..", True, {"a": 1}, [1]])
def test_a_parents_value_that_cannot_be_part_of_a_path_is_refused(api: Api, warehouse: Warehouse, value: Any) -> None:
    api.serve("/v1/orders", [{"id": value}])
    with pytest.raises(SourceError, match="stream items: a row of orders has no value in 'id' that can be part of a path"):
        warehouse.load({"orders": ORDERS, "items": ITEMS}, "items")


@pytest.mark.parametrize("nothing", [{"id": None}, {"at": "later"}])
@pytest.mark.parametrize("path", ["orders/{orders.id}/items", "items"])
def test_a_parent_without_a_value_in_the_field_is_left_out_and_counted(api: Api, any_warehouse: Warehouse, nothing: dict[str, Any], path: str) -> None:
    api.serve("/v1/orders", [nothing, {"id": 1, "note": "x"}, nothing])
    api.serve("/v1/orders/1/items", [{"line": 1}])
    api.serve("/v1/items", lambda request: [{"line": int(request.args["order"])}])
    items = {"path": path, "include_from_parent": ["note"], **({"params": {"order": "{orders.id}"}} if path == "items" else {})}
    orders = {"path": "orders", "write_disposition": "replace"}
    report = any_warehouse.load({"orders": orders, "items": items}, "items")["items"]
    assert any_warehouse.read("select line, _orders_note from items") == [(1, "x")]
    assert report.warnings == ("2 rows of orders hold nothing in 'id': nothing was asked for there",)


@pytest.mark.parametrize(("path", "included"), [("orders/{orders.number}/items", []), ("orders/{orders.id}/items", ["number"])])
def test_a_field_that_the_parent_lacks_is_reported(api: Api, warehouse: Warehouse, path: str, included: list[str]) -> None:
    serve_orders(api, 1)
    with pytest.raises(SourceError, match=r"stream items: the source has no field of orders 'number'.*known: at, id"):
        warehouse.load({"orders": ORDERS, "items": {"path": path, "include_from_parent": included}}, "items")


def test_a_dotted_field_of_the_parent_is_found(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/orders", [{"id": 1, "links": {"code": "x1"}}])
    api.serve("/v1/codes/x1", [{"line": 1}])
    warehouse.load({"orders": ORDERS, "codes": {"path": "codes/{orders.links.code}"}}, "codes")
    assert warehouse.read("select line from codes") == [(1,)]


def test_children_are_paged_each_on_its_own(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/orders", [{"id": 1}, {"id": 2}])
    for number in (1, 2):
        api.serve(f"/v1/orders/{number}/items", lambda request: [{"line": int(request.args["page"])}] if int(request.args["page"]) < 4 else [])
    warehouse.load({"orders": {**ORDERS, "paginator": {"type": "single_page"}}, "items": ITEMS}, paginator={"type": "page_number"})
    assert warehouse.read("select _orders_id, line from items order by 1, 2") == [(order, line) for order in (1, 2) for line in (1, 2, 3)]


def test_a_child_that_fails_loads_nothing_and_its_parent_everything(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/orders", [{"id": 1}, {"id": 2}])
    api.serve("/v1/orders/1/items", [{"line": 1}])
    api.serve("/v1/orders/2/items", answer_json({}, 404))
    with pytest.raises(SourceError, match=r"stream items: GET http://localhost:\d+/v1/orders/2/items was answered with 404"):
        warehouse.load({"orders": ORDERS, "items": ITEMS})
    assert warehouse.list_tables() == ["orders"]
    assert warehouse.read("select id from orders order by id") == [(1,), (2,)]


# --- a parent with a cursor


class Shop:
    """Orders since a time, and their items."""

    def __init__(self, api: Api) -> None:
        self.orders: dict[int, str] = {}
        self._api = api
        api.serve("/v1/orders", lambda request: [{"id": n, "at": at} for n, at in self.orders.items() if at >= request.args.get("since", "")])

    def add(self, number: int, at: str) -> None:
        self.orders[number] = at
        self._api.serve(f"/v1/orders/{number}/items", [{"line": 1}])

    @property
    def asked(self) -> list[str | None]:
        return [query.get("since") for query in self._api.get_queries("/v1/orders")]


STREAMS = {"orders": {**ORDERS, "cursor": {"field": "at", "param": "since"}}, "items": ITEMS}


def count(warehouse: Warehouse, table: str) -> int:
    return warehouse.read(f"select count(*) from {table}")[0][0]


def test_only_new_parents_children_are_read(api: Api, warehouse: Warehouse) -> None:
    shop = Shop(api)
    shop.add(1, "2024-01-01")
    shop.add(2, "2024-01-02")
    warehouse.load(STREAMS)
    shop.add(3, "2024-01-03")
    warehouse.load(STREAMS)
    assert api.get_paths().count("/v1/orders/1/items") == 1
    assert (count(warehouse, "orders"), count(warehouse, "items")) == (3, 3)


@pytest.mark.parametrize("first", ["orders", "items"])
def test_rows_loaded_by_one_stream_do_not_count_as_loaded_by_the_other(api: Api, warehouse: Warehouse, first: str) -> None:
    """The cursor belongs to the parent's rows, but each loaded stream has come a different way along them."""
    other = {"orders": "items", "items": "orders"}[first]
    shop = Shop(api)
    shop.add(1, "2024-01-01")
    warehouse.load(STREAMS, first)
    shop.add(2, "2024-01-02")
    warehouse.load(STREAMS, first)
    warehouse.load(STREAMS, other)
    assert shop.asked == [None, "2024-01-01", None]
    assert (count(warehouse, "orders"), count(warehouse, "items")) == (2, 2)
    shop.add(3, "2024-01-03")
    warehouse.load(STREAMS)
    assert shop.asked[-1] == "2024-01-02"
    assert (count(warehouse, "orders"), count(warehouse, "items")) == (3, 3)


def test_both_begin_where_the_slower_one_came_to(api: Api, warehouse: Warehouse) -> None:
    shop = Shop(api)
    append = {"orders": {"path": "orders", "write_disposition": "append", "cursor": STREAMS["orders"]["cursor"]}, "items": ITEMS}
    shop.add(1, "2024-01-01")
    warehouse.load(append)
    shop.add(2, "2024-01-02")
    warehouse.load(append, "orders")
    shop.add(3, "2024-01-03")
    warehouse.load(append)
    assert shop.asked == [None, "2024-01-01", "2024-01-01"]
    assert (count(warehouse, "orders"), count(warehouse, "items")) == (3, 3)


def test_a_full_refresh_of_the_child_alone_reads_all_parents(api: Api, warehouse: Warehouse) -> None:
    shop = Shop(api)
    shop.add(1, "2024-01-01")
    shop.add(2, "2024-01-02")
    warehouse.load(STREAMS)
    warehouse.load(STREAMS, "items", full_refresh=True)
    assert (count(warehouse, "orders"), count(warehouse, "items")) == (2, 2)
    warehouse.load(STREAMS)
    assert shop.asked == [None, None, "2024-01-02"]


def test_an_unreachable_child_is_worth_another_try(api: Api, warehouse: Warehouse, no_waiting: list[float]) -> None:
    api.serve("/v1/orders", [{"id": 1}])
    api.serve("/v1/orders/1/items", answer_json({}, 503))
    with pytest.raises(SourceUnavailable, match="stream items"):
        warehouse.load({"orders": ORDERS, "items": ITEMS})
    assert api.get_paths().count("/v1/orders/1/items") == 5
