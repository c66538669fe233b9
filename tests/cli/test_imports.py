"""`fabric imports`: what became of each dropped file, and how one that is stuck is set going again."""

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.connectors.csv_import.bucket import BucketInbox
from fabric_assets.connectors.csv_import.inbox import FolderInbox
from fabric_assets.errors import ConfigurationError
from fabric_assets.loading.dropped_files import release as import_release
from fabric_assets.settings import Settings
from tests.support.databases import warehouse
from tests.support.folders import inbox, stable_at_once
from tests.support.services import Bucket
from tests.support.shop import Tenant, write_secret_file

__all__ = ["inbox", "stable_at_once", "warehouse"]
pytestmark = pytest.mark.usefixtures("settings_environ", "stable_at_once")
COLUMNS = {"day": {"type": "date", "required": True}, "spend": {"type": "decimal"}}
GOOD, UNCLOSED = "day,spend\n2026-01-01,1\n", 'day,spend\n2026-01-05,"1\n'


class Shop(Tenant):
    """A tenant whose YAML also lies where the command looks for it."""

    write: Callable[[], None]


@pytest.fixture
def tenant(settings: Settings, warehouse: str | None, write_tenant: Callable[..., Path]) -> Shop:
    shop = Shop(settings, {"type": "csv_import", "path": "inbox/acme", "streams": {"ads": {"glob": "*.csv", "columns": COLUMNS}}}, warehouse=warehouse)

    def write() -> None:
        body = shop.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
        write_tenant("acme", {key: body[key] for key in ("destination", "sources")})

    shop.write = write
    write()
    return shop


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["imports", *arguments])


def list_files(*arguments: str) -> list[dict[str, Any]]:
    result = run("list", "acme", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)
def test_a_name_that_would_change_what_a_terminal_shows_is_spelt_out(tenant: Shop, inbox: Path) -> None:
    (inbox / "b\u202evsc\x9b31m.csv").write_text(GOOD + "never,2\n")
    tenant.load()
    for shown in (run("list", "acme"), CliRunner().invoke(app, ["rejects", "list", "acme"])):
        assert r"'b\u202evsc\x9b31m.csv'" in shown.stdout
        assert not {"\u202e", "\x9b"} & set(shown.stdout)
    assert get_statuses() == [("b\u202evsc\x9b31m.csv", "loaded")]


def get_statuses() -> list[tuple[str, str]]:
    return [(file["name"], file["status"]) for file in list_files()]


def find(inbox: Path) -> list[str]:
    return sorted(path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file())


def quarantine(tenant: Shop, inbox: Path) -> str:
    """Load a file that is quarantined, and return its path in the inbox."""
    (inbox / "bad.csv").write_text("day,cost\n2026-01-05,1\n")
    tenant.source["streams"]["ads"]["columns"] = {**COLUMNS, "spend": {"type": "decimal", "required": True}}
    tenant.load()
    (path,) = (file.relative_to(inbox).as_posix() for file in (inbox / "quarantine").glob("*.csv"))
    return path


def correct(tenant: Shop) -> None:
    """Correct the YAML such that the quarantined file is a good one."""
    tenant.source["streams"]["ads"]["mapping"] = {"cost": "spend"}
    tenant.write()


def test_each_file_is_listed_with_its_status(tenant: Shop, inbox: Path) -> None:
    (inbox / "a.csv").write_text(GOOD)
    assert get_statuses() == [("a.csv", "found")], "before anything was loaded"
    assert "next: fabric run acme" in run("show", "acme", "a.csv").stdout
    (inbox / "b.csv").write_text("day,spend\n2026-01-02,2\nnever,3\n")
    os.utime(inbox / "a.csv", (1, 1))
    (inbox / "copy.csv").write_text(GOOD)
    (inbox / "unclosed.csv").write_text(UNCLOSED)
    tenant.load()
    (inbox / "new.csv").write_text("day,spend\n2026-02-02,2\n")
    assert get_statuses() == [("a.csv", "loaded"), ("b.csv", "loaded"), ("copy.csv", "duplicate"), ("unclosed.csv", "quarantined"), ("new.csv", "found")]
    shown = run("list", "ac*")
    lines = {line.split()[2]: line.split() for line in shown.stdout.splitlines()}
    assert lines["b.csv"][1:7] == ["shop.ads", "b.csv", "loaded", "2", "1", "1"]
    assert "unclosed_quote: the quote opened in line 2 is not closed" in " ".join(lines["unclosed.csv"])
    assert "same content as a.csv" in " ".join(lines["copy.csv"])
    assert [file["name"] for file in list_files("--status", "quarantined")] == ["unclosed.csv"]
    assert list_files("--source", "shop", "--stream", "ads", "--status", "failed") == []
    assert "did you mean 'ads'?" in str(run("list", "acme", "--stream", "adds").exception)


