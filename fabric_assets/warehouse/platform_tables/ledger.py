"""The platform's tables `loads` and `stream_state` in `<tenant>_fabric`: the outcome of each load, and the state of each stream."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.drivers.asking import Ask
from fabric_assets.errors import DestinationError, LeaseHeld
from fabric_assets.quoting import quote, quote_all, quote_text
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DOUBLE, JSON, TEXT, TIMESTAMP_UTC
from fabric_assets.rows.reports import LoadRecord, SchemaChange
from fabric_assets.rows.value_forms import FIRST
from fabric_assets.warehouse.session import Session, Table, WriteConflict

LOADS = {
    "load_id": TEXT,
    "run_id": TEXT,
    "source": TEXT,
    "stream": TEXT,
    "write_disposition": TEXT,
    "status": TEXT,
    "started_at": TIMESTAMP_UTC,
    "loaded_at": TIMESTAMP_UTC,
    "window_start": TEXT,
    "window_end": TEXT,
    "rows_read": BIGINT,
    "rows_loaded": BIGINT,
    "rows_rejected": BIGINT,
    "rows_total": BIGINT,
    "rows_deleted": BIGINT,
    "deletes_kept": TEXT,
    "source_rows": BIGINT,
    "bytes": BIGINT,
    "seconds": DOUBLE,
    "schema_changes": JSON,
    "error": TEXT,
    "retriable": BOOL,
    "value_forms": BIGINT,
    "column_names": TEXT,
}
_IDENTITY = ("load_id", "source", "stream")
# Columns that a load's row has when the load begins.
_BEGUN = frozenset({"load_id", "run_id", "source", "stream", "write_disposition", "started_at"})
STREAM_STATE = {
    "source": TEXT,
    "stream": TEXT,
    "version": BIGINT,
    "state": TEXT,
    "load_id": TEXT,
    "updated_at": TIMESTAMP_UTC,
    "value_forms": BIGINT,
    "column_names": TEXT,
    "rows_total": BIGINT,
}
# name -> columns, primary key
TABLES = {
    "loads": (LOADS, ("load_id", "stream", "source")),
    "stream_state": (STREAM_STATE, ("source", "stream")),
}


@dataclass(frozen=True)
class StreamState:
    """A stream's state after its last load.

    Args:
        version: counts the stream's loads; 0 before the first.
        has_rejects: whether the stream has rejected rows.
        value_forms: the version of the forms in its table; FIRST if no load has recorded one.
        column_names: the fields whose columns have other names, as stream_names.py keeps them.
        rows_total: rows in its table at the end of the last load; None if no load has recorded it.
    """

    version: int
    state: dict[str, Any]
    has_rejects: bool = False
    value_forms: int = FIRST
    column_names: str | None = None
    rows_total: int | None = None


# --- while a load runs


def read_states(session: Session, platform: str, source: str) -> dict[str, StreamState]:
    of_source = f"where source = {quote_text(source)}"
    has_rejects = f"stream in (select stream from {Table(platform, 'rejected_rows')} {of_source}) as has_rejects"
    found = session.query(
        f"select stream, version, state, value_forms, column_names, rows_total, {has_rejects} from {Table(platform, 'stream_state')} {of_source}"
    ).to_pylist()
    streams = [row["stream"] for row in found]
    return {row["stream"]: _parse_state(row, platform, source, where=session.where, rows=streams.count(row["stream"])) for row in found}


def _parse_state(row: Mapping[str, Any], platform: str, source: str, *, where: str, rows: int) -> StreamState:
    """Parse a row of `stream_state`.

    Raises:
        DestinationError: somebody has changed the row, or has written a second one.
    """
    try:
        state = json.loads(row["state"] or "")
    except ValueError:
        state = None
    if not isinstance(state, dict) or row["version"] is None or rows > 1:
        chosen = f"source = {quote_text(source)} and stream = {quote_text(row['stream'])}"
        raise DestinationError(
            f"{where}: {platform}.stream_state has {f'{rows} rows' if rows > 1 else 'a damaged row'} for {source}.{row['stream']},"
            " which no load has written; nothing was loaded",
            remedy=f"delete from {platform}.stream_state where {chosen}; then load the stream with --full-refresh",
        )
    return StreamState(row["version"], state, row["has_rejects"], row["value_forms"] or FIRST, row["column_names"], row["rows_total"])


def write_states(session: Session, platform: str, loads: Sequence[tuple[LoadRecord, int, Mapping[str, Any]]]) -> None:
    """Save streams' states, unless another run has changed them since the loads began.

    Args:
        loads: the load, the version of the state that it began with, the new state.

    Raises:
        LeaseHeld: another run has changed a state meanwhile.
    """
    rows = ", ".join(
        f"({quote_text(record.source)}, {quote_text(record.stream)}, {version}, {quote_text(json.dumps(state))}, {quote_text(record.load_id)},"
        f" {record.value_forms or FIRST}, {_quote_value(record.column_names)}, cast({_quote_value(record.rows_total)} as bigint))"
        for record, version, state in loads
    )
    values = (
        f"version = t.version + 1, state = v.state, load_id = v.load_id, value_forms = v.value_forms, updated_at = {write_time()},"
        " column_names = coalesce(v.column_names, t.column_names), rows_total = v.rows_total"
    )
    given = f"(values {rows}) as v (source, stream, version, state, load_id, value_forms, column_names, rows_total)"
    same = "t.source = v.source and t.stream = v.stream and t.version = v.version"
    try:
        written = session.execute(f"update {Table(platform, 'stream_state')} as t set {values} from {given} where {same}")
    except WriteConflict:
        written = 0
    if written != len(loads):
        streams = ", ".join(f"{record.source}.{record.stream}" for record, *_ in loads)
        raise LeaseHeld(
            f"{session.where}: another run has loaded {streams} meanwhile; nothing of this load was kept",
            remedy="let one run at a time load a source",
        )


def start_states(session: Session, platform: str, records: Sequence[LoadRecord]) -> None:
    """Write a state for streams without one: the row makes two loads of a stream conflict.

    If somebody has deleted the state but not the table, the table's forms are those of the last load in the ledger.
    """
    table, known = Table(platform, "stream_state"), set()
    for source in {record.source for record in records}:
        known |= {(source, stream) for stream in read_states(session, platform, source)}
    new = [record for record in records if (record.source, record.stream) not in known]
    now = datetime.now(UTC)
    if new:
        begun, nothing = {"version": 0, "state": "{}", "updated_at": now}, {"value_forms": None, "column_names": None}
        kept = _read_last_forms(session, platform, new)
        rows = [
            {"source": record.source, "stream": record.stream, "load_id": record.load_id, **kept.get((record.source, record.stream), nothing), **begun}
            for record in new
        ]
        session.insert(table, pa.Table.from_pylist(rows, schema=pa.schema(list(STREAM_STATE.items()))))


def _read_last_forms(session: Session, platform: str, records: Sequence[LoadRecord]) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the version of forms and the names that the last loads of these streams' sources have saved."""
    sources = ", ".join(quote_text(source) for source in sorted({record.source for record in records}))
    found = session.query(
        f"select source, stream, value_forms, column_names from {Table(platform, 'loads')}"
        f" where status = 'success' and source in ({sources}) order by loaded_at"
    ).to_pylist()
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found:
        last = kept.setdefault((row["source"], row["stream"]), {"column_names": None})
        last["value_forms"] = row["value_forms"]
        # A load that has changed no name has saved no names.
        last["column_names"] = row["column_names"] or last["column_names"]
    return kept


