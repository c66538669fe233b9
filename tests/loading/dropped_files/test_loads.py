"""Files that people drop: each content is loaded once, each file gets one status, and is moved accordingly."""

import os
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.csv_import import files as import_files
from fabric_assets.connectors.csv_import import inbox as import_inbox
from fabric_assets.connectors.csv_import.inbox import FolderInbox, open_inbox
from fabric_assets.connectors.csv_import.put_away import PutAway
from fabric_assets.errors import LeaseHeld, SourceError, SourceUnavailable
from fabric_assets.rows import imported_file
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.settings import Settings
from fabric_assets.warehouse.platform_tables import ledger
from tests.support.services import Bucket
from tests.support.shop import Tenant, write_secret_file
from tests.support.tracebacks import read_traceback

pytestmark = pytest.mark.usefixtures("stable_at_once")
STREAM = {"glob": "*.csv", "columns": {"day": {"type": "date", "required": True}, "spend": {"type": "decimal", "min": 0}}}
GOOD = "day,spend\n2026-01-01,1.50\n2026-01-02,2.50\n"
BAD_ROW = "day,spend\n2026-01-03,3\nyesterday,4\n"
UNCLOSED = 'day,spend\n2026-01-05,"1\n'


def build(settings: Settings, warehouse: str | None = None, *, source: dict[str, Any] | None = None, **stream: Any) -> Tenant:
    return Tenant(settings, {"type": "csv_import", "path": "inbox/acme", "streams": {"ads": STREAM | stream}, **(source or {})}, warehouse=warehouse)


def drop(inbox: Path, name: str, content: str, *, age: int = 0) -> Path:
    file = inbox / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (1_800_000_000 - age, 1_800_000_000 - age))
    return file


def get_fates(tenant: Tenant) -> list[tuple[Any, ...]]:
    return tenant.ask("select name, status, rows_read, rows_loaded, rows_rejected from acme_fabric.imported_files order by name, status, rows_read")


def list_folder(inbox: Path) -> list[str]:
    return sorted(path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file())


ODD, SPELT = "a\u202evsc\x9b2J", r"a\u202evsc\x9b2J"


def test_no_name_of_a_file_changes_what_the_messages_of_a_load_show(settings: Settings, inbox: Path) -> None:
    tenant = build(settings)
    for number, content in enumerate((GOOD, GOOD, BAD_ROW, UNCLOSED)):
        drop(inbox, f"{ODD}{number}.csv", content, age=9 - number)
    tenant.load()
    drop(inbox, f"{ODD}2.csv", GOOD.replace("1.50", "7"))
    tenant.load()
    said = [message for message in tenant.messages if "vsc" in message]
    assert {word for word in ("is skipped: same content as", "is quarantined", "is a new version") if any(word in message for message in said)} == {
        "is skipped: same content as",
        "is quarantined",
        "is a new version",
    }
    assert not [message for message in said if {"\x9b", "\u202e"} & set(message)]
    assert all(SPELT in message for message in said)
    assert (f"{ODD}0.csv", "loaded", 2, 2, 0) in get_fates(tenant)


def test_each_file_gets_a_status_and_is_moved(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse, source={"archive": True})
    drop(inbox, "good.csv", GOOD, age=9)
    drop(inbox, "copy.csv", GOOD, age=8)
    drop(inbox, "bad_row.csv", BAD_ROW)
    drop(inbox, "unclosed.csv", UNCLOSED)
    report = tenant.load()["ads"]
    assert (report.record.rows_read, report.rows_loaded, report.rows_rejected, report.rows_total) == (4, 3, 1, 3)
    assert get_fates(tenant) == [
        ("bad_row.csv", "loaded", 2, 1, 1),
        ("copy.csv", "duplicate", 0, 0, 0),
        ("good.csv", "loaded", 2, 2, 0),
        ("unclosed.csv", "quarantined", 0, 0, 0),
    ]
    assert {file.name: file.status for file in report.files} == {name: status for name, status, *_ in get_fates(tenant)}
    rows = tenant.ask("select cast(day as text), cast(spend as text), _fabric_file, _fabric_row from acme_raw_shop.ads order by day")
    assert [(day, float(spend), file, row) for day, spend, file, row in rows] == [
        ("2026-01-01", 1.5, "good.csv", 2),
        ("2026-01-02", 2.5, "good.csv", 3),
        ("2026-01-03", 3.0, "bad_row.csv", 2),
    ]
    assert tenant.ask("select origin, row_number, column_name from acme_fabric.rejected_rows") == [("bad_row.csv", 3, "day")]
    paths = list_folder(inbox)
    assert [path.partition("/")[0] for path in paths] == ["archive", "archive", "archive", "quarantine", "quarantine"]
    (reason,) = [path for path in paths if path.endswith(".reason.txt")]
    assert (inbox / reason).read_text().startswith("unclosed_quote\n")
    # Nothing is left to do.
    assert tenant.load()["ads"].rows_total == 3
    assert list_folder(inbox) == paths


