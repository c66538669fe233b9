"""What holds of a stream of dropped files by itself: its checks, and by `expect: {every: 1d, by: "08:00"}` when the next file is due.

Light, since definitions are made of it in every process; `import_checks` asks the warehouse.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from fabric_assets.config.sources.imports import CsvStream, ExpectConfig

NO_QUARANTINED_FILE, REJECT_SHARE, EXPECTED_FILES = "no_quarantined_file", "reject_share", "expected_files"


@dataclass(frozen=True)
class ImportCheck:
    """Args:
    name: the asset check's.
    """

    name: str
    description: str
    severity: Literal["error", "warn"]


def build_import_checks(stream: CsvStream) -> list[ImportCheck]:
    """Make the checks of one stream; files are expected only where it is declared."""
    checks = [
        ImportCheck(NO_QUARANTINED_FILE, "No dropped file is quarantined or could not be read.", "warn"),
        ImportCheck(REJECT_SHARE, "Of the files that are loaded no more rows are rejected than the stream's rejects.max.", "warn"),
    ]
    if stream.expect is not None:
        checks.append(ImportCheck(EXPECTED_FILES, "A file has come when one was expected.", "error"))
    return checks


def find_due(expect: ExpectConfig, newest: datetime, timezone: str) -> datetime:
    """When the file after the newest one must be there, by the tenant's clock: a file is due at eight in summer and in winter.

    That is `every` later; with `by` at the next such time of day, so that a file that came since yesterday at eight is there today at eight.
    """
    zone = ZoneInfo(timezone)
    due = newest.astimezone(zone).replace(tzinfo=None) + expect.every
    if expect.by is not None:
        at = datetime.combine(due.date(), time.fromisoformat(expect.by))
        due = at if at >= due else at + timedelta(days=1)
    return due.replace(tzinfo=zone)


def find_last_due(expect: ExpectConfig, newest: datetime, timezone: str, now: datetime) -> datetime | None:
    """The latest moment at which the next file was due and had not come; None as long as it is not overdue."""
    due = find_due(expect, newest, timezone)
    return due + (now.astimezone(due.tzinfo) - due) // expect.every * expect.every if due <= now else None
