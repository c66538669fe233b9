"""The bookkeeping of a load's threads: a commit that changes no table waits for nobody."""

import threading
from typing import Any

from fabric_assets.rows.arrow_types import BIGINT
from fabric_assets.warehouse.dlt_tables.bookkeeping import DatasetNames, DltBookkeeping, Recorded, TableChange
from fabric_assets.warehouse.dlt_tables.stored_schema import TableHints, build_tables

NAMES = DatasetNames("acme__shop", "shop", "acme_raw_shop", "duckdb")
ORDERS, HINTS = {"orders": {"id": BIGINT}}, TableHints("merge", frozenset({"id"}))


class Statements:
    """The part of a session that the bookkeeping uses: it notes the statements."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def defer(self, sql: str) -> None:
        self.made.append(sql)


def commit(bookkeeping: DltBookkeeping, session: Any, change: TableChange, meanwhile: threading.Event) -> None:
    with bookkeeping.record(session, [change], ["1.0"]):
        assert meanwhile.wait(10)


def test_commits_without_a_change_do_not_wait_for_each_other_and_write_nothing() -> None:
    bookkeeping = DltBookkeeping(NAMES, Recorded(tables=build_tables(ORDERS, {"orders": HINTS})), ORDERS)
    session, meanwhile, same = Statements(), threading.Event(), TableChange("orders", ORDERS, HINTS)
    thread = threading.Thread(target=commit, args=(bookkeeping, session, same, meanwhile))
    thread.start()
    with bookkeeping.record(session, [same], ["2.0"]):  # type: ignore[arg-type]
        meanwhile.set()
    thread.join(10)
    assert not thread.is_alive()
    assert session.made == []


def test_a_commit_that_changes_a_table_waits_until_the_one_before_it_is_done_and_describes_both() -> None:
    bookkeeping = DltBookkeeping(NAMES, Recorded(), {})
    sessions, meanwhile = (Statements(), Statements()), threading.Event()
    first = threading.Thread(target=commit, args=(bookkeeping, sessions[0], TableChange("orders", ORDERS, HINTS), meanwhile))
    first.start()
    done = threading.Event()
    done.set()
    second = threading.Thread(target=commit, args=(bookkeeping, sessions[1], TableChange("stores", {"stores": {"id": BIGINT}}, HINTS), done))
    while not sessions[0].made:
        first.join(0.01)
    second.start()
    second.join(0.2)
    assert second.is_alive() and sessions[1].made == []
    meanwhile.set()
    first.join(10)
    second.join(10)
    version, state = sessions[1].made
    assert all(f'"name":"{name}"' in version for name in ("orders", "stores"))
    assert "fabric:2:" in state


def test_a_commit_that_fails_leaves_its_change_to_the_next() -> None:
    bookkeeping, session = DltBookkeeping(NAMES, Recorded(), {}), Statements()
    try:
        with bookkeeping.record(session, [TableChange("orders", ORDERS, HINTS)], ["1.0"]):  # type: ignore[arg-type]
            raise ConnectionError
    except ConnectionError:
        pass
    with bookkeeping.record(session, [TableChange("stores", {"stores": {"id": BIGINT}}, None)], ["2.0"]):  # type: ignore[arg-type]
        pass
    assert '"name":"orders"' not in session.made[2]
    assert '"name":"stores"' in session.made[2]
