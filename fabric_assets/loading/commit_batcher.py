"""Items that several threads add one by one -> batches, each handled by one of these threads with everything added meanwhile."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# The longest queue: a thread that adds more waits until a batch is taken from it.
_MOST = 16
_POLL_SECONDS = 0.1


class CommitBatcher(Generic[T]):
    """A queue of what is ready to be committed. The thread that finds nobody at work commits all of it at once.

    Args:
        handle: commits a batch; raises only to end the load as a whole.
        check: called now and then while the queue is full; what it raises ends the waiting.
    """

    def __init__(self, handle: Callable[[Sequence[T]], None], check: Callable[[], None]) -> None:
        self._handle, self._check = handle, check
        self._items: list[T] = []
        self._is_busy, self._changed = False, threading.Condition()

    def add(self, item: T) -> None:
        """Add an item. If no other thread is at work, handle all items until none is left."""
        with self._changed:
            while len(self._items) >= _MOST:
                self._changed.wait(_POLL_SECONDS)
                self._check()
            self._items.append(item)
            if self._is_busy:
                return
            self._is_busy = True
        while items := self._next_batch():
            self._handle(items)

    def _next_batch(self) -> list[T]:
        with self._changed:
            items, self._items = self._items, []
            self._is_busy = bool(items)
            self._changed.notify_all()
        return items
