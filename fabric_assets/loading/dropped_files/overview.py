"""A tenant's dropped files -> the status of each, by the ledger and by what is in the inboxes now."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.csv_import.inbox import Inbox, InboxFile, open_inbox
from fabric_assets.drivers.asking import Ask, has_table
from fabric_assets.drivers.destinations import open_ask
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.loading.rejects.csv_export import find_imports
from fabric_assets.loading.rejects.reader import RejectedRow, find_rejects
from fabric_assets.quoting import quote_all, quote_text
from fabric_assets.rows.imported_file import ARCHIVE, QUARANTINE, ImportedFile, build_path
from fabric_assets.settings import Settings
from fabric_assets.warehouse.session import Table

Report = Callable[[str], None]
_MOMENTS = ("modified_at", "next_attempt_at")


@dataclass(frozen=True)
class DroppedFile:
    """One version of one file, for one stream.

    Args:
        status: of the ledger; or found (complete, for the next load), waiting (not complete yet), loading (found, and a load is running).
        facts: by the ledger; by the inbox if the ledger does not know the file.
        updated_at: when the ledger was last changed.
    """

    source: str
    stream: str
    status: str
    facts: ImportedFile
    updated_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def quarantine_path(self) -> str | None:
        """Its path below the source's, if it is quarantined."""
        return build_path(QUARANTINE, self.name, self.facts.mark) if self.status == "quarantined" else None


@dataclass(frozen=True)
class FileVersion:
    """One version of a file, where it is now, and its rejected rows.

    Args:
        paths: its paths below the source's; empty if it is gone.
        rejects: the first rejected rows.
    """

    file: DroppedFile
    paths: tuple[str, ...]
    rejects: tuple[RejectedRow, ...]


def list_files(
    tenant: TenantConfig, settings: Settings, *, source: str | None = None, stream: str | None = None, report: Report = lambda message: None
) -> list[DroppedFile]:
    """List every file of the chosen streams; new files of the inbox come last.

    Args:
        report: called with each inbox that could not be read.

    Raises:
        DestinationError, DestinationUnavailable: the ledger cannot be read.
    """
    with open_ask(tenant, settings) as ask:
        known, running = read_known(ask, tenant, source=source, stream=stream), _read_running(ask, tenant)
    return known + list(_look(tenant, settings, known, running, source, stream, report))


def list_quarantined(ask: Ask, tenant: TenantConfig, *, source: str | None = None, stream: str | None = None) -> list[DroppedFile]:
    """List the files that somebody must look at."""
    return [file for file in read_known(ask, tenant, source=source, stream=stream) if file.status == "quarantined"]


def find_versions(
    tenant: TenantConfig, settings: Settings, name: str, *, source: str | None = None, stream: str | None = None, shown: int = 5
) -> list[FileVersion]:
    """Find all versions of a file.

    Args:
        name: as it was dropped, or its path in quarantine/.
        shown: the largest number of rejected rows of a version.
    """
    files = [file for file in list_files(tenant, settings, source=source, stream=stream) if name in (file.name, file.quarantine_path)]
    versions = []
    with open_ask(tenant, settings) as ask:
        inboxes = dict(find_inboxes(tenant, settings, {file.source for file in files}))
        for file in files:
            found = find_rejects(ask, tenant.tenant, source=file.source, stream=file.stream) if file.status == "loaded" else None
            rows = [] if found is None else [row for portion in found.read() for row in portion if row.origin == file.name][:shown]
            versions.append(FileVersion(file, tuple(_find_paths(inboxes[file.source], file.facts)), tuple(rows)))
    return versions


def find_inboxes(tenant: TenantConfig, settings: Settings, sources: Sequence[str] | set[str]) -> Iterator[tuple[str, Inbox]]:
    """Open the inboxes of these of the tenant's sources."""
    for name, config in tenant.sources.items():
        if name in sources and isinstance(config, CsvImportSource):
            yield name, open_inbox(SourceContext(tenant=tenant.tenant, name=name, config=config, streams=tuple(config.streams), settings=settings))


