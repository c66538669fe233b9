"""Selections of a tenant's assets: what schedules target and `fabric run --select` takes."""

import pytest

from fabric_assets.config.selection import select_keys
from fabric_assets.errors import ConfigurationError

ORDERS, ITEMS = ("acme", "raw", "shop", "orders"), ("acme", "raw", "shop", "items")
STAGING, MART, OTHER = ("acme", "staging", "stg_orders"), ("acme", "marts", "orders"), ("acme", "marts", "items")
PARENTS = {ORDERS: (), ITEMS: (), STAGING: (ORDERS,), MART: (STAGING,), OTHER: (ITEMS,)}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("all", [ORDERS, ITEMS, STAGING, MART, OTHER]),
        (["raw/shop"], [ORDERS, ITEMS]),
        (["raw/shop/orders"], [ORDERS]),
        (["raw/*/items"], [ITEMS]),
        (["marts"], [MART, OTHER]),
        (["+marts/orders"], [ORDERS, STAGING, MART]),
        (["raw/shop/orders+"], [ORDERS, STAGING, MART]),
        (["+staging+"], [ORDERS, STAGING, MART]),
        (["raw/shop/orders", "marts/items"], [ORDERS, OTHER]),
    ],
)
def test_a_selection_names_exactly_its_assets_in_the_graphs_order(target, expected):
    assert select_keys(PARENTS, "acme", target) == expected


@pytest.mark.parametrize(
    ("target", "hint"), [(["mart"], "did you mean 'marts'"), (["raw/shop/order"], "did you mean 'raw/shop/orders'"), (["+"], "matches no asset")]
)
def test_a_selection_that_matches_nothing_suggests_a_similar_one(target, hint):
    with pytest.raises(ConfigurationError, match=hint):
        select_keys(PARENTS, "acme", target)


def test_a_part_of_a_name_selects_nothing():
    with pytest.raises(ConfigurationError):
        select_keys(PARENTS, "acme", ["raw/sho"])
