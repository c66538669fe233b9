"""A corrected file of exported rejects -> exactly those rows in their tables, as rows of the dropped files that they come from.

One transaction writes a stream's rows, deletes the rejected rows and updates the counts of the files. So a replay that is killed has
done nothing, and a second replay of the same file finds nothing left to do.
"""

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.sources.imports import CsvStream
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.csv_import.source import IMPORTED_AT
from fabric_assets.connectors.files.source import ORDER, ROWS_BITS
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.loading.dropped_files.overview import find_inboxes
from fabric_assets.loading.dropped_files.release import archive_corrected
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.rejects.corrected_file import CorrectedFile, CorrectedRow, read_corrected
from fabric_assets.loading.rejects.corrected_rows import CheckedRows, Pair, StillBad, build_bad, check_rows, get_row_number
from fabric_assets.loading.rejects.csv_export import find_imports
from fabric_assets.loading.rejects.reader import RejectedRow, find_rejects
from fabric_assets.loading.rejects.replay import Report
from fabric_assets.loading.rejects.stream_replay import StreamReplay, describe
from fabric_assets.masking import mask_values
from fabric_assets.private_files import make_private_folder
from fabric_assets.quoting import quote, quote_text
from fabric_assets.rows.arrow_types import BIGINT, TIMESTAMP_UTC
from fabric_assets.rows.batches import StreamPlan
from fabric_assets.rows.imported_file import FILE, HASH, ROW, ImportedFile
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.session import Table
from fabric_assets.warehouse.warehouse import Warehouse, open_warehouse


@dataclass(frozen=True)
class CorrectedStream:
    """The outcome of a stream's corrected rows.

    Args:
        replayed: written, and deleted from the rejected rows.
        superseded: of these, skipped because the table has a newer row with the same key.
        still_bad: rejected again; the rejected rows stay as they were.
        error: why the stream was not replayed.
    """

    source: str
    stream: str
    replayed: int = 0
    superseded: int = 0
    still_bad: tuple[StillBad, ...] = ()
    error: str = ""


@dataclass
class CorrectedReplay:
    """The outcome of a corrected file.

    Args:
        refused: line of the corrected file -> why it is not a row to replay.
        gone: lines whose rows are no longer rejected.
        elsewhere: lines whose rows are still rejected, in streams that were not chosen.
    """

    streams: list[CorrectedStream] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all rows of the corrected file are done."""
        return not self.refused and not self.elsewhere and not any(each.still_bad or each.error for each in self.streams)


def replay_file(
    tenant: TenantConfig, settings: Settings, file: str, *, source: str | None = None, stream: str | None = None, report: Report = lambda message: None
) -> CorrectedReplay:
    """Load a corrected file's rows.

    Args:
        file: its path; or its path in the inbox of a source, e.g. quarantine/corrected.1a2b3c4d.csv.

    Raises:
        ConfigurationError: there is no such file, or no stream that it could be for.
        DataError: the file holds no rejected rows.
        FabricError: the destination, or the lease, as a whole.
    """
    imports = {key: config for key, config in find_imports(tenant).items() if source in (None, key[0]) and stream in (None, key[1])}
    if not imports:
        raise ConfigurationError(f"tenant {tenant.tenant}: --file is for rows of dropped files, and no such stream is chosen")
    sources = tuple(dict.fromkeys(name for name, _ in imports))
    limits = [config.limits for name in sources if (config := tenant.sources[name]).type == "csv_import"]
    with _fetch(tenant, settings, file, sources) as (path, owner):
        corrected = read_corrected(path, file, limits)
    result, left = CorrectedReplay(refused=dict(corrected.refused)), dict(corrected.rows)
    for name in sources:
        streams = {each: config for (other, each), config in imports.items() if other == name}
        with load_lease(tenant, name, settings, timeout_seconds=LEASE_SECONDS, report=report), open_warehouse(tenant, name, settings) as warehouse:
            warehouse.prepare()
            for each, pairs in _find_pairs(tenant, warehouse, name, streams, corrected).items():
                for pair in pairs:
                    del left[pair.reject.row_id]
                result.streams.append(_replay_stream(tenant, settings, warehouse, name, each, streams[each], corrected, pairs))
            result.elsewhere = _find_elsewhere(tenant, warehouse, imports.keys(), left)
    result.gone = sorted({row.line for row in left.values()} - set(result.elsewhere))
    if owner and result.is_complete:
        archive_corrected(tenant, settings, owner, file, report=report)
    return result


@contextmanager
def _fetch(tenant: TenantConfig, settings: Settings, file: str, sources: Sequence[str]) -> Iterator[tuple[Path, str | None]]:
    """Make the file available as a local path; also yield its source if it comes from an inbox."""
    if Path(file).is_file():
        yield Path(file), None
        return
    for name, inbox in find_inboxes(tenant, settings, sources):
        if (found := inbox.find(file)) is not None:
            folder = naming.files_dir(settings.data_dir, tenant.tenant, name).parent
            make_private_folder(folder)
            with tempfile.TemporaryDirectory(prefix=".replay-", dir=folder) as private:
                path = Path(private) / "corrected"
                inbox.fetch(found, path)
                yield path, name
            return
    raise ConfigurationError(f"--file: there is no file {file}, either here or in the inbox of {', '.join(sources)}", remedy="check the path")


def _find_pairs(tenant: TenantConfig, warehouse: Warehouse, source: str, streams: Mapping[str, CsvStream], corrected: CorrectedFile) -> dict[str, list[Pair]]:
    """Find the rejected rows that the file corrects, by stream, in the file's order."""
    found = find_rejects(warehouse.ask, tenant.tenant, source=source, succeeded_only=True).choose(corrected.rows)
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for reject in (row for portion in found.read() for row in portion):
        if reject.stream in streams:
            pairs[reject.stream].append(Pair(reject, corrected.rows[reject.row_id]))
    return {stream: sorted(each, key=lambda pair: pair.row.line) for stream, each in pairs.items()}


