"""Deletes at the source: a load reads all keys after the rows, and marks or deletes the rows that the source no longer has."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fabric_assets.config.sources.deletes import DeletesCheck
from fabric_assets.factories.ingestion import describe_load
from fabric_assets.loading.checks import run_check
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.settings import Settings
from tests.support.killed_loads import kill_at_commit
from tests.support.shop import SourceDatabase, Tenant

CURSOR: dict[str, Any] = {"primary_key": "id", "cursor": {"field": "seq"}}
SOFT, HARD = {"mode": "soft", "max": "50%"}, {"mode": "hard", "max": "50%"}
LIVE = "select id from acme_raw_shop.orders where _fabric_deleted_at is null order by id"


def fill(database: SourceDatabase) -> None:
    database.run("create table orders (id integer, note varchar(20), seq integer)")
    database.fill("orders", [(number, "first", number) for number in range(1, 11)])


def build(settings: Settings, database: SourceDatabase, warehouse: str | None, **stream: Any) -> Tenant:
    return Tenant(settings, database.build_source(orders={**CURSOR, **stream}), warehouse=warehouse)


def check(tenant: Tenant, config: Any) -> tuple[bool, str]:
    outcome = run_check(config, tenant=tenant.config, source="shop", stream="orders", settings=tenant.settings)
    return outcome.passed, str(outcome.metadata.get("message", ""))


@pytest.fixture
def shop(sqlite: SourceDatabase) -> SourceDatabase:
    fill(sqlite)
    return sqlite


def test_a_soft_delete_marks_the_row_until_the_source_has_it_again(settings: Settings, database: SourceDatabase, warehouse: str | None) -> None:
    fill(database)
    tenant = build(settings, database, warehouse, deletes=SOFT)
    assert tenant.load()["orders"].record.rows_deleted == 0
    database.run("delete from orders where id in (2, 3)")
    before = datetime.now(UTC)
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.rows_total, report.record.source_rows) == (2, 10, 8)
    metadata = describe_load(tenant.config, "shop", report)
    assert (metadata["rows_deleted"], metadata["source_rows"]) == (2, 8)
    assert any("2 rows marked as deleted, which the source no longer has" in message for message in tenant.messages)
    assert [row[0] for row in tenant.ask(LIVE)] == [1, 4, 5, 6, 7, 8, 9, 10]
    ((first, last),) = tenant.ask("select min(_fabric_deleted_at), max(_fabric_deleted_at) from acme_raw_shop.orders")
    assert before - timedelta(seconds=5) <= first.astimezone(UTC) == last.astimezone(UTC) <= datetime.now(UTC)
    assert tenant.load()["orders"].record.rows_deleted == 0, "a row is marked once"
    # One comes back with a new cursor value, the other one as it was, which no cursor reads.
    database.run("insert into orders values (2, 'back', 11), (3, 'first', 3)")
    assert tenant.load()["orders"].warnings == ()
    assert tenant.ask("select count(*) from acme_raw_shop.orders where _fabric_deleted_at is not null") == [(0,)]
    assert tenant.read("orders", "id", "note")[1:3] == [(2, "back"), (3, "first")]
    assert check(tenant, DeletesCheck()) == (True, "")


def test_a_hard_delete_removes_the_row(settings: Settings, database: SourceDatabase, warehouse: str | None) -> None:
    fill(database)
    tenant = build(settings, database, warehouse, deletes=HARD)
    tenant.load()
    database.run("delete from orders where id in (2, 3)", "insert into orders values (11, 'new', 11)")
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.rows_total, report.rows_missing) == (2, 9, 0)
    assert [row[0] for row in tenant.read("orders", "id")] == [1, 4, 5, 6, 7, 8, 9, 10, 11]
    database.run("delete from orders where id = 11")
    # Without a row that is new, and with a row that the load itself has brought.
    assert (tenant.load()["orders"].record.rows_deleted, tenant.load()["orders"].warnings) == (1, ())
    database.run("insert into orders values (2, 'back', 12)")
    tenant.load()
    assert tenant.ask("select note from acme_raw_shop.orders where id = 2") == [("back",)]


def test_a_stream_without_a_cursor_follows_deletes_too(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    stream = {"primary_key": "id", "deletes": HARD, "schema_contract": {"data_type": "discard"}, "rejects": {"max": 5}}
    tenant = Tenant(settings, shop.build_source(orders=stream), warehouse=warehouse)
    tenant.load()
    shop.run("delete from orders where id = 5", "update orders set seq = 'six' where id = 6")
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.record.rows_rejected, report.rows_total) == (1, 1, 9)
    assert [done.error for done in replay(tenant.config, settings)] == [""], "the state of the keys is not taken for a cursor"


def test_rows_that_cannot_be_loaded_do_not_count_as_deleted(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    """A row whose new version is rejected keeps its old version; a row without a key matches none."""
    shop.run("alter table orders add column size integer", "update orders set size = 1")
    tenant = build(settings, shop, warehouse, deletes=HARD, schema_contract={"data_type": "discard"}, rejects={"max": 5})
    tenant.load()
    shop.run("update orders set size = 'large', seq = 20 where id = 4", "insert into orders values (null, 'no key', 21, 1)", "delete from orders where id = 1")
    report = tenant.load()["orders"]
    assert (report.record.rows_rejected, report.record.rows_deleted) == (2, 1)
    assert [row[0] for row in tenant.read("orders", "id")] == [2, 3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("deletes", [SOFT, HARD], ids=["soft", "hard"])
def test_more_deletes_than_max_delete_nothing(settings: Settings, shop: SourceDatabase, warehouse: str | None, deletes: dict[str, Any]) -> None:
    tenant = build(settings, shop, warehouse, deletes={**deletes, "max": "10%"})
    tenant.load()
    shop.run("delete from orders where id <= 2", "insert into orders values (11, 'new', 11)")
    report = tenant.load()["orders"]
    problem = "2 of 11 rows are not in the source any more, and deletes.max allows 10%: nothing was deleted"
    assert (report.record.rows_deleted, report.rows_total, report.record.deletes_kept) == (0, 11, problem), "the new row is loaded"
    assert problem in report.warnings[0]
    assert check(tenant, DeletesCheck()) == (False, problem)
    tenant.source["streams"]["orders"]["deletes"] = {**deletes, "max": 2}
    assert tenant.load()["orders"].record.rows_deleted == 2
    assert check(tenant, DeletesCheck()) == (True, "")


def test_an_empty_source_deletes_nothing_by_default(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    tenant = build(settings, shop, warehouse, deletes="soft")
    tenant.load()
    shop.run("delete from orders")
    assert (tenant.load()["orders"].record.rows_deleted, len(tenant.ask(LIVE))) == (0, 10)
    assert not check(tenant, DeletesCheck())[0]


@pytest.mark.parametrize(
    "change",
    [{"where": "id > 4"}, {"table": "fewer"}],
    ids=["where", "table"],
)
def test_keys_that_are_read_otherwise_than_before_delete_nothing(
    settings: Settings, shop: SourceDatabase, warehouse: str | None, change: dict[str, Any]
) -> None:
    tenant = build(settings, shop, warehouse, deletes=HARD)
    tenant.load()
    shop.run("create view fewer as select * from orders where id > 4")
    tenant.source["streams"]["orders"] |= change
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.rows_total) == (0, 10)
    assert any("what the source's keys were last read with has changed" in warning for warning in report.warnings)
    # Said once: the change is meant, so the next load compares with it.
    assert (tenant.load()["orders"].record.rows_deleted, tenant.load()["orders"].rows_total) == (4, 6)


def test_keys_are_read_as_often_as_every_says(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    tenant = build(settings, shop, warehouse, deletes={**SOFT, "every": "1h"})
    tenant.load()
    shop.run("delete from orders where id = 1")
    assert [tenant.load()["orders"].record.rows_deleted for _ in range(2)] == [None, None]
    saved = tenant.ask("select state from acme_fabric.stream_state")[0][0]
    at = saved.split('"at": "')[1].split('"')[0]
    earlier = (datetime.fromisoformat(at) - timedelta(hours=1)).isoformat()
    tenant.change(f"update acme_fabric.stream_state set state = replace(state, '{at}', '{earlier}')")
    assert tenant.load()["orders"].record.rows_deleted == 1
    shop.run("insert into orders values (1, 'back', 20)")
    assert tenant.load()["orders"].record.rows_deleted is None
    assert tenant.ask("select note from acme_raw_shop.orders where id = 1 and _fabric_deleted_at is null") == [("back",)], "a merge takes the mark away"


def test_a_full_refresh_follows_deletes(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    tenant = build(settings, shop, warehouse, deletes=SOFT)
    tenant.load()
    shop.run("delete from orders where id <= 9")
    report = tenant.load(full_refresh=True)["orders"]
    assert (report.rows_total, report.record.rows_deleted, tenant.ask(LIVE)) == (1, 0, [(10,)])
    assert tenant.load()["orders"].warnings == ()


def test_a_stream_that_becomes_hard_removes_what_was_marked(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    tenant = build(settings, shop, warehouse, deletes=SOFT)
    tenant.load()
    shop.run("delete from orders where id = 1")
    tenant.load()
    tenant.source["streams"]["orders"]["deletes"] = HARD
    tenant.load()
    assert tenant.ask("select count(*), count(_fabric_deleted_at) from acme_raw_shop.orders") == [(9, 0)]


@pytest.fixture
def wavering(postgres: SourceDatabase) -> SourceDatabase:
    """A Postgres source whose view shows a query of the keys alone only the ids up to `answers.shown`."""
    fill(postgres)
    postgres.run(
        "create table answers (shown integer)",
        "create function visible() returns integer language plpgsql stable as $$ declare found integer; begin"
        " select shown into found from answers where current_query() !~ 'note' and current_query() !~ 'count';"
        " if found < 0 then raise exception 'the key read breaks'; end if; return coalesce(found, 1000); end $$",
        "create view wavering as select * from orders where id <= (select visible())",
    )
    return postgres


@pytest.mark.parametrize(("shown", "problem"), [(7, "the source's keys are not complete: 7 were read"), (-1, "the source's keys could not be read")])
def test_a_key_read_that_is_short_or_fails_deletes_nothing(
    settings: Settings, wavering: SourceDatabase, warehouse: str | None, shown: int, problem: str
) -> None:
    tenant = build(settings, wavering, warehouse, table="wavering", deletes=HARD)
    tenant.load()
    wavering.run("insert into orders values (11, 'new', 11)", f"insert into answers values ({shown})")
    report = tenant.load()["orders"]
    assert (report.rows_total, report.record.rows_deleted) == (11, 0), "the rows are loaded"
    assert (report.record.deletes_kept or "").startswith(problem)
    passed, message = check(tenant, DeletesCheck())
    assert not passed
    assert message.startswith(problem)
    wavering.run("delete from answers", "delete from orders where id = 1")
    assert tenant.load()["orders"].record.rows_deleted == 1


@pytest.mark.parametrize("deletes", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_the_commit_deletes_all_or_nothing(
    settings: Settings, shop: SourceDatabase, warehouse: str | None, deletes: dict[str, Any], moment: str
) -> None:
    tenant = build(settings, shop, warehouse, deletes=deletes)
    tenant.load()
    shop.run("delete from orders where id <= 3", "insert into orders values (11, 'new', 11)")
    kill_at_commit(tenant, moment)
    live = [row[0] for row in tenant.ask(LIVE if deletes is SOFT else "select id from acme_raw_shop.orders order by id")]
    assert live == (list(range(4, 12)) if moment == "after" else list(range(1, 11)))
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.record.source_rows) == (0 if moment == "after" else 3, 8)


BAD_KEYS = [
    ("sqlite", "integer", ["1", "2", "3"], "'xyz'"),
    ("sqlite", "decimal(10,2)", ["1.5", "2.5", "3.5"], "'xyz'"),
    ("sqlite", "text", ["'a'", "'b'", "'c'"], "'d' || char(0) || 'x'"),
    ("sqlite", "text", ["'a'", "'b'", "'c'"], "cast(x'ff41' as text)"),
    ("postgres", "numeric", ["1", "2", "3"], "'NaN'"),
    ("postgres", "timestamp", ["'2024-01-01'", "'2024-01-02'", "'2024-01-03'"], "'infinity'"),
    ("mariadb", "datetime", ["'2024-01-01'", "'2024-01-02'", "'2024-01-03'"], "'0000-00-00'"),
]


@pytest.mark.parametrize(("kind", "declared", "keys", "bad"), BAD_KEYS, ids=[f"{kind}-{declared}-{bad}" for kind, declared, _, bad in BAD_KEYS])
def test_a_key_that_fits_no_type_deletes_no_other_row(
    settings: Settings, request: pytest.FixtureRequest, warehouse: str | None, kind: str, declared: str, keys: list[str], bad: str
) -> None:
    """Keys are converted as the rows are: one that is rejected, or kept beside its column, takes no other key with it."""
    database = request.getfixturevalue(kind)
    database.run(f"create table orders (id {declared}, note varchar(20), seq integer)")
    for number, key in enumerate(keys):
        database.run(f"insert into orders values ({key}, 'good', {number})")
    tenant = build(settings, database, warehouse, deletes={"mode": "hard", "max": "100%"})
    tenant.load()
    database.run(*(["set sql_mode = ''"] if kind == "mariadb" else []), f"insert into orders values ({bad}, 'bad', 10)")
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.record.deletes_kept) == (0, None)
    assert tenant.ask("select count(*) from acme_raw_shop.orders where note = 'good'") == [(3,)]
    database.run("delete from orders where seq in (0, 1)")
    assert tenant.load()["orders"].record.rows_deleted == 2


def test_keys_that_got_another_type_delete_nothing(settings: Settings, postgres: SourceDatabase, warehouse: str | None) -> None:
    fill(postgres)
    tenant = build(settings, postgres, warehouse, deletes={"mode": "hard", "max": "100%"}, rejects={"max": "100%"})
    tenant.load()
    postgres.run("alter table orders alter column id type varchar(20) using 'K' || id")
    report = tenant.load()["orders"]
    assert (report.record.rows_deleted, report.rows_total) == (0, 10)
    assert "10 of its keys do not fit the table's key. They may be the same rows" in (report.record.deletes_kept or "")


@pytest.mark.parametrize("cursor", [{"cursor": {"field": "seq"}}, {}], ids=["cursor", "all"])
def test_a_stream_that_stopped_following_deletes_still_knows_what_it_had_read(
    settings: Settings, shop: SourceDatabase, warehouse: str | None, cursor: dict[str, Any]
) -> None:
    tenant = Tenant(settings, shop.build_source(orders={"primary_key": "id", "deletes": HARD, **cursor}), warehouse=warehouse)
    tenant.load()
    tenant.source["streams"]["orders"]["deletes"] = "ignore"
    tenant.load()
    tenant.source["streams"]["orders"] |= {"deletes": {"mode": "hard", "max": "100%"}, "where": "id > 7"}
    assert tenant.load()["orders"].rows_total == 10


def test_the_first_read_of_a_loaded_stream_deletes_nothing(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    """Deletes may come into the YAML together with a where: nothing tells them apart."""
    tenant = build(settings, shop, warehouse)
    tenant.load()
    tenant.source["streams"]["orders"] |= {"deletes": {"mode": "hard", "max": "100%"}, "where": "id > 7"}
    report = tenant.load()["orders"]
    assert report.rows_total == 10
    assert any("this is the first read of the source's keys" in warning for warning in report.warnings)
    assert tenant.load()["orders"].rows_total == 3


def test_a_field_with_the_name_of_the_marks_gets_a_column_of_its_own(settings: Settings, sqlite: SourceDatabase, warehouse: str | None) -> None:
    sqlite.run("create table orders (id integer, seq integer, _fabric_deleted_at text)", "insert into orders values (1, 1, 'theirs'), (2, 2, null)")
    tenant = build(settings, sqlite, warehouse, deletes=SOFT)
    tenant.load()
    sqlite.run("delete from orders where id = 2")
    assert tenant.load()["orders"].record.rows_deleted == 1
    assert tenant.read("orders", "id", "_fabric_deleted_at_2") == [(1, "theirs"), (2, None)]
    assert tenant.ask(LIVE) == [(1,)]


def test_a_replay_takes_no_mark_away(settings: Settings, shop: SourceDatabase, warehouse: str | None) -> None:
    shop.run("alter table orders add column size integer", "update orders set size = 1")
    tenant = build(settings, shop, warehouse, deletes={**SOFT, "every": "1h"}, schema_contract={"data_type": "discard"}, rejects={"max": 5})
    tenant.load()
    shop.run("update orders set size = 'large', seq = 20 where id = 4")
    tenant.load()
    tenant.change("update acme_raw_shop.orders set _fabric_deleted_at = '2024-01-01T00:00:00Z' where id = 4")
    tenant.source["streams"]["orders"]["schema_contract"] = "evolve"
    assert [(done.replayed, done.error) for done in replay(tenant.config, settings)] == [(1, "")]
    assert tenant.ask("select count(*) from acme_raw_shop.orders where id = 4 and _fabric_deleted_at is not null") == [(1,)]
