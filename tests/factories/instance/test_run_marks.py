"""Marks of runs: whose process lives, whose has died, and whose are another instance's."""

import os
import time

import dagster as dg
import pytest

from fabric_assets import naming
from fabric_assets.factories.instance.run_marks import end_dead_runs, mark_run
from fabric_assets.settings import Settings


@dg.job
def idle() -> None: ...


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def test_a_run_whose_process_is_gone_is_ended_and_a_live_one_is_not(settings: Settings, instance: dg.DagsterInstance) -> None:
    live, dead = (instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED) for _ in range(2))
    with mark_run(live.run_id, settings):
        (naming.run_marks_dir(settings.data_dir) / dead.run_id).touch()
        assert [run.run_id for run in end_dead_runs(instance, settings)] == [dead.run_id]
        assert end_dead_runs(instance, settings) == []
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses == {live.run_id: dg.DagsterRunStatus.STARTED, dead.run_id: dg.DagsterRunStatus.FAILURE}


def test_another_instances_runs_keep_their_marks(settings: Settings, instance: dg.DagsterInstance) -> None:
    other = dg.DagsterInstance.ephemeral().create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED)
    with mark_run("made", settings):
        mark = naming.run_marks_dir(settings.data_dir) / other.run_id
        mark.touch()
    assert end_dead_runs(instance, settings) == []
    assert mark.exists()
    # After a month it is taken for one whose run was never recorded.
    os.utime(mark, (time.time() - 31 * 86_400,) * 2)
    assert end_dead_runs(instance, settings) == []
    assert not mark.exists()


def test_a_run_that_raises_keeps_its_mark(settings: Settings, instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED)
    with pytest.raises(OSError, match="lost"), mark_run(run.run_id, settings):
        raise OSError("lost")
    assert [ended.run_id for ended in end_dead_runs(instance, settings)] == [run.run_id]
