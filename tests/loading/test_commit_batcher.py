"""Items that threads add while a batch is handled become the next batch, which one of these threads handles."""

import threading
from collections.abc import Sequence

import pytest

from fabric_assets.loading.commit_batcher import _MOST, CommitBatcher
from fabric_assets.loading.job import LoadAbandoned


class Handler:
    """A handler of batches that waits for `go_on`, and notes each batch."""

    def __init__(self) -> None:
        self.handled: list[list[int]] = []
        self.begun, self.go_on, self.is_over = threading.Event(), threading.Event(), False
        self.batcher = CommitBatcher[int](self._handle, self._check)

    def add_in_thread(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self.batcher.add, args=(number,), daemon=True)
        thread.start()
        return thread

    def _handle(self, numbers: Sequence[int]) -> None:
        self.begun.set()
        assert self.go_on.wait(10)
        self.handled.append(sorted(numbers))

    def _check(self) -> None:
        if self.is_over:
            raise LoadAbandoned


def test_a_single_item_is_handled_by_the_thread_that_adds_it() -> None:
    handler = Handler()
    handler.go_on.set()
    for number in range(3):
        handler.batcher.add(number)
    assert handler.handled == [[0], [1], [2]]


def test_items_added_meanwhile_are_one_batch_and_their_threads_go_on() -> None:
    handler = Handler()
    first = handler.add_in_thread(0)
    assert handler.begun.wait(10)
    for number in range(1, 6):
        handler.batcher.add(number)  # returns at once: this thread has other things to do
    assert handler.handled == []
    handler.go_on.set()
    first.join(10)
    assert handler.handled == [[0], [1, 2, 3, 4, 5]]


def test_a_thread_that_adds_to_a_full_queue_waits_until_a_batch_is_taken() -> None:
    handler = Handler()
    first = handler.add_in_thread(0)
    assert handler.begun.wait(10)
    for number in range(_MOST):
        handler.batcher.add(number)
    late = handler.add_in_thread(99)
    late.join(0.3)
    assert late.is_alive()
    handler.go_on.set()
    late.join(10)
    first.join(10)
    assert [len(numbers) for numbers in handler.handled] == [1, _MOST, 1]


def test_a_waiting_thread_is_released_when_the_load_is_over() -> None:
    handler = Handler()
    handler.add_in_thread(0)
    assert handler.begun.wait(10)
    for number in range(_MOST):
        handler.batcher.add(number)
    handler.is_over = True
    with pytest.raises(LoadAbandoned):
        handler.batcher.add(99)
    handler.go_on.set()


def test_nothing_is_lost_or_handled_twice_by_many_threads() -> None:
    handled: list[int] = []
    batcher = CommitBatcher[int](handled.extend, lambda: None)

    def work(first: int) -> None:
        for number in range(first, first + 500):
            batcher.add(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 4_000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(handled) == list(range(4_000))
