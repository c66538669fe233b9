"""A tenant's schemas in its DuckDB file -> a second file of plain tables, for readers (ADR 0044).

Readers must not open the tenant's own file: it holds raw and rejected rows, and while one has it open, no load can write. The published file is written under
another name and then renamed, so a reader finds the old file or the new one, each whole.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.tenant import PublishConfig
from fabric_assets.drivers.duckdb_files import LockedConnection, build_open_error, make_file, open_file
from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.private_files import make_private_folder
from fabric_assets.quoting import quote, quote_table, quote_text

_UNFINISHED = ".unfinished-"
_BATCH_ROWS = 10_000
_MEMORY = "1GB"
# The lease is held meanwhile, so a view that never ends must not keep the tenant's loads waiting.
_LONGEST = timedelta(hours=1)
# Errors whose texts may quote a value of a row.
_QUOTING = (duckdb.DataError, duckdb.InvalidInputException, duckdb.InvalidTypeException)
_INTERRUPT_SECONDS = 0.5
_Relation = tuple[str, str]


@dataclass(frozen=True)
class Published:
    """What was published; without a file, nothing was written."""

    file: Path | None = None
    tables: int = 0
    rows: int = 0
    bytes: int = 0


def publish_schemas(
    tenant: str, publish: PublishConfig, *, data_dir: Path, publish_dir: Path, only_of_views: bool = False, longest: timedelta = _LONGEST
) -> Published:
    """Write the tables and views of the schemas as the tables of one file, in place of the last one. The caller holds the tenant's lease.

    Without any such table the last file is deleted. A kill leaves the old file or the new one; the next call deletes what is unfinished.

    Args:
        only_of_views: do nothing if all of the relations are tables, which no load of raw rows changes.

    Raises:
        DestinationError: the file would be larger than `max`, or a view cannot be read; the old file is kept.
        DestinationUnavailable: the tenant's file cannot be opened, or the new one not be written; the old file is kept.
    """
    file = naming.published_file(publish_dir, tenant)
    where = f"tenant {tenant}: {file.name} for readers"
    try:
        _delete_unfinished(file.parent)
        if not publish.schemas:
            return _delete(file)
        with ExitStack() as stack:
            # An operator's own mode of the folder is kept, and decides who reads the file.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=make_private_folder(file.parent), prefix=_UNFINISHED)))
            source = stack.enter_context(_open_source(naming.warehouse_file(data_dir, tenant), tenant, spill=make_private_folder(folder / "spill")))
            relations = _list_relations(source, [naming.dbt_schema(tenant, schema) for schema in publish.schemas])
            if only_of_views and not any(relations.values()):
                return Published()
            if not relations:
                return _delete(file)
            made = folder / file.name
            size = _SizeLimit(made, publish.max, where)
            size.check_tables(source, [relation for relation, is_view in relations.items() if not is_view])
            with _ending(source, longest, where):
                rows = _write(source, [*relations], made, size=size, where=where)
            size.check()
            _replace(file, made)
            return Published(file, len(relations), rows, file.stat().st_size)
    except (OSError, duckdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DestinationUnavailable(
            f"{where} cannot be written: {reason or error}{_describe_old(file)}", remedy="make room in FABRIC_PUBLISH_DIR, or let this user write there"
        ) from None


class _SizeLimit:
    """The limit of the published file's size, while it is written too: how large a view becomes is only known then."""

    def __init__(self, file: Path, most: int, where: str) -> None:
        self._file, self._most, self._where = file, most, where

    def check_tables(self, source: LockedConnection, tables: Sequence[_Relation]) -> None:
        """Check what the tables take in the tenant's own file, before anything is written."""
        (block,) = source.execute("select block_size from pragma_database_size()").fetchone() or (0,)
        size = 0
        # The function reads no name with a quote in it.
        for schema, name in (table for table in tables if '"' not in "".join(table)):
            text = quote_text(quote_table(schema, name))
            (blocks,) = source.execute(f"select count(distinct block_id) from pragma_storage_info({text}) where persistent").fetchone() or (0,)
            size += int(blocks) * int(block)
        self._compare(size)

    def check(self) -> None:
        self._compare(sum(file.stat().st_size for file in (self._file, self._file.with_name(f"{self._file.name}.wal")) if file.exists()))

    def _compare(self, size: int) -> None:
        if size > self._most:
            old = _describe_old(self._file.parent.parent / self._file.name)
            raise DestinationError(
                f"{self._where} is not written: it would take more than {self._most:,} bytes, the `max` of destination.publish{old}",
                remedy="raise destination.publish.max, or name fewer schemas in destination.publish.schemas",
            )


