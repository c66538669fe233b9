"""Rejected rows -> the tables that they were meant for, now that a type, a contract or a table has changed.

A replay shapes, writes and commits rows as a load does, with a row of the ledger. The same transaction deletes the rejected rows that
were written; the others stay as they are. So a replay that is killed has done nothing, and a second replay finds nothing left to do.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.registry import plan_stream
from fabric_assets.errors import ConfigurationError
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.rejects.reader import find_rejects, open_rejects
from fabric_assets.loading.rejects.stream_replay import StreamReplay, describe
from fabric_assets.rows.arrow_types import BINARY
from fabric_assets.rows.batches import StreamPlan
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.warehouse import Warehouse, open_warehouse

Report = Callable[[str], None]
# No typed column can hold these values, whatever changes. They are kept as the source spells them, so as texts they would fit.
_HOPELESS = "out_of_range"


@dataclass(frozen=True)
class Replayed:
    """The outcome of a stream's replay, in rows.

    Args:
        replayed: written, and deleted from the rejected rows.
        superseded: of these, skipped because the table has a newer row with the same key.
        rejected: rejected again.
        unreadable: not tried: a piece of a file that is not a row, or a row that was too long to be kept whole.
        error: why the stream was not replayed.
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

    Rows of streams that the YAML no longer declares are left alone, and rows of failed loads, which the next load reads again.

    Raises:
        FabricError: the destination, or the lease, as a whole.
    """
    for name, config in tenant.sources.items():
        if source not in (None, name):
            continue
        with load_lease(tenant, name, settings, timeout_seconds=LEASE_SECONDS, report=report):
            loads = dict[str, Counter[str]]()
            with open_rejects(tenant, settings, source=name, stream=stream, succeeded_only=True) as found:
                for row in (row for portion in found.read() for row in portion if row.stream in config.streams):
                    loads.setdefault(row.stream, Counter())[row.load_id] += 1
            plans = {kept: plan_stream(config, kept) for kept in loads}
            # Rows of dropped files are corrected first (replay_file.py).
            for kept in [kept for kept, plan in plans.items() if plan.drops_files]:
                yield Replayed(name, kept, unreadable=loads.pop(kept).total(), error=_build_remedy(tenant.tenant, name, kept))
            if loads:
                with open_warehouse(tenant, name, settings) as warehouse:
                    warehouse.prepare()
                    states = warehouse.read_states()
                    for kept, counts in loads.items():
                        plan = plan_stream(config, kept, states[kept].state if kept in states else None)
                        yield _replay_stream(tenant, settings, warehouse, name, plan, loads=sorted(counts, reverse=True))


def _build_remedy(tenant: str, source: str, stream: str) -> str:
    return (
        "rows of dropped files must be corrected first: correct the file and drop it again. Or export the rows with"
        f" `fabric rejects export {tenant} --source {source} --stream {stream} --out corrected.csv`, correct the export,"
        f" and load it with `fabric rejects replay {tenant} --file corrected.csv`"
    )


def _replay_stream(tenant: TenantConfig, settings: Settings, warehouse: Warehouse, source: str, planned: StreamPlan, *, loads: Sequence[str]) -> Replayed:
    stream = planned.name
    done = Replayed(source, stream)
    try:
        for plan, load_id in _build_plans(planned, loads):
            done = _add(done, _load(tenant, warehouse, source, plan, load_id))
    except Exception as error:  # noqa: BLE001 - the one boundary where drivers and servers become our errors
        return replace(done, error=str(build_error(error, tenant=tenant, settings=settings, where=describe(tenant, source, stream), writing=True)))
    return done


def _add(one: Replayed, other: Replayed) -> Replayed:
    counts = {name: getattr(one, name) + getattr(other, name) for name in ("replayed", "superseded", "rejected", "unreadable")}
    return replace(one, **counts)


def _load(tenant: TenantConfig, warehouse: Warehouse, source: str, plan: StreamPlan, load_id: str | None) -> Replayed:
    stream, unreadable, hopeless = plan.name, 0, 0
    with contextlib.closing(StreamReplay(tenant, warehouse, source, plan)) as load:
        if plan.disposition == "merge" and not (plan.newest_by or plan.read_by) and load.has_cursor:
            raise ConfigurationError(
                f"{describe(tenant, source, stream)}: the YAML no longer has the cursor of its last load, so it is unknown which rows are newer",
                remedy=f"load it first, which reads all of it again: fabric run {tenant.tenant} --select raw/{source}/{stream}",
            )
        for portion in find_rejects(warehouse.ask, tenant.tenant, source=source, stream=stream, load_id=load_id, succeeded_only=True).read():
            tried = [row for row in portion if row.reason != _HOPELESS]
            readable = [(row, fields) for row in tried if (fields := row.parse()) is not None]
            hopeless += len(portion) - len(tried)
            unreadable += len(tried) - len(readable)
            tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
            for row, fields in readable:
                tables.setdefault(row.table_name or "", []).append((row.row_id, fields))
            for table, found in tables.items():
                rows = [fields for _, fields in found]
                shown = rows if plan.is_json else build_table(rows, load.get_columns(table), load.get_names(table).find_column)
                load.write(shown, [row_id for row_id, _ in found], table)
        superseded = load.commit()
    return Replayed(
        source, stream, replayed=load.record.rows_loaded, superseded=superseded, rejected=load.record.rows_rejected + hopeless, unreadable=unreadable
    )


def _build_plans(planned: StreamPlan, loads: Sequence[str]) -> Iterator[tuple[StreamPlan, str | None]]:
    """Plan how the rows are written: an append adds them, a merge replaces only older rows.

    Args:
        planned: how a load writes them.
        loads: the loads with rejected rows, the latest first.

    Returns:
        one plan for all rows; or a plan per load, if only the load tells which row is newer. The latest load comes first.
    """
    plan = replace(planned, yields=True, replaced_by=None, reads_all=False, declares_columns=False)
    if plan.disposition != "merge":
        yield replace(plan, disposition="append", newest_by=None), None
    elif plan.newest_by or not plan.is_json:
        # Each load reads a database's stream without a cursor completely, so rows that the last load has rejected are newer than the table's.
        yield plan, None
    else:
        yield from ((replace(plan, read_by=load_id), load_id) for load_id in loads)


def build_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType], find_column: Callable[[str], str]) -> pa.Table:
    """Turn rows that were kept as JSON into columns: numbers if all values are numbers, else texts, which the shaper parses.

    Args:
        columns: the table's, by their names there.
        find_column: finds the column of a field.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    arrays = {}
    for name in names:
        values = [row.get(name) for row in rows]
        array = _build_array(values, is_binary=columns.get(find_column(name)) == BINARY)
        # A column without values must not choose a type. If the table has the column, it is kept, so that it does not count as missing.
        if array.null_count < len(array) or find_column(name) in columns:
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