def test_a_file_of_the_inbox_waits_is_found_or_is_being_loaded(tenant: Shop, inbox: Path) -> None:
    (inbox / "a.csv").write_text(GOOD)
    tenant.load()
    (inbox / "b.csv").write_text("day,spend\n2026-01-02,2\n")
    tenant.source["ready"] = "done_file"
    tenant.write()
    assert get_statuses() == [("a.csv", "loaded"), ("b.csv", "waiting")]
    (inbox / "b.csv.done").touch()
    assert get_statuses() == [("a.csv", "loaded"), ("b.csv", "found")]
    tenant.change("update acme_fabric.loads set status = 'running'")
    assert get_statuses() == [("a.csv", "loaded"), ("b.csv", "loading")]


def test_a_warehouse_that_cannot_be_read_is_reported(tenant: Shop, inbox: Path, settings: Settings, warehouse: str | None) -> None:
    (inbox / "a.csv").write_text(GOOD)
    tenant.load()
    if warehouse:
        (settings.data_dir / "acme_warehouse").write_text("postgresql://nobody:x@127.0.0.1:1/none")
        result = run("list", "acme")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "the destination (postgres) cannot be reached" in result.stderr
        return
    import subprocess
    import sys

    path = settings.data_dir / "warehouse" / "acme.duckdb"
    holder = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        result = run("list", "acme")
        process.communicate("")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "acme.duckdb is open in another program" in result.stderr


def test_an_unreachable_inbox_hides_no_file_of_the_ledger(tenant: Shop, inbox: Path, tmp_path: Path) -> None:
    (inbox / "a.csv").write_text(GOOD)
    tenant.load()
    tenant.source["path"] = str(tmp_path / "nowhere")
    tenant.write()
    result = run("list", "acme", "--json")
    assert result.exit_code == 1
    assert [file["name"] for file in json.loads(result.stdout)] == ["a.csv"]
    assert "nowhere does not exist" in result.stderr


def test_a_files_history_shows_all_versions_their_folders_and_their_first_bad_rows(tenant: Shop, inbox: Path) -> None:
    tenant.source["archive"] = True
    tenant.write()
    for day in ("2026-01-01", "2026-01-02"):
        (inbox / "a.csv").write_text(f"day,spend\n{day},1\nnever,2\n")
        tenant.load()
    replaced, loaded = json.loads(run("show", "acme", "a.csv", "--json").stdout)
    assert (replaced["status"], loaded["status"]) == ("replaced", "loaded")
    assert (replaced["rejects"], [(row["row_number"], row["reason"]) for row in loaded["rejects"]]) == ([], [(3, "bad_date")])
    assert [path.startswith("archive/a.") for path in (*replaced["lies_in"], *loaded["lies_in"])] == [True, True]
    shown = run("show", "acme", "a.csv").stdout
    assert "rows: 2 read, 1 loaded, 1 rejected" in shown
    assert "next: fabric rejects export acme --source shop --stream ads" in shown
    missing = run("show", "acme", "b.csv")
    assert isinstance(missing.exception, ConfigurationError)


