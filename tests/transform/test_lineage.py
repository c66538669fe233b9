"""Column lineage of statements as analysts write them."""

import pytest

from fabric_assets.transform.worker.lineage import LineageFinder
from fabric_assets.transform.worker.relations import Table, TableColumns

TABLES: dict[Table, TableColumns] = {
    ("raw", "orders"): [("id", "bigint"), ("customer_id", "bigint"), ("amount", "double"), ("placed_at", "timestamp")],
    ("raw", "customers"): [("id", "bigint"), ("name", "varchar"), ("parent_id", "bigint")],
}
ORDERS, CUSTOMERS = ("raw", "orders"), ("raw", "customers")

CASES = {
    "a star": ("select * from raw.orders", {"id": ["o.id"], "customer_id": ["o.customer_id"], "amount": ["o.amount"], "placed_at": ["o.placed_at"]}),
    "the catalog's name and quotes": ('select "id" as key from "acme"."raw"."orders"', {"key": ["o.id"]}),
    "names in capitals": ("SELECT ID AS Key FROM RAW.ORDERS", {"key": ["o.id"]}),
    "stars through ctes": ("with a as (select * from raw.customers), b as (select * from a) select name from b", {"name": ["c.name"]}),
    "a join with bare columns": (
        "select amount, name from raw.orders join raw.customers on customer_id = raw.customers.id",
        {"amount": ["o.amount"], "name": ["c.name"]},
    ),
    "a case and a coalesce": (
        "select case when o.amount > 9 then c.name else 'x' end as label from raw.orders o left join raw.customers c on true",
        {"label": ["c.name", "o.amount"]},
    ),
    "aggregates": (
        "select customer_id, sum(amount) as total, count(*) as orders from raw.orders group by 1",
        {"customer_id": ["o.customer_id"], "total": ["o.amount"], "orders": []},
    ),
    "a window": (
        "select row_number() over (partition by customer_id order by placed_at) as number from raw.orders",
        {"number": ["o.customer_id", "o.placed_at"]},
    ),
    "a union": ("select id as key from raw.orders union all select id from raw.customers", {"key": ["c.id", "o.id"]}),
    "a union in a cte": (
        "with u as (select id, name as word from raw.customers union select id, 'none' from raw.orders) select word, id from u",
        {"word": ["c.name"], "id": ["c.id", "o.id"]},
    ),
    "a subquery in from": ("select s.twice from (select amount * 2 as twice from raw.orders) as s", {"twice": ["o.amount"]}),
    "a scalar subquery": ("select (select max(amount) from raw.orders) as top, name from raw.customers", {"top": ["o.amount"], "name": ["c.name"]}),
    "a correlated subquery": (
        "select (select max(o.amount + c.id) from raw.orders o where o.customer_id = c.id) as top from raw.customers c",
        {"top": ["c.id", "o.amount"]},
    ),
    "a recursive cte": (
        """with recursive tree as (
            select id, name from raw.customers where parent_id is null
            union all select c.id, tree.name from raw.customers c join tree on c.parent_id = tree.id
        ) select id, name from tree""",
        {"id": ["c.id"], "name": ["c.name"]},
    ),
    "a table nobody knows": ("select x.word, o.id from other.things x, raw.orders o", {"word": [], "id": ["o.id"]}),
    "constants": ("select 1 as one, current_date as today", {"one": [], "today": []}),
}


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("case", CASES)
def test_every_column_is_traced_to_the_columns_it_is_made_from(case: str, dialect: str) -> None:
    sql, expected = CASES[case]
    short = {ORDERS: "o", CUSTOMERS: "c"}
    found = LineageFinder(TABLES, dialect=dialect, folds_names=dialect == "duckdb").find(sql)
    assert {column.lower(): [f"{short[table]}.{name}" for table, name in leaves] for column, leaves in found.items()} == {
        column: sorted(origins) for column, origins in expected.items()
    }


def test_a_column_keeps_its_spelling() -> None:
    finder = LineageFinder({("raw", "Odd"): [("Net Total", "double")]}, dialect="duckdb", folds_names=True)
    assert finder.find('select "net total" as total from raw.odd') == {"total": [(("raw", "Odd"), "Net Total")]}


def test_wide_models_over_many_steps_take_no_time() -> None:
    """A walk that does not remember doubles with every step: this one would take longer than the universe has."""
    steps = [f"s{number} as (select a + b as a, a - b as b from s{number - 1})" for number in range(1, 60)]
    sql = f"with s0 as (select id as a, amount as b from raw.orders), {', '.join(steps)} select a from s59"
    assert LineageFinder(TABLES, dialect="duckdb", folds_names=True).find(sql) == {"a": [(ORDERS, "amount"), (ORDERS, "id")]}
