"""Streams of a few rows share transactions where none can wait for another's: each of them ends as it would by itself."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest

from fabric_assets.loading.load import load_streams
from fabric_assets.rows.reports import LoadRequest, StreamFailure
from fabric_assets.settings import Settings
from fabric_assets.warehouse.transaction import StreamCommit, Transaction
from fabric_assets.warehouse.warehouse import Warehouse
from tests.support.shop import SourceDatabase, Tenant

STREAMS = [f"t{number:02}" for number in range(24)]
LEDGER = "acme_fabric.loads"


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The streams of each commit. The first one waits until other streams have come."""
    commit, made = Transaction.commit, list[list[str]]()

    def note(transaction: Transaction, commits: Sequence[StreamCommit]) -> None:
        made.append([each.record.stream for each in commits])
        if len(made) == 1:
            time.sleep(0.3)
        commit(transaction, commits)

    monkeypatch.setattr(Transaction, "commit", note)
    return made


def fill(sqlite: SourceDatabase, *, large: str = "") -> dict[str, dict[str, Any]]:
    for stream in STREAMS:
        sqlite.run(f"create table {stream} (id integer primary key, note text)")
        size = 20_000 if stream == large else 10
        sqlite.fill(stream, [(number, f"{stream} {number} {'x' * 60}") for number in range(size)])
    return {stream: {} for stream in STREAMS}


def load(tenant: Tenant) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """Rows in the table of each stream that was loaded, the error of each that was not, and what was said."""
    loaded, failed, said = {}, {}, list[str]()
    for outcome in load_streams(LoadRequest(tenant.config, "shop", (), tenant.settings), report=said.append):
        if isinstance(outcome, StreamFailure):
            failed[outcome.stream] = str(outcome.error)
        else:
            loaded[outcome.stream] = outcome.record.rows_total or 0
    return loaded, failed, said


def test_each_stream_is_loaded_once_and_has_its_row_of_the_ledger(
    sqlite: SourceDatabase, settings: Settings, warehouse: str | None, commits: list[list[str]]
) -> None:
    tenant = Tenant(settings, sqlite.build_source(**fill(sqlite)), warehouse=warehouse)
    for round_ in (1, 2):
        commits.clear()
        assert load(tenant) == (dict.fromkeys(STREAMS, 10), {}, [])
        assert sorted(stream for streams in commits for stream in streams) == STREAMS
        # A transaction of Postgres may have to wait for a lock that somebody holds on one stream's table.
        assert (len(commits) == len(STREAMS)) if warehouse else (len(commits) <= len(STREAMS) / 2), commits
        assert tenant.ask(f"select stream, status, count(*), sum(rows_total) from {LEDGER} group by 1, 2 order by 1") == [
            (stream, "success", round_, 10 * round_) for stream in STREAMS
        ]
        assert tenant.ask("select count(*), count(distinct load_id) from acme_raw_shop._dlt_loads") == [(24 * round_, 24 * round_)]
        assert tenant.ask("select min(version), max(version), count(*) from acme_fabric.stream_state") == [(round_, round_, 24)]
        for stream in ("t00", "t23"):
            assert tenant.read(stream, "id", "note") == [(number, f"{stream} {number} {'x' * 60}") for number in range(10)]
    [(first, last)] = tenant.ask(f"select min(loaded_at), max(loaded_at) from {LEDGER}")
    assert isinstance(first, datetime)
    assert first < last


def test_only_the_stream_with_the_error_fails(sqlite: SourceDatabase, settings: Settings, commits: list[list[str]]) -> None:
    tenant = Tenant(settings, sqlite.build_source(**fill(sqlite)))
    tenant.change("create schema acme_raw_shop")
    tenant.change("create view acme_raw_shop.t07 as select 1 as id")
    loaded, failed, said = load(tenant)
    assert loaded == {stream: 10 for stream in STREAMS if stream != "t07"}
    assert list(failed) == ["t07"]
    assert "source shop, stream t07: acme_raw_shop.t07 is a view" in failed["t07"]
    assert any("streams could not be committed together, so each is committed by itself: " in line for line in said), said
    assert tenant.ask(f"select status, count(*) from {LEDGER} group by 1 order by 1") == [("failed", 1), ("success", 23)]
    assert tenant.ask("select stream from acme_fabric.stream_state where version = 0") == [("t07",)]

    tenant.change("drop view acme_raw_shop.t07")
    assert load(tenant)[:2] == (dict.fromkeys(STREAMS, 10), {})


def test_a_commit_whose_answer_is_lost_is_reported_as_a_success(
    sqlite: SourceDatabase, settings: Settings, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = Tenant(settings, sqlite.build_source(**fill(sqlite)))
    commit: Callable[..., None] = Transaction.commit

    def lose(transaction: Transaction, commits: Sequence[StreamCommit]) -> None:
        commit(transaction, commits)
        if len(commits) > 1:
            raise ConnectionError("the answer is lost")

    monkeypatch.setattr(Transaction, "commit", lose)
    assert load(tenant)[:2] == (dict.fromkeys(STREAMS, 10), {})
    assert any(len(streams) > 1 for streams in commits), "no transaction was shared: nothing was tried"
    assert tenant.ask(f"select status, count(*) from {LEDGER} group by 1") == [("success", 24)]
    assert tenant.ask("select count(*) from acme_raw_shop.t05") == [(10,)]


def test_a_larger_stream_has_a_transaction_to_itself(sqlite: SourceDatabase, settings: Settings, commits: list[list[str]]) -> None:
    tenant = Tenant(settings, sqlite.build_source(**fill(sqlite, large="t03")))
    loaded, failed, _ = load(tenant)
    assert (loaded["t03"], len(loaded), failed) == (20_000, 24, {})
    assert ["t03"] in commits
    assert any(len(streams) > 1 for streams in commits), commits


def test_a_load_ends_after_the_thread_that_closes_the_warehouse(sqlite: SourceDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """That thread may write a long log into the file; a process that ended meanwhile would be aborted within DuckDB."""
    close = Warehouse.close

    def close_slowly(warehouse: Warehouse) -> None:
        close(warehouse)
        time.sleep(1.5 if threading.current_thread() is not threading.main_thread() else 0)

    monkeypatch.setattr(Warehouse, "close", close_slowly)
    monkeypatch.setattr("fabric_assets.loading.leased_load._GRACE_SECONDS", 0.1)
    tenant = Tenant(settings, sqlite.build_source(**fill(sqlite)), warehouse=None)
    assert load(tenant)[0] == dict.fromkeys(STREAMS, 10)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("tenant acme")] == []