def test_a_released_file_is_checked_again(tenant: Shop, inbox: Path) -> None:
    quarantined = quarantine(tenant, inbox)
    story = run("show", "acme", quarantined).stdout
    assert f"lies in: {quarantined}" in story
    assert "missing_column: it lacks the column spend" in story
    assert "fabric imports release acme bad.csv" in story
    correct(tenant)
    result = run("release", "acme", "bad.csv")
    assert (result.exit_code, result.stdout) == (0, "bad.csv: back in the inbox; the next load checks it again\n")
    assert find(inbox) == ["bad.csv"]
    assert get_statuses() == [("bad.csv", "found")]
    tenant.load()
    assert get_statuses() == [("bad.csv", "loaded")]


def test_a_release_refuses_to_overwrite_and_names_what_it_cannot_do(tenant: Shop, inbox: Path) -> None:
    quarantined = quarantine(tenant, inbox)
    (inbox / "bad.csv").write_text(GOOD)
    result = run("release", "acme", quarantined, "none.csv")
    assert result.exit_code == 1
    assert f"{quarantined} cannot be moved back: another file named bad.csv is in the inbox" in result.stderr
    assert "no file none.csv is known" in result.stderr
    assert find(inbox) == ["bad.csv", quarantined, f"{quarantined}.reason.txt"]
    assert (inbox / "bad.csv").read_text() == GOOD
    tenant.load()
    # Of the two versions only one is stuck.
    assert "bad.csv is quarantined (missing_column)" in run("retry", "acme", "bad.csv").stderr
    (inbox / "bad.csv").unlink()
    (inbox / quarantined).unlink()
    assert run("release", "acme", "bad.csv").stdout == "bad.csv: the file itself is gone; its entry is deleted\n"
    assert get_statuses() == [("bad.csv", "loaded")]
    assert "only a quarantined file can be released" in run("release", "acme", "bad.csv").stderr


def test_a_quarantined_file_in_the_archive_is_released_from_there(tenant: Shop, inbox: Path) -> None:
    quarantined = quarantine(tenant, inbox)
    (inbox / "archive").mkdir()
    (inbox / quarantined).rename(inbox / quarantined.replace("quarantine", "archive"))
    correct(tenant)
    assert run("release", "acme", "bad.csv").stdout == "bad.csv: back in the inbox; the next load checks it again\n"
    assert find(inbox) == ["bad.csv"]
    tenant.load()
    assert get_statuses() == [("bad.csv", "loaded")]


