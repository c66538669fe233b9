"""Declared checks, asked of real tables: they pass, they fail with figures, and a check that cannot be asked has failed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from fabric_assets.config.checks import AnyCheck
from fabric_assets.findings import describe_duration
from fabric_assets.loading.checks import CheckOutcome, run_check, run_checks
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase, Tenant

ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyCheck)


@pytest.fixture
def tenant(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> Tenant:
    sqlite.run("create table orders (id integer, Status varchar(9), paid boolean, stars integer, updated_at datetime)")
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    sqlite.fill(
        "orders",
        [
            (1, "new", 1, 1, str(now - timedelta(hours=30))),
            (1, "paid", 0, 2, str(now - timedelta(hours=3))),
            (2, None, 1, 3, None),
            (3, "lost", None, 3, None),
        ],
    )
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=warehouse)
    tenant.load()
    return tenant


@pytest.mark.parametrize(
    ("check", "figures"),
    [
        ({"type": "row_count", "min": 4, "max": 4}, {"rows": 4, "min": 4, "max": 4}),
        ({"type": "not_null", "columns": ["id", "stars"]}, {"failures": 0}),
        ({"type": "unique", "columns": ["id", "Status"]}, {"failures": 0}),
        ({"type": "accepted_values", "column": "Status", "values": ["new", "paid", "lost"]}, {"failures": 0}),
        ({"type": "accepted_values", "column": "stars", "values": [1, 2, 3]}, {"failures": 0}),
        ({"type": "accepted_values", "column": "paid", "values": [True, False]}, {"failures": 0}),
        ({"type": "freshness", "max_age": "4h", "column": "updated_at"}, {"max_age_seconds": 14400}),
        ({"type": "freshness", "max_age": "1h"}, {"max_age_seconds": 3600}),
    ],
)
def test_a_check_that_holds_passes(tenant: Tenant, check: dict[str, Any], figures: dict[str, Any]) -> None:
    outcome = _run(tenant, check)
    assert outcome.passed, outcome.metadata
    assert {key: outcome.metadata[key] for key in figures} == figures
    assert "message" not in outcome.metadata


def test_the_counts_of_source_and_table_are_compared(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table orders (id integer, seq integer)")
    sqlite.fill("orders", [(number, number) for number in range(1, 11)])
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id", "cursor": {"field": "seq"}}), warehouse=warehouse)
    tenant.load()

    def judge(**more: Any) -> tuple[bool, str]:
        outcome = _run(tenant, {"type": "source_row_count", **more})
        return outcome.passed, str(outcome.metadata.get("message", ""))

    assert judge() == (False, "no load has counted the source's rows yet: load raw/shop/orders")
    tenant.checks = {"raw/shop/orders": [{"type": "source_row_count"}]}
    tenant.load()
    assert judge() == (True, "")
    sqlite.run("delete from orders where id in (1, 2)")
    tenant.load()
    assert judge() == (False, "the source held 8 rows, and the table holds 10; allowed is a difference of 0")
    assert [judge(max_difference=limit)[0] for limit in (1, 2, "20%", "25%")] == [False, True, False, True]
    tenant.source["streams"]["orders"]["deletes"] = {"mode": "soft", "max": "50%"}
    tenant.load()
    tenant.load()
    assert judge() == (True, ""), "marked rows do not count"


@pytest.mark.parametrize(
    ("check", "failures", "message"),
    [
        ({"type": "row_count", "min": 5}, None, "4 rows, fewer than 5"),
        ({"type": "row_count", "max": 3}, None, "4 rows, more than 3"),
        ({"type": "not_null", "columns": ["Status", "paid"]}, 2, "Status is NULL in 1 row, paid is NULL in 1 row"),
        ({"type": "unique", "columns": ["id"]}, 1, "1 value of id is not unique ('1', 2 rows)"),
        ({"type": "accepted_values", "column": "Status", "values": ["new"]}, 2, "Status has 2 unexpected values: 'lost' (1 row), 'paid' (1 row)"),
        ({"type": "accepted_values", "column": "stars", "values": [1]}, 3, "stars has 2 unexpected values: '3' (2 rows), '2' (1 row)"),
        ({"type": "freshness", "max_age": "2h", "column": "updated_at"}, None, "the newest updated_at is 3h old, limit 2h"),
    ],
)
def test_a_check_that_does_not_hold_fails_with_its_figures(tenant: Tenant, check: dict[str, Any], failures: int | None, message: str) -> None:
    outcome = _run(tenant, check)
    assert not outcome.passed
    assert str(outcome.metadata["message"]).startswith(message)
    assert outcome.metadata.get("failures") == failures


@pytest.mark.parametrize(
    "check",
    [
        {"type": "not_null", "columns": ["statos"]},
        {"type": "unique", "columns": ["id", "statos"]},
        {"type": "accepted_values", "column": "statos", "values": ["x"]},
        {"type": "freshness", "max_age": "1h", "column": "statos"},
    ],
)
def test_a_check_of_a_column_that_is_not_there_fails_and_names_the_nearest(tenant: Tenant, check: dict[str, Any]) -> None:
    outcome = _run(tenant, check)
    assert not outcome.passed
    assert "the table has no column 'statos'; did you mean 'status'?" in str(outcome.metadata["message"])


def test_a_check_of_a_table_that_is_not_loaded_fails_and_says_what_to_load(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table orders (id integer)")
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=warehouse)
    outcome = _run(tenant, {"type": "row_count", "min": 1})
    assert not outcome.passed
    assert "load" in str(outcome.metadata["message"])


def test_age_without_column_is_that_of_a_time_cursor_and_else_of_the_last_load(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table orders (id integer, updated_at datetime)", "insert into orders values (1, '2020-01-01 00:00:00')")
    timed = {"table": "orders", "primary_key": "id", "cursor": {"field": "updated_at"}}
    numbered = {"table": "orders", "primary_key": "id", "cursor": {"field": "id"}}
    tenant = Tenant(settings, sqlite.build_source(timed=timed, numbered=numbered))
    tenant.load()
    check = ADAPTER.validate_python({"type": "freshness", "max_age": "1h"})
    assert not run_check(check, tenant=tenant.config, source="shop", stream="timed", settings=settings).passed
    assert run_check(check, tenant=tenant.config, source="shop", stream="numbered", settings=settings).passed


def test_the_checks_of_a_stream_are_answered_in_their_order_whatever_the_first_says(tenant: Tenant) -> None:
    checks = tuple(ADAPTER.validate_python(check) for check in ({"type": "unique", "columns": ["nope"]}, {"type": "row_count", "min": 1}))
    outcomes = run_checks(checks, tenant=tenant.config, source="shop", stream="orders", settings=tenant.settings)
    assert [outcome.passed for outcome in outcomes] == [False, True]


def test_null_is_neither_a_repeated_value_nor_a_repeated_part_of_a_key(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table orders (id integer, email varchar(20), shop integer)")
    sqlite.fill("orders", [(1, None, 1), (2, None, 1), (3, "a@b.example", 1), (4, "a@b.example", None), (5, "c@d.example", None)])
    tenant = Tenant(settings, sqlite.build_source(orders={}), warehouse=warehouse)
    tenant.load()
    assert _run(tenant, {"type": "unique", "columns": ["email", "shop"]}).passed
    outcome = _run(tenant, {"type": "unique", "columns": ["email"]})
    assert outcome.metadata["failures"] == 1
    assert outcome.metadata["message"] == "1 value of email is not unique ('a@b.example', 2 rows)"


def test_values_are_few_and_short_and_only_in_the_message_for_metadata(sqlite: SourceDatabase, settings: Settings) -> None:
    sqlite.run("create table orders (id integer, note varchar(300))")
    sqlite.fill("orders", [(number, f"{number % 7}" + "x" * 200) for number in range(21)])
    tenant = Tenant(settings, sqlite.build_source(orders={}))
    tenant.load()
    for check, counted in (
        ({"type": "accepted_values", "column": "note", "values": ["y"]}, "note has 7 unexpected values (21 rows)"),
        ({"type": "unique", "columns": ["note"]}, "7 values of note are not unique"),
    ):
        metadata = _run(tenant, check).metadata
        shown = [part for part in str(metadata["message"]).split("'") if part.endswith("x...")]
        assert [len(part) for part in shown] == [100] * 5
        assert metadata["log_message"] == counted


def test_columns_that_are_sensitive_show_counts_alone(tenant: Tenant) -> None:
    checks = tuple(
        ADAPTER.validate_python(check)
        for check in (
            {"type": "unique", "columns": ["id"]},
            {"type": "accepted_values", "column": "Status", "values": ["new"]},
            {"type": "row_count", "min": 1},
        )
    )
    outcomes = run_checks(checks, tenant=tenant.config, source="shop", stream="orders", settings=tenant.settings, sensitive=frozenset({"id", "status"}))
    assert [outcome.metadata.get("message") for outcome in outcomes] == ["1 value of id is not unique", "Status has 2 unexpected values (2 rows)", None]
    assert not any("log_message" in outcome.metadata for outcome in outcomes)


@pytest.mark.parametrize(("seconds", "written"), [(0, "0s"), (59.6, "1m"), (326, "5m 26s"), (3600, "1h"), (93_600, "1d 2h"), (90_061, "1d 1h"), (86_405, "1d")])
def test_a_duration_is_written_in_its_two_largest_units(seconds: float, written: str) -> None:
    assert describe_duration(seconds) == written


def test_a_value_in_a_check_is_never_sql(tenant: Tenant) -> None:
    outcome = _run(tenant, {"type": "accepted_values", "column": "Status", "values": ["x') or ('1'='1"]})
    assert outcome.metadata["failures"] == 3


def test_a_schema_change_fails_the_check_of_the_load_that_found_it(sqlite: SourceDatabase, warehouse: str | None, settings: Settings) -> None:
    sqlite.run("create table orders (id integer, a integer, b integer)", "insert into orders values (1, 1, 1)")
    tenant = Tenant(settings, sqlite.build_source(orders={"primary_key": "id"}), warehouse=warehouse)
    tenant.load()
    assert _run(tenant, {"type": "schema_change"}).metadata["changes"] == 0
    sqlite.run("alter table orders drop column a", "alter table orders add column c text", "update orders set b = 'many', c = 'x'")
    tenant.load()
    outcome = _run(tenant, {"type": "schema_change"})
    assert not outcome.passed
    assert outcome.metadata["message"] == "the last load found: 1 value of another type in the column b (bigint), the column a (bigint) is gone"
    assert _run(tenant, {"type": "schema_change", "changes": ["column_added"]}).metadata["message"] == "the last load found: the new column c (text)"
    sqlite.run("alter table orders add column a integer", "update orders set b = 1, a = 1")
    tenant.load()
    assert _run(tenant, {"type": "schema_change", "changes": ["column_added", "column_missing", "type_changed"]}).passed


def test_a_field_that_json_leaves_out_fails_no_check(settings: Settings) -> None:
    folder = settings.data_dir / "inbox_of_acme"
    folder.mkdir()
    stream = {"glob": "*.jsonl", "format": "jsonl"}
    tenant = Tenant(settings, {"type": "files", "path": folder.name, "streams": {"orders": stream}})
    (folder / "a.jsonl").write_text('{"id": 1, "note": "x"}\n')
    tenant.load()
    (folder / "b.jsonl").write_text('{"id": 2}\n')
    report = tenant.load()["orders"]
    assert [change.change for change in report.record.schema_changes] == ["column_missing"]
    assert _run(tenant, {"type": "schema_change"}).passed


def _run(tenant: Tenant, check: dict[str, Any]) -> CheckOutcome:
    return run_check(ADAPTER.validate_python(check), tenant=tenant.config, source="shop", stream="orders", settings=tenant.settings)