@contextmanager
def _open_source(file: Path, tenant: str, *, spill: Path) -> Iterator[LockedConnection]:
    try:
        source = open_file(file, read_only=True, spill=spill, exact_arrow=True)
    except duckdb.Error as error:
        raise build_open_error(error, f"tenant {tenant}: {file.name}") from None
    with source:
        source.begin()
        yield source


def _list_relations(source: LockedConnection, schemas: Sequence[str]) -> dict[_Relation, bool]:
    """List tables and views, each with whether it is a view."""
    listed = ", ".join(map(quote_text, schemas))
    found = source.execute(
        f"select schema_name, table_name, false from duckdb_tables() where database_name = current_database() and schema_name in ({listed})"
        f" union all select schema_name, view_name, true from duckdb_views() where database_name = current_database() and schema_name in ({listed})"
        " order by 1, 2"
    ).fetchall()
    return {(schema, name): is_view for schema, name, is_view in found}


def _write(source: LockedConnection, relations: Sequence[_Relation], made: Path, *, size: _SizeLimit, where: str) -> int:
    make_file(made)
    made.chmod(0o600)
    rows = 0
    with open_file(made, memory=_MEMORY) as target:
        for schema in sorted({schema for schema, _ in relations}):
            target.execute(f"create schema if not exists {quote(schema)}")
        for relation in relations:
            rows += _copy(source, target, relation, check=size.check, where=where)
        target.execute("checkpoint")
    return rows


def _copy(source: LockedConnection, target: LockedConnection, relation: _Relation, *, check: Callable[[], None], where: str) -> int:
    table, failures = quote_table(*relation), list[Exception]()

    def read(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                check()
                yield batch
        except Exception as error:
            failures.append(error)  # the target's own error would only say that its stream failed
            raise

    try:
        # If a failure left it half read and open, it would keep the tenant's file.
        with source.execute(f"select * from {table}").to_arrow_reader(_BATCH_ROWS) as batches:
            target.register("fabric_rows", pa.RecordBatchReader.from_batches(batches.schema, read(batches)).__arrow_c_stream__())
            (rows,) = target.execute(f"create table {table} as select * from temp.main.fabric_rows").fetchone() or (0,)
            target.unregister("fabric_rows")
            return rows
    except Exception as error:
        cause = failures[0] if failures else error
        if failures and not isinstance(cause, duckdb.Error | pa.ArrowException | OSError):
            raise cause from None
        if not failures and not isinstance(cause, duckdb.ProgrammingError | duckdb.DataError):
            raise
        raise DestinationError(
            f"{where} is not written: {'.'.join(relation)} cannot be read: {_describe(cause)}", remedy="correct the model; `fabric run` publishes it then"
        ) from None


def _describe(error: Exception) -> str:
    """Describe an error, without its text if that may quote a value of a row."""
    text = " ".join(str(error).split())
    return text.split(":", 1)[0][:60] if isinstance(error, _QUOTING) or not isinstance(error, duckdb.Error) else text[:600]


@contextmanager
def _ending(source: LockedConnection, longest: timedelta, where: str) -> Iterator[None]:
    """Interrupt what reads the source after a time."""
    is_done, is_over = threading.Event(), threading.Event()

    def interrupt() -> None:
        wait = longest.total_seconds()
        # Repeated: DuckDB forgets an interrupt that comes between two statements.
        while not is_done.wait(wait):
            is_over.set()
            source.interrupt()
            wait = _INTERRUPT_SECONDS

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    except (DestinationError, duckdb.Error):
        if not is_over.is_set():
            raise
        seconds = round(longest.total_seconds())
        raise DestinationError(
            f"{where} is not written: reading the published schemas took more than {seconds} s", remedy="make tables of slow views: materialized: table"
        ) from None
    finally:
        is_done.set()
        thread.join()


def _replace(file: Path, made: Path) -> None:
    """Put the new file into its place, on the disk before any reader sees it."""
    with made.open("rb") as stream:
        _share(stream.fileno(), file.parent)
        os.fsync(stream.fileno())
    # A reader that has opened the old file for writing may have left a log, which belongs to no other file.
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
    made.replace(file)
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _share(descriptor: int, folder: Path) -> None:
    """Let those read the file that the operator lets into its folder: the folder's group, and other users."""
    facts = folder.stat()
    readable = facts.st_mode & 0o055
    try:
        os.fchown(descriptor, -1, facts.st_gid)
    except PermissionError:
        if os.fstat(descriptor).st_gid != facts.st_gid:
            readable &= 0o005
    os.fchmod(descriptor, 0o600 | (readable & 0o044))


def _delete(file: Path) -> Published:
    file.unlink(missing_ok=True)
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
    return Published()


def _delete_unfinished(folder: Path) -> None:
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)


def _describe_old(file: Path) -> str:
    try:
        written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError:
        return "; there is no older file"
    return f"; readers keep the file of {written:%Y-%m-%d %H:%M} UTC"
