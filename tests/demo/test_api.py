"""The demo's API: who gets in, how each list pages, and that its pages hold the shop's rows."""

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from fabric_assets.demo import api
from fabric_assets.demo.api import reach_api, serve_api
from fabric_assets.demo.data import DemoShop
from fabric_assets.demo.shop import write_database

ORDERS = [
    {
        "id": f"o-{number:05}",
        "customer": "c-1",
        # Three orders a minute: pages end amid orders of the same time.
        "ordered_at": f"2019-01-{1 + number // 4320:02}T{number // 180 % 24:02}:{number // 3 % 60:02}:00",
        "store_id": "s-1",
        "subtotal": "700",
        "tax_paid": "42",
        "order_total": "742",
    }
    for number in range(2 * api.PAGE + 1)
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> DemoShop:
    shop = DemoShop(tmp_path_factory.mktemp("shop"))
    shop.api_token.write_text("open-sesame")
    write_database(
        shop.database,
        {
            "customers": [{"id": "c-1", "name": "Zoë O'Hara"}],
            "stores": [{"id": "s-1", "name": "Brooklyn", "opened_at": "2018-09-01T00:00:00", "tax_rate": "0.0625"}],
            "products": [{"sku": "JAF 1/2", "name": "half", "type": "jaffle", "price": "1100", "description": "a, b"}],
            "supplies": [
                {"id": "SUP-1", "name": "bread", "cost": "33", "perishable": "True", "sku": "JAF 1/2"},
                {"id": "SUP-2", "name": "fork", "cost": "7", "perishable": "False", "sku": "JAF 1/2"},
            ],
            "orders": ORDERS,
            "items": [{"id": "i-1", "order_id": "o-00000", "sku": "JAF 1/2", "ordered_at": ORDERS[0]["ordered_at"]}],
        },
    )
    return shop


@pytest.fixture(scope="module")
def url(shop: DemoShop) -> Iterator[str]:
    with serve_api(shop) as url:
        yield url


def get(url: str, **params: object):
    request = urllib.request.Request(f"{url}?{urlencode(params)}" if params else url, headers={"Authorization": "Bearer open-sesame"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def get_error(url: str, token: str | None = "open-sesame") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token is not None else {})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as error:
        return error.code, json.load(error)["error"]


@pytest.mark.parametrize("token", [None, "", "open-sesam", "open-sesame2"])
def test_requests_without_the_right_token_are_refused(url: str, token: str | None) -> None:
    assert get_error(f"{url}/orders", token) == (401, "a valid bearer token is needed")


def test_the_address_file_names_the_running_api(shop: DemoShop, url: str) -> None:
    assert shop.api_url.read_text() == url
    assert shop.api_url.stat().st_mode & 0o777 == 0o600


def test_orders_follow_the_next_link_and_each_comes_once(url: str) -> None:
    ids, address = [], f"{url}/orders"
    pages = 0
    while address:
        page = get(address)
        ids += [row["id"] for row in page["data"]]
        address, pages = page["paging"]["next"], pages + 1
    assert ids == [order["id"] for order in ORDERS]
    assert pages == 3


def test_orders_since_a_time_include_that_very_time(url: str) -> None:
    last = max(order["ordered_at"] for order in ORDERS)
    expected = [order["id"] for order in ORDERS if order["ordered_at"] == last]
    for spelling in (f"{last}Z", last, last.replace("T", " "), f"{last}+00:00", f"{last}.000Z"):
        page = get(f"{url}/orders", since=spelling)
        assert [row["id"] for row in page["data"]] == expected, spelling
    assert [row["id"] for row in get(f"{url}/orders?since={last}+00:00")["data"]] == expected


def test_rows_carry_the_types_of_json(url: str) -> None:
    assert get(f"{url}/stores", limit=10, offset=0) == {
        "data": [{"id": "s-1", "name": "Brooklyn", "opened_at": "2018-09-01T00:00:00Z", "tax_rate": 0.0625}],
        "total": 1,
    }
    assert get(f"{url}/items") == {"data": [{"id": "i-1", "order_id": "o-00000", "sku": "JAF 1/2", "ordered_at": "2019-01-01T00:00:00Z"}], "next_cursor": None}
    assert get(f"{url}/customers", page=1) == {"data": [{"id": "c-1", "name": "Zoë O'Hara"}], "page": 1, "pages": 1}
    assert get(f"{url}/customers", page=2)["data"] == []


def test_a_products_supplies_are_its_children(url: str) -> None:
    assert [row["sku"] for row in get(f"{url}/products")["data"]] == ["JAF 1/2"]
    assert get(f"{url}/products/JAF%201%2F2/supplies")["data"] == [
        {"id": "SUP-1", "name": "bread", "cost": 33, "perishable": True, "sku": "JAF 1/2"},
        {"id": "SUP-2", "name": "fork", "cost": 7, "perishable": False, "sku": "JAF 1/2"},
    ]
    assert get(f"{url}/products/none/supplies") == {"data": []}


@pytest.mark.parametrize("path", ["/", "/orders/1", "/tweets", "/products/x/y"])
def test_an_unknown_path_is_not_found(url: str, path: str) -> None:
    assert get_error(f"{url}{path}")[0] == 404


@pytest.mark.parametrize("query", ["orders?since=yesterday", "items?cursor=x_1", "customers?page=one", "stores?limit=-1", "stores?offset=1e3"])
def test_a_parameter_that_cannot_be_read_is_named(url: str, query: str) -> None:
    status, message = get_error(f"{url}/{query}")
    assert status == 400
    assert "must be a whole number" in message or "is not an ISO time" in message


def test_a_new_row_is_served_at_once(shop: DemoShop, url: str) -> None:
    connection = sqlite3.connect(shop.database)
    connection.execute("insert into customers values ('c-2', 'New Comer')")
    connection.commit()
    try:
        assert [row["id"] for row in get(f"{url}/customers")["data"]] == ["c-1", "c-2"]
    finally:
        connection.execute("delete from customers where id = 'c-2'")
        connection.commit()
        connection.close()


def test_a_running_api_is_used_rather_than_a_second_one_started(shop: DemoShop, url: str) -> None:
    with reach_api(shop) as reached:
        assert reached == url


def test_an_address_that_nobody_answers_gets_an_api_of_its_own(tmp_path: Path, shop: DemoShop) -> None:
    other = DemoShop(tmp_path)
    other.api_token.write_text("open-sesame")
    other.database.symlink_to(shop.database)
    other.api_url.write_text("http://127.0.0.1:9/v1")
    with reach_api(other) as reached:
        assert reached != "http://127.0.0.1:9/v1"
        assert other.api_url.read_text() == reached
        assert [row["id"] for row in get(f"{reached}/stores")["data"]] == ["s-1"]
