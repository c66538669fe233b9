"""The daemon and a code server as they are deployed: a file that is dropped while they run is in the marts some seconds later."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from fabric_assets import naming
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.factories.inbox.test_sensors import get_ads
from tests.faults.processes import heeding_interrupts, stop_group

SPEND = "Date;Campaign;Channel;Spend;Clicks;Conversions\n2026-01-01;spring;search;1.50;3;1\n2026-01-01;spring;social;2.50;1;0\nnever;x;y;1;1;1\n"


@pytest.fixture
def home(prepared: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]) -> Iterator[Path]:
    """The DAGSTER_HOME of a daemon that runs, and serves the tenant."""
    write_tenant("acme", get_ads(models=True, archive=True))
    home = naming.dagster_home(prepared.data_dir)
    home.mkdir(parents=True)
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    # Its files are made before there are two that would make them: Dagster then lets one fail.
    dg.DagsterInstance.from_config(str(home)).dispose()
    with (home / "log").open("w") as log, heeding_interrupts():
        daemon = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", "tests.factories.inbox.quick_inbox", "-d", str(ROOT)],
            env={**os.environ, **settings_environ, "DAGSTER_HOME": str(home)},
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield home
    stop_group(daemon)


def wait_for(happened: Callable[[], Any], home: Path, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s:\n{(home / 'log').read_text()[-6000:]}"
        time.sleep(0.5)
    return value


@pytest.mark.timeout(600)
def test_a_file_dropped_while_the_daemon_runs_is_in_the_marts(home: Path, prepared: Settings) -> None:
    inbox = prepared.data_dir / "inbox" / "acme"
    with dg.DagsterInstance.from_config(str(home)) as instance:

        def count_runs() -> int:
            runs = instance.get_runs()
            for run in runs:
                assert not run.is_failure, "\n".join(str(entry.dagster_event) for entry in instance.all_logs(run.run_id))[-6000:]
            return sum(run.is_success for run in runs)

        # The first look makes the folder.
        wait_for(inbox.is_dir, home)
        (inbox / "jan.csv").write_text(SPEND)
        wait_for(lambda: count_runs() == 1, home)
        assert read_spend(prepared) == [("2026-01-01", 4.0)]
        assert [run.tags["tenant"] for run in instance.get_runs()] == ["acme"]
    assert [path.name.partition(".")[0] for path in (inbox / "archive").iterdir()] == ["jan"]


def read_spend(settings: Settings) -> list[tuple[str, float]]:
    with contextlib.closing(duckdb.connect(str(naming.warehouse_file(settings.data_dir, "acme")), read_only=True)) as connection:
        return connection.execute("select cast(spend_date as text), cast(spend as double) from acme_marts.ad_spend_by_day").fetchall()
