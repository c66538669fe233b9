"""What the sensor of an inbox remembers from one look to the next, as the JSON of its cursor.

Losing it costs one run that finds nothing new, so what cannot be read is begun anew.
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
    """A run that was asked for and has not succeeded yet.

    Args:
        batch: tags the run and its repeats.
        attempt: counts from 1.
        asked_at: ISO.
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
    """Args:
    began_at: the first look, ISO. Part of run keys, that a sensor that begins anew is not held to have launched its run already.
    launches: how many there were, for the same reason: a file may be quarantined, released, and be due once more.
    handed: marks of the files that a run was launched for and that still lie there.
    seen: marks of those that were there at the last look, and are no run's yet.
    facts: by stream, what its checks last said: `newest`, `next_attempt_at`.
    answered: by stream, the `next_attempt_at` that a run was launched for.
    checked: by stream, the due moment that a missing file was reported for.
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
        # Marks are of one length: without separators thousands of them are a fifth smaller.
        return json.dumps({**asdict(self), "handed": "".join(sorted(self.handed)), "seen": "".join(sorted(self.seen))}, separators=(",", ":"))

    def begin(self, sensor: str, marks: set[str], streams: list[str], now: datetime) -> Launch:
        """Remember a launch for these files (none where failed ones are due again), and give it."""
        self.launches += 1
        batch = digest(sensor, self.began_at, self.launches, sorted(marks), streams)
        self.handed |= marks
        self.launch = Launch(batch, 1, streams, now.isoformat())
        return self.launch


def parse_cursor(text: str | None, now: datetime) -> InboxCursor:
    """Read a cursor; a new one where there is none, or none of this kind."""
    try:
        values: dict[str, Any] = json.loads(text or "")
        launch = Launch(**values["launch"]) if values["launch"] else None
        return InboxCursor(**{**values, "handed": _split(values["handed"]), "seen": _split(values["seen"]), "launch": launch})
    except (ValueError, TypeError, KeyError):
        return InboxCursor(now.isoformat())


def digest(*parts: object) -> str:
    """A short mark of some values."""
    mark = hashlib.sha256(json.dumps(parts).encode()).digest()[:_MARK_BYTES]
    return base64.urlsafe_b64encode(mark).decode().rstrip("=")


def _split(marks: str) -> set[str]:
    return {marks[start : start + _MARK_LENGTH] for start in range(0, len(marks), _MARK_LENGTH)}
