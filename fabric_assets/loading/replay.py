"""Rejected rows, as they were kept -> the tables that they were meant for, now that a type, a contract or a table has changed.

They take the way of every row: shaped, written and committed with their row of the ledger. The same transaction lets the rejected
rows go that have been written; the others stay as they are. So a replay that is killed has done nothing, and a second one finds
nothing left to do.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from fabric_assets.config.sources import FileStream
from fabric_assets.config.streams import StreamConfig
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.arrow_types import BINARY
from fabric_assets.connectors.batches import Batch, StreamPlan
from fabric_assets.connectors.column_names import normalize_column
from fabric_assets.connectors.files import ORDER
from fabric_assets.errors import FabricError
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.lease import LEASE_SECONDS, load_lease
from fabric_assets.loading.ledger import StreamState
from fabric_assets.loading.rejects import find_rejects, open_rejects
from fabric_assets.loading.reports import LoadRecord
from fabric_assets.loading.shaping import Shaper
from fabric_assets.loading.warehouse import Warehouse, open_warehouse
from fabric_assets.settings import Settings

Report = Callable[[str], None]
# Rows of these come as objects; the others' as columns. What people drop is corrected in its file, and dropped again.
_IS_JSON = {"rest_api": True, "sql_database": False, "files": False}


@dataclass(frozen=True)
class Replayed:
    """What came of a stream's rejected rows.

    Args:
        replayed: written; they are rejected no more.
        superseded: of these, rows whose key has been loaded since, and newer: what is there was left alone.
        rejected: tried, and rejected again.
        unreadable: not tried: a piece of a file that is no row, or a row that was too long to be kept whole.
        error: why nothing of the stream was replayed.
    """

    source: str
    stream: str
    replayed: int = 0
    superseded: int = 0
    rejected: int = 0
    unreadable: int = 0
    error: str = ""


def replay(
    tenant: TenantConfig, settings: Settings, *, source: str | None = None, stream: str | None = None, report: Report = lambda message: None
) -> Iterator[Replayed]:
    """Load a tenant's rejected rows again, stream by stream.

    Left alone are those of streams that are declared no more, and those of loads that failed: the next load reads them again.

    Raises:
        FabricError: the destination, or the lease, as a whole.
    """
    for name, config in tenant.sources.items():
        if source not in (None, name):
            continue
        with load_lease(tenant, name, settings, timeout_seconds=LEASE_SECONDS, report=report):
            with open_rejects(tenant, settings, source=name, stream=stream, settled=True) as found:
                counts = Counter(row.stream for portion in found.read() for row in portion if row.stream in config.streams)
            if config.type not in _IS_JSON:
                reason = f"rows of a {config.type} are corrected in their file, and the file is dropped again"
                yield from (Replayed(name, kept, unreadable=count, error=reason) for kept, count in counts.items())
            elif counts:
                with open_warehouse(tenant, name, settings) as warehouse:
                    warehouse.prepare()
                    for kept in counts:
                        yield _replay_stream(tenant, warehouse, name, kept)


def _replay_stream(tenant: TenantConfig, warehouse: Warehouse, source: str, stream: str) -> Replayed:
    place = f"tenant {tenant.tenant}, source {source}, stream {stream}"
    try:
        return _load(tenant, warehouse, source, stream, place)
    except FabricError as error:
        return Replayed(source, stream, error=str(error))
    except Exception as error:  # noqa: BLE001 - the one boundary where drivers and servers become our errors
        return Replayed(source, stream, error=str(build_error(error, tenant=tenant, place=place, writing=True)))


def _load(tenant: TenantConfig, warehouse: Warehouse, source: str, stream: str, place: str) -> Replayed:
    config, layouts = tenant.sources[source].streams[stream], warehouse.read_layouts()
    plan = _build_plan(stream, config)
    state = warehouse.read_states().get(stream, StreamState(0, {}))
    record = LoadRecord(load_id=f"{time.time():.6f}", run_id="", source=source, stream=stream, write_disposition=plan.disposition, started_at=datetime.now(UTC))
    started = time.monotonic()
    family = {name: columns for name, columns in layouts.items() if name == stream or name.startswith(f"{stream}__")}
    shaper = Shaper(plan, layout=family, contract=config.schema_contract, destination=tenant.destination.type, load_id=record.load_id, place=place)
    writer = warehouse.open_writer(plan, layouts=layouts, version=state.version, full_refresh=False, load_id=record.load_id)
    is_json, unreadable = _IS_JSON[tenant.sources[source].type], 0
    try:
        for portion in find_rejects(partial(_ask, warehouse), tenant.tenant, source=source, stream=stream, settled=True).read():
            readable = [(row, fields) for row in portion if (fields := row.parse()) is not None]
            unreadable += len(portion) - len(readable)
            rows = [fields for _, fields in readable]
            if not rows:
                continue
            shaped = shaper.shape(Batch(stream, rows if is_json else build_table(rows, family.get(stream, {})), first_row=0))
            again = {reject.row_number for reject in shaped.rejects}
            writer.write(shaped.tables)
            writer.take_up_rejects(row.row_id for number, (row, _) in enumerate(readable) if number not in again)
            record = replace(
                record,
                rows_read=record.rows_read + shaped.read,
                rows_loaded=record.rows_loaded + shaped.loaded,
                rows_rejected=record.rows_rejected + len(again),
            )
        repeats = 0
        if record.rows_loaded:
            written = writer.finish()
            repeats = written.repeats
            ended = replace(record, status="success", loaded_at=datetime.now(UTC), rows_total=written.rows_total, seconds=time.monotonic() - started)
            writer.commit(replace(ended, schema_changes=tuple(shaper.changes)), state.state)
    finally:
        writer.abort()
    return Replayed(source, stream, replayed=record.rows_loaded, superseded=repeats, rejected=record.rows_rejected, unreadable=unreadable)


def _ask(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in warehouse.query(sql).columns), strict=True))


def _build_plan(name: str, stream: StreamConfig) -> StreamPlan:
    """How the rows are written: beside those that are there, or in their place if they are newer."""
    cursor = getattr(stream, "cursor", None)
    newest_by = ORDER if isinstance(stream, FileStream) else cursor.field if cursor and "." not in cursor.field else None
    merges = stream.disposition == "merge"
    return StreamPlan(name, "merge" if merges else "append", stream.primary_key or (), newest_by=newest_by if merges else None, yields=True)


def build_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Turn rows that were kept as JSON into columns again: numbers where all values are, else texts for the shaper to read.

    Args:
        columns: the table's, by their names there.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    arrays = {}
    for name in names:
        values = [row.get(name) for row in rows]
        array = _build_array(values, is_binary=columns.get(normalize_column(name)) == BINARY)
        # A column without values chooses no type; but one that the table has is not missing.
        if array.null_count < len(array) or normalize_column(name) in columns:
            arrays[name] = array
    return pa.table(arrays)


def _build_array(values: Sequence[Any], *, is_binary: bool) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if is_binary and kinds == {str}:
        try:
            return pa.array([None if value is None else bytes.fromhex(value) for value in values], BINARY)
        except ValueError:
            return pa.array(values, pa.string())
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        try:
            return pa.array(values)
        except OverflowError:
            pass
    return pa.array([_spell(value) for value in values], pa.string())


def _spell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
