"""A generator -> the same items, produced in a thread of its own a few items ahead of the consumer, so that reading and writing overlap.

Small items are produced in the consumer's thread: for a table of a thousand rows a thread and its queue cost more than they save.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

# Batches of some 16 MB that may wait, besides the one being read and the one being written.
_DEPTH = 2
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


class _End:
    """The last entry of the queue.

    Args:
        error: what the generator raised; None if it came to its end.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class ReadAhead(Generic[T]):
    """A generator that is read ahead. Iterate over it once, in one thread; then close it.

    Args:
        items: a generator.
        check: called now and then while the queue is empty; what it raises ends the waiting, even if the generator is blocked.
        is_small: whether an item needs no thread. The first item that is not small starts the thread, which produces all items after it.
    """

    def __init__(self, items: Iterator[T], check: Callable[[], None] = lambda: None, *, is_small: Callable[[T], bool] = lambda item: False) -> None:
        self._items, self._check, self._is_small = items, check, is_small
        self._queue: Queue[T | _End] = Queue(_DEPTH)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[T]:
        for item in self._items:
            if not self._is_small(item):
                self._thread = threading.Thread(target=self._work, daemon=True, name=f"{threading.current_thread().name}, reading")
                self._thread.start()
                yield item
                yield from self._read_queue()
                return
            yield item

    def _read_queue(self) -> Iterator[T]:
        while True:
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except Empty:
                self._check()
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def close(self) -> None:
        """Close the generator, in the thread that runs it. A thread that is blocked is left behind."""
        self._closed.set()
        if self._thread is None:
            self._items.close()  # type: ignore[attr-defined]
        else:
            self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            with contextlib.closing(self._items):  # type: ignore[type-var]
                for item in self._items:
                    if not self._put(item):
                        return
            self._put(_End())
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        """Queue an item; return False if the consumer has closed."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue
            return True
        return False