def test_files_that_stay_are_not_opened_again(settings: Settings, inbox: Path, warehouse: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "good.csv", GOOD, age=5)
    drop(inbox, "copy.csv", GOOD)
    tenant.load()
    opened = list[str]()
    original = FolderInbox._open
    monkeypatch.setattr(FolderInbox, "_open", lambda self, name: opened.append(name) or original(self, name))
    assert tenant.load()["ads"].rows_loaded == 0
    assert opened == []
    os.utime(inbox / "good.csv")
    assert tenant.load()["ads"].rows_loaded == 0
    assert opened == ["good.csv"]
    assert [status for _, status, *_ in get_fates(tenant)] == ["duplicate", "loaded"]
    assert list_folder(inbox) == ["copy.csv", "good.csv"]


@pytest.mark.parametrize("mode", ["replace_file", "append"])
def test_a_new_version_of_a_file(settings: Settings, inbox: Path, warehouse: str | None, mode: str) -> None:
    tenant = build(settings, warehouse, on_new_version=mode)
    drop(inbox, "jan.csv", GOOD)
    drop(inbox, "feb.csv", BAD_ROW)
    tenant.load()
    drop(inbox, "jan.csv", "day,spend\n2026-01-01,9\n")
    tenant.load()
    spend = [float(value) for (value,) in tenant.read("ads", "spend")]
    assert spend == ([3.0, 9.0] if mode == "replace_file" else [1.5, 2.5, 3.0, 9.0])
    first = "replaced" if mode == "replace_file" else "loaded"
    assert [(name, status) for name, status, *_ in get_fates(tenant)] == [("feb.csv", "loaded"), *sorted([("jan.csv", "loaded"), ("jan.csv", first)])]
    # The first version again: it is not in the table, or it is.
    drop(inbox, "jan.csv", GOOD)
    tenant.load()
    spend = [float(value) for (value,) in tenant.read("ads", "spend")]
    assert spend == ([1.5, 2.5, 3.0] if mode == "replace_file" else [1.5, 2.5, 3.0, 9.0])


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_new_version_is_known_in_another_unicode_form_of_its_name(settings: Settings, inbox: Path, warehouse: str | None, forms: tuple[Any, Any]) -> None:
    first, second = (unicodedata.normalize(form, "März.csv") for form in forms)
    tenant = build(settings, warehouse)
    drop(inbox, first, GOOD, age=60)
    tenant.load()
    (inbox / first).unlink()
    drop(inbox, second, GOOD + "2026-01-03,3\n")
    for refresh in (False, True):
        tenant.load(full_refresh=refresh)
        assert [float(value) for (value,) in tenant.read("ads", "spend")] == [1.5, 2.5, 3.0]


def test_the_rows_and_rejected_rows_of_a_version_go_with_it(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "a.csv", BAD_ROW)
    tenant.load()
    drop(inbox, "a.csv", "day,spend\nnever,1\n")
    assert tenant.load()["ads"].rows_total == 0
    assert tenant.ask("select row_number, raw from acme_fabric.rejected_rows") == [(2, '{"day": "never", "spend": "1"}')]


def test_a_copy_is_loaded_once_the_file_that_it_copies_has_changed(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, source={"archive": True})
    drop(inbox, "jan.csv", GOOD, age=5)
    drop(inbox, "feb.csv", GOOD)
    tenant.load()
    drop(inbox, "jan.csv", "day,spend\n2026-01-09,9\n")
    tenant.load()
    assert tenant.read("ads", "_fabric_file", order="day") == [("feb.csv",), ("feb.csv",), ("jan.csv",)]


def get_spend(tenant: Tenant) -> list[tuple[str, float]]:
    return [(name, float(spend)) for name, spend in tenant.read("ads", "_fabric_file", "spend")]


def test_a_file_that_is_renamed_while_another_takes_its_name_keeps_its_rows(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "spend.csv", GOOD, age=9)
    tenant.load()
    (inbox / "spend.csv").rename(inbox / "spend_jan.csv")
    drop(inbox, "spend.csv", "day,spend\n2026-02-01,9\n")
    tenant.load()
    assert get_spend(tenant) == [("spend.csv", 9.0), ("spend_jan.csv", 1.5), ("spend_jan.csv", 2.5)]
    assert [(name, status) for name, status, *_ in get_fates(tenant)] == [("spend.csv", "loaded"), ("spend_jan.csv", "loaded")]


