"""One moment of a source, at which all streams of a load read."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar


class MomentGone(Exception):
    """Raised when a moment can no longer be read; nothing was read yet."""


@dataclass(frozen=True)
class Moment:
    """What a source holds at one point in time.

    Args:
        number: counts the load's moments, from 1.
        export: of Postgres: the id under which other transactions take its snapshot over.
        connection: of MySQL: the connection whose transaction shows it.
        snapshot: of Postgres: the oldest running transaction, the first one after, those between that run.
        is_open: of Postgres: whether other transactions of the database were open then, also those without an xid yet.
        versioned: of Postgres: quoted tables whose row versions name the transaction that wrote them: no views, foreign tables or standbys.
    """

    number: int
    export: str = ""
    connection: Any = None
    snapshot: str = ""
    is_open: bool = False
    versioned: frozenset[str] = frozenset()


class Moments(ABC):
    """The moment that the streams of one load share; for several threads.

    Args:
        streams: those that will read.
    """

    # Whether several connections can read one moment, as in Postgres, whose snapshot also shows which rows were committed late.
    are_shared: ClassVar[bool] = False

    def __init__(self, streams: Collection[str]) -> None:
        self._lock, self._waiting = Lock(), set(streams)
        self._readers: dict[str, int] = {}
        self._current: Moment | None = None
        self._count = 0
        # Why the source cannot provide a moment; empty if it can.
        self.impossible = ""

    def acquire(self) -> Moment | None:
        """Return the moment to read at; a new one if the last is gone. None if the source cannot provide one.

        Raises:
            SourceError, SourceUnavailable: no connection.
        """
        with self._lock:
            if self._current is None or not self._is_held(self._current):
                self._release()
                self._current = self._open(self._count + 1)
                self._count += self._current is not None
            return self._current

    def note_begun(self, stream: str, moment: Moment) -> list[str]:
        """Note that a stream has begun to read.

        Returns:
            the streams that have read an earlier moment.
        """
        with self._lock:
            self._readers[stream] = moment.number
            self._waiting.discard(stream)
            if not self._waiting:
                self._end_waiting()
            return sorted(name for name, number in self._readers.items() if number < moment.number)

    def lose(self, moment: Moment) -> None:
        """Stop holding a moment."""
        with self._lock:
            if self._current is moment:
                self._release()

    def close(self) -> None:
        """Release what is held, once nothing reads any more."""
        with self._lock:
            self._release()

    @abstractmethod
    def _open(self, number: int) -> Moment | None: ...

    @abstractmethod
    def _is_held(self, moment: Moment) -> bool: ...

    @abstractmethod
    def _end_waiting(self) -> None:
        """Handle that every stream has begun to read."""

    @abstractmethod
    def _release(self) -> None: ...
