"""Moves finished files to `archive/` or `quarantine/`, once their stream's rows are committed.

A file that several streams read is moved when the last of them has finished with it. If one of them has refused it, it goes to
quarantine, so that somebody sees the reason. A file that could not be moved is found by the next load, by its row of the ledger.
"""

import shlex
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence

from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.csv_import.inbox import Inbox
from fabric_assets.errors import SourceError, SourceUnavailable
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.visible import show_name

_Key = tuple[str, str]


class PutAway:
    """The files that the streams of one load have finished with; shared by their threads."""

    def __init__(self, context: SourceContext[CsvImportSource], config: CsvImportSource) -> None:
        self._context, self._config, self._lock = context, config, threading.Lock()
        self._read: dict[str, tuple[Inbox, Sequence[ImportedFile]]] = {}
        # A file's name and version -> its outcomes, by the streams whose rows are committed.
        self._fates: dict[_Key, dict[str, list[ImportedFile]]] = defaultdict(lambda: defaultdict(list))
        self._opened: set[_Key] = set()
        self._readers: dict[str, set[str]] | None = None

    def add(self, stream: str, inbox: Inbox, files: Sequence[ImportedFile], unread: Sequence[ImportedFile]) -> None:
        """Note the files that a stream has finished with, without moving any.

        Args:
            unread: files of the inbox that an earlier load has finished with.
        """
        with self._lock:
            self._read[stream] = inbox, [*files, *unread]
            self._opened |= {(file.name, file.version) for file in files}

    def after_commit(self, stream: str) -> None:
        """Move a stream's files away, once its rows are committed, unless another stream still needs them."""
        with self._lock:
            inbox, files = self._read[stream]
            for file in files:
                self._fates[file.name, file.version][stream].append(file)
            failures = Counter[str]()
            for name, version in dict.fromkeys((file.name, file.version) for file in files):
                file = self._find_deciding(stream, (name, version))
                if file is None or file.moved_to is None or not (self._config.archive or file.status == "quarantined"):
                    continue
                try:
                    inbox.move(name, version, file.moved_to, reason=file.build_note())
                    if (name, version) not in self._opened:
                        self._report_unread(stream, file)
                except (OSError, SourceError, SourceUnavailable) as error:
                    failures[str(error)] += 1
        for message, count in failures.items():
            self._context.report(f"{self._context.describe(stream)}: {count} files could not be moved away; the next load tries again: {message}")

    def _report_unread(self, stream: str, file: ImportedFile) -> None:
        is_refused = file.status == "quarantined"
        why = f" ({file.reason})" if is_refused else ""
        remedy = f"; to have it checked again: fabric imports release {self._context.tenant} {shlex.quote(file.name)}" if is_refused else ""
        what = f"{file.shown} is skipped: already {file.status}{why}; it is moved to {show_name(file.moved_to or '')}{remedy}"
        self._context.report(f"{self._context.describe(stream)}: {what}")

    def _find_deciding(self, stream: str, key: _Key) -> ImportedFile | None:
        """The outcome that decides where a file goes. None while a stream whose glob matches it has not finished with it, or is to retry it."""
        fates = self._fates[key]
        if not self._find_readers(stream, key[0]) <= fates.keys():
            return None
        found = [file for each in fates.values() for file in each]
        if any(file.status == "failed" for file in found):
            return None
        return next((file for file in found if file.status == "quarantined"), found[0])

    def _find_readers(self, stream: str, name: str) -> set[str]:
        """The streams whose globs match a file. For a file that arrived after the inbox was listed: all streams, so that the next load handles it."""
        if len(self._config.streams) == 1:
            return {stream}
        if self._readers is None:
            self._readers = defaultdict(set)
            inbox, _ = self._read[stream]
            for each, config in self._config.streams.items():
                for found in inbox.find_all(config.glob).files:
                    self._readers[found.name].add(each)
        return self._readers.get(name) or set(self._config.streams)
