import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sql import check_alembic_revision, get_alembic_config

from fabric_assets.factories.event_log import KeptEventLog
from fabric_assets.factories.instance import get_instance
from fabric_assets.settings import Settings
from tests.faults.processes import wait_until

PROGRAM = """
import os, signal
import dagster as dg
from fabric_assets.factories.instance import get_instance
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
from fabric_assets.factories.instance import get_instance
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


def test_events_outlive_the_process_that_wrote_them(settings: Settings, home: Path) -> None:
    environ = os.environ | {"FABRIC_TENANTS_DIR": str(settings.tenants_dir), "FABRIC_DATA_DIR": str(settings.data_dir), "DAGSTER_HOME": str(home)}
    killed = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_latest_materialization_event(orders.key)
        assert found is not None
        assert found.run_id == killed.stdout.strip()
        assert any(entry.dagster_event_type == dg.DagsterEventType.STEP_START for entry in instance.all_logs(found.run_id))


def test_another_storage_is_left_as_it_is(settings: Settings, home: Path) -> None:
    (home / "dagster.yaml").write_text(
        "event_log_storage:\n  module: dagster._core.storage.event_log\n  class: ConsolidatedSqliteEventLogStorage\n"
        f"  config:\n    base_dir: {home}/events\ntelemetry:\n  enabled: false\n"
    )
    with get_instance(settings) as instance:
        assert type(instance.event_log_storage).__name__ == "ConsolidatedSqliteEventLogStorage"
