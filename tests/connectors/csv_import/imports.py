"""Dropping a file: its bytes through the import, and what comes of it as plain Python values."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.sources.imports import CsvStream, ImportLimits
from fabric_assets.connectors.csv_import.files import check_file
from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows.batches import Reject
from fabric_assets.rows.imported_file import FILE, HASH, ROW, UNMAPPED

# A column of each of these names as a text, unless a test says otherwise.
TEXTS = {"columns": {"a": {}, "b": {}, "c": {}}}


@dataclass(frozen=True)
class Dropped:
    """Args:
    rows: canonical columns only; each with its line in `lines`.
    """

    rows: list[dict[str, Any]]
    lines: list[int]
    rejects: list[Reject]
    unmapped: list[str | None]
    described: str

    @property
    def cells(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.rows]

    @property
    def reasons(self) -> list[tuple[int | None, str | None, str]]:
        return [(reject.row_number, reject.column, reject.reason) for reject in self.rejects]


def drop(content: bytes | Path, name: str = "drop.csv", *, limits: dict[str, Any] | None = None, **stream: Any) -> Dropped:
    """Import a file; asserts that every row that was read is either loaded or rejected."""
    config = CsvStream.model_validate({"glob": "*", **(stream if {"columns", "mapping"} & set(stream) else {**TEXTS, **stream})})
    with tempfile.TemporaryDirectory() as folder:
        path = content if isinstance(content, Path) else Path(folder) / "file"
        if isinstance(content, bytes):
            path.write_bytes(content)
        checked = check_file(
            path, name=name, sha256="5ha", stream_name="drops", stream=config, limits=ImportLimits.model_validate(limits or {}), folder=Path(folder)
        )
        batches = list(checked.batches())
        checked.close()
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert checked.read == checked.loaded + checked.rejected
    assert (checked.loaded, checked.rejected) == (len(rows), len(rejects))
    assert {(row.pop(FILE), row.pop(HASH)) for row in rows} <= {(name, "5ha")}
    assert {reject.origin for reject in rejects} <= {name}
    lines, unmapped = [row.pop(ROW) for row in rows], [row.pop(UNMAPPED, None) for row in rows]
    return Dropped(rows, lines, rejects, unmapped, checked.described)


def get_quarantine(content: bytes | Path, name: str = "drop.csv", **options: Any) -> tuple[str, str]:
    """Import a file that must be refused as a whole -> the reason and the message."""
    try:
        dropped = drop(content, name, **options)
    except QuarantinedFile as error:
        return error.reason, error.message
    raise AssertionError(f"not refused: {dropped}")