@pytest.mark.parametrize("step", ["link", "unlink", "ledger"])
def test_a_killed_release_can_be_repeated(tenant: Shop, inbox: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    quarantine(tenant, inbox)
    correct(tenant)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        owner, name = {
            "link": (os, "link"),
            "unlink": (FolderInbox, "remove"),
            "ledger": (import_release._Change, "execute"),
        }[step]
        patched.setattr(owner, name, die)
        run("release", "acme", "bad.csv")
    assert ("bad.csv", "quarantined") in get_statuses()
    tenant.load()
    assert [status for name, status in get_statuses()] == ["quarantined"], "a load in between changes nothing"
    assert run("release", "acme", "bad.csv").exit_code == 0
    assert find(inbox) == ["bad.csv"]
    tenant.load()
    assert get_statuses() == [("bad.csv", "loaded")]
    assert find(inbox) == ["bad.csv"]


def test_a_released_file_is_complete_where_a_mark_says_so(tenant: Shop, inbox: Path) -> None:
    (inbox / "bad.csv.done").touch()
    os.utime(inbox / "bad.csv.done", (2_000_000_000, 2_000_000_000))  # laid before the file here, but a mark counts if it is younger
    tenant.source["ready"] = "done_file"
    quarantine(tenant, inbox)
    correct(tenant)
    assert run("release", "acme", "bad.csv").exit_code == 0
    assert find(inbox) == ["bad.csv", "bad.csv.done"]
    tenant.load()
    assert get_statuses() == [("bad.csv", "loaded")]


def test_a_released_file_of_a_bucket_goes_back_to_it(tenant: Shop, s3: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_secret_file(settings, "key", s3.access_key_id)
    write_secret_file(settings, "secret_key", s3.secret_access_key)
    login = {"access_key_id": {"file": "key"}, "secret_access_key": {"file": "secret_key"}, "endpoint_url": s3.endpoint_url, "region": s3.region}
    tenant.source |= {"path": f"s3://{s3.name}/drop", "credentials": login, "ready": "done_file"}
    tenant.source["streams"]["ads"]["columns"] = {**COLUMNS, "spend": {"type": "decimal", "required": True}}
    s3.put("drop/bad.csv", b"day,cost\n2026-01-05,1\n")
    s3.put("drop/bad.csv.done", b"")
    tenant.load()
    correct(tenant)

    def list_keys() -> list[str]:
        return sorted(entry["Key"].removeprefix("drop/") for entry in s3.client.list_objects_v2(Bucket=s3.name)["Contents"])

    quarantined, reason = list_keys()
    assert (quarantined.startswith("quarantine/bad."), reason) == (True, f"{quarantined}.reason.txt")
    # Killed after the copy and before the removal, it is in both folders.
    with monkeypatch.context() as patched:
        patched.setattr(BucketInbox, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run("release", "acme", "bad.csv")
    assert list_keys() == ["bad.csv", "bad.csv.done", quarantined, reason]
    assert run("release", "acme", "bad.csv").exit_code == 0
    assert list_keys() == ["bad.csv", "bad.csv.done"]
    tenant.load()
    assert get_statuses() == [("bad.csv", "loaded")]


def test_a_file_that_could_not_be_read_is_tried_again_at_once(tenant: Shop, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox / "a.csv").write_text(GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(FolderInbox, "_open", lambda self, name: (_ for _ in ()).throw(OSError("the disk sleeps")))
        tenant.load()
        tenant.load()
    (file,) = list_files()
    assert (file["status"], file["attempts"], file["reason"]) == ("failed", 1, "unreadable")
    assert "1 attempts; the next after" in run("show", "acme", "a.csv").stdout
    assert "can be released" in run("release", "acme", "a.csv").stderr
    assert run("retry", "acme", "a.csv").stdout == "a.csv: the next load tries it at once\n"
    (file,) = list_files()
    assert (file["attempts"], file["next_attempt_at"]) == (0, None)
    tenant.load()
    assert get_statuses() == [("a.csv", "loaded")]
    assert "only a failed file can be tried again" in run("retry", "acme", "a.csv").stderr


def test_an_export_of_several_streams_is_replayed_by_the_command_that_is_shown(tenant: Shop, inbox: Path) -> None:
    tenant.source["streams"] = {name: {"glob": f"{name}/*.csv", "columns": COLUMNS} for name in ("ads", "leads")}
    tenant.write()
    for name in ("ads", "leads"):
        (inbox / name).mkdir()
        (inbox / name / "a.csv").write_text(f"{GOOD}never,{len(name)}\n")
    tenant.load()
    out = inbox / "ads" / "corrected.csv"
    assert CliRunner().invoke(app, ["rejects", "export", "acme", "--out", str(out)]).exit_code == 0
    out.write_text(out.read_text().replace("never", "2026-01-02"))
    tenant.load()
    (step,) = [line.strip() for line in run("show", "acme", "ads/corrected.csv").stdout.splitlines() if "next: " in line]
    command = step.removeprefix("next: fabric ").split()
    assert command[:3] == ["rejects", "replay", "acme"]
    assert "--stream" not in command
    part = CliRunner().invoke(app, [*command, "--stream", "ads"])
    assert part.exit_code == 1
    assert "acme: 1 rows belong to other streams and are still rejected (lines 3); leave out --stream" in part.stdout
    assert "are skipped, as they are" not in part.stdout
    whole = CliRunner().invoke(app, command)
    assert (whole.exit_code, whole.stdout.splitlines()[0]) == (0, "acme shop.leads: 1 replayed")


def test_a_file_that_was_given_up_is_brought_back_by_a_retry(tenant: Shop, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox / "a.csv").write_text(GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(FolderInbox, "_open", lambda self, name: (_ for _ in ()).throw(OSError("the disk sleeps")))
        for _ in range(5):
            tenant.load()
            tenant.change("update acme_fabric.imported_files set next_attempt_at = null")
    (file,) = list_files()
    assert (file["status"], file["reason"], file["attempts"]) == ("quarantined", "gave_up", 5)
    assert run("retry", "acme", "a.csv").stdout == "a.csv: back in the inbox; the next load checks it again\n"
    tenant.load()
    assert get_statuses() == [("a.csv", "loaded")]


def test_quarantined_files_are_listed_beside_rejected_rows(tenant: Shop, inbox: Path) -> None:
    (inbox / "a.csv").write_text("day,spend\n2026-01-01,1\nnever,2\n")
    (inbox / "unclosed.csv").write_text(UNCLOSED)
    tenant.load()
    row, file = json.loads(CliRunner().invoke(app, ["rejects", "list", "acme", "--json"]).stdout)
    assert row.keys() == file.keys()
    assert (row["origin"], row["quarantined_file"]) == ("a.csv", None)
    assert (file["origin"], file["reason"]) == ("unclosed.csv", "unclosed_quote")
    assert (inbox / file["quarantined_file"]).is_file()
    shown = CliRunner().invoke(app, ["rejects", "list", "acme"])
    assert "unclosed_quote" in shown.stdout
    assert "quarantined files: 1;" in shown.stderr


def test_letters_that_are_not_ascii_come_back_unchanged_from_a_corrected_export(tenant: Shop, inbox: Path, tmp_path: Path) -> None:
    tenant.source["streams"]["ads"] |= {"columns": {"name": {}, **COLUMNS}, "mapping": {"Müller": "name"}}
    tenant.write()
    (inbox / "a.csv").write_text("Müller,day,spend\nGrün,never,2\n", encoding="utf-8")
    tenant.load()
    out = tmp_path / "corrected.csv"
    assert CliRunner().invoke(app, ["rejects", "export", "acme", "--out", str(out)]).exit_code == 0
    # As a spreadsheet reads it, which has no other sign of its encoding.
    assert out.read_bytes().startswith(codecs.BOM_UTF8 + "Müller".encode())
    out.write_text(out.read_text("utf-8-sig").replace("never", "2026-01-02", 1), encoding="utf-8-sig")
    assert CliRunner().invoke(app, ["rejects", "replay", "acme", "--file", str(out)]).exit_code == 0
    assert tenant.ask("select name from acme_raw_shop.ads") == [("Grün",)]


def test_a_corrected_export_is_replayed_by_the_command(tenant: Shop, inbox: Path, tmp_path: Path) -> None:
    (inbox / "a.csv").write_text("day,spend\n2026-01-01,1\nnever,2\n2026-01-03,much\n")
    tenant.load()
    out = tmp_path / "corrected.csv"
    assert CliRunner().invoke(app, ["rejects", "export", "acme", "--out", str(out)]).exit_code == 0
    out.write_text(out.read_text().replace("never", "2026-01-02", 1))

    def replay(*more: str) -> Result:
        return CliRunner().invoke(app, ["rejects", "replay", "acme", "--file", str(out), *more])

    first = replay()
    assert first.exit_code == 1
    assert first.stdout.splitlines()[0] == "acme shop.ads: 1 replayed; 1 still rejected"
    assert "  line 3 (a.csv, line 4): bad_number: spend: 'much' is not a number" in first.stdout
    out.write_text(out.read_text().replace("much", "3", 1))
    second = replay("--json")
    (result,) = json.loads(second.stdout)
    assert (second.exit_code, result["streams"][0]["replayed"], result["gone"]) == (0, 1, [2])
    third = replay()
    assert third.exit_code == 0
    assert "2 rows are skipped, as they are no longer rejected" in third.stdout
    assert "acme: nothing was changed" in third.stdout
    assert [int(row) for (row,) in tenant.ask("select _fabric_row from acme_raw_shop.ads order by 1")] == [2, 3, 4]
    assert isinstance(CliRunner().invoke(app, ["rejects", "replay", "--all", "--file", str(out)]).exception, ConfigurationError)
