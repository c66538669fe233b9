"""A dropped file, i.e. a row of `<tenant>_fabric.imported_files` -> its id, whether it is due, and the path that it is moved to."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Literal

from fabric_assets.visible import show_name

# `replaced`: a newer file of the same name has replaced its rows. `gone`: it was removed before it could be read.
Status = Literal["loaded", "replaced", "duplicate", "quarantined", "failed", "gone"]
ARCHIVE, QUARANTINE = "archive", "quarantine"
# Columns of each row of a dropped file.
FILE, HASH, ROW, UNMAPPED = "_fabric_file", "_fabric_file_sha256", "_fabric_row", "_fabric_unmapped"
# A column of exported rejects: the id of the rejected row. Such a file is replayed; a load would make new rows of its rows.
REJECT, CORRECTED = "_fabric_reject", "mended_rejects"
REASON_SUFFIX = ".reason.txt"
# A file that cannot be read is tried this often, with growing pauses; then it is quarantined.
MAX_ATTEMPTS = 5
_FIRST_WAIT = timedelta(minutes=1)


@dataclass(frozen=True)
class ImportedFile:
    """One file that a load has dealt with.

    Args:
        name: its path below the source's path.
        version: changes when the content may have changed; an unchanged file is not opened again.
        sha256: of its bytes; None for a file that was too large to be read.
        size: bytes, as stored.
        modified_at: when it was last written.
        reason: a stable code; only of a file that is quarantined or has failed.
        message: the reason in words; of a loaded file, how it was read.
        attempts: how often it could not be read.
        next_attempt_at: only of a failed file, which is left alone until then.
        rows_read: always rows_loaded + rows_rejected.
    """

    name: str
    version: str
    sha256: str | None
    size: int
    modified_at: datetime
    status: Status
    reason: str | None = None
    message: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    rows_read: int = 0
    rows_loaded: int = 0
    rows_rejected: int = 0

    @property
    def shown(self) -> str:
        """The name, for a message."""
        return show_name(self.name)

    @property
    def file_id(self) -> str:
        """An id per content, so that no content is loaded twice; and one per name for files that were not loaded."""
        if self.status in ("loaded", "replaced"):
            return digest(self.sha256)
        return digest(self.sha256, self.name, self.version if self.sha256 is None else None)

    def is_due(self, now: datetime, modified_at: datetime) -> bool:
        """Whether a file that is in the inbox again has to be loaded, because its rows are not in the table.

        Args:
            modified_at: when the file in the inbox was last written.
        """
        if self.status == "failed":
            return self.next_attempt_at is None or self.next_attempt_at <= now
        return self.status in ("replaced", "gone") or self.is_dropped_again(modified_at)

    def is_dropped_again(self, modified_at: datetime) -> bool:
        """Whether somebody has dropped a quarantined file again. In a bucket the same bytes have the same version, but a newer time."""
        return self.status == "quarantined" and modified_at > self.modified_at

    def build_note(self) -> str | None:
        """Write the text of the .reason.txt beside a quarantined file; None for any other file."""
        return f"{self.reason}\n{self.message}\n" if self.status == "quarantined" else None

    @property
    def moved_to(self) -> str | None:
        """The path below the source's path that the file is moved to; None if it is not moved."""
        if self.status == "quarantined":
            return build_path(QUARANTINE, self.name, self.mark)
        return build_path(ARCHIVE, self.name, self.mark) if self.status in ("loaded", "replaced", "duplicate") else None

    @property
    def mark(self) -> str:
        """A part of the moved file's name, which differs between files of one name."""
        return self.sha256[:8] if self.sha256 else digest(self.name, self.version)[:8]


def build_path(folder: str, name: str, mark: str) -> str:
    """Build the path of a moved file: `2026/jan.csv.gz` -> `archive/2026/jan.1a2b3c4d.csv.gz`."""
    path = PurePosixPath(name)
    stem, dot, suffixes = path.name.partition(".")
    return str(PurePosixPath(folder, path.parent, f"{stem}.{mark}{dot}{suffixes}"))


def find_next_attempt(now: datetime, attempts: int) -> datetime:
    """Return when a file that could not be read is tried again: after 1, 2, 4, 8 minutes."""
    return now + _FIRST_WAIT * 2 ** (attempts - 1)


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
