"""A `csv_import` source's config -> one group of batches per stream, of the dropped files that no load has finished with.

A file is checked as a whole before its first row is given. It is then loaded, a duplicate of a loaded file, quarantined (somebody must
look at it), or failed (reading is tried again later). Its row of `imported_files` commits with its rows; only then
is it moved. If the load is killed between the two, the next load finds the file by that row, and moves it.
"""

import contextlib
import errno
import shlex
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.csv_import.content import build_size_error
from fabric_assets.connectors.csv_import.faults import describe_failure
from fabric_assets.connectors.csv_import.files import CheckedFile, build_schema, check_file
from fabric_assets.connectors.csv_import.inbox import InboxFile, open_inbox
from fabric_assets.connectors.csv_import.put_away import PutAway
from fabric_assets.connectors.files.listing import make_empty_folder
from fabric_assets.connectors.files.source import ORDER, ROWS_BITS
from fabric_assets.errors import QuarantinedFile, SourceError, SourceUnavailable
from fabric_assets.rows.arrow_types import BIGINT, TIMESTAMP_UTC
from fabric_assets.rows.batches import Batch, DropMemory, ReadGroup, SourceReader, StreamPlan
from fabric_assets.rows.column_names import compose
from fabric_assets.rows.imported_file import ARCHIVE, CORRECTED, FILE, HASH, MAX_ATTEMPTS, QUARANTINE, ROW, ImportedFile, build_path, find_next_attempt
from fabric_assets.visible import show_name

IMPORTED_AT = "_fabric_imported_at"
_SHOWN = 5
# Errors of this machine, not of a file.
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def open_source(context: SourceContext[CsvImportSource]) -> SourceReader:
    """Return a group per stream. Nothing is listed or read before the group is read."""
    config = context.config
    folder = Path(tempfile.mkdtemp(dir=make_empty_folder(naming.files_dir(context.settings.data_dir, context.tenant, context.name))))
    put_away = PutAway(context, config)
    groups = []
    for name in context.streams:
        load = _StreamImport(context, config, name, folder, put_away)
        groups.append(ReadGroup((plan_stream(config, name),), load.read, put_away.after_commit))
    return SourceReader(tuple(groups), connections=config.max_connections, close=partial(shutil.rmtree, folder, ignore_errors=True))


def plan_stream(config: CsvImportSource, name: str) -> StreamPlan:
    """Plan how a stream's rows are written: whether the rows of a file's new version replace those of the old one."""
    stream = config.streams[name]
    merges = stream.disposition == "merge"
    replaced_by = FILE if stream.on_new_version == "replace_file" else HASH
    return StreamPlan.declared(name, stream, newest_by=ORDER if merges else None, replaced_by=replaced_by, is_judged=True, drops_files=True)


