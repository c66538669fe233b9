import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import AssetKeyTable, SqliteEventLogStorage
from dagster._core.storage.sql import check_alembic_revision, get_alembic_config
from dagster_shared.serdes import deserialize_value, serialize_value

from fabric_assets.factories.instance import event_log
from fabric_assets.factories.instance.event_log import KeptEventLog
from fabric_assets.factories.instance.opening import get_instance
from fabric_assets.settings import Settings
from tests.faults.processes import wait_until

_MANY = 25
PROGRAM = """
import os, signal
import dagster as dg
from fabric_assets.factories.instance.opening import get_instance
from fabric_assets.settings import load_settings

@dg.asset
def orders(context):
    print(context.run_id, flush=True)
    yield dg.MaterializeResult(metadata={"rows": 3})

@dg.asset(deps=[orders])
def killed():
    os.kill(os.getpid(), signal.SIGKILL)

with get_instance(load_settings()) as instance:
    dg.materialize([orders, killed], instance=instance)
"""


OPENING = """
import sys, time
from pathlib import Path
import dagster as dg
from fabric_assets.factories.instance.opening import get_instance
from fabric_assets.settings import load_settings

settings = load_settings()
Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
with get_instance(settings) as instance:
    instance.get_runs()
"""


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = settings.data_dir / "dagster"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@dg.asset
def orders() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


def test_processes_that_are_the_first_together_all_open_it(home: Path, tmp_path: Path) -> None:
    # Without the lock nearly every round of four fails.
    marks, go = [tmp_path / f"ready {number}" for number in range(4)], tmp_path / "go"
    begun = [subprocess.Popen([sys.executable, "-c", OPENING, str(mark), str(go)], stderr=subprocess.PIPE) for mark in marks]
    try:
        wait_until(lambda: all(mark.exists() for mark in marks), 120)
        go.touch()
        said = [process.communicate()[1].decode() for process in begun]
    finally:
        for process in begun:
            process.kill()
    assert [process.returncode for process in begun] == [0] * 4, "\n".join(said)


def test_dagsters_own_event_log_reads_what_ours_has_written(settings: Settings, home: Path) -> None:
    with get_instance(settings) as instance:
        assert isinstance(instance.event_log_storage, KeptEventLog)
        runs = [dg.materialize([orders], instance=instance).run_id for _ in range(2)]
        seen = instance.all_logs(runs[0])

    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        assert [entry.message for entry in instance.all_logs(runs[0])] == [entry.message for entry in seen]
        assert any(entry.dagster_event_type == dg.DagsterEventType.RUN_SUCCESS for entry in instance.all_logs(runs[1]))
        assert instance.get_latest_materialization_event(orders.key).run_id == runs[1]


def test_a_runs_file_is_at_the_version_that_dagster_expects(settings: Settings, home: Path) -> None:
    with get_instance(settings) as instance:
        run_id = dg.materialize([orders], instance=instance).run_id

    with dg.DagsterInstance.from_config(str(home)) as instance:
        storage = instance.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        with storage.run_connection(run_id) as connection:
            found, newest = check_alembic_revision(get_alembic_config(sys.modules[SqliteEventLogStorage.__module__].__file__), connection)
        assert found == newest is not None


@pytest.mark.parametrize("left", ["drop table alembic_version", "delete from alembic_version"])
def test_a_half_created_file_is_completed(settings: Settings, home: Path, left: str) -> None:
    with get_instance(settings) as instance:
        folder = Path(instance.event_log_storage._base_dir)
    run_id = "00000000-0000-4000-8000-000000000001"
    with closing(sqlite3.connect(folder / f"{run_id}.db")) as connection, connection:
        connection.execute("create table unrelated (id integer)")
    with closing(sqlite3.connect(folder / "index.db")) as connection, connection:
        connection.execute(left)

    with get_instance(settings) as instance:
        job = dg.Definitions(assets=[orders]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, run_id=run_id).success
        assert instance.get_latest_materialization_event(orders.key).run_id == run_id
    for name in ("index", run_id):
        with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
            assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)


def test_events_outlive_the_process_that_wrote_them(settings: Settings, home: Path) -> None:
    environ = os.environ | {"FABRIC_TENANTS_DIR": str(settings.tenants_dir), "FABRIC_DATA_DIR": str(settings.data_dir), "DAGSTER_HOME": str(home)}
    killed = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_latest_materialization_event(orders.key)
        assert found is not None
        assert found.run_id == killed.stdout.strip()
        assert any(entry.dagster_event_type == dg.DagsterEventType.STEP_START for entry in instance.all_logs(found.run_id))


