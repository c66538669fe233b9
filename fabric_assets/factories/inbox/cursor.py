"""The memory of an inbox's sensor from one look to the next, as the JSON of its cursor.

A lost cursor costs one run that finds nothing new. So a cursor that cannot be read is replaced by a new one.
"""

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

_MARK_BYTES = 8
_MARK_LENGTH = 11


@dataclass
class Launch:
    """A run that was requested and has not succeeded yet.

    Args:
        batch: the value of a tag on the run and its repeats.
        attempt: counts from 1.
        asked_at: the time of the request, ISO.
    """

    batch: str
    attempt: int
    streams: list[str]
    asked_at: str

    @property
    def run_key(self) -> str:
        return f"{self.batch}-{self.attempt}"


@dataclass
class InboxCursor:
    """The state of an inbox's sensor.

    Args:
        began_at: the first look, ISO. It is part of run keys: after a new beginning Dagster would else take a run for one that it has launched already.
        launches: their number, for the same reason: a file may be quarantined, released, and due again.
        handed: marks of the files in the inbox for which a run was launched.
        seen: marks of the files that were in the inbox at the last look, and that no run was launched for.
        facts: the last results of each stream's checks: `newest`, `next_attempt_at`.
        answered: the `next_attempt_at` of each stream for which a run was launched.
        checked: the due time of each stream for which a missing file was reported.
    """

    began_at: str
    launches: int = 0
    handed: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    launch: Launch | None = None
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    checked: dict[str, str] = field(default_factory=dict)

    def dump(self) -> str:
        # All marks have the same length, so they need no separators, which saves a fifth of the size.
        return json.dumps({**asdict(self), "handed": "".join(sorted(self.handed)), "seen": "".join(sorted(self.seen))}, separators=(",", ":"))

    def begin(self, sensor: str, marks: set[str], streams: list[str], now: datetime) -> Launch:
        """Record a launch for these files, and return it; there are none if only failed files are due again."""
        self.launches += 1
        batch = digest(sensor, self.began_at, self.launches, sorted(marks), streams)
        self.handed |= marks
        self.launch = Launch(batch, 1, streams, now.isoformat())
        return self.launch


def parse_cursor(text: str | None, now: datetime) -> InboxCursor:
    """Read a cursor; returns a new one if it is missing or of another kind."""
    try:
        values: dict[str, Any] = json.loads(text or "")
        launch = Launch(**values["launch"]) if values["launch"] else None
        return InboxCursor(**{**values, "handed": _split(values["handed"]), "seen": _split(values["seen"]), "launch": launch})
    except (ValueError, TypeError, KeyError):
        return InboxCursor(now.isoformat())


def digest(*parts: object) -> str:
    """Compute a short hash of some values."""
    mark = hashlib.sha256(json.dumps(parts).encode()).digest()[:_MARK_BYTES]
    return base64.urlsafe_b64encode(mark).decode().rstrip("=")


def _split(marks: str) -> set[str]:
    return {marks[start : start + _MARK_LENGTH] for start in range(0, len(marks), _MARK_LENGTH)}
