"""A file that is stuck -> one that the next load reads: retried at once, or moved from quarantine/ back to the inbox.

The file is moved first, then its row of the ledger is deleted. If the process is killed between the two, the next load finds file
and row, and quarantines the file again: nothing is lost, and the release can be repeated. In the other order the file would stay in
quarantine/ without a row.
"""

import contextlib

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.csv_import.inbox import Inbox
from fabric_assets.drivers.destinations import connect, open_ask
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.loading.dropped_files.overview import DroppedFile, Report, choose_file, find_inboxes, read_known
from fabric_assets.quoting import quote_text
from fabric_assets.rows.imported_file import ARCHIVE, CORRECTED, QUARANTINE, REASON_SUFFIX, ImportedFile, build_path
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.session import Table

_GAVE_UP = "gave_up"


def retry(
    tenant: TenantConfig, settings: Settings, name: str, *, source: str | None = None, stream: str | None = None, report: Report = lambda message: None
) -> str:
    """Let the next load try again a file that could not be read; returns a sentence about what was done.

    Raises:
        ConfigurationError: the name stands for no such file.
        FabricError: the destination, the lease or the inbox.
    """
    return _Change(tenant, settings, report).run(name, source, stream, is_release=False)


def release(
    tenant: TenantConfig, settings: Settings, name: str, *, source: str | None = None, stream: str | None = None, report: Report = lambda message: None
) -> str:
    """Move a quarantined file back to the inbox, where the next load checks it again; returns a sentence about what was done.

    Raises:
        ConfigurationError: the name stands for no such file.
        DataError: another file of its name is in the inbox.
        FabricError: the destination, the lease or the inbox.
    """
    return _Change(tenant, settings, report).run(name, source, stream, is_release=True)


def archive_corrected(tenant: TenantConfig, settings: Settings, source: str, path: str, *, report: Report) -> None:
    """Move a file of corrected rejects from quarantine/ to archive/, once all its rows are replayed."""
    change = _Change(tenant, settings, report)
    with load_lease(tenant, source, settings, timeout_seconds=LEASE_SECONDS, report=report):
        with open_ask(tenant, settings) as ask:
            known = [file for file in read_known(ask, tenant, source=source) if build_path(QUARANTINE, file.name, file.facts.mark) == path]
        ((_, inbox),) = find_inboxes(tenant, settings, {source})
        # Also a file that an earlier replay has marked as a duplicate; it was killed before the file was moved.
        for file in (file for file in known if file.facts.reason == CORRECTED or file.status == "duplicate"):
            # The file counts as a duplicate, because its rows are in the table.
            change.execute(file, "update", "set status = 'duplicate', reason = null, message = 'its rows were replayed'")
            if (there := inbox.find(path)) is not None:
                inbox.move(path, there.version, build_path(ARCHIVE, file.name, file.facts.mark))
            inbox.remove(f"{path}{REASON_SUFFIX}")
            report(f"{path}: all rows replayed; moved to {ARCHIVE}/")


class _Change:
    """A change to one file, while no load of its source runs."""

    def __init__(self, tenant: TenantConfig, settings: Settings, report: Report) -> None:
        self._tenant, self._settings, self._report = tenant, settings, report

    def run(self, name: str, source: str | None, stream: str | None, *, is_release: bool) -> str:
        found = self._choose(name, source, stream)
        with load_lease(self._tenant, found.source, self._settings, timeout_seconds=LEASE_SECONDS, report=self._report):
            # Read again: the load that held the lease may have dealt with the file.
            file = self._choose(name, found.source, found.stream)
            if file.status == "failed" and not is_release:
                self.execute(file, "update", "set attempts = 0, next_attempt_at = null")
                return f"{file.name}: the next load tries it at once"
            if file.status != "quarantined" or not (is_release or file.facts.reason == _GAVE_UP):
                raise ConfigurationError(f"tenant {self._tenant.tenant}: {file.name} is {_describe(file)}", remedy=_advise(file, is_release=is_release))
            return self._release(file)

    def _choose(self, name: str, source: str | None, stream: str | None) -> DroppedFile:
        with open_ask(self._tenant, self._settings) as ask:
            return choose_file(read_known(ask, self._tenant, source=source, stream=stream), self._tenant, name)

    def _release(self, file: DroppedFile) -> str:
        inboxes = dict(find_inboxes(self._tenant, self._settings, {file.source}))
        config = self._tenant.sources.get(file.source)
        if not inboxes or not isinstance(config, CsvImportSource):
            raise ConfigurationError(f"tenant {self._tenant.tenant}: the source {file.source} is no longer a csv_import", remedy="declare it again")
        inbox, mark = inboxes[file.source], file.facts.mark
        # The file may also be in the archive, if another stream has loaded it.
        paths = [build_path(folder, file.name, mark) for folder in (QUARANTINE, ARCHIVE)]
        path = next((path for path in paths if inbox.find(path) is not None), None)
        if path:
            self._put_back(inbox, path, file.name, mark=config.ready == "done_file")
        is_back = path is not None or _is_back(inbox, file.facts)
        inbox.remove(f"{paths[0]}{REASON_SUFFIX}")
        self.execute(file, "delete from", "")
        return f"{file.name}: back in the inbox; the next load checks it again" if is_back else f"{file.name}: the file itself is gone; its entry is deleted"

    def _put_back(self, inbox: Inbox, path: str, name: str, *, mark: bool) -> None:
        try:
            inbox.put_back(path, name, mark=mark)
        except FileExistsError:
            raise DataError(
                f"tenant {self._tenant.tenant}: {path} cannot be moved back: another file named {name} is in the inbox",
                remedy="load or remove that file, then release this one",
            ) from None

    def execute(self, file: DroppedFile, verb: str, rest: str) -> None:
        """Change a file's row of the ledger."""
        table = Table(naming.platform_dataset(self._tenant.tenant), "imported_files")
        row = f"file_id = {quote_text(f'{file.source}/{file.stream}/{file.facts.file_id}')}"
        with contextlib.closing(connect(self._tenant, self._settings)) as connection:
            connection.cursor().execute(f"{verb} {table} {rest} where {row}")
            connection.commit()


def _is_back(inbox: Inbox, file: ImportedFile) -> bool:
    """Whether an earlier release, which was killed, has already moved the file back."""
    return inbox.holds(file.name, file.version)


def _describe(file: DroppedFile) -> str:
    return f"{file.status} ({file.facts.reason})" if file.facts.reason else file.status


def _advise(file: DroppedFile, *, is_release: bool) -> str:
    if file.status == "quarantined":
        return "retry is for files that could not be read: correct this one and drop it again, or release it if the YAML has changed"
    return "only a quarantined file can be released" if is_release else "only a failed file can be tried again"