def write_records(session: Session, platform: str, records: Sequence[LoadRecord]) -> None:
    """Write rows of the ledger for loads that begin."""
    if records:
        # As Arrow data: in SQL the database would parse and plan each value of hundreds of rows.
        session.insert(Table(platform, "loads"), pa.Table.from_pylist([_get_values(record) for record in records], schema=pa.schema(list(LOADS.items()))))


def write_ends(session: Session, platform: str, records: Sequence[LoadRecord]) -> bool:
    """Write the outcomes of loads into their rows of the ledger.

    Returns:
        False if the ledger already has a success for one of them: then only the answer to its commit was lost.
    """
    table, ended = Table(platform, "loads"), [name for name in LOADS if name not in _BEGUN]
    new = ", ".join(f"{quote(name)} = cast(v.{quote(name)} as {session.name_type(LOADS[name])})" for name in ended)
    same = " and ".join(f"t.{name} = v.{name}" for name in _IDENTITY)
    columns = (*_IDENTITY, *ended)
    values = (_get_values(record) for record in records)
    rows = ", ".join(f"({', '.join(_quote_value(row[name]) for name in columns)})" for row in values)
    written = session.execute(f"update {table} as t set {new} from (values {rows}) as v ({quote_all(columns)}) where {same} and t.status <> 'success'")
    if written == len(records):
        return True
    missing = [record for record in records if not session.ask(f"select exists (select 1 from {table} where {_name_load(record)})")[0][0]]
    write_records(session, platform, missing)
    return written + len(missing) == len(records)