def test_gathered_events_are_stored_as_dagster_stores_them(settings: Settings, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than are gathered at a time, and twice: an asset's row is made by the first run and changed by the second.
    monkeypatch.setattr(event_log, "_GATHERED_EVENTS", 10)
    many = dg.multi_asset(name="many", specs=[dg.AssetSpec(f"asset{number}") for number in range(_MANY)])(give_many)
    theirs = dg.DagsterInstance.ephemeral(str(tmp_path))
    with get_instance(settings) as ours, theirs:
        for instance in (ours, theirs):
            for _ in range(2):
                dg.materialize([many], instance=instance)
            kinds = Counter(entry.dagster_event_type for entry in instance.all_logs(get_last(instance)))
            assert kinds[dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED] == _MANY
            assert kinds[dg.DagsterEventType.STEP_OUTPUT] == kinds[dg.DagsterEventType.ASSET_MATERIALIZATION] == _MANY
        assert [describe(entry) for entry in ours.all_logs(run_id=get_last(ours))] == [describe(entry) for entry in theirs.all_logs(run_id=get_last(theirs))]

    with dg.DagsterInstance.from_config(str(home)) as instance:
        for record in instance.get_asset_records([dg.AssetKey(f"asset{number}") for number in range(_MANY)]):
            latest, (event,) = record.asset_entry.last_materialization_record, instance.fetch_materializations(record.asset_entry.asset_key, limit=1).records
            assert latest == event
            assert record.asset_entry.last_run_id == latest.run_id == get_last(instance)
        storage = instance.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        with storage.index_connection() as index:
            texts = [text for (text,) in index.execute(AssetKeyTable.select().with_only_columns(AssetKeyTable.c.last_materialization))]
        assert len(texts) == _MANY
        assert all(text == serialize_value(deserialize_value(text, dg.EventLogRecord)) for text in texts), "spelt otherwise than by Dagster"


def test_a_plan_without_a_materialisation_keeps_the_last_one(settings: Settings, home: Path) -> None:
    fails = iter([False, True])

    @dg.asset
    def orders() -> dg.MaterializeResult:
        if next(fails):
            raise ValueError("no orders")
        return dg.MaterializeResult(metadata={"rows": 3})

    with get_instance(settings) as instance:
        runs = [dg.materialize([orders], instance=instance, raise_on_error=False).run_id for _ in range(2)]
        (record,) = instance.get_asset_records([dg.AssetKey("orders")])
        assert record.asset_entry.last_materialization_record
        assert [record.asset_entry.last_materialization_record.run_id, record.asset_entry.last_run_id] == runs


def test_another_process_sees_a_gathered_event_while_its_step_goes_on(settings: Settings, home: Path) -> None:
    @dg.multi_asset(specs=[dg.AssetSpec("first"), dg.AssetSpec("second")])
    def slow() -> Iterator[dg.MaterializeResult]:
        yield dg.MaterializeResult(asset_key="first")
        with dg.DagsterInstance.from_config(str(home)) as other:
            wait_until(lambda: other.get_latest_materialization_event(dg.AssetKey("first")) is not None, 30)
        yield dg.MaterializeResult(asset_key="second")

    with get_instance(settings) as instance:
        assert dg.materialize([slow], instance=instance).success


def test_events_that_cannot_be_stored_at_once_are_stored_later_and_once(settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_BUSY_SECONDS", 0.1)

    @dg.multi_asset(specs=[dg.AssetSpec("first"), dg.AssetSpec("second")])
    def held_up() -> Iterator[dg.MaterializeResult]:
        with closing(sqlite3.connect(home / "history" / "runs" / "index.db", isolation_level=None)) as other:
            other.execute("begin immediate")
            yield dg.MaterializeResult(asset_key="first")
            time.sleep(1)
        yield dg.MaterializeResult(asset_key="second")

    with get_instance(settings) as instance:
        assert dg.materialize([held_up], instance=instance).success
        for key in ("first", "second"):
            assert len(instance.fetch_materializations(dg.AssetKey(key), limit=10).records) == 1


def give_many() -> Iterator[dg.MaterializeResult]:
    for number in range(_MANY):
        yield dg.MaterializeResult(asset_key=f"asset{number}", metadata={"rows": number, "note": 'a "quoted" word, and é'})


def get_last(instance: dg.DagsterInstance) -> str:
    return instance.get_runs(limit=1)[0].run_id


def describe(entry: dg.EventLogEntry) -> tuple[object, ...]:
    event = entry.dagster_event
    return entry.level, event and (event.event_type, event.step_key, event.asset_key, event.partition)


def test_another_storage_is_left_as_it_is(settings: Settings, home: Path) -> None:
    (home / "dagster.yaml").write_text(
        "event_log_storage:\n  module: dagster._core.storage.event_log\n  class: ConsolidatedSqliteEventLogStorage\n"
        f"  config:\n    base_dir: {home}/events\ntelemetry:\n  enabled: false\n"
    )
    with get_instance(settings) as instance:
        assert type(instance.event_log_storage).__name__ == "ConsolidatedSqliteEventLogStorage"
