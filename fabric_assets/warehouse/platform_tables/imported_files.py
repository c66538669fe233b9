"""Dropped files -> the table `imported_files` in `<tenant>_fabric`, with the status of each file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.drivers.asking import Ask
from fabric_assets.quoting import quote_all, quote_text
from fabric_assets.rows.arrow_types import BIGINT, TEXT, TIMESTAMP_UTC
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.warehouse.session import Session, Table

_FILE = {
    "name": TEXT,
    "version": TEXT,
    "sha256": TEXT,
    "size": BIGINT,
    "modified_at": TIMESTAMP_UTC,
    "status": TEXT,
    "reason": TEXT,
    "message": TEXT,
    "attempts": BIGINT,
    "next_attempt_at": TIMESTAMP_UTC,
    "rows_read": BIGINT,
    "rows_loaded": BIGINT,
    "rows_rejected": BIGINT,
}
IMPORTED_FILES = {"file_id": TEXT, "source": TEXT, "stream": TEXT, **_FILE, "load_id": TEXT, "run_id": TEXT, "updated_at": TIMESTAMP_UTC}
# Values in one list of a statement.
_PORTION = 10_000


def read_files(ask: Ask, tenant: str, source: str, stream: str) -> list[ImportedFile]:
    """Read a stream's files."""
    names = [field.name for field in fields(ImportedFile)]
    found = ask(
        f"select {quote_all(names)} from {Table(naming.platform_dataset(tenant), 'imported_files')}"
        f" where source = {quote_text(source)} and stream = {quote_text(stream)}"
    )
    return [ImportedFile(**dict(zip(names, values, strict=True))) for values in found]


def write_files(session: Session, platform: str, record: LoadRecord, files: Sequence[ImportedFile], known: Sequence[ImportedFile]) -> None:
    """Write the files of this load.

    Args:
        known: the stream's files when the load began. Only these rows are overwritten: if two loads read the same content, the second
            one fails on the unique key.
    """
    if not files:
        return
    table = Table(platform, "imported_files")
    ids, versions = {file.file_id for file in files}, {(file.name, file.version) for file in files}
    gone = [build_id(record, file) for file in known if file.file_id in ids or (file.name, file.version) in versions]
    for start in range(0, len(gone), _PORTION):
        session.execute(f"delete from {table} where file_id in ({', '.join(map(quote_text, gone[start : start + _PORTION]))})")
    rows = [
        {
            **asdict(file),
            "file_id": build_id(record, file),
            "source": record.source,
            "stream": record.stream,
            "load_id": record.load_id,
            "run_id": record.run_id,
            "updated_at": record.loaded_at,
        }
        for file in files
    ]
    session.insert(table, pa.Table.from_pylist(rows, schema=pa.schema(list(IMPORTED_FILES.items()))))


class FileNotes:
    """The files of one load; the last entry of a content, and of a file, counts."""

    def __init__(self) -> None:
        self._by_id: dict[str, ImportedFile] = {}
        self._ids: dict[tuple[str, str], str] = {}

    def add(self, file: ImportedFile) -> None:
        key = file.name, file.version
        earlier = self._by_id.get(self._ids.get(key, ""))
        if earlier and (earlier.name, earlier.version) == key:
            del self._by_id[earlier.file_id]
        self._by_id[file.file_id], self._ids[key] = file, file.file_id

    def get_all(self) -> list[ImportedFile]:
        return list(self._by_id.values())


def count_rows(files: Sequence[ImportedFile], rows: Mapping[tuple[str, str], tuple[int, int]]) -> list[ImportedFile]:
    """Set the row counts of the files that this load has loaded; other files keep theirs.

    Args:
        rows: (name, content) of a file -> rows loaded and rejected.
    """
    counted = []
    for file in files:
        found = rows.get((file.name, file.sha256 or "")) if file.status == "loaded" else None
        counted.append(replace(file, rows_read=sum(found), rows_loaded=found[0], rows_rejected=found[1]) if found else file)
    return counted


def build_id(record: LoadRecord, file: ImportedFile) -> str:
    """Build a row's key, with source and stream: several streams may load the same content."""
    return f"{record.source}/{record.stream}/{file.file_id}"
