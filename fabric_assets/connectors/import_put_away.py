"""Files that are done with, once their stream's rows are committed -> `archive/` and `quarantine/`.

A file that several streams read is moved when the last of them is done with it. What is not moved, for whatever reason, the next
load finds by its row of the ledger.
"""

import threading
from collections import Counter
from collections.abc import Sequence

from fabric_assets.config.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.import_inbox import Inbox
from fabric_assets.connectors.imported_file import ImportedFile
from fabric_assets.errors import SourceError, SourceUnavailable


class PutAway:
    """Shared by the streams of one load."""

    def __init__(self, context: SourceContext, config: CsvImportSource) -> None:
        self._context, self._config, self._lock = context, config, threading.Lock()
        self._read: dict[str, tuple[Inbox, Sequence[ImportedFile]]] = {}
        # Stream -> name and version of the files that it is done with.
        self._settled: dict[str, set[tuple[str, str]]] = {}
        self._listed: dict[str, set[str]] | None = None

    def add(self, stream: str, inbox: Inbox, files: Sequence[ImportedFile]) -> None:
        """Take what a stream has read; nothing is moved yet."""
        with self._lock:
            self._read[stream] = inbox, files

    def settle(self, stream: str) -> None:
        """A stream's rows are committed: move what no other stream waits for."""
        with self._lock:
            self._settled[stream] = {(file.name, file.version) for file in self._read[stream][1]}
            failures = Counter[str]()
            for settled in self._settled:
                inbox, files = self._read[settled]
                for file in files:
                    if file.place is None or not (self._config.archive or file.status == "quarantined") or not self._is_settled(inbox, file):
                        continue
                    try:
                        inbox.move(file.name, file.version, file.place, reason=file.build_note())
                    except (OSError, SourceError, SourceUnavailable) as error:
                        failures[str(error)] += 1
        for message, count in failures.items():
            self._context.report(f"{self._context.describe(stream)}: {count} files could not be moved away, and will be by the next load: {message}")

    def _is_settled(self, inbox: Inbox, file: ImportedFile) -> bool:
        """Whether all streams whose glob matches the file are done with it."""
        if len(self._config.streams) == 1:
            return True
        if self._listed is None:
            self._listed = {name: {found.name for found in inbox.find_all(stream.glob).files} for name, stream in self._config.streams.items()}
        readers = [name for name, names in self._listed.items() if file.name in names]
        return all((file.name, file.version) in self._settled.get(name, ()) for name in readers)
