"""Reading goes on while what was read is written, but never far ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from fabric_assets.loading.read_ahead import ReadAhead


def test_the_items_come_in_their_order_and_then_the_error() -> None:
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


def test_closing_it_closes_the_generator_in_its_own_thread() -> None:
    threads = []

    def read() -> Iterator[int]:
        threads.append(threading.get_ident())
        try:
            yield from range(1_000_000)
        finally:
            threads.append(threading.get_ident())

    ahead = ReadAhead(read())
    next(iter(ahead))
    ahead.close()
    assert len(threads) == 2 and len(set(threads)) == 1, "a driver's connection may only be closed where it was opened"
    assert threads[0] != threading.get_ident()


def test_waiting_for_a_reader_that_is_blocked_ends_when_the_check_says_so() -> None:
    never = threading.Event()

    def read() -> Iterator[int]:
        never.wait(30)
        yield 1

    def check() -> None:
        raise TimeoutError("the load's time is up")

    with pytest.raises(TimeoutError, match="time is up"):
        next(iter(ReadAhead(read(), check)))
    never.set()