def _find_elsewhere(tenant: TenantConfig, warehouse: Warehouse, chosen: Collection[tuple[str, str]], left: Mapping[str, CorrectedRow]) -> list[int]:
    """Find the lines whose rows are still rejected in streams that were not chosen: they only look as if they were done."""
    found = find_rejects(warehouse.ask, tenant.tenant, succeeded_only=True).choose(left)
    return sorted(left[row.row_id].line for portion in found.read() for row in portion if (row.source, row.stream) not in chosen)


def _replay_stream(
    tenant: TenantConfig, settings: Settings, warehouse: Warehouse, source: str, stream: str, config: CsvStream, corrected: CorrectedFile, pairs: Sequence[Pair]
) -> CorrectedStream:
    try:
        merges = config.disposition == "merge"
        plan = StreamPlan.declared(stream, config, newest_by=ORDER if merges else None, yields=True)
        with contextlib.closing(StreamReplay(tenant, warehouse, source, plan)) as load:
            return _FileReplay(tenant, warehouse, load, config).run(corrected.header, pairs)
    except Exception as error:  # noqa: BLE001 - the one boundary where drivers and servers become our errors
        return CorrectedStream(
            source, stream, error=str(build_error(error, tenant=tenant, settings=settings, where=describe(tenant, source, stream), writing=True))
        )


