"""A `csv_import` source's config -> one group of batches per stream, of the files that people have dropped and no load has dealt with.

A file is checked as a whole before its first row is given, and is of one of four fates: loaded, a duplicate of one that is loaded,
quarantined (somebody must look at it), or failed (it could not be read; it is tried again later). Its row of `imported_files`
commits with its rows; only then is it moved. Killed between the two, the next load finds it by its row, and moves it.
"""

import contextlib
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.imports import CsvImportSource, CsvStream
from fabric_assets.connectors.arrow_types import BIGINT, TIMESTAMP_UTC
from fabric_assets.connectors.batches import Batch, ReadGroup, SourceReader, StreamMemory, StreamPlan
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.file_listing import make_empty_folder
from fabric_assets.connectors.files import ORDER, ROWS_BITS
from fabric_assets.connectors.import_bytes import build_size_error
from fabric_assets.connectors.import_files import FILE, HASH, MENDED, ROW, CheckedFile, build_schema, check_file
from fabric_assets.connectors.import_inbox import InboxFile, open_inbox
from fabric_assets.connectors.imported_file import ARCHIVE, MAX_ATTEMPTS, ImportedFile, build_place, find_next_attempt
from fabric_assets.errors import QuarantinedFile, SourceError, SourceUnavailable

IMPORTED_AT = "_fabric_imported_at"
_SHOWN = 5


def open_source(context: SourceContext) -> SourceReader:
    """Give a group per stream; nothing is listed or read before the group is."""
    config = context.config
    assert isinstance(config, CsvImportSource)
    folder = Path(tempfile.mkdtemp(dir=make_empty_folder(naming.files_dir(context.settings.data_dir, context.tenant, context.name))))
    groups = []
    for name in context.streams:
        load = _StreamImport(context, config, name, folder)
        groups.append(ReadGroup((build_plan(name, config.streams[name]),), load.read, load.put_away))
    return SourceReader(tuple(groups), connections=config.max_connections, close=partial(shutil.rmtree, folder, ignore_errors=True))


def build_plan(name: str, stream: CsvStream) -> StreamPlan:
    """Say how a stream's rows are written: those of a file's new version in the place of the old one's, or beside them."""
    merges = stream.disposition == "merge"
    replaced_by = FILE if stream.on_new_version == "replace_file" else HASH
    return StreamPlan(name, stream.disposition, stream.primary_key or (), newest_by=ORDER if merges else None, replaced_by=replaced_by, is_judged=True)