def _name_load(record: LoadRecord) -> str:
    return f"load_id = {quote_text(record.load_id)} and {name_stream(record)}"


def _get_values(record: LoadRecord) -> dict[str, Any]:
    values = {**vars(record), "schema_changes": json.dumps([asdict(change) for change in record.schema_changes])}
    return {name: clean_text(value) if isinstance(value := values[name], str) else value for name in LOADS}


def _quote_value(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, int | float) else quote_text(value.isoformat() if isinstance(value, datetime) else value)


def end_dead_loads(session: Session, platform: str, source: str) -> None:
    """Mark running loads of the source as failed. The caller holds the lease, so their runs are dead."""
    session.execute(
        f"update {Table(platform, 'loads')} set status = 'failed', loaded_at = {write_time()},"
        " error = 'the run ended without a word: it was killed, or its machine went down'"
        f" where source = {quote_text(source)} and status = 'running'"
    )


def name_stream(record: LoadRecord) -> str:
    return f"source = {quote_text(record.source)} and stream = {quote_text(record.stream)}"


def write_time() -> str:
    """Write the present time as a literal: now() is the start of the transaction, which may be long ago."""
    return f"cast({quote_text(datetime.now(UTC).isoformat())} as timestamp with time zone)"


def clean_text(text: str) -> str:
    """Replace what no text of Postgres can hold: NUL, and half surrogate pairs."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def select_failed_loads(platform: str) -> str:
    return f"select load_id from {Table(platform, 'loads')} where status = 'failed'"


# --- afterwards, over any connection


def read_successes(ask: Ask, *, tenant: str, source: str, run_ids: Sequence[str]) -> dict[str, LoadRecord]:
    """Read what these runs have loaded: the newest load of each stream."""
    names, found = [field.name for field in fields(LoadRecord)], {}
    rows = ask(
        f"select {quote_all(names)} from {Table(naming.platform_dataset(tenant), 'loads')}"
        f" where source = {quote_text(source)} and status = 'success' and run_id in ({', '.join(map(quote_text, run_ids))}) order by loaded_at"
    )
    for values in rows:
        row = dict(zip(names, values, strict=True))
        found[row["stream"]] = LoadRecord(**{**row, "schema_changes": _parse_changes(row["schema_changes"])})
    return found


def read_given_up(ask: Ask, *, tenant: str, source: str, run_id: str) -> dict[str, str]:
    """Read which streams a run has failed to load with errors that are not retriable, and why."""
    rows = ask(
        f"select stream, error from {Table(naming.platform_dataset(tenant), 'loads')}"
        f" where source = {quote_text(source)} and run_id = {quote_text(run_id)} and status = 'failed' and not retriable"
    )
    return dict(rows)


def get_last_changes(ask: Ask, *, tenant: str, source: str, stream: str) -> tuple[SchemaChange, ...]:
    """Read the schema changes that the stream's last successful load found."""
    rows = ask(
        f"select schema_changes from {Table(naming.platform_dataset(tenant), 'loads')} where source = {quote_text(source)} and stream = {quote_text(stream)}"
        " and status = 'success' order by loaded_at desc limit 1"
    )
    return _parse_changes(rows[0][0]) if rows else ()


def _parse_changes(value: Any) -> tuple[SchemaChange, ...]:
    return tuple(SchemaChange(**change) for change in (value if isinstance(value, list) else json.loads(value)))
