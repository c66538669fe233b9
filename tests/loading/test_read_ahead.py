"""Reading goes on while what was read is written, but never far ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from fabric_assets.loading.read_ahead import ReadAhead


def test_items_arrive_in_order_and_then_the_error() -> None:
    def read() -> Iterator[int]:
        yield from range(100)
        raise ValueError("the source broke off")

    taken = []
    ahead = ReadAhead(read())
    with pytest.raises(ValueError, match="the source broke off"):
        for item in ahead:
            taken.append(item)
    assert taken == list(range(100))


def test_a_slow_writer_holds_up_the_reader() -> None:
    made = []

    def read() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = ReadAhead(read())
    first = next(iter(ahead))
    time.sleep(0.3)
    assert first == 0
    assert 2 <= len(made) <= 4, "it read nothing ahead, or without bound"
    ahead.close()


def test_small_items_are_read_in_the_consumers_thread_and_the_first_large_one_starts_a_thread() -> None:
    readers = []

    def read() -> Iterator[int]:
        for number in [1, 2, 3, 100, 4, 5]:
            readers.append(threading.get_ident())
            yield number

    ahead = ReadAhead(read(), is_small=lambda number: number < 10)
    assert list(ahead) == [1, 2, 3, 100, 4, 5]
    ahead.close()
    assert readers[:4] == [threading.get_ident()] * 4
    assert len({*readers[4:]}) == 1 and readers[4] != threading.get_ident()


@pytest.mark.parametrize("is_small", [True, False])
def test_closing_it_closes_the_generator_before_its_end(is_small: bool) -> None:
    closed = []

    def read() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(threading.get_ident())

    ahead = ReadAhead(read(), is_small=lambda number: is_small)
    next(iter(ahead))
    ahead.close()
    assert len(closed) == 1
    assert (closed[0] == threading.get_ident()) == is_small, "a generator that another thread may be in cannot be closed here"


def test_waiting_for_a_reader_that_is_blocked_ends_when_the_check_says_so() -> None:
    never = threading.Event()

    def read() -> Iterator[int]:
        yield 1
        never.wait(30)
        yield 2

    def check() -> None:
        raise TimeoutError("the load's time is up")

    with pytest.raises(TimeoutError, match="time is up"):
        list(ReadAhead(read(), check))
    never.set()
