"""A generator -> the same items, made by a thread of its own a few ahead of whoever takes them: reading and writing overlap."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

# A source is read in batches of some 16 MB: so many of them wait at most, beside the one being made and the one being written.
_DEPTH = 2
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


class _End:
    """Args:
    error: what the generator raised; None if it came to its end.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class ReadAhead(Generic[T]):
    """Iterate it once, in one thread; then close it.

    Args:
        items: a generator.
        check: called now and then while there is nothing to take; what it raises ends the waiting, whatever blocks the generator.
    """

    def __init__(self, items: Iterator[T], check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._queue: Queue[T | _End] = Queue(_DEPTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), daemon=True, name=f"{threading.current_thread().name}, reading")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
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
        """Have the generator closed by its own thread; one that is blocked is left behind."""
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def _work(self, items: Iterator[T]) -> None:
        try:
            with contextlib.closing(items):  # type: ignore[type-var]
                for item in items:
                    if not self._put(item):
                        return
            self._put(_End())
        except BaseException as error:  # noqa: BLE001 - raised again where the items are taken
            self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        """Whether somebody still wants it."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue
            return True
        return False
