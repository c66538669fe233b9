"""A stream of dropped files -> its automatic checks, and the time at which `expect: {every: 1d, by: "08:00"}` makes the next file due.

The module imports little, because every process builds definitions from it; checks.py asks the warehouse.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from fabric_assets.config.sources.imports import CsvStream, ExpectConfig

NO_QUARANTINED_FILE, REJECT_SHARE, EXPECTED_FILES = "no_quarantined_file", "reject_share", "expected_files"


@dataclass(frozen=True)
class ImportCheck:
    """An automatic check of a stream.

    Args:
        name: the asset check's.
    """

    name: str
    description: str
    severity: Literal["error", "warn"]


def build_import_checks(stream: CsvStream) -> list[ImportCheck]:
    """Build the checks of one stream; files are expected only if the YAML says so."""
    checks = [
        ImportCheck(NO_QUARANTINED_FILE, "No dropped file is quarantined or could not be read.", "warn"),
        ImportCheck(REJECT_SHARE, "Of the files that are loaded no more rows are rejected than the stream's rejects.max.", "warn"),
    ]
    if stream.expect is not None:
        checks.append(ImportCheck(EXPECTED_FILES, "A file has come when one was expected.", "error"))
    return checks


def find_due(expect: ExpectConfig, newest: datetime, timezone: str) -> datetime:
    """Return when the file after the newest one is due, in the tenant's time zone: eight o'clock is the same in summer and winter.

    A file is due `every` after the newest one; with `by`, at the next such time of day after that.
    """
    zone = ZoneInfo(timezone)
    due = newest.astimezone(zone).replace(tzinfo=None) + expect.every
    if expect.by is not None:
        at = datetime.combine(due.date(), time.fromisoformat(expect.by))
        due = at if at >= due else at + timedelta(days=1)
    return due.replace(tzinfo=zone)


def find_last_due(expect: ExpectConfig, newest: datetime, timezone: str, now: datetime) -> datetime | None:
    """Return the latest time at which a file was due and had not come; None if no file is overdue."""
    due = find_due(expect, newest, timezone)
    return due + (now.astimezone(due.tzinfo) - due) // expect.every * expect.every if due <= now else None
