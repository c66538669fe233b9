"""Threads that read and write, and the one that waits for them -> outcomes, until the load's time is up.

A thread that is blocked in a dead socket cannot be ended from outside. So daemon threads do the work, and the caller's thread only
waits: when the time is up, it reports that and leaves them behind. They hold an open transaction, which ends with its connection,
and they must ask the job before they commit.
"""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from fabric_assets.errors import FabricError, SourceUnavailable
from fabric_assets.rows.reports import StreamFailure, StreamReport

Outcome = StreamReport | StreamFailure
T = TypeVar("T")

# The load waits for a commit that has begun when the time is up: otherwise nobody would know whether the rows are there.
_COMMIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


class LoadAbandoned(Exception):
    """Raised in a worker whose load is over: its time is up, or the run was stopped."""


class Job:
    """What the threads of one load share.

    Args:
        seconds: the longest time that the load may take.
        where: tenant and source, for messages.
    """

    def __init__(self, where: str, seconds: float) -> None:
        self.where, self._seconds = where, seconds
        self._ends = time.monotonic() + seconds
        self._messages: SimpleQueue[Outcome | str] = SimpleQueue()
        self._lock, self._over, self._committing = threading.Lock(), False, 0

    @property
    def is_over(self) -> bool:
        """Whether the load's time is up, or it was stopped."""
        return self._over

    def report(self, message: str) -> None:
        self._messages.put(message)

    def finish(self, outcome: Outcome) -> None:
        self._messages.put(outcome)

    def check(self) -> None:
        """Raise LoadAbandoned if the load is over."""
        if self._over:
            raise LoadAbandoned

    def commit(self, commit: Callable[[], None], outcomes: Sequence[Outcome]) -> None:
        """Run a commit and pass on its outcomes, unless the load is over."""
        with self._lock:
            self.check()
            self._committing += 1
        try:
            commit()
            for outcome in outcomes:
                self._messages.put(outcome)
        finally:
            with self._lock:
                self._committing -= 1

    def call(self, function: Callable[[], T], *, grace: float = 0.0) -> T:
        """Run a call that may never return.

        Args:
            grace: seconds that the call gets even if the load's time is up.

        Raises:
            SourceUnavailable: the load's time was up before the call returned.
        """
        answers: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                answers.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                answers.put((None, error))

        threading.Thread(target=work, daemon=True, name=f"{self.where}: call").start()
        try:
            value, error = answers.get(timeout=max(self._ends - time.monotonic(), grace))
        except Empty:
            raise self.build_late_error() from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def wait(self, say: Callable[[str], None]) -> Outcome | None:
        """Wait for the next outcome and pass progress on to `say`; None when the time is up."""
        while True:
            left = self._ends - time.monotonic()
            try:
                message = self._messages.get(timeout=max(left, _POLL_SECONDS))
            except Empty:
                # Something is being committed: its outcome decides.
                if self._stop() and left > -_COMMIT_SECONDS:
                    continue
                # A commit may have ended meanwhile; from here on none can begin.
                try:
                    message = self._messages.get_nowait()
                except Empty:
                    return None
            if not isinstance(message, str):
                return message
            say(message)

    def stop(self) -> None:
        """Stop all threads of the load from committing."""
        self._stop()

    def build_late_error(self) -> FabricError:
        return SourceUnavailable(
            f"{self.where}: the load took longer than its timeout of {self._seconds:g} s and was given up",
            remedy="see whether the source and the destination answer; raise the source's timeout, or load less at a time (cursor, where)",
        )

    def _stop(self) -> bool:
        """End the load; return whether a commit is under way."""
        with self._lock:
            self._over = True
            return self._committing > 0