class _StreamImport:
    """One stream's files in one load."""

    def __init__(self, context: SourceContext[CsvImportSource], config: CsvImportSource, name: str, folder: Path, put_away: PutAway) -> None:
        self._context, self._config, self._name, self._folder = context, config, name, folder
        self._stream, self._where = config.streams[name], context.describe(name)
        self._ends = time.monotonic() + config.timeout.total_seconds()
        self._put_away, self._done = put_away, list[ImportedFile]()
        self._count, self._now = 0, datetime.now(UTC)

    def read(self, memories: Mapping[str, DropMemory]) -> Iterator[Batch]:
        self._memory, self._inbox = memories[self._name], open_inbox(self._context)
        self._known = self._memory.get_files()
        # By name and version: files that need not be opened. By content, and by name in composed form (NFC): files whose rows are in the table.
        self._seen = {(file.name, file.version): file for file in sorted(self._known, key=lambda file: file.status == "loaded")}
        self._loaded = {file.sha256: file for file in self._known if file.status == "loaded"}
        self._current = defaultdict[str, list[ImportedFile]](list)
        for file in self._loaded.values():
            self._current[compose(file.name)].append(file)
        self._sequence = self._memory.state.get("sequence", 0)
        listing, unfinished = self._inbox.list_ready(self._stream.glob, self._config.ready)
        for name, reason in listing.refused.items():
            self._report(f"{name} is skipped: {reason}")
        if unfinished:
            self._report(f"{len(unfinished)} files wait until they are complete: {_name(file.name for file in unfinished)}")
        self._forget_gone({(file.name, file.version) for file in (*listing.files, *unfinished)})
        if self._memory.get_type(FILE) is None:
            yield Batch(self._name, self._add_origin(build_schema(self._stream).empty_table()))
            yield from self._load_again({file.name: file for file in listing.files})
        unread = list[ImportedFile]()
        for file in listing.files:
            before = self._seen.get((file.name, file.version))
            if self._is_due(file):
                yield from self._load(file, file.name, attempts=before.attempts if before and before.status != "quarantined" else 0)
            elif before and before.status != "failed":
                # It should have been moved: a load was killed between its commit and the move, or the file was dropped again.
                unread.append(before)
        self._memory.state["sequence"] = self._sequence
        self._put_away.add(self._name, self._inbox, self._done, unread)
        if not self._count:
            self._report("no new file")

    def _is_due(self, file: InboxFile) -> bool:
        """Whether a file in the inbox is to be read, by what was known of it when the load began."""
        before = self._seen.get((file.name, file.version))
        if before is None:
            return True
        # A file is no longer a duplicate when the file with the same bytes has gone.
        return before.is_due(datetime.now(UTC), file.modified_at) or (before.status == "duplicate" and before.sha256 not in self._loaded)

    def _forget_gone(self, there: Set[tuple[str, str]]) -> None:
        for file in self._known:
            if file.status == "failed" and (file.name, file.version) not in there:
                self._memory.record_file(replace(file, status="gone", next_attempt_at=None))

    # --- one file

    def _load(self, file: InboxFile, name: str, *, attempts: int = 0) -> Iterator[Batch]:
        """Read one file and decide what becomes of it.

        Args:
            name: the one that people know; differs from the file's own in the archive. attempts: failed readings of these bytes under this name.
        """
        if time.monotonic() > self._ends:
            raise SourceUnavailable(f"{self._where}: the load took longer than the source's timeout", remedy="raise the source's timeout")
        self._count += 1
        self._sequence += 1
        inspected = self._inspect(file, ImportedFile(name, file.version, None, file.size, file.modified_at, "loaded", attempts=attempts))
        if inspected is None:
            return
        record, checked = inspected
        twin = self._loaded.get(record.sha256)
        # From here on nothing is caught: once a file's first row is given, all of its rows must be.
        if twin and twin.name == name:
            self._report(f"{record.shown} is skipped: dropped again with the same content, already loaded")
            self._record(replace(twin, version=record.version, modified_at=record.modified_at))
            return
        replaced = self._replace_versions(record)
        if twin:
            self._report(f"{record.shown} is skipped: same content as {twin.shown}, already loaded")
            self._record(replace(record, status="duplicate", message=f"same content as {twin.shown}"))
        elif checked:
            with contextlib.closing(checked):
                self._loaded[record.sha256] = record
                self._current[compose(name)].append(record)
                self._record(replace(record, message=_describe(checked), attempts=0))
                for batch in checked.batches():
                    assert isinstance(batch.rows, pa.Table)
                    yield replace(batch, rows=self._add_origin(batch.rows), content=record.sha256 or "")
        for before in replaced:
            yield from self._load_twin(before)

    def _inspect(self, file: InboxFile, record: ImportedFile) -> tuple[ImportedFile, CheckedFile | None] | None:
        """Hash a file, and check it unless its bytes are loaded already. None if its outcome is recorded, or if it must wait."""
        path = self._folder / f"{self._name}-{self._sequence}.data"
        try:
            if file.size > self._config.limits.bytes:
                raise build_size_error(self._config.limits.bytes)
            record = replace(record, sha256=self._inbox.fetch(file, path))
            if self._inbox.holds(file.name, file.version):
                return record, None if record.sha256 in self._loaded else self._check(record, path)
            self._report(f"{record.shown} changed while it was read, and waits until it is complete")
        except QuarantinedFile as error:
            refused = replace(record, status="quarantined", reason=error.reason)
            message = str(error) if error.reason != CORRECTED else f"{error.message}\n  remedy: {self._build_replay(refused)}"
            self._record(replace(refused, message=message))
            self._report(f"{record.shown} is quarantined ({error.reason}): {message}")
        except FileNotFoundError:
            self._report(f"{record.shown} was moved or removed while it was read")
        except SourceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one file that cannot be read must not hold up the others
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OURS):
                what = f"{self._where}: {record.shown} cannot be read, because this machine lacks disk space, memory or file handles: {error}"
                raise SourceUnavailable(what, remedy="free some; the files stay in the inbox") from None
            self._record_failure(record, error)
        finally:
            path.unlink(missing_ok=True)
        return None

    def _build_replay(self, file: ImportedFile) -> str:
        return f"fabric rejects replay {self._context.tenant} --source {self._context.name} --file {shlex.quote(file.moved_to or file.name)}"

    def _check(self, record: ImportedFile, path: Path) -> CheckedFile:
        assert record.sha256
        fixed = {"stream": self._stream, "limits": self._config.limits, "folder": self._folder, "value_forms": self._memory.value_forms}
        return check_file(path, name=record.name, sha256=record.sha256, stream_name=self._name, **fixed)

    def _replace_versions(self, record: ImportedFile) -> list[ImportedFile]:
        """Remove the rows of the file's earlier versions, and return these versions."""
        versions = self._current.get(compose(record.name), [])
        if not versions or self._stream.on_new_version == "append":
            return []
        self._report(f"{record.shown} is a new version: its rows replace those of {versions[-1].modified_at:%Y-%m-%d %H:%M:%S}")
        for before in versions:
            self._memory.replace_rows_of(before.name)
            del self._loaded[before.sha256]
            self._record(replace(before, status="replaced"))
        return self._current.pop(compose(record.name))

    def _load_twin(self, replaced: ImportedFile) -> Iterator[Batch]:
        """Load a file that was skipped for having the bytes of a version that is now replaced, if it is its name's newest."""
        newest = {file.name: file for file in sorted([*self._known, *self._done], key=lambda file: file.modified_at)}
        for file in newest.values():
            if file.status == "duplicate" and file.sha256 == replaced.sha256 and replaced.sha256 not in self._loaded and (found := self._find(file)):
                self._report(f"{file.shown} is loaded: it was skipped for having the same content as {replaced.shown}, whose content has changed")
                yield from self._load(found, file.name)

    def _record_failure(self, record: ImportedFile, error: Exception) -> None:
        attempts, message = record.attempts + 1, describe_failure(error, self._context)
        if attempts < MAX_ATTEMPTS:
            record = replace(record, status="failed", reason="unreadable", message=message, next_attempt_at=find_next_attempt(datetime.now(UTC), attempts))
        else:
            record = replace(record, status="quarantined", reason="gave_up", message=f"{message} (tried {attempts} times)")
        self._record(replace(record, attempts=attempts))
        self._report(f"{record.shown}: {record.message}")

    def _record(self, file: ImportedFile) -> None:
        self._memory.record_file(file)
        self._done.append(file)

    def _find(self, file: ImportedFile) -> InboxFile | None:
        """Find a file's bytes: where it was dropped, in the archive, or in quarantine if another stream has refused it."""
        own = self._inbox.find(file.name)
        if own and own.version == file.version:
            return own
        return self._inbox.find(build_path(ARCHIVE, file.name, file.mark)) or self._inbox.find(build_path(QUARANTINE, file.name, file.mark))

    def _load_again(self, listed: Mapping[str, InboxFile]) -> Iterator[Batch]:
        """Load the files of a table that is created again. A new version in the inbox is loaded instead of the old one.

        Raises:
            SourceError: a file is neither in the inbox nor in the archive or quarantine. SourceUnavailable: a file cannot be read.
        """
        before = sorted(self._loaded.values(), key=lambda file: (file.modified_at, file.name))
        self._loaded, self._current = {}, defaultdict(list)
        if self._stream.on_new_version == "replace_file":
            newest = {file.name: file for file in before}
            for file in [file for file in before if newest[file.name] is not file]:
                self._record(replace(file, status="replaced"))
            before = list(newest.values())
        found = {file: there for file in before if (there := self._find(file) or self._find_twin(file))}
        self._report_missing([file for file in before if file not in found])
        if found:
            self._report(f"{len(found)} files are loaded again, because the table is created again")
        for file, there in found.items():
            new = listed.get(file.name)
            if new and self._stream.on_new_version == "replace_file" and new.version != file.version and self._is_due(new):
                count = len(self._done)
                yield from self._load(new, new.name)
                self._seen |= {(done.name, done.version): done for done in self._done[count:]}
                if any(done.name == new.name and done.status in ("loaded", "duplicate") for done in self._done[count:]):
                    self._record(replace(file, status="replaced"))
                    continue
            count = len(self._done)
            yield from self._load(there, file.name)
            if any(done.status == "failed" for done in self._done[count:]):
                raise SourceUnavailable(f"{self._where}: {file.shown}, whose rows are in the table, cannot be read again", remedy="make it readable; try again")

    def _find_twin(self, file: ImportedFile) -> InboxFile | None:
        """Find a file that was skipped because it has the same bytes as this one."""
        twins = (self._find(twin) for twin in self._known if twin.status == "duplicate" and twin.sha256 == file.sha256)
        return next((there for there in twins if there), None)

    def _report_missing(self, missing: Sequence[ImportedFile]) -> None:
        names = _name(file.name for file in missing)
        if missing and self._context.full_refresh:
            raise SourceError(
                f"{self._where}: {len(missing)} files whose rows are in the table are missing from the inbox, {ARCHIVE}/ and {QUARANTINE}/: {names}",
                remedy="put them back to load everything again; or, to give up their rows, drop the table and run without --full-refresh",
            )
        if missing:
            self._report(f"the table is gone, and so are {len(missing)} files whose rows it had: {names}")
        for file in missing:
            # If the file is put back later, it is loaded.
            self._record(replace(file, status="replaced"))

    def _add_origin(self, rows: pa.Table) -> pa.Table:
        rows = rows.append_column(IMPORTED_AT, pa.repeat(pa.scalar(self._now, TIMESTAMP_UTC), rows.num_rows))
        if self._stream.disposition != "merge":
            return rows
        order = [(self._sequence << ROWS_BITS) + row for row in rows.column(ROW).to_pylist()]
        return rows.append_column(ORDER, pa.array(order, BIGINT))

    def _report(self, message: str) -> None:
        self._context.report(f"{self._where}: {message}")


def _describe(checked: CheckedFile) -> str:
    return checked.described + (f"; unmapped columns: {_name(checked.unmapped)}" if checked.unmapped else "")


def _name(names: Sequence[str] | Iterator[str]) -> str:
    listed = [*map(show_name, names)]
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")