class _FileReplay:
    """The replay of one stream's corrected rows."""

    def __init__(self, tenant: TenantConfig, warehouse: Warehouse, load: StreamReplay, config: CsvStream) -> None:
        self._ask = warehouse.ask
        self._load, self._config, self._now = load, config, datetime.now(UTC)
        self._source, self._stream = load.record.source, load.record.stream
        self._table, self._loads = Table(naming.raw_dataset(tenant.tenant, self._source), self._stream), Table(naming.platform_dataset(tenant.tenant), "loads")
        self._ledger = Table(naming.platform_dataset(tenant.tenant), "imported_files")
        if HASH not in load.get_columns():
            raise DataError(f"{describe(tenant, self._source, self._stream)}: its table is missing", remedy="load the stream, then replay the file")
        self._known = warehouse.read_files(tenant.tenant, self._stream)
        self._bad: list[StillBad] = []

    def run(self, header: Sequence[str], pairs: Sequence[Pair]) -> CorrectedStream:
        groups: dict[str, list[Pair]] = defaultdict(list)
        files = {file.sha256: file for file in self._known if file.status == "loaded" and file.sha256}
        versions: dict[tuple[str, str], str | None] = {}
        for pair in pairs:
            key = (pair.reject.origin, pair.reject.load_id)
            if key not in versions:
                versions[key] = self._find_version(pair.reject, files)
            if (version := versions[key]) is None:
                self._bad.append(build_bad(pair, "no_file", f"no loaded version of {pair.reject.origin} is known to have held this row"))
            else:
                groups[version].append(pair)
        changed = []
        for sha256, group in groups.items():
            file = files[sha256]
            count = self._write(check_rows(group, header, self._config, file), file)
            changed.append(replace(file, rows_loaded=file.rows_loaded + count, rows_rejected=file.rows_rejected - count))
        superseded = self._load.commit(changed, self._known)
        self._bad.sort(key=lambda bad: bad.line)
        return CorrectedStream(self._source, self._stream, self._load.record.rows_loaded, superseded, tuple(self._bad))

    def _find_version(self, reject: RejectedRow, files: Mapping[str, ImportedFile]) -> str | None:
        """Find the hash of the file that a rejected row was in; of several versions, the one that the row's load has read."""
        found = [sha256 for sha256, file in files.items() if file.name == reject.origin]
        if len(found) <= 1:
            return found[0] if found else None
        wanted = f"where l.load_id = {quote_text(reject.load_id)} and l.source = {quote_text(self._source)} and l.stream = {quote_text(self._stream)}"
        rows = self._ask(
            f"select distinct t.{HASH} from {self._table} as t, {self._loads} as l {wanted} and t.{FILE} = {quote_text(reject.origin)}"
            f" and t.{IMPORTED_AT} between l.started_at and l.loaded_at"
        ) or self._ask(f"select l.sha256 from {self._ledger} as l {wanted} and l.status = 'loaded' and l.name = {quote_text(reject.origin)}")
        return rows[0][0] if len(rows) == 1 and rows[0][0] in files else None

    def _write(self, checked: CheckedRows, file: ImportedFile) -> int:
        """Write a file's rows; return their number."""
        table, pairs = self._drop_known_values(checked, file)
        self._bad += checked.bad
        if not pairs:
            return 0
        numbers = [get_row_number(pair.reject) for pair in pairs]
        table = table.set_column(table.schema.get_field_index(ROW), ROW, pa.array(numbers, BIGINT))
        table = table.append_column(IMPORTED_AT, pa.repeat(pa.scalar(self._now, TIMESTAMP_UTC), table.num_rows))
        if self._config.disposition == "merge":
            first = self._find_sequence(file, pairs) << ROWS_BITS
            table = table.append_column(ORDER, pa.array([first + (number or 0) for number in numbers], BIGINT))
        again = self._load.write(table, [pair.reject.row_id for pair in pairs])
        self._bad += [build_bad(pairs[index], reject.reason, reject.message) for index, reject in again.items()]
        return len(pairs) - len(again)

    def _drop_known_values(self, checked: CheckedRows, file: ImportedFile) -> tuple[pa.Table, list[Pair]]:
        """Leave out rows whose unique value a loaded row of their file already has."""
        bad: dict[int, str] = {}
        for name in (name for name, column in self._config.get_columns().items() if column.unique and name in self._load.get_columns()):
            found = self._ask(f"select distinct {quote(name)} from {self._table} where {HASH} = {quote_text(file.sha256 or '')}")
            known = {value for (value,) in found if value is not None}
            for index, value in enumerate(checked.table.column(name).to_pylist()):
                if value in known:
                    bad.setdefault(index, f"{name}: {mask_values(str(value))[:60]!r} is in another row of the file too")
        checked.bad += [build_bad(checked.pairs[index], "duplicate", message) for index, message in bad.items()]
        kept = [index for index in range(len(checked.pairs)) if index not in bad]
        return checked.table.take(pa.array(kept, pa.int64())), [checked.pairs[index] for index in kept]

    def _find_sequence(self, file: ImportedFile, pairs: Sequence[Pair]) -> int:
        """Find the file's position in the order in which files were read. Where no row says it, that is the first: its rows then overwrite nothing."""
        found = (
            self._ask(f"select max({quote(ORDER)}) from {self._table} where {HASH} = {quote_text(file.sha256 or '')}")[0][0]
            if ORDER in self._load.get_columns()
            else None
        )
        orders = [order for pair in pairs if pair.reject.is_shaped and (order := (pair.reject.parse() or {}).get(ORDER)) is not None]
        return max([int(found or 0), *map(int, orders)]) >> ROWS_BITS