class _StreamImport:
    """One stream's files in one load."""

    def __init__(self, context: SourceContext, config: CsvImportSource, name: str, folder: Path) -> None:
        self._context, self._config, self._name, self._folder = context, config, name, folder
        self._stream, self._place = config.streams[name], context.describe(name)
        self._ends = time.monotonic() + config.timeout.total_seconds()
        self._done: list[ImportedFile] = []
        self._taken, self._now = 0, datetime.now(UTC)

    def read(self, memories: Mapping[str, StreamMemory]) -> Iterator[Batch]:
        self._memory, self._inbox = memories[self._name], open_inbox(self._context)
        self._known = self._memory.get_files()
        # By name and version: what need not be opened. By content, and by name: what is in the table.
        seen = {(file.name, file.version): file for file in sorted(self._known, key=lambda file: file.status == "loaded")}
        self._loaded = {file.sha256: file for file in self._known if file.status == "loaded"}
        self._current = {file.name: file for file in self._loaded.values()}
        self._sequence = self._memory.state.get("sequence", 0)
        listing, unfinished = self._inbox.list_ready(self._stream.glob, self._config.ready)
        for name, reason in listing.refused.items():
            self._report(f"{name} is skipped: {reason}")
        if unfinished:
            self._report(f"{len(unfinished)} files wait until they are complete: {_name(file.name for file in unfinished)}")
        if self._memory.get_type(FILE) is None:
            yield Batch(self._name, self._add_origin(build_schema(self._stream).empty_table()))
            again = self._find_loaded_before()
            self._loaded, self._current = {}, {}
            for file, name in again:
                yield from self._take(file, name)
        for file in listing.files:
            before = seen.get((file.name, file.version))
            if before and before.status in ("loaded", "duplicate", "quarantined"):
                # Where it should not lie any more, a load was killed between its commit and the move.
                self._done.append(before)
            elif before is None or before.is_due(datetime.now(UTC)):
                yield from self._take(file, file.name, attempts=before.attempts if before else 0)
        self._memory.state["sequence"] = self._sequence
        if not self._taken:
            self._report("no new file")

    def put_away(self, _stream: str) -> None:
        """After the commit: move what is done with to archive/ and quarantine/."""
        failures = Counter[str]()
        for file in self._done:
            if file.place is None or not (self._config.archive or file.status == "quarantined"):
                continue
            try:
                self._inbox.move(file.name, file.version, file.place, reason=file.build_note())
            except (OSError, SourceError, SourceUnavailable) as error:
                failures[str(error)] += 1
        for message, count in failures.items():
            self._report(f"{count} files could not be moved away, and will be by the next load: {message}")

    # --- one file

    def _take(self, file: InboxFile, name: str, *, attempts: int = 0) -> Iterator[Batch]:
        """Args:
        name: under which people know the file: another one than its own if it lies in the archive.
        attempts: how often these bytes could not be read under this name.
        """
        if time.monotonic() > self._ends:
            raise SourceUnavailable(f"{self._place}: the load took longer than the source's timeout", remedy="raise the source's timeout")
        self._taken += 1
        self._sequence += 1
        path = self._folder / f"{self._name}-{self._sequence}.data"
        record = ImportedFile(name, file.version, None, file.size, file.modified_at, "loaded", attempts=attempts)
        try:
            if file.size > self._config.limits.bytes:
                raise build_size_error(self._config.limits.bytes)
            record = replace(record, sha256=self._inbox.fetch(file, path))
            if not self._inbox.holds(file.name, file.version):
                self._report(f"{name} changed while it was read, and waits until it is complete")
                return
            if twin := self._loaded.get(record.sha256):
                self._record_twin(record, twin)
                return
            checked = self._check(record, path)
        except QuarantinedFile as error:
            refused = replace(record, status="quarantined", reason=error.reason)
            message = str(error) if error.reason != MENDED else f"{error.message}\n  remedy: {self._build_replay(refused)}"
            self._record(replace(refused, message=message))
            self._report(f"{name} is quarantined ({error.reason}): {message}")
            return
        except SourceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one file that cannot be read must not hold up the others
            self._record_failure(record, error)
            return
        finally:
            path.unlink(missing_ok=True)
        # From here on nothing is caught: of a file whose first row is given, all must be.
        with contextlib.closing(checked):
            replaced = self._replace_version(record)
            self._loaded[record.sha256] = self._current[name] = record
            self._record(replace(record, message=_describe(checked), attempts=0))
            for batch in checked.batches():
                assert isinstance(batch.rows, pa.Table)
                yield replace(batch, rows=self._add_origin(batch.rows))
        if replaced:
            yield from self._take_twins(replaced)

    def _build_replay(self, file: ImportedFile) -> str:
        where = f"--source {self._context.name} --stream {self._name} --file {shlex.quote(file.place or file.name)}"
        return f"fabric rejects replay {self._context.tenant} {where}"

    def _check(self, record: ImportedFile, path: Path) -> CheckedFile:
        assert record.sha256
        limits = self._config.limits
        return check_file(path, name=record.name, sha256=record.sha256, stream_name=self._name, stream=self._stream, limits=limits, folder=self._folder)

    def _replace_version(self, record: ImportedFile) -> ImportedFile | None:
        """Let the rows of the file's earlier version go; gives that version."""
        before = self._current.get(record.name)
        if before is None or self._stream.on_new_version == "append":
            return None
        self._report(f"{record.name} is a new version: its rows replace those of {before.modified_at:%Y-%m-%d %H:%M:%S}")
        self._memory.replace_rows_of(record.name)
        del self._loaded[before.sha256]
        self._record(replace(before, status="replaced"))
        return before

    def _take_twins(self, replaced: ImportedFile) -> Iterator[Batch]:
        """Files with the bytes of a version that has gone were skipped for its sake; the first one that is still there is loaded now."""
        for file in self._known:
            if file.status == "duplicate" and file.sha256 == replaced.sha256 and (found := self._find(file)):
                self._report(f"{file.name} was skipped for the sake of {replaced.name}, which holds other bytes now, so it is loaded")
                yield from self._take(found, file.name)

    def _record_twin(self, record: ImportedFile, twin: ImportedFile) -> None:
        if twin.name == record.name:  # touched, or dropped again
            self._record(replace(twin, version=record.version, modified_at=record.modified_at))
            return
        self._report(f"{record.name} holds the same bytes as {twin.name}, which is loaded already, and is skipped")
        self._record(replace(record, status="duplicate", message=f"the same bytes as {twin.name}"))

    def _record_failure(self, record: ImportedFile, error: Exception) -> None:
        attempts, cause = record.attempts + 1, error.strerror or error if isinstance(error, OSError) else error
        message, due = f"it could not be read: {cause}", find_next_attempt(datetime.now(UTC), attempts)
        if attempts < MAX_ATTEMPTS:
            record = replace(record, status="failed", reason="unreadable", message=message, next_attempt_at=due)
        else:
            record = replace(record, status="quarantined", reason="gave_up", message=f"{message} (tried {attempts} times)")
        self._record(replace(record, attempts=attempts))
        self._report(f"{record.name}: {record.message}")

    def _record(self, file: ImportedFile) -> None:
        self._memory.record_file(file)
        self._done.append(file)

    def _find(self, file: ImportedFile) -> InboxFile | None:
        """Where a file's bytes lie: where it was dropped, or in the archive."""
        own = self._inbox.find(file.name)
        return own if own and own.version == file.version else self._inbox.find(build_place(ARCHIVE, file.name, file.mark))

    def _find_loaded_before(self) -> list[tuple[InboxFile, str]]:
        """The files whose rows the table should hold, though it is made anew: each with the name that people know it by.

        Raises:
            SourceError: some are neither in the inbox nor in the archive.
        """
        before = sorted(self._loaded.values(), key=lambda file: (file.modified_at, file.name))
        found = [(there, file.name) for file in before if (there := self._find(file))]
        if missing := [file.name for file in before if not self._find(file)]:
            if self._context.full_refresh:
                raise SourceError(
                    f"{self._place}: {len(missing)} files whose rows are in the table lie neither in the inbox nor in {ARCHIVE}/: {_name(missing)}",
                    remedy="put them back to load everything anew; or drop the table, which is to do without them, and run without --full-refresh",
                )
            self._report(f"the table has gone, and {len(missing)} files that were in it too: {_name(missing)}")
        if found:
            self._report(f"{len(found)} files are loaded again, for the table is made anew")
        return found

    def _add_origin(self, rows: pa.Table) -> pa.Table:
        rows = rows.append_column(IMPORTED_AT, pa.repeat(pa.scalar(self._now, TIMESTAMP_UTC), rows.num_rows))
        if self._stream.disposition != "merge":
            return rows
        order = [(self._sequence << ROWS_BITS) + row for row in rows.column(ROW).to_pylist()]
        return rows.append_column(ORDER, pa.array(order, BIGINT))

    def _report(self, message: str) -> None:
        self._context.report(f"{self._place}: {message}")


def _describe(checked: CheckedFile) -> str:
    unmapped = f"; columns that no canonical one is for: {_name(checked.unmapped)}" if checked.unmapped else ""
    return f"{checked.described}{unmapped}"


def _name(names: Sequence[str] | Iterator[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")
