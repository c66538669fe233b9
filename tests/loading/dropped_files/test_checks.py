"""The automatic checks of dropped files: no file is quarantined, few rows are rejected, and the expected file has come."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from fabric_assets.config.sources.imports import CsvStream, ExpectConfig
from fabric_assets.connectors.csv_import.inbox import FolderInbox
from fabric_assets.loading.checks import CheckOutcome
from fabric_assets.loading.dropped_files.checks import run_import_checks
from fabric_assets.loading.dropped_files.expectations import build_import_checks, find_due, find_last_due
from fabric_assets.settings import Settings
from tests.support.shop import Tenant

STREAM = {"glob": "*.csv", "columns": {"day": {"type": "date", "required": True}, "spend": {"type": "decimal"}}, "expect": {"every": "1d", "by": "08:00"}}
pytestmark = pytest.mark.usefixtures("stable_at_once")
EXPECT: TypeAdapter[ExpectConfig] = TypeAdapter(ExpectConfig)

Build = Callable[..., Tenant]


@pytest.fixture
def build(settings: Settings, warehouse: str | None, inbox: Path) -> Build:
    def build(**stream: Any) -> Tenant:
        streams = {"ads": STREAM | stream, "leads": {"glob": "leads/*.csv", "columns": {"name": {}}}}
        return Tenant(settings, {"type": "csv_import", "path": "inbox/acme", "streams": streams}, warehouse=warehouse)

    return build


def check(tenant: Tenant, stream: str = "ads", now: datetime | None = None) -> dict[str, CheckOutcome]:
    config = tenant.config.sources["shop"].streams[stream]
    assert isinstance(config, CsvStream)
    checks = build_import_checks(config)
    outcomes = run_import_checks(checks, tenant=tenant.config, source="shop", stream=stream, settings=tenant.settings, now=now)
    return {check.name: outcome for check, outcome in zip(checks, outcomes, strict=True)}


def drop(inbox: Path, name: str, *rows: str) -> None:
    file = inbox / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(["day,spend", *rows, ""]))
    os.utime(file, (1_800_000_000, 1_800_000_000))


def test_before_the_first_load_only_an_expected_file_is_missing(build: Build) -> None:
    tenant = build()
    found = check(tenant)
    assert {name: outcome.passed for name, outcome in found.items()} == {"no_quarantined_file": True, "reject_share": True, "expected_files": False}
    assert found["expected_files"].metadata["message"] == "no file has come yet"
    tenant.load()
    assert {name: outcome.passed for name, outcome in check(tenant).items()} == {"no_quarantined_file": True, "reject_share": True, "expected_files": False}
    assert set(check(tenant, "leads")) == {"no_quarantined_file", "reject_share"}


def test_good_files_pass(build: Build, inbox: Path) -> None:
    tenant = build(rejects={"max": "50%"})
    drop(inbox, "a.csv", "2026-01-01,1")
    tenant.load()
    assert all(outcome.passed and "message" not in outcome.metadata for outcome in check(tenant).values())


def test_a_quarantined_file_that_was_corrected_and_dropped_again_passes_the_check(build: Build, inbox: Path) -> None:
    tenant = build()
    drop(inbox, "a.csv", '2026-01-01,"1')
    tenant.load()
    assert not check(tenant)["no_quarantined_file"].passed
    drop(inbox, "a.csv", "2026-01-01,1")
    tenant.load()
    assert check(tenant)["no_quarantined_file"].passed
    drop(inbox, "a.csv", '2026-01-01,"22')
    tenant.load()
    assert not check(tenant)["no_quarantined_file"].passed


def test_quarantined_and_failed_files_are_named_with_what_to_do(build: Build, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build()
    for number in range(6):
        drop(inbox, f"bad{number}.csv", f'2026-01-0{number + 1},"1')
    tenant.load()
    metadata = check(tenant)["no_quarantined_file"].metadata
    assert (metadata["quarantined"], metadata["failed"]) == (6, 0)
    message = str(metadata["message"])
    assert message.startswith("6 files are not loaded: bad0.csv (unclosed_quote), bad1.csv (unclosed_quote), ")
    assert " and 1 more; `fabric imports list acme` says why" in message
    assert check(tenant, "leads")["no_quarantined_file"].passed, "the files of another stream are not this one's"

    def fail(self: FolderInbox, name: str) -> Any:
        raise OSError(5, "Input/output error")

    drop(inbox, "unread.csv", "2026-01-01,1")
    monkeypatch.setattr(FolderInbox, "_open", fail)
    tenant.load()
    metadata = check(tenant)["no_quarantined_file"].metadata
    assert (metadata["quarantined"], metadata["failed"]) == (6, 1)
    assert str(metadata["message"]).startswith("7 files are not loaded: unread.csv (unreadable), ")
    wait = datetime.fromisoformat(str(metadata["next_attempt_at"])) - datetime.now(UTC)
    assert timedelta(0) < wait <= timedelta(minutes=1)


def test_a_failed_file_whose_moment_has_passed_holds_up_no_other(build: Build, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FolderInbox, name: str) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FolderInbox, "_open", fail)
    tenant = build()
    for number in (1, 2):
        drop(inbox, f"{number}.csv", f"2026-01-0{number},1")
    tenant.load()
    past, future = (datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes) for minutes in (-30, 30))
    for number, moment in ((1, past), (2, future)):
        tenant.change(f"update acme_fabric.imported_files set next_attempt_at = timestamptz '{moment.isoformat()}' where name = '{number}.csv'")
    assert check(tenant)["no_quarantined_file"].metadata["next_attempt_at"] == future.isoformat()
    assert check(tenant, now=future)["no_quarantined_file"].metadata["next_attempt_at"] == past.isoformat()
    # It has gone before it could be read, so nothing is left of it to wait for, or to worry about.
    tenant.change("update acme_fabric.imported_files set status = 'gone', next_attempt_at = null where name = '1.csv'")
    metadata = check(tenant, now=future)["no_quarantined_file"].metadata
    assert (metadata["failed"], metadata["next_attempt_at"]) == (1, future.isoformat())


@pytest.mark.parametrize(
    ("limit", "passed", "message"),
    [
        (None, True, None),
        ("40%", True, None),
        ("39%", False, "2 of 5 rows are rejected, more than 39%"),
        (1, True, None),
        (0, False, "up to 1 rows of one file are rejected, more than 0"),
    ],
)
def test_the_share_of_rejected_rows(build: Build, inbox: Path, limit: object, passed: bool, message: str | None) -> None:
    drop(inbox, "a.csv", "2026-01-01,1", "never,2")
    drop(inbox, "b.csv", "2026-01-02,1", "2026-01-03,3", "soon,2")
    drop(inbox, "worthless.csv", '2026-01-02,"1')
    build().load()
    # Judged by a limit that was set since.
    outcome = check(build(rejects={"max": limit}))["reject_share"]
    assert outcome.passed is passed
    assert outcome.metadata.get("message") == message
    assert (outcome.metadata["read"], outcome.metadata["rejected"], outcome.metadata["share"], outcome.metadata["max"]) == (5, 2, 0.4, limit)


def test_a_file_that_is_late(build: Build, inbox: Path) -> None:
    tenant = build(expect={"every": "1d"})
    drop(inbox, "a.csv", "2026-01-01,1")
    tenant.load()
    now = datetime.now(UTC)
    assert check(tenant, now=now + timedelta(hours=23, minutes=59))["expected_files"].passed
    late = check(tenant, now=now + timedelta(days=1, seconds=1))["expected_files"]
    assert not late.passed
    assert "no file has come since" in str(late.metadata["message"])
    newest, due = (datetime.fromisoformat(str(late.metadata[name])) for name in ("newest", "due"))
    assert due - newest == timedelta(days=1)
    # A quarantined file does not count as arrived; the same bytes under another name do.
    drop(inbox, "b.csv", '2026-01-01,"1')
    tenant.load()
    assert check(tenant)["expected_files"].metadata["newest"] == late.metadata["newest"]
    drop(inbox, "copy.csv", "2026-01-01,1")
    tenant.load()
    assert datetime.fromisoformat(str(check(tenant)["expected_files"].metadata["newest"])) > newest


@pytest.mark.parametrize(
    ("expect", "newest", "due"),
    [
        ({"every": "1d"}, "2026-03-01T10:00+01:00", "2026-03-02T10:00+01:00"),
        ({"every": "6h"}, "2026-03-01T10:00+01:00", "2026-03-01T16:00+01:00"),
        # In time yesterday, or since: the next one is today's.
        ({"every": "1d", "by": "08:00"}, "2026-03-01T07:30+01:00", "2026-03-02T08:00+01:00"),
        ({"every": "1d", "by": "08:00"}, "2026-03-01T08:00+01:00", "2026-03-02T08:00+01:00"),
        ({"every": "1d", "by": "08:00"}, "2026-03-01T08:01+01:00", "2026-03-03T08:00+01:00"),
        ({"every": "7d", "by": "08:00"}, "2026-03-01T07:30+01:00", "2026-03-08T08:00+01:00"),
        # Clocks go forward on the 29th: at eight all the same.
        ({"every": "1d", "by": "08:00"}, "2026-03-28T07:30+01:00", "2026-03-29T08:00+02:00"),
    ],
)
def test_when_the_next_file_is_due(expect: dict[str, str], newest: str, due: str) -> None:
    config, came, at = EXPECT.validate_python(expect), datetime.fromisoformat(newest), datetime.fromisoformat(due)
    assert find_due(config, came, "Europe/Berlin") == at
    assert find_last_due(config, came, "Europe/Berlin", at - timedelta(seconds=1)) is None
    assert find_last_due(config, came, "Europe/Berlin", at) == at
    period = config.every
    assert find_last_due(config, came, "Europe/Berlin", at + 2.5 * period) == at + 2 * period