def read_known(ask: Ask, tenant: TenantConfig, *, source: str | None = None, stream: str | None = None) -> list[DroppedFile]:
    """Read the files of the ledger, by stream and name, the oldest version first."""
    dataset = naming.platform_dataset(tenant.tenant)
    if not has_table(ask, dataset, "imported_files"):
        return []
    names = [field.name for field in fields(ImportedFile)]
    wanted = [f"{column} = {quote_text(value)}" for column, value in (("source", source), ("stream", stream)) if value is not None]
    where = f" where {' and '.join(wanted)}" if wanted else ""
    found = []
    for own, other, updated, *values in ask(f"select source, stream, updated_at, {quote_all(names)} from {Table(dataset, 'imported_files')}{where}"):
        facts = dict(zip(names, values, strict=True))
        file = ImportedFile(**{**facts, **{name: facts[name] and facts[name].astimezone(UTC) for name in _MOMENTS}})
        found.append(DroppedFile(own, other, file.status, file, updated.astimezone(UTC)))
    return sorted(found, key=lambda file: (file.source, file.stream, file.name, file.facts.modified_at, file.status))


def _read_running(ask: Ask, tenant: TenantConfig) -> set[tuple[str, str]]:
    dataset = naming.platform_dataset(tenant.tenant)
    if not has_table(ask, dataset, "loads"):
        return set()
    return {(source, stream) for source, stream in ask(f"select source, stream from {Table(dataset, 'loads')} where status = 'running'")}


def _look(
    tenant: TenantConfig,
    settings: Settings,
    known: Sequence[DroppedFile],
    running: set[tuple[str, str]],
    source: str | None,
    stream: str | None,
    report: Report,
) -> Iterator[DroppedFile]:
    """Yield the files in the inboxes that no load has dealt with."""
    dealt = {(file.source, file.stream, file.name, file.facts.version): file.facts for file in known if file.status not in ("replaced", "gone")}
    streams = {key: config for key, config in find_imports(tenant).items() if source in (None, key[0]) and stream in (None, key[1])}
    for own in dict.fromkeys(name for name, _ in streams):
        config = tenant.sources[own]
        assert isinstance(config, CsvImportSource)
        try:
            ((_, inbox),) = find_inboxes(tenant, settings, {own})
            for (other, name), declared in streams.items():
                if other != own:
                    continue
                listing, unfinished = inbox.list_ready(declared.glob, config.ready)
                for file in (*listing.files, *unfinished):
                    before = dealt.get((own, name, file.name, file.version))
                    if before is None or before.is_dropped_again(file.modified_at):
                        status = "waiting" if file in unfinished else "loading" if (own, name) in running else "found"
                        yield _describe(own, name, file, status)
        except (FabricError, OSError) as error:
            report(f"tenant {tenant.tenant}, source {own}: the inbox could not be looked at: {error}")


def _describe(source: str, stream: str, file: InboxFile, status: str) -> DroppedFile:
    # The row of the ledger that a load would begin with.
    return DroppedFile(source, stream, status, ImportedFile(file.name, file.version, None, file.size, file.modified_at, "failed"))


def _find_paths(inbox: Inbox, file: ImportedFile) -> Iterator[str]:
    if inbox.holds(file.name, file.version):
        yield file.name
    for folder in (ARCHIVE, QUARANTINE):
        if inbox.find(path := build_path(folder, file.name, file.mark)) is not None:
            yield path


def choose_file(files: Sequence[DroppedFile], tenant: TenantConfig, name: str) -> DroppedFile:
    """Find the one file that a name, or a path in quarantine/, stands for.

    Raises:
        ConfigurationError: no file has that name, or several have it.
    """
    found = [file for file in files if name in (file.name, file.quarantine_path)]
    if not found:
        raise ConfigurationError(f"tenant {tenant.tenant}: no file {name} is known", remedy=f"see them with: fabric imports list {tenant.tenant}")
    # Files that can be retried or released come before files that are done.
    stuck = [file for file in found if file.status in ("quarantined", "failed")] or found
    if len(stuck) > 1:
        choices = ", ".join(f"{file.source}.{file.stream} {file.quarantine_path or file.name} ({file.status})" for file in stuck)
        raise ConfigurationError(f"tenant {tenant.tenant}: {name} may be any of: {choices}", remedy="name its path in quarantine/, or --source and --stream")
    return stuck[0]
