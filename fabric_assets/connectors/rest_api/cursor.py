"""The cursor of a rest_api stream: what the next load asks for, and which rows at the boundary are loaded already.

dlt's incremental is not used. It compares times as text, so that `…:00.5Z` sorts before `…:00Z` and rows are dropped as too old. It would also advance a
parent's cursor while only one of its children is loaded. Here each stream remembers its own position. Positions keep the API's spelling, because they are
sent to the API again.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from fabric_assets.config.sources.rest import RestCursor
from fabric_assets.connectors.cursor_values import describe_if_ahead
from fabric_assets.connectors.rest_api.rows import MISSING, find_value
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.rows.batches import Row, StreamMemory
from fabric_assets.suggestions import build_missing_error

# Every row in the warehouse has one.
_LOAD_ID = "_dlt_load_id"
Position = str | int | float
Sortable = tuple[str, Any]
_WHOLE = re.compile(r"-?[0-9]{1,1000}")
_FRACTION = re.compile(r"-?[0-9]{1,1000}\.[0-9]{1,1000}")


class RestCursorReader:
    """A reader of a stream's cursor: finds the highest value of rows, and where a load begins.

    Args:
        where: tenant, source and stream, for messages.
    """

    def __init__(self, where: str, cursor: RestCursor) -> None:
        self._where, self._cursor = where, cursor

    def get_start(self, positions: Iterable[Position | None]) -> Position | None:
        """Where to begin so that no stream misses a row, given the streams' positions; None is the beginning."""
        known = list(positions)
        initial = self._cursor.initial
        if not known or None in known:
            return initial
        start = self._go_back(min((position for position in known if position is not None), key=self.sort))
        return start if initial is None or self.sort(start) >= self.sort(initial) else initial

    def get_highest(self, rows: list[Row], *, position: Position | None, start: Position | None) -> Position | None:
        """Return the highest of a page's values and the position so far.

        Raises:
            SourceError: no row has the field.
            DataError: the values cannot be compared with each other, or with the start of the load.
        """
        found = [find_value(row, self._cursor.field) for row in rows]
        if position is None and all(value is MISSING for value in found):
            raise build_missing_error(
                self._where, kind="cursor field", name=self._cursor.field, known=rows[0], remedy="let cursor.field name a field of every row"
            )
        values = [value for value in (*found, position) if value is not MISSING and value is not None]
        ranks = [self.sort(value) for value in values]
        if len(kinds := {kind for kind, _ in ranks} | ({self.sort(start)[0]} if values and start is not None else set())) > 1:
            raise DataError(
                f"{self._where}: cursor field {self._cursor.field!r} holds values of several kinds: {', '.join(sorted(kinds))}",
                remedy="choose another field; if the API has changed, correct cursor.initial and load anew with --full-refresh",
            )
        return values[max(range(len(ranks)), key=ranks.__getitem__)] if values else None

    def has_gone_back(self, memory: StreamMemory, highest: Position | None) -> bool:
        """Whether an API's highest value is now below a stream's position, although it was asked from there: not even the last loaded row came again."""
        position = self.get_position(memory)
        return position is not None and highest is not None and self.sort(highest) < self.sort(position)

    def move(self, memory: StreamMemory, *, start: Position | None, highest: Position | None) -> None:
        """Save a stream's new position."""
        memory.window.start = None if start is None else str(start)
        memory.window.end = None if highest is None else str(highest)
        if highest is not None:
            memory.state.update(field=self._cursor.field, position=highest)

    def get_position(self, memory: StreamMemory) -> Position | None:
        """A stream's position; None if it is not known, or belongs to another field."""
        return memory.state.get("position") if memory.state.get("field") == self._cursor.field else None

    def describe_if_ahead(self, memory: StreamMemory) -> str | None:
        """Describe a stream's position if it lies in the future; None if it does not."""
        position = self.get_position(memory)
        return None if position is None else describe_if_ahead(self.sort(position)[1])

    def sort(self, value: Position) -> Sortable:
        """A value's sort key. Times are sorted by their moment, in any spelling.

        Raises:
            DataError: it is not a number, time or text.
        """
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise DataError(f"{self._where}: cursor field {self._cursor.field!r} holds {type(value).__name__} values", remedy="choose a time, a number or text")
        # A number written as text is sorted as a number: as text "10.5" would come before "9.5".
        if (number := _read_number(value)) is not None:
            return "number", number
        if not isinstance(value, str):
            raise DataError(
                f"{self._where}: cursor field {self._cursor.field!r} holds {value}, which is not a number", remedy="choose a time, a number or text"
            )
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return "text", value
        return "time", moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _go_back(self, position: Position) -> Position:
        lag = self._cursor.lag
        if lag is None:
            return position
        kind, value = self.sort(position)
        if isinstance(lag, timedelta) and kind == "time" and isinstance(position, str):
            return _spell(datetime.fromisoformat(position) - lag, position)
        if isinstance(lag, int) and kind == "number":
            return format(value - lag, "f" if isinstance(value, Decimal) else "d") if isinstance(position, str) else position - lag
        needed = {"time": "a duration, e.g. 5m", "number": "a number"}.get(kind, "left out, for text cannot be counted back")
        raise ConfigurationError(f"{self._where}: cursor.lag must be {needed}: the cursor field holds {kind} values", remedy="change cursor.lag")