def test_a_version_whose_bytes_are_loaded_already_takes_its_earlier_rows_away(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "wrong.csv", "day,spend\n2026-01-01,99\n", age=9)
    drop(inbox, "right.csv", GOOD, age=8)
    tenant.load()
    drop(inbox, "wrong.csv", GOOD)
    tenant.load()
    assert get_spend(tenant) == [("right.csv", 1.5), ("right.csv", 2.5)]


def test_once_versions_replace_each_other_all_that_were_kept_give_way(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse, on_new_version="append")
    for spend in (1, 2):
        drop(inbox, "a.csv", f"day,spend\n2026-01-01,{spend}\n", age=-spend)
        tenant.load()
    tenant.source["streams"]["ads"] = STREAM
    drop(inbox, "a.csv", "day,spend\n2026-01-01,3\n", age=-3)
    tenant.load()
    assert get_spend(tenant) == [("a.csv", 3.0)]
    assert [status for _, status, *_ in get_fates(tenant)] == ["loaded", "replaced", "replaced"]
    drop(inbox, "b.csv", "day,spend\n2026-01-01,1\n")
    tenant.load()
    assert get_spend(tenant) == [("a.csv", 3.0), ("b.csv", 1.0)]


def test_merged_rows_of_a_later_file_win(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse, primary_key="day")
    drop(inbox, "b.csv", GOOD, age=10)
    drop(inbox, "a.csv", "day,spend\n2026-01-02,7\n2026-01-03,3\n2026-01-03,4\n")
    tenant.load()
    assert [float(value) for (value,) in tenant.read("ads", "spend", order="day")] == [1.5, 7.0, 4.0]
    drop(inbox, "c.csv", "day,spend\n2026-01-01,8\n", age=-10)
    tenant.load()
    assert [float(value) for (value,) in tenant.read("ads", "spend", order="day")] == [8.0, 7.0, 4.0]


def test_the_limit_is_on_each_file(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, rejects={"max": 1})
    for number in range(3):
        drop(inbox, f"{number}.csv", BAD_ROW.replace("3\n", f"{number}\n"))
    drop(inbox, "worse.csv", BAD_ROW + "tomorrow,5\n")
    report = tenant.load()["ads"]
    assert (report.rows_loaded, report.rows_rejected) == (3, 3)
    assert [(name, status) for name, status, *_ in get_fates(tenant) if status != "loaded"] == [("worse.csv", "quarantined")]


# --- anew


def test_a_full_refresh_reads_inbox_and_archive(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse, source={"archive": True})
    drop(inbox, "2026/a.csv", GOOD)
    tenant.source["streams"]["ads"] = STREAM | {"glob": "**/*.csv"}
    drop(inbox, "b.csv", BAD_ROW)
    tenant.load()
    drop(inbox, "c.csv", "day,spend\n2026-01-07,7\n")
    report = tenant.load(full_refresh=True)["ads"]
    assert report.rows_total == 4
    assert tenant.read("ads", "_fabric_file", order="day") == [("2026/a.csv",), ("2026/a.csv",), ("b.csv",), ("c.csv",)]
    assert tenant.ask("select count(*) from acme_fabric.rejected_rows") == [(1,)]
    assert [(name, status) for name, status, *_ in get_fates(tenant)] == [("2026/a.csv", "loaded"), ("b.csv", "loaded"), ("c.csv", "loaded")]


@pytest.mark.parametrize("content", ["day,spend\n2026-01-01,9\n", UNCLOSED])
@pytest.mark.parametrize("key", [None, "day"])
def test_a_full_refresh_with_a_new_version_waiting(settings: Settings, inbox: Path, warehouse: str | None, content: str, key: str | None) -> None:
    tenant = build(settings, warehouse, source={"archive": True}, **({"primary_key": key} if key else {}))
    drop(inbox, "a.csv", GOOD, age=9)
    tenant.load()
    drop(inbox, "a.csv", content)
    assert tenant.load(full_refresh=True)["ads"].rows_total == (2 if content == UNCLOSED else 1)
    assert get_spend(tenant) == ([("a.csv", 1.5), ("a.csv", 2.5)] if content == UNCLOSED else [("a.csv", 9.0)])
    assert tenant.load(full_refresh=True)["ads"].rows_total == (2 if content == UNCLOSED else 1)


