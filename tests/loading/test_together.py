"""What threads bring while something else is handled: it is handled at once, by one of them."""

import threading
from collections.abc import Sequence

import pytest

from fabric_assets.loading.job import LoadAbandoned
from fabric_assets.loading.together import _MOST, Together


class Handler:
    """Handles what it is given once it is let go."""

    def __init__(self) -> None:
        self.handled: list[list[int]] = []
        self.begun, self.go_on, self.is_over = threading.Event(), threading.Event(), False
        self.together = Together[int](self._handle, self._check)

    def bring(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self.together.add, args=(number,), daemon=True)
        thread.start()
        return thread

    def _handle(self, numbers: Sequence[int]) -> None:
        self.begun.set()
        assert self.go_on.wait(10)
        self.handled.append(sorted(numbers))

    def _check(self) -> None:
        if self.is_over:
            raise LoadAbandoned


def test_what_comes_by_itself_is_handled_by_whoever_brings_it() -> None:
    handler = Handler()
    handler.go_on.set()
    for number in range(3):
        handler.together.add(number)
    assert handler.handled == [[0], [1], [2]]


def test_what_comes_meanwhile_is_handled_together_and_its_bringers_go_on() -> None:
    handler = Handler()
    first = handler.bring(0)
    assert handler.begun.wait(10)
    for number in range(1, 6):
        handler.together.add(number)  # returns at once: this thread has other things to do
    assert handler.handled == []
    handler.go_on.set()
    first.join(10)
    assert handler.handled == [[0], [1, 2, 3, 4, 5]]


def test_who_brings_too_much_waits_until_it_is_taken() -> None:
    handler = Handler()
    first = handler.bring(0)
    assert handler.begun.wait(10)
    for number in range(_MOST):
        handler.together.add(number)
    late = handler.bring(99)
    late.join(0.3)
    assert late.is_alive()
    handler.go_on.set()
    late.join(10)
    first.join(10)
    assert [len(numbers) for numbers in handler.handled] == [1, _MOST, 1]


def test_who_waits_is_let_go_when_the_work_is_over() -> None:
    handler = Handler()
    handler.bring(0)
    assert handler.begun.wait(10)
    for number in range(_MOST):
        handler.together.add(number)
    handler.is_over = True
    with pytest.raises(LoadAbandoned):
        handler.together.add(99)
    handler.go_on.set()


def test_nothing_is_lost_or_handled_twice_by_many_threads() -> None:
    handled: list[int] = []
    together = Together[int](handled.extend, lambda: None)

    def work(first: int) -> None:
        for number in range(first, first + 500):
            together.add(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 4_000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(handled) == list(range(4_000))