def _read_number(value: Position) -> int | Decimal | None:
    """The exact number of a value, or of a text that is a number; None for other values."""
    text = repr(value) if isinstance(value, float) else str(value)
    if _WHOLE.fullmatch(text):
        return int(text)
    if isinstance(value, float):
        return Decimal(text) if math.isfinite(value) else None
    return Decimal(text) if _FRACTION.fullmatch(text) else None


def _spell(moment: datetime, like: str) -> str:
    """Write a time in the spelling of another one."""
    try:
        date.fromisoformat(like)
    except ValueError:
        separator = "T" if "T" in like else " "
        text = moment.isoformat(sep=separator, timespec="microseconds" if moment.microsecond or "." in like else "seconds")
        return text.replace("+00:00", "Z") if like.endswith("Z") else text
    return moment.date().isoformat()


class CursorBoundary:
    """The highest cursor value of an append's last load, and the rows that it had there.

    The API returns these rows again, and they must not be loaded twice. The stream's state keeps them under `border`, and is saved with the rows.

    Args:
        keys: the primary key; without one a row is identified by its whole content.
    """

    def __init__(self, where: str, cursor: RestCursor, *, memory: StreamMemory, keys: tuple[str, ...]) -> None:
        self._where, self._field, self._keys, self._state = where, cursor.field, keys, memory.state
        self._sort = RestCursorReader(where, cursor).sort
        self._start, self._seen = self._load(memory)
        self._highest = self._start
        # The number of rows below the last load's highest value; they are left out as loaded.
        self.older = 0

    def keep_new(self, rows: list[Row]) -> list[Row]:
        """Drop the rows that an earlier load brought, and remember the new boundary.

        Raises:
            DataError: a row has no cursor value that shows whether it is new.
        """
        kept: list[Row] = []
        for row in rows:
            value = find_value(row, self._field)
            if value is MISSING or value is None:
                raise DataError(
                    f"{self._where}: a row has no value in the cursor field {self._field!r}, so each load would append it again",
                    remedy="use merge with a primary_key, or another cursor field",
                )
            rank = self._sort(value)
            if rank[0] == "text":
                raise DataError(
                    f"{self._where}: the cursor field {self._field!r} holds {value!r}, which is not a number or time. Other texts have no known order,"
                    " so an append cannot tell which rows are new",
                    remedy="use merge with a primary_key, or another cursor field",
                )
            if self._start is None or rank > self._start or (rank == self._start and not self._was_loaded(row)):
                kept.append(row)
                self._remember(row, value, rank)
            self.older += self._start is not None and rank < self._start
        return kept

    def _load(self, memory: StreamMemory) -> tuple[Sortable | None, Counter[str]]:
        if (known := self._state.get("field", self._field)) != self._field:
            raise DataError(
                f"{self._where}: the cursor was {known!r} and is now {self._field!r}, and an append cannot tell which rows it has loaded",
                remedy="load the stream anew with --full-refresh",
            )
        boundary = self._state.get("border") or self._rebuild(memory)
        return (self._sort(boundary["position"]), Counter(boundary["rows"])) if boundary else (None, Counter())

    def _rebuild(self, memory: StreamMemory) -> dict[str, Any] | None:
        """Rebuild a lost state from the warehouse's rows; None if there are none."""
        highest = memory.get_highest(self._field)
        if highest is None and memory.get_highest(_LOAD_ID) is None:
            return None
        # A field within an object has a column with another name, or none.
        # The highest text of a text column is not the highest number in it.
        is_text_number = isinstance(highest, str) and self._sort(highest)[0] == "number"
        if highest is None or is_text_number or not self._keys:
            needed = "a field of the row itself" if highest is None else "a column of numbers" if is_text_number else "a primary_key"
            raise DataError(
                f"{self._where}: the position of the cursor {self._field!r} is lost, and without {needed} an append cannot tell which rows it has loaded",
                remedy="load the stream anew with --full-refresh",
            )
        columns = {key: memory.get_column(key) for key in self._keys}
        rows = [{key: row[column] for key, column in columns.items()} for row in memory.get_rows_at(self._field, highest).to_pylist()]
        position = highest.isoformat() if isinstance(highest, date) else int(highest) if isinstance(highest, Decimal) else highest
        self._state["border"] = {"position": position, "rows": Counter(map(self._fingerprint, rows))}
        return self._state["border"]

    def _was_loaded(self, row: Row) -> bool:
        fingerprint = self._fingerprint(row)
        if self._seen[fingerprint] == 0:
            return False
        # Counted, because a table without a key may have equal rows.
        self._seen[fingerprint] -= 1
        return True

    def _remember(self, row: Row, value: Position, rank: Sortable) -> None:
        if self._highest is None or rank > self._highest:
            self._highest = rank
            self._state["border"] = {"position": value, "rows": {}}
        if rank == self._highest:
            rows = self._state["border"]["rows"]
            fingerprint = self._fingerprint(row)
            rows[fingerprint] = rows.get(fingerprint, 0) + 1

    def _fingerprint(self, row: Row) -> str:
        content = [row.get(key) for key in self._keys] if self._keys else row
        return hashlib.blake2b(json.dumps(content, sort_keys=True, separators=(",", ":"), default=str).encode(), digest_size=12).hexdigest()