def test_a_full_refresh_that_cannot_read_a_file_leaves_the_table_as_it_is(
    settings: Settings, inbox: Path, warehouse: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = build(settings, warehouse, source={"archive": True})
    drop(inbox, "a.csv", GOOD)
    tenant.load()
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "fetch", Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(SourceUnavailable, match=r"a\.csv, whose rows are in the table, cannot be read again"):
            tenant.load(full_refresh=True)
    assert (len(tenant.read("ads", "spend")), get_fates(tenant)[0][1]) == (2, "loaded")
    assert tenant.load(full_refresh=True)["ads"].rows_total == 2


def test_a_full_refresh_counts_the_versions_of_a_name_apart(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, source={"archive": True}, on_new_version="append")
    for content in (GOOD, "day,spend\n2026-01-09,9\n"):
        drop(inbox, "a.csv", content)
        tenant.load()
    tenant.load(full_refresh=True)
    assert get_fates(tenant) == [("a.csv", "loaded", 1, 1, 0), ("a.csv", "loaded", 2, 2, 0)]


def test_a_touched_file_keeps_its_numbers(settings: Settings, inbox: Path) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", BAD_ROW)
    tenant.load()
    os.utime(inbox / "a.csv")
    tenant.load()
    assert get_fates(tenant) == [("a.csv", "loaded", 2, 1, 1)]


def test_a_file_put_back_after_its_table_was_dropped_is_loaded(settings: Settings, inbox: Path) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", GOOD)
    drop(inbox, "b.csv", BAD_ROW)
    tenant.load()
    (inbox / "a.csv").rename(inbox.parent / "a.csv")
    tenant.change("drop table acme_raw_shop.ads")
    assert tenant.load()["ads"].rows_total == 1
    (inbox.parent / "a.csv").rename(inbox / "a.csv")
    assert tenant.load()["ads"].rows_total == 3


def test_a_full_refresh_takes_the_bytes_from_a_copy(settings: Settings, inbox: Path) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", GOOD, age=1)
    drop(inbox, "b.csv", GOOD)
    tenant.load()
    (inbox / "a.csv").unlink()
    assert tenant.load(full_refresh=True)["ads"].rows_total == 2


def test_a_full_refresh_without_the_files_is_refused(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "a.csv", GOOD).with_name("b.csv").write_text(BAD_ROW)
    tenant.load()
    (inbox / "a.csv").unlink()
    with pytest.raises(SourceError, match=r"missing from the inbox, archive/ and quarantine/: a\.csv"):
        tenant.load(full_refresh=True)
    assert tenant.load()["ads"].rows_total == 3
    tenant.change("drop table acme_raw_shop.ads")
    assert tenant.load()["ads"].rows_total == 1


# --- files that are not ready, or no files


def test_a_file_that_grows_waits(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_inbox, "STABLE_SECONDS", 1.0)
    tenant = build(settings)
    drop(inbox, "whole.csv", GOOD)
    written = threading.Event()

    def write_slowly() -> None:
        with (inbox / "growing.csv").open("w") as file:
            for number in range(25):
                file.write("day,spend\n" if not number else f"2026-02-{number:02},1\n")
                file.flush()
                written.set()
                time.sleep(0.1)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    written.wait()
    assert [file.name for file in tenant.load()["ads"].files] == ["whole.csv"]
    assert any("1 files wait until they are complete: growing.csv" in message for message in tenant.messages)
    writer.join()
    assert tenant.load()["ads"].rows_total == 26


def test_a_file_waits_for_its_mark(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, source={"ready": "done_file", "archive": True})
    drop(inbox, "a.csv", GOOD)
    assert tenant.load()["ads"].rows_total == 0
    drop(inbox, "a.csv.done", "")
    assert tenant.load()["ads"].rows_total == 2
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["archive"]
    # A mark that a killed load has left says nothing about the next file of the name.
    (inbox / "b.csv.done").touch()
    time.sleep(0.05)
    (inbox / "b.csv").write_text(BAD_ROW)
    assert tenant.load()["ads"].rows_total == 2
    (inbox / "b.csv.done").touch()
    assert tenant.load()["ads"].rows_total == 3


@pytest.mark.parametrize("name", ["a.csv.filepart", "a.csv.part", "a.CSV.crdownload", "~$a.csv", "_temporary/0/a.csv", "a.csv.tmp"])
def test_an_upload_in_progress_waits_under_any_glob(settings: Settings, inbox: Path, name: str) -> None:
    drop(inbox, name, GOOD)
    tenant = build(settings, glob="**/*")
    assert tenant.load()["ads"].rows_total == 0
    assert (inbox / name).read_text() == GOOD  # neither loaded nor quarantined
    (inbox / name).rename(inbox / "a.csv")
    assert tenant.load()["ads"].rows_total > 0


def test_links_folders_pipes_and_hidden_files_are_left_alone(settings: Settings, inbox: Path) -> None:
    outside = settings.data_dir / "secret.csv"
    outside.write_text(GOOD)
    (inbox / "link.csv").symlink_to(outside)
    (inbox / "linked").symlink_to(settings.data_dir)
    (inbox / "folder.csv").mkdir()
    os.mkfifo(inbox / "pipe.csv")
    drop(inbox, ".hidden.csv", GOOD)
    drop(inbox, "bell\a.csv", GOOD)
    tenant = build(settings, glob="**/*.csv")
    assert tenant.load()["ads"].rows_total == 0
    tenant.source["streams"]["ads"] = STREAM | {"glob": "linked/*.csv"}
    assert tenant.load()["ads"].rows_total == 0
    skipped = {message.partition("stream ads: ")[2] for message in tenant.messages if "is skipped" in message}
    assert len(skipped) == 5 and any("pipe.csv" in message for message in skipped)
    assert outside.read_text() == GOOD


@pytest.mark.parametrize("folder", ["quarantine", "archive"])
def test_a_link_in_the_inbox_leads_no_file_out_of_it(settings: Settings, inbox: Path, folder: str) -> None:
    other = settings.data_dir / "inbox" / "globex"
    other.mkdir()
    (inbox / folder).symlink_to(other)
    tenant = build(settings, source={"archive": True})
    drop(inbox, "good.csv", GOOD)
    drop(inbox, "torn.csv", UNCLOSED)
    tenant.load()
    assert list(other.iterdir()) == []
    assert any("could not be moved away" in message and f"{folder} is a link" in message for message in tenant.messages)
    (inbox / folder).unlink()
    tenant.load()
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["archive", "quarantine", "quarantine"]


def test_names_are_matched_whatever_their_case(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, glob="[a-s]*.csv")
    drop(inbox, "SPEND.CSV", GOOD)
    drop(inbox, "spend.csv", BAD_ROW)
    tenant.load()
    assert [name for name, *_ in get_fates(tenant)] == ["spend.csv"]
    tenant.source["streams"]["ads"] = STREAM
    tenant.load()
    assert [name for name, *_ in get_fates(tenant)] == ["SPEND.CSV", "spend.csv"]


def test_a_file_that_vanishes_while_the_folder_is_read_is_left_out(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(inbox, "a.csv", GOOD)
    drop(inbox, "b.csv", BAD_ROW)
    original = FolderInbox._find_fault

    def vanish(self: FolderInbox, path: Path, name: str) -> str:
        if name == "a.csv":
            path.unlink(missing_ok=True)
        return original(self, path, name)

    monkeypatch.setattr(FolderInbox, "_find_fault", vanish)
    assert build(settings).load()["ads"].rows_total == 1


def test_streams_whose_globs_overlap_each_get_the_file(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    streams = {"ads": STREAM, "some": STREAM | {"glob": "s*.csv"}}
    tenant = build(settings, warehouse, source={"archive": True, "streams": streams})
    for number in range(5):
        drop(inbox, f"s{number}.csv", f"day,spend\n2026-01-01,{number}\n")
    drop(inbox, "other.csv", GOOD)
    drop(inbox, "s_torn.csv", UNCLOSED)
    assert {name: report.rows_total for name, report in tenant.load().items()} == {"ads": 7, "some": 5}
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["archive"] * 6 + ["quarantine"] * 2
    # Loaded by one of them alone, a file waits for the other.
    drop(inbox, "s9.csv", "day,spend\n2026-01-01,9\n")
    tenant.load("ads")
    assert "s9.csv" in list_folder(inbox)
    assert tenant.load()["some"].rows_total == 6
    assert "s9.csv" not in list_folder(inbox)


@pytest.mark.parametrize("failing", ["ads", "zed"])
def test_a_file_stays_until_the_stream_that_could_not_read_it_has_it_too(
    settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    tenant = build(settings, source={"archive": True, "streams": {"ads": STREAM, "zed": STREAM}})
    drop(inbox, "a.csv", GOOD)
    original = FolderInbox.fetch

    def fail(self: FolderInbox, file: Any, path: Path) -> str:
        if path.name.startswith(failing):
            raise OSError(5, "Input/output error")
        return original(self, file, path)

    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "fetch", fail)
        tenant.load()
    assert list_folder(inbox) == ["a.csv"]
    tenant.load()
    assert list_folder(inbox) == ["a.csv"], "before it is tried again"
    tenant.change("update acme_fabric.imported_files set next_attempt_at = null where status = 'failed'")
    assert {name: report.rows_total for name, report in tenant.load().items()} == {"ads": 2, "zed": 2}
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["archive"]


@pytest.mark.parametrize("strict", ["ads", "zed"])
def test_a_file_that_one_stream_loads_and_another_refuses_lies_in_quarantine(settings: Settings, inbox: Path, warehouse: str | None, strict: str) -> None:
    refusing = STREAM | {"columns": STREAM["columns"] | {"campaign": {"required": True}}}
    streams = {name: refusing if name == strict else STREAM for name in ("ads", "zed")}
    tenant = build(settings, warehouse, source={"archive": True, "streams": streams})
    drop(inbox, "a.csv", GOOD)
    tenant.load()
    path, reason = list_folder(inbox)
    assert (path.partition("/")[0], reason) == ("quarantine", f"{path}.reason.txt")
    assert (inbox / reason).read_text().startswith("missing_column\n")
    # The stream that has loaded it finds its bytes there.
    (loading,) = {"ads", "zed"} - {strict}
    assert tenant.load(loading, full_refresh=True)[loading].rows_total == 2


def test_a_file_that_arrives_after_one_stream_has_listed_the_inbox_waits_for_that_stream(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, source={"archive": True, "streams": {"ads": STREAM, "zed": STREAM}})
    config = tenant.config.sources["shop"]
    assert isinstance(config, CsvImportSource)
    context = SourceContext(tenant.name, "shop", config, ("ads", "zed"), settings)
    opened, put_away = open_inbox(context), PutAway(context, config)

    def read(stream: str) -> None:
        there = opened.find_all("*.csv").files
        put_away.add(stream, opened, [ImportedFile(file.name, file.version, "5ha", file.size, file.modified_at, "loaded") for file in there], [])
        put_away.after_commit(stream)

    drop(inbox, "a.csv", GOOD)
    read("ads")
    drop(inbox, "b.csv", BAD_ROW)
    read("zed")
    assert list_folder(inbox) == ["archive/a.5ha.csv", "b.csv"]


def test_a_file_too_large_is_not_even_read(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderInbox, "_open", lambda *_: pytest.fail("it was opened"))
    tenant = build(settings, source={"limits": {"bytes": "1KB"}})
    drop(inbox, "huge.csv", "x" * 2000)
    tenant.load()
    assert tenant.ask("select reason, sha256 from acme_fabric.imported_files") == [("too_large", None)]
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["quarantine"] * 2


def test_a_file_that_cannot_be_read_is_tried_again_and_then_given_up(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings)
    drop(inbox, "torn.csv", GOOD)
    drop(inbox, "sound.csv", BAD_ROW)
    original = FolderInbox._open

    def open_torn(self: FolderInbox, name: str) -> Any:
        if name == "torn.csv":
            raise OSError(5, "Input/output error")
        return original(self, name)

    monkeypatch.setattr(FolderInbox, "_open", open_torn)
    assert tenant.load()["ads"].rows_total == 1
    get = "select status, reason, attempts, next_attempt_at is null from acme_fabric.imported_files where name = 'torn.csv'"
    assert tenant.ask(get) == [("failed", "unreadable", 1, False)]
    # It is not its time yet.
    tenant.load()
    assert tenant.ask(get) == [("failed", "unreadable", 1, False)]
    for _ in range(imported_file.MAX_ATTEMPTS - 1):
        tenant.change("update acme_fabric.imported_files set next_attempt_at = null where status = 'failed'")
        tenant.load()
    assert tenant.ask(get) == [("quarantined", "gave_up", 5, True)]
    assert "sound.csv" in list_folder(inbox) and "torn.csv" not in list_folder(inbox)


def test_an_internal_error_is_not_blamed_on_the_file(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(import_files, "open_text", None)  # so that our own line fails
        tenant.load()
    ((status, message),) = tenant.ask("select status, message from acme_fabric.imported_files")
    assert status == "failed"
    assert "a fault of ETL Fabric (TypeError at fabric_assets/connectors/csv_import/files.py:" in message
    assert "open_text(" in read_traceback(settings, "acme", message)
    assert any(message in line for line in tenant.messages)
    tenant.change("update acme_fabric.imported_files set next_attempt_at = null")
    tenant.load()
    assert get_fates(tenant) == [("a.csv", "loaded", 2, 2, 0)]


def test_an_error_of_this_machine_is_not_blamed_on_the_file(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings, source={"retries": {"max": 0}})
    drop(inbox, "a.csv", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "_open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SourceUnavailable, match="No space left"):
            tenant.load()
    assert get_fates(tenant) == []
    assert tenant.load()["ads"].rows_total == 2


def test_a_failed_file_that_is_removed_is_forgotten_and_read_when_it_is_dropped_again(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "_open", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        tenant.load()
    (inbox / "a.csv").unlink()
    tenant.load()
    assert [status for _, status, *_ in get_fates(tenant)] == ["gone"]
    drop(inbox, "a.csv", GOOD)
    tenant.load()
    assert get_fates(tenant) == [("a.csv", "loaded", 2, 2, 0)]


def test_a_file_that_is_readable_again_is_loaded(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings)
    drop(inbox, "a.csv", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "_open", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        tenant.load()
    tenant.change("update acme_fabric.imported_files set next_attempt_at = null")
    tenant.load()
    assert get_fates(tenant) == [("a.csv", "loaded", 2, 2, 0)]


# --- two at once, and a death in between


@pytest.mark.parametrize("warehouse", ["postgres"], indirect=True)  # DuckDB's file has one writer, whose lock comes first
def test_of_two_loads_of_one_content_the_unique_key_lets_one_through(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    drop(inbox, "a.csv", GOOD)
    tenant.load()
    (row,) = tenant.ask("select file_id from acme_fabric.imported_files")
    assert row[0].startswith("shop/ads/")
    with pytest.raises(Exception, match="imported_files"):
        tenant.change("insert into acme_fabric.imported_files select * from acme_fabric.imported_files")


def test_files_of_a_load_that_died_before_it_moved_them_are_moved_by_the_next(
    settings: Settings, inbox: Path, warehouse: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = build(settings, warehouse, source={"archive": True})
    drop(inbox, "good.csv", GOOD, age=1)
    drop(inbox, "copy.csv", GOOD)
    drop(inbox, "unclosed.csv", UNCLOSED)
    with monkeypatch.context() as patch:
        patch.setattr(FolderInbox, "move", lambda *_, **__: None)
        tenant.load()
    assert list_folder(inbox) == ["copy.csv", "good.csv", "unclosed.csv"]
    assert tenant.load()["ads"].rows_loaded == 0
    assert [path.partition("/")[0] for path in list_folder(inbox)] == ["archive", "archive", "quarantine", "quarantine"]


def test_a_folder_that_may_not_be_changed_does_not_fail_the_load(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FolderInbox, "move", refuse)
    tenant = build(settings, source={"archive": True})
    drop(inbox, "good.csv", GOOD)
    assert tenant.load()["ads"].rows_total == 2
    assert any("could not be moved away" in message for message in tenant.messages)


def test_another_file_dropped_under_the_name_in_the_moment_of_the_move_stays(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings, source={"archive": True})
    drop(inbox, "a.csv", GOOD)
    original = os.replace

    def drop_first(source: Any, target: Any, **folders: Any) -> None:
        if source == "a.csv" and not (inbox / "archive" / "seen").exists():
            drop(inbox, "a.csv", "day,spend\n2026-01-09,9\n")
            (inbox / "archive" / "seen").touch()
        original(source, target, **folders)

    monkeypatch.setattr(os, "replace", drop_first)
    tenant.load()
    assert (inbox / "a.csv").read_text() == "day,spend\n2026-01-09,9\n"
    tenant.load()
    assert [float(value) for (value,) in tenant.read("ads", "spend")] == [9.0]


def test_a_load_that_fails_moves_nothing(settings: Settings, inbox: Path, warehouse: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = build(settings, warehouse, source={"archive": True})
    drop(inbox, "good.csv", GOOD)
    drop(inbox, "unclosed.csv", UNCLOSED)

    def refuse(*_: Any, **__: Any) -> None:
        raise LeaseHeld("another run has loaded it meanwhile")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_states", refuse)
        with pytest.raises(LeaseHeld):
            tenant.load()
    assert list_folder(inbox) == ["good.csv", "unclosed.csv"]
    assert tenant.load()["ads"].rows_total == 2


# --- buckets


def test_a_bucket_is_an_inbox_too(settings: Settings, s3: Bucket, warehouse: str | None) -> None:
    write_secret_file(settings, "key", s3.access_key_id)
    write_secret_file(settings, "secret_key", s3.secret_access_key)
    login = {"access_key_id": {"file": "key"}, "secret_access_key": {"file": "secret_key"}, "endpoint_url": s3.endpoint_url, "region": s3.region}
    tenant = build(settings, warehouse, source={"path": f"s3://{s3.name}/drop", "credentials": login, "archive": True}, glob="**/*.csv")
    for name, content in {"2026/good.csv": GOOD, "copy.csv": GOOD, "bad.csv": BAD_ROW, "torn.csv": UNCLOSED, "../up.csv": GOOD, ".hidden.csv": GOOD}.items():
        s3.put(f"drop/{name}", content.encode())
    s3.put("elsewhere/x.csv", GOOD.encode())
    report = tenant.load()["ads"]
    assert (report.rows_loaded, report.rows_rejected) == (3, 1)

    def list_keys() -> list[str]:
        keys = [entry["Key"] for entry in s3.client.list_objects_v2(Bucket=s3.name)["Contents"]]
        return sorted(key.removeprefix("drop/").partition("/")[0] for key in keys)

    keys = list_keys()
    assert keys == ["..", ".hidden.csv", "archive", "archive", "archive", "elsewhere", "quarantine", "quarantine"]
    assert tenant.load()["ads"].rows_loaded == 0
    assert tenant.load(full_refresh=True)["ads"].rows_total == 3
    assert list_keys() == keys


def test_the_same_bytes_put_into_a_bucket_again_are_checked_again_or_reported_as_known(settings: Settings, s3: Bucket) -> None:
    write_secret_file(settings, "key", s3.access_key_id)
    write_secret_file(settings, "secret_key", s3.secret_access_key)
    login = {"access_key_id": {"file": "key"}, "secret_access_key": {"file": "secret_key"}, "endpoint_url": s3.endpoint_url, "region": s3.region}
    tenant = build(settings, source={"path": f"s3://{s3.name}/drop", "credentials": login, "archive": True})

    def put(name: str, content: str) -> None:
        s3.put(f"drop/{name}", content.encode())

    put("good.csv", GOOD)
    put("bad.csv", "day,cost\n2026-01-05,1\n")
    columns = STREAM["columns"] | {"spend": {"type": "decimal", "required": True}}
    tenant.source["streams"]["ads"] = STREAM | {"columns": columns}
    tenant.load()
    assert [(name, status) for name, status, *_ in get_fates(tenant)] == [("bad.csv", "quarantined"), ("good.csv", "loaded")]
    tenant.source["streams"]["ads"] = STREAM | {"columns": columns, "mapping": {"cost": "spend"}}
    time.sleep(1.1)  # a store's times are in seconds
    put("good.csv", GOOD)
    put("bad.csv", "day,cost\n2026-01-05,1\n")
    tenant.messages.clear()
    assert tenant.load()["ads"].rows_total == 3
    assert [(name, status) for name, status, *_ in get_fates(tenant)] == [("bad.csv", "loaded"), ("good.csv", "loaded")]
    (said,) = [message for message in tenant.messages if "good.csv" in message]
    assert "good.csv is skipped: already loaded; it is moved to archive/good." in said


def test_a_file_dropped_again_unchanged_is_reported_as_known(settings: Settings, inbox: Path) -> None:
    tenant = build(settings, source={"archive": True})
    drop(inbox, "good.csv", GOOD)
    drop(inbox, "torn.csv", UNCLOSED)
    tenant.load()
    tenant.messages.clear()
    drop(inbox, "good.csv", GOOD, age=5)
    # With its time, as an archiver unpacks it.
    drop(inbox, "torn.csv", UNCLOSED)
    tenant.load()
    said = "\n".join(tenant.messages)
    assert "good.csv is skipped: dropped again with the same content, already loaded" in said
    assert "torn.csv is skipped: already quarantined (unclosed_quote); it is moved to quarantine/torn." in said
    assert "fabric imports release acme torn.csv" in said


def test_an_empty_inbox_gives_an_empty_table_to_build_on(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    tenant = build(settings, warehouse)
    tenant.load()
    assert get_fates(tenant) == []
    assert tenant.ask("select count(*) from acme_raw_shop.ads") == [(0,)]


@pytest.mark.parametrize("when", ["before it is read", "while it is read", "before it is moved"])
def test_a_link_that_takes_the_place_of_a_folder_leads_to_no_other_inbox(settings: Settings, inbox: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Both files have one size and one time, so nothing but the way to them tells them apart."""
    tenant = build(settings, source={"archive": True}, glob="*/*.csv")
    drop(inbox, "folder/ads.csv", GOOD)
    other = inbox.parent / "globex"
    theirs = drop(other, "ads.csv", GOOD.replace("1.50", "9.50"))

    def swap() -> None:
        (inbox / "folder").rename(inbox / ".own")
        (inbox / "folder").symlink_to(other)

    def swap_back() -> None:
        (inbox / "folder").unlink()
        (inbox / ".own").rename(inbox / "folder")

    if when == "before it is moved":
        move = FolderInbox.move
        monkeypatch.setattr(FolderInbox, "move", lambda *arguments, **named: (swap(), move(*arguments, **named)))
    else:
        read = FolderInbox._open

        def open_other(self: FolderInbox, name: str) -> Any:
            swap()
            try:
                return read(self, name)
            finally:
                if when == "while it is read":
                    swap_back()

        monkeypatch.setattr(FolderInbox, "_open", open_other)
    tenant.load()
    assert tenant.ask("select count(*) from acme_raw_shop.ads where spend > 9") == [(0,)]
    assert theirs.exists()
    assert list_folder(other) == ["ads.csv"]
    # Once the link is gone, the tenant's own file is loaded.
    monkeypatch.undo()
    monkeypatch.setattr(import_inbox, "STABLE_SECONDS", 0.0)
    if (inbox / "folder").is_symlink():
        swap_back()
    monkeypatch.setattr(ImportedFile, "is_due", lambda *_: True)
    assert tenant.load()["ads"].rows_total == 2
    assert list_folder(other) == ["ads.csv"]
