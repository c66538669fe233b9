"""The rows that earlier loads of a Postgres stream could not see -> a condition by which this load reads them, whatever their cursor value.

A transaction that commits late brings rows with a cursor value that a load has already passed. Each row version names the
transaction that wrote it (`xmin`), so the state keeps the snapshot of a read. A later load asks for all that the snapshot did not show (ADR 0029).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from fabric_assets.connectors.sql_database.moments import Moment

_KEY = "late_rows"
# xmin has the lower 32 bits of a transaction's number.
_EPOCH = 2**32


class LateRows:
    """The late rows of one stream in one load: call `begin` with the load's moment, then `commit`.

    Args:
        state: the stream's; `commit` changes it.
        table: quoted.
        every: the longest time until rows that were not visible are read; None turns this off.
    """

    def __init__(self, state: dict[str, Any], *, table: str, every: timedelta | None) -> None:
        self._state, self._table, self._every = state, table, every
        self._moment: Moment | None = None
        self._known: dict[str, Any] | None = None

    @property
    def is_possible(self) -> bool:
        """Whether the table's rows name the transaction that wrote them, and the load's moment is known."""
        return self._moment is not None

    def begin(self, moment: Moment | None) -> str | None:
        """Return the condition of the rows to read as well; None if earlier loads are not known to have missed any."""
        self._moment = moment if moment and self._every is not None and self._table in moment.versioned else None
        self._known = self._state.get(_KEY) if self._moment else None
        if self._moment is None or self._known is None or self._every is None:
            return None
        begin, end = _read(self._known["snapshot"])[0], _read(self._moment.snapshot)[1]
        if begin > end:
            # Another server, or one that was set up again: its transactions are numbered differently.
            self._known = None
            return None
        if not self._known["open"] and datetime.now(UTC) - datetime.fromisoformat(self._known["at"]) < self._every:
            return None
        # From the oldest transaction on that ran then: a subtransaction has a number of its own, which no snapshot lists.
        span = end - begin
        return f"mod(xmin::text::bigint + {_EPOCH - begin % _EPOCH}, {_EPOCH}) < {span}" if span < _EPOCH else "true"

    def commit(self, *, is_complete: bool) -> None:
        """Remember what this load could not see.

        Args:
            is_complete: this load has read all rows, or all that an earlier one could not see.
        """
        if self._moment is None:
            self._state.pop(_KEY, None)
        elif is_complete or self._known is None:
            self._state[_KEY] = {"snapshot": self._moment.snapshot, "at": datetime.now(UTC).isoformat(), "open": self._moment.is_open}
        else:
            self._state[_KEY] = {**self._known, "open": self._moment.is_open}


def _read(snapshot: str) -> tuple[int, int]:
    """The oldest transaction that ran, and the first one after the snapshot."""
    begin, end, *_ = snapshot.split(":")
    return int(begin), int(end)
