"""Nested lists of a rest_api source that are empty, or hold nothing, in every row of a load."""

from typing import Any

import pytest

from tests.connectors.rest_api.rest import Api, Warehouse

STREAM = {"contacts": {"path": "contacts", "primary_key": "id", "paginator": {"type": "single_page"}}}


def load(api: Api, warehouse: Warehouse, *rows: dict[str, Any], **stream: Any) -> None:
    api.server.clear()
    api.serve("/v1/contacts", list(rows))
    warehouse.load({"contacts": {**STREAM["contacts"], **stream}})


@pytest.mark.parametrize(
    "lists",
    [
        [[]],
        [None, []],
        [[], None],
        [[{}]],
        [[None]],
        [[[]]],
        [[[[]], []]],
        [[{"x": []}]],
        [[{"x": None}, {"x": [[]]}]],
        [{}],
        [{"a": {}, "b": []}],
    ],
    ids=repr,
)
@pytest.mark.parametrize("write_disposition", ["merge", "replace"])
def test_a_list_without_items_in_every_row_loses_no_row(api: Api, any_warehouse: Warehouse, lists: list[Any], write_disposition: str) -> None:
    rows = [{"id": number, "tags": value} for number, value in enumerate(lists, 1)]
    for _ in range(2):
        load(api, any_warehouse, *rows, write_disposition=write_disposition)
    assert any_warehouse.read("select id from contacts order by id") == [(row["id"],) for row in rows]
    load(api, any_warehouse, *rows, {"id": 9, "tags": ["new"]}, write_disposition=write_disposition)
    assert any_warehouse.read("select c.id, t.value from contacts as c join contacts__tags as t on t._dlt_parent_id = c._dlt_id where t.value = 'new'") == [
        (9, "new")
    ]


@pytest.mark.parametrize("write_disposition", ["merge", "replace"])
def test_a_list_that_became_empty_keeps_no_items(api: Api, any_warehouse: Warehouse, write_disposition: str) -> None:
    load(api, any_warehouse, {"id": 1, "tags": ["a", "b"]}, write_disposition=write_disposition)
    load(api, any_warehouse, {"id": 1, "tags": []}, write_disposition=write_disposition)
    assert any_warehouse.read("select id from contacts") == [(1,)]
    assert any_warehouse.read("select value from contacts__tags") == []


def test_a_new_field_that_is_an_empty_list_is_not_a_refused_change(api: Api, any_warehouse: Warehouse) -> None:
    for rows in ([{"id": 1}], [{"id": 2, "tags": []}]):
        load(api, any_warehouse, *rows, schema_contract="freeze")
    assert any_warehouse.read("select id from contacts order by id") == [(1,), (2,)]


def test_a_table_that_was_created_without_columns_is_replaced(api: Api, warehouse: Warehouse, postgres_database: str) -> None:
    """Earlier versions made one for a list that was empty in all rows, and then failed for good."""
    import psycopg2

    warehouse.tenant.warehouse = postgres_database
    load(api, warehouse, {"id": 1})
    connection = psycopg2.connect(postgres_database)
    connection.autocommit = True
    connection.cursor().execute("create table acme_raw_crm.contacts__tags ()")
    connection.close()
    load(api, warehouse, {"id": 2, "tags": ["a"]})
    assert warehouse.read("select value from contacts__tags") == [("a",)]


def test_spellings_of_one_moment_are_different_keys_of_an_api(api: Api, any_warehouse: Warehouse) -> None:
    rows = [{"id": 1, "moment": at, "seen": at} for at in ("2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-01-01T00:00:00.000Z")]
    for full_refresh in (False, False, True):
        api.server.clear()
        api.serve("/v1/contacts", rows)
        any_warehouse.load({"contacts": {**STREAM["contacts"], "primary_key": ["id", "moment"]}}, full_refresh=full_refresh)
        assert any_warehouse.read("select moment from contacts order by moment") == [(at,) for at in sorted(row["moment"] for row in rows)]
    assert len(set(any_warehouse.read("select seen from contacts"))) == 1


def test_a_moment_in_the_key_that_is_the_cursor_is_still_a_moment(api: Api, any_warehouse: Warehouse) -> None:
    api.serve("/v1/contacts", [{"id": 1, "moment": "2024-01-01T00:00:00Z"}])
    any_warehouse.load({"contacts": {**STREAM["contacts"], "primary_key": ["id", "moment"], "cursor": {"field": "moment", "param": "since"}}})
    assert any_warehouse.read("select extract(year from moment) from contacts") == [(2024,)]
