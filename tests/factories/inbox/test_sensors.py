"""The sensor of an inbox: which files make it launch a run, what that run is made of, and what it remembers."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fabric_assets.connectors.csv_import.inbox import FolderInbox
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.inbox import sensors as import_sensors
from fabric_assets.settings import Settings

GOOD = "Date;Campaign;Channel;Spend;Clicks;Conversions\n2026-01-01;spring;search;1.50;3;1\n"
COLUMNS = {
    "date": {"type": "date", "required": True},
    "campaign": {"required": True},
    "channel": {"required": True},
    "spend": {"type": "decimal"},
    "clicks": {"type": "bigint"},
    "conversions": {"type": "bigint"},
}
MARTS = {f"acme/marts/ad_spend_{name}" for name in ("by_day", "by_channel", "by_campaign", "anomalies", "version_changes")}


def get_ads(*, models: bool = False, **source: Any) -> dict[str, Any]:
    """A tenant with an inbox of ad spend, and the models of it where a test is about them."""
    streams = source.pop("streams", {"campaigns": {"glob": "*.csv", "columns": COLUMNS}})
    ads = {"type": "csv_import", "path": "inbox/acme", "retries": {"max": 0}, "streams": streams} | source
    return {"timezone": "Europe/Berlin", "sources": {"ads": ads}} | ({"transform": {"select": ["+marts.marketing"]}} if models else {})


@dataclass
class Sensor:
    """The sensor as the daemon runs it: one look at a time, with its cursor kept and its runs recorded."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    cursor: str | None = None
    launched: list[dg.RunRequest] = field(default_factory=list)
    said: str = ""

    @property
    def definition(self) -> dg.SensorDefinition:
        return self.definitions.resolve_sensor_def("acme__ads__inbox")

    def look(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=self.definitions, sensor_name="acme__ads__inbox")
        result = self.definition.evaluate_tick(context)
        self.cursor, self.said = result.cursor, result.skip_message or ""
        self.launched += result.run_requests or []
        return list(result.run_requests or [])

    def record_run(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        return self.instance.create_run_for_job(
            self.definitions.resolve_implicit_global_asset_job_def(), status=status, tags={**request.tags, "dagster/run_key": request.run_key or ""}
        )

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute the requested run in this process."""
        selection = [*(request.asset_selection or []), *(request.asset_check_keys or [])]
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys, checks = request.asset_selection or [], request.asset_check_keys
        assert selection
        subset = job.get_subset(asset_selection=set(keys), asset_check_selection=None if checks is None else set(checks))
        return subset.execute_in_process(instance=self.instance, tags=request.tags, raise_on_error=False)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def build(settings: Settings, write_tenant: Callable[..., Path], instance: dg.DagsterInstance, inbox: Path) -> Callable[..., Sensor]:
    def build(**tenant: Any) -> Sensor:
        write_tenant("acme", get_ads(**tenant))
        return Sensor(build_definitions(settings), instance)

    return build


@dataclass
class Clock:
    now: datetime

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(import_sensors, "get_now", lambda: clock.now)
    return clock


def drop(inbox: Path, name: str, content: str = GOOD, *, age: int = 60) -> Path:
    file = inbox / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    moment = datetime.now(UTC).timestamp() - age
    os.utime(file, (moment, moment))
    return file


def get_keys(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or []}


# --- which files are taken


def test_a_new_file_is_taken_when_two_looks_find_it_the_same(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build()
    assert sensor.look() == []
    drop(inbox, "jan.csv")
    assert sensor.look() == []
    assert sensor.said == "1 files wait"
    (request,) = sensor.look()
    assert get_keys(request) == {"acme/raw/ads/campaigns"}
    assert (request.tags["tenant"], request.tags["source"]) == ("acme", "ads")
    assert request.run_key and request.run_key.endswith("-1")


def test_a_file_that_grows_is_not_taken(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build()
    file = drop(inbox, "jan.csv", GOOD)
    for _ in range(3):
        assert sensor.look() == []
        with file.open("a") as half_written:
            half_written.write("2026-01-02;spring;search;1;1;1\n")
    sensor.look()
    assert len(sensor.look()) == 1


def test_with_done_files_a_file_waits_for_its_done_file(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build(ready="done_file")
    drop(inbox, "jan.csv")
    for _ in range(3):
        assert sensor.look() == []
    (inbox / "jan.csv.done").touch()
    assert len(sensor.look()) == 1


def test_all_new_files_of_a_source_are_one_run_of_the_streams_concerned(build: Callable[..., Sensor], inbox: Path) -> None:
    streams = {name: {"glob": f"{name}/*.csv", "columns": {"date": {"type": "date"}}} for name in ("campaigns", "stores", "leads")}
    sensor = build(streams=streams)
    for name in ("stores/a.csv", "stores/b.csv", "leads/c.csv"):
        drop(inbox, name, GOOD + name)
    sensor.look()
    (request,) = sensor.look()
    assert get_keys(request) == {"acme/raw/ads/stores", "acme/raw/ads/leads"}


def test_an_unchanged_file_is_taken_once_and_its_new_version_again(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    sensor.record_run(request, dg.DagsterRunStatus.SUCCESS)
    assert sensor.look() == sensor.look() == []
    assert sensor.said == "no new file"
    drop(inbox, "jan.csv", GOOD + "2026-01-02;spring;search;1;1;1\n")
    sensor.look()
    (again,) = sensor.look()
    assert again.run_key != request.run_key


def test_an_upload_in_progress_launches_no_run_under_any_glob(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build(streams={"campaigns": {"glob": "*", "columns": COLUMNS}})
    for name in ("a.csv.filepart", "b.csv.part", "c.csv.crdownload", "~$d.xlsx"):
        drop(inbox, name)
    assert sensor.look() == sensor.look() == sensor.look() == []
    (inbox / "a.csv.filepart").rename(inbox / "a.csv")
    sensor.look()
    assert len(sensor.look()) == 1


def test_files_that_match_no_stream_are_left_alone(build: Callable[..., Sensor], inbox: Path, tmp_path: Path) -> None:
    sensor = build()
    drop(inbox, ".hidden.csv")
    drop(inbox, "archive/old.csv")
    (inbox / "link.csv").symlink_to(drop(tmp_path, "elsewhere.csv"))
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "folder.csv").mkdir()
    assert sensor.look() == sensor.look() == sensor.look() == []
    assert sensor.said == "no new file"
    drop(inbox, "control.csv")
    sensor.look()
    assert len(sensor.look()) == 1


def test_a_file_that_comes_back_unchanged_is_taken_again(build: Callable[..., Sensor], inbox: Path) -> None:
    """A file that was quarantined and released comes back like this; an old run key must not prevent its run."""
    sensor = build()
    file = drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    sensor.record_run(request, dg.DagsterRunStatus.SUCCESS)
    shutil.move(file, inbox / "away")
    sensor.look()
    shutil.move(inbox / "away", file)
    sensor.look()
    (again,) = sensor.look()
    assert again.run_key != request.run_key


def test_a_file_that_goes_and_comes_back_between_two_looks_is_taken_again(build: Callable[..., Sensor], inbox: Path) -> None:
    """A file that a run has quarantined, and that somebody has released at once, comes back like this."""
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    sensor.record_run(request, dg.DagsterRunStatus.SUCCESS)
    before = (inbox / "jan.csv").stat()
    (inbox / "quarantine").mkdir()
    shutil.move(inbox / "jan.csv", inbox / "quarantine" / "jan.csv")
    shutil.move(inbox / "quarantine" / "jan.csv", inbox / "jan.csv")
    after = (inbox / "jan.csv").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino), "it is the same version of the file"
    assert sensor.look() == []
    assert len(sensor.look()) == 1


# --- runs


def test_while_a_run_goes_on_new_files_wait_for_its_end(build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    run = sensor.record_run(request, dg.DagsterRunStatus.STARTED)
    drop(inbox, "feb.csv", GOOD + "\n")
    assert sensor.look() == sensor.look() == []
    assert "goes on; 1 new files wait" in sensor.said
    sensor.instance.report_run_failed(run)
    # It need not wait for the failed run's turn: its own run takes up both.
    assert len(sensor.look()) == 1


def test_a_failed_run_is_launched_again_ever_later_and_at_last_each_hour(build: Callable[..., Sensor], inbox: Path, clock: Clock) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    requests = sensor.look()
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        run = sensor.record_run(requests[-1], dg.DagsterRunStatus.STARTED)
        sensor.instance.report_run_failed(run)
        clock.now = datetime.now(UTC)
        clock.advance(minutes=minutes, seconds=-5)
        assert sensor.look() == []
        assert "it is launched again at" in sensor.said
        clock.advance(seconds=10)
        requests += sensor.look()
    assert [str(request.run_key).rpartition("-")[2] for request in requests] == [str(number) for number in range(1, 10)]
    assert len({request.tags["fabric/import_batch"] for request in requests}) == 1
    # Nothing is handed over twice, and when it has healed there is an end of it.
    sensor.record_run(requests[-1], dg.DagsterRunStatus.SUCCESS)
    clock.advance(days=1)
    assert sensor.look() == sensor.look() == []


def test_a_run_that_has_failed_for_years_is_still_launched_again(build: Callable[..., Sensor], inbox: Path, clock: Clock) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    sensor.instance.report_run_failed(sensor.record_run(request, dg.DagsterRunStatus.STARTED))
    cursor = json.loads(sensor.cursor or "")
    cursor["launch"]["attempt"] = 20_000
    sensor.cursor = json.dumps(cursor)
    clock.now = datetime.now(UTC) + timedelta(minutes=61)
    (again,) = sensor.look()
    assert str(again.run_key).endswith("-20001")


def test_a_run_that_somebody_has_stopped_is_not_launched_again(build: Callable[..., Sensor], inbox: Path, clock: Clock) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    sensor.record_run(request, dg.DagsterRunStatus.CANCELED)
    clock.advance(days=1)
    assert sensor.look() == sensor.look() == []


@pytest.mark.parametrize("cursor", [None, "", "{", "[]", '{"version": 9}', '{"began_at": 1, "handed": 3, "seen": "", "launch": null}'])
def test_a_lost_cursor_costs_one_more_run(build: Callable[..., Sensor], inbox: Path, cursor: str | None) -> None:
    sensor = build()
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    assert sensor.run(request).success
    sensor.cursor = cursor
    assert sensor.look() == []
    (again,) = sensor.look()
    assert again.run_key != request.run_key
    result = sensor.run(again)
    assert result.success
    (metadata,) = [event.materialization.metadata for event in result.get_asset_materialization_events() if event.asset_key.path[-1] == "campaigns"]
    assert (metadata["rows_loaded"].value, metadata["dagster/row_count"].value) == (0, 1)
    assert sensor.look() == []


def test_the_marts_follow_and_the_files_are_in_the_metadata(prepared: Settings, build: Callable[..., Sensor], inbox: Path) -> None:
    sensor = build(models=True, archive=True)
    drop(inbox, "jan.csv", GOOD + "never;spring;search;1;1;1\n")
    drop(inbox, "same.csv", GOOD + "never;spring;search;1;1;1\n", age=50)
    drop(inbox, "unclosed.csv", GOOD + '2026-01-02;"spring;search;1;1;1\n', age=40)
    sensor.look()
    (request,) = sensor.look()
    assert {"acme/raw/ads/campaigns", "acme/staging/stg_ads__campaigns"} | MARTS <= get_keys(request)
    result = sensor.run(request)
    assert result.success
    loaded = {event.asset_key.to_user_string(): event.materialization.metadata for event in result.get_asset_materialization_events()}
    assert loaded.keys() >= MARTS
    metadata = loaded["acme/raw/ads/campaigns"]
    counts = {name: metadata[f"files_{name}"].value for name in ("loaded", "duplicate", "quarantined", "failed", "replaced")}
    assert counts == {"loaded": 1, "duplicate": 1, "quarantined": 1, "failed": 0, "replaced": 0}
    table = [record.data for record in metadata["files"].records]
    assert [(row["name"], row["status"], row["rows_read"], row["rows_loaded"], row["rows_rejected"]) for row in table] == [
        ("unclosed.csv", "quarantined", 0, 0, 0),
        ("jan.csv", "loaded", 2, 1, 1),
        ("same.csv", "duplicate", 0, 0, 0),
    ]
    assert table[0]["reason"] == "unclosed_quote"
    checks = {event.check_name: event for event in result.get_asset_check_evaluations() if event.asset_key.path[-1] == "campaigns"}
    assert (checks["no_quarantined_file"].passed, checks["no_quarantined_file"].severity) == (False, dg.AssetCheckSeverity.WARN)
    assert checks["reject_share"].passed
    assert sensor.look() == []


def test_a_file_that_could_not_be_read_gets_a_run_when_it_is_due_again(
    build: Callable[..., Sensor], inbox: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = build()
    drop(inbox, "jan.csv")

    def fail(self: FolderInbox, name: str) -> Any:
        raise OSError(5, "Input/output error")

    sensor.look()
    (request,) = sensor.look()
    with monkeypatch.context() as broken:
        broken.setattr(FolderInbox, "_open", fail)
        result = sensor.run(request)
    assert result.success
    (metadata,) = [event.materialization.metadata for event in result.get_asset_materialization_events() if event.asset_key.path[-1] == "campaigns"]
    assert metadata["files_failed"].value == 1
    due = datetime.fromisoformat(str(metadata["next_attempt_at"].value))
    assert timedelta(seconds=30) < due - clock.now < timedelta(minutes=2)
    # A load of another file meanwhile does not let it be forgotten.
    drop(inbox, "feb.csv", GOOD + "2026-02-01;spring;search;1;1;1\n")
    sensor.look()
    (other,) = sensor.look()
    assert sensor.run(other).success
    assert sensor.look() == []
    clock.now = due + timedelta(seconds=1)
    (again,) = sensor.look()
    assert get_keys(again) == get_keys(request)
    sensor.record_run(again, dg.DagsterRunStatus.SUCCESS)
    assert sensor.look() == [], "one run for each time that it is due"


# --- files that are expected


def test_a_missing_file_is_reported_once_at_each_moment_that_one_was_due(build: Callable[..., Sensor], inbox: Path, clock: Clock) -> None:
    sensor = build(streams={"campaigns": {"glob": "*.csv", "columns": COLUMNS, "expect": {"every": "1d", "by": "08:00"}}})
    clock.now = datetime.now(UTC)
    drop(inbox, "jan.csv")
    sensor.look()
    (request,) = sensor.look()
    assert sensor.run(request).success
    assert sensor.look() == []
    clock.advance(days=2, hours=1)
    (check,) = sensor.look()
    assert check.asset_selection == []
    assert check.asset_check_keys == [dg.AssetCheckKey(dg.AssetKey(["acme", "raw", "ads", "campaigns"]), "expected_files")]
    assert sensor.look() == sensor.look() == []
    clock.advance(days=1)
    (again,) = sensor.look()
    assert again.run_key != check.run_key
    result = sensor.run(again)
    assert result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.check_name == "expected_files"
    assert not result.get_asset_materialization_events()


def test_if_no_file_has_come_yet_the_first_is_due_counted_from_the_first_look(build: Callable[..., Sensor], clock: Clock) -> None:
    sensor = build(streams={"campaigns": {"glob": "*.csv", "columns": COLUMNS, "expect": {"every": "6h"}}})
    assert sensor.look() == []
    clock.advance(hours=5)
    assert sensor.look() == []
    clock.advance(hours=2)
    (check,) = sensor.look()
    (evaluation,) = sensor.run(check).get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.metadata["message"].value) == (False, "no file has come yet")


# --- many files, and inboxes out of reach


def test_thousands_of_files_are_one_small_cursor_and_none_is_opened(build: Callable[..., Sensor], inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = build()
    for number in range(3_000):
        (inbox / f"{number}.csv").touch()
    opened, requests = list[str](), list[dg.RunRequest]()
    monkeypatch.setattr(FolderInbox, "_open", lambda self, name: opened.append(name))
    for _ in range(2):
        requests = sensor.look()
    assert len(requests) == 1
    assert opened == []
    assert sensor.cursor and len(sensor.cursor) < 3_000 * 12
    assert len(json.loads(sensor.cursor)["handed"]) == 3_000 * 11


def test_an_inbox_out_of_reach_says_so_and_others_go_on(
    settings: Settings, write_tenant: Callable[..., Path], instance: dg.DagsterInstance, inbox: Path, tmp_path: Path
) -> None:
    write_tenant("acme", get_ads())
    write_tenant("globex", get_ads(path=str(tmp_path / "share")))
    definitions = build_definitions(settings)
    other = Sensor(definitions, instance)
    context = dg.build_sensor_context(instance, definitions=definitions, sensor_name="globex__ads__inbox")
    with pytest.raises(dg.Failure) as caught:
        definitions.resolve_sensor_def("globex__ads__inbox").evaluate_tick(context)
    told = str(caught.value.description)
    assert "tenant globex, source ads" in told and "does not exist" in told and "create or mount it" in told
    drop(inbox, "jan.csv")
    other.look()
    assert len(other.look()) == 1


def test_a_sensor_waits_on_a_developers_machine_and_runs_when_deployed(build: Callable[..., Sensor], monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = build().definition
    assert (sensor.default_status, sensor.minimum_interval_seconds) == (dg.DefaultSensorStatus.RUNNING, 30)
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    assert build().definition.default_status == dg.DefaultSensorStatus.STOPPED
