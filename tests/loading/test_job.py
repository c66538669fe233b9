"""The thread that waits for a load's workers: it ends in time, and lets no late worker commit."""

import threading
import time

import pytest

from fabric_assets.errors import SourceUnavailable
from fabric_assets.loading.job import Job, LoadAbandoned
from fabric_assets.rows.reports import StreamFailure


def test_a_call_that_never_returns_ends_with_the_loads_time() -> None:
    job, never = Job("tenant acme, source shop", 0.2), threading.Event()
    with pytest.raises(SourceUnavailable, match=r"tenant acme, source shop: the load took longer than its timeout of 0\.2 s"):
        job.call(never.wait)
    never.set()


def test_a_call_gives_its_value_or_raises_its_error() -> None:
    job = Job("acme", 10)
    assert job.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        job.call(lambda: 1 // 0)


def test_no_commit_begins_once_the_time_is_up() -> None:
    job, committed = Job("acme", 0.05), list[str]()
    assert job.wait(committed.append) is None
    with pytest.raises(LoadAbandoned):
        job.commit(lambda: committed.append("rows"), [StreamFailure("orders", SourceUnavailable("late"))])
    assert committed == []


def test_a_commit_under_way_when_the_time_is_up_is_waited_for() -> None:
    job, said, outcome = Job("acme", 0.2), list[str](), StreamFailure("orders", SourceUnavailable("any outcome"))
    begun, go_on = threading.Event(), threading.Event()

    def commit() -> None:
        begun.set()
        go_on.wait(10)

    def work() -> None:
        job.report("committing")
        job.commit(commit, [outcome])

    threading.Thread(target=work, daemon=True).start()
    begun.wait(10)
    threading.Timer(0.6, go_on.set).start()
    started = time.monotonic()
    assert job.wait(said.append) is outcome
    assert said == ["committing"]
    assert time.monotonic() - started > 0.5, "it had committed before the time was up: nothing was tried"
    assert job.wait(said.append) is None, "it waits on although nothing is being committed"


def test_an_outcome_between_the_deadline_and_the_last_check_is_not_lost() -> None:
    job, outcome, answers = Job("acme", 0.0), StreamFailure("orders", SourceUnavailable("any outcome")), list[object]()
    with job._lock:
        waiting = threading.Thread(target=lambda: answers.append(job.wait(print)), daemon=True)
        waiting.start()
        time.sleep(0.3)  # the time is up, and it waits for the lock
        job.finish(outcome)
    waiting.join(10)
    assert answers == [outcome]
