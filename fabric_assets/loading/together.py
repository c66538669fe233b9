"""What several threads bring one by one -> handled by one of them at a time, together with all that has come meanwhile."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# So many wait at most: whoever brings more waits until they are taken.
_MOST = 16
_POLL_SECONDS = 0.1


class Together(Generic[T]):
    """Args:
    handle: takes what has come; must not raise but to end the work as a whole.
    check: called now and then while there is too much; what it raises ends the waiting.
    """

    def __init__(self, handle: Callable[[Sequence[T]], None], check: Callable[[], None]) -> None:
        self._handle, self._check = handle, check
        self._items: list[T] = []
        self._is_busy, self._changed = False, threading.Condition()

    def add(self, item: T) -> None:
        """Bring an item, and handle what is there if nobody else does."""
        with self._changed:
            while len(self._items) >= _MOST:
                self._changed.wait(_POLL_SECONDS)
                self._check()
            self._items.append(item)
            if self._is_busy:
                return
            self._is_busy = True
        while items := self._take():
            self._handle(items)

    def _take(self) -> list[T]:
        with self._changed:
            items, self._items = self._items, []
            self._is_busy = bool(items)
            self._changed.notify_all()
        return items
