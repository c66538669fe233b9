"""The platform's own tables in `<tenant>_fabric`: what each load did, the rows it set aside, and how far each stream has come."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.connectors.arrow_types import BIGINT, BOOL, DOUBLE, JSON, TEXT, TIMESTAMP_UTC
from fabric_assets.connectors.batches import Reject
from fabric_assets.errors import LeaseHeld
from fabric_assets.loading.repeats import delete_repeats
from fabric_assets.loading.reports import LoadRecord, SchemaChange
from fabric_assets.loading.session import Session, Table, WriteConflict, quote, quote_all, quote_text

RAW_CHARACTERS = 8_000
# Values in one list of a statement.
_PORTION = 10_000

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
    "bytes": BIGINT,
    "seconds": DOUBLE,
    "schema_changes": JSON,
    "error": TEXT,
    "retriable": BOOL,
}
_REJECT = {
    "row_id": TEXT,
    "source": TEXT,
    "stream": TEXT,
    "origin": TEXT,
    "row_number": BIGINT,
    "column_name": TEXT,
    "reason": TEXT,
    "message": TEXT,
    "raw": TEXT,
    "raw_truncated": BOOL,
}
REJECTED_ROWS = {**_REJECT, "load_id": TEXT, "run_id": TEXT, "rejected_at": TIMESTAMP_UTC}
STREAM_STATE = {"source": TEXT, "stream": TEXT, "version": BIGINT, "state": TEXT, "load_id": TEXT, "updated_at": TIMESTAMP_UTC}
# name -> columns, primary key
TABLES = {
    "loads": (LOADS, ("load_id", "stream", "source")),
    "rejected_rows": (REJECTED_ROWS, ("row_id",)),
    "stream_state": (STREAM_STATE, ("source", "stream")),
}


@dataclass(frozen=True)
class StreamState:
    """Where a stream's last load came to.

    Args:
        version: counts the stream's loads; 0 before the first.
    """

    version: int
    state: dict[str, Any]


# --- while a load runs


def read_states(session: Session, platform: str, source: str) -> dict[str, StreamState]:
    found = session.query(f"select stream, version, state from {Table(platform, 'stream_state')} where source = {quote_text(source)}").to_pylist()
    return {row["stream"]: StreamState(row["version"], json.loads(row["state"])) for row in found}


def write_state(session: Session, platform: str, record: LoadRecord, state: Mapping[str, Any], *, version: int) -> None:
    """Save a stream's state, if it is still the one that the load began with.

    Raises:
        LeaseHeld: another run has saved one meanwhile.
    """
    values = f"version = {version + 1}, state = {quote_text(json.dumps(state))}, load_id = {quote_text(record.load_id)}, updated_at = {_now()}"
    try:
        written = session.execute(f"update {Table(platform, 'stream_state')} set {values} where {_name_stream(record)} and version = {version}")
    except WriteConflict:
        written = 0
    if written != 1:
        raise LeaseHeld(
            f"{session.place}: another run has loaded {record.source}.{record.stream} meanwhile; nothing of this load was kept",
            remedy="let one run at a time load a source",
        )


def start_states(session: Session, platform: str, records: Sequence[LoadRecord]) -> None:
    """Give streams that are loaded for the first time a state: it is the row that two loads of a stream cannot both change."""
    table, known = Table(platform, "stream_state"), set()
    for source in {record.source for record in records}:
        known |= {(source, stream) for stream in read_states(session, platform, source)}
    new = [record for record in records if (record.source, record.stream) not in known]
    if new:
        rows = ", ".join(f"({quote_text(record.source)}, {quote_text(record.stream)}, 0, '{{}}', {quote_text(record.load_id)}, {_now()})" for record in new)
        session.execute(f"insert into {table} ({quote_all(STREAM_STATE)}) values {rows}")


def write_records(session: Session, platform: str, records: Sequence[LoadRecord]) -> None:
    """Write rows of the ledger for loads that begin."""
    rows = ", ".join(f"({', '.join(_build_literals(record).values())})" for record in records)
    if rows:
        session.execute(f"insert into {Table(platform, 'loads')} ({quote_all(LOADS)}) values {rows}")


def write_end(session: Session, platform: str, record: LoadRecord) -> bool:
    """Write what became of a load over its row of the ledger.

    Returns:
        whether it was: a commit whose answer was lost looks failed to the load, and is none if the ledger calls it a success.
    """
    table, row = Table(platform, "loads"), f"load_id = {quote_text(record.load_id)} and {_name_stream(record)}"
    values = ", ".join(f"{quote(name)} = {value}" for name, value in _build_literals(record).items())
    if session.execute(f"update {table} set {values} where {row} and status <> 'success'"):
        return True
    if session.ask(f"select exists (select 1 from {table} where {row})")[0]:
        return False
    write_records(session, platform, [record])
    return True


def _build_literals(record: LoadRecord) -> dict[str, str]:
    values = {**asdict(record), "schema_changes": json.dumps([asdict(change) for change in record.schema_changes])}
    return {name: _quote_value(values[name]) for name in LOADS}


def _quote_value(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, int | float) else quote_text(_clean(value.isoformat() if isinstance(value, datetime) else value))


def end_dead_loads(session: Session, platform: str, source: str) -> None:
    """Call failed what a run has begun that is no more: whoever holds the lease is the only one that loads the source."""
    session.execute(
        f"update {Table(platform, 'loads')} set status = 'failed', loaded_at = {_now()},"
        " error = 'the run ended without a word: it was killed, or its machine went down'"
        f" where source = {quote_text(source)} and status = 'running'"
    )


def _name_stream(record: LoadRecord) -> str:
    return f"source = {quote_text(record.source)} and stream = {quote_text(record.stream)}"


# --- rejected rows


def stage_rejects(session: Session, rejects: Sequence[Reject], copies: Counter[str], *, source: str, stream: str, is_first: bool) -> None:
    """Set rejected rows aside until the load ends.

    Args:
        copies: how often the load has met each row that has no number; changed here.
    """
    stage = _stage(session)
    if is_first:
        session.create(stage, _REJECT)
    rows = [_build_row(reject, copies, source, stream) for reject in rejects]
    session.insert(stage, pa.Table.from_pylist(rows, schema=pa.schema(list(_REJECT.items()))))


def write_rejects(session: Session, platform: str, record: LoadRecord) -> None:
    """Keep the rows set aside; one that an earlier load has met is not kept twice."""
    stage, table = _stage(session), Table(platform, "rejected_rows")
    delete_repeats(session, stage, ("row_id",), None)
    session.execute(f"delete from {table} as t using {stage} as s where t.row_id = s.row_id")
    session.execute(
        f"insert into {table} ({quote_all(_REJECT)}, load_id, run_id, rejected_at)"
        f" select {quote_all(_REJECT)}, {quote_text(record.load_id)}, {quote_text(record.run_id)}, {_now()} from {stage}"
    )
    session.execute(f"drop table {stage}")


def forget_rejects(session: Session, platform: str, record: LoadRecord) -> None:
    """Remove a stream's rejected rows."""
    session.execute(f"delete from {Table(platform, 'rejected_rows')} where {_name_stream(record)}")


def forget_rejects_by(session: Session, platform: str, record: LoadRecord, column: str, values: Collection[str]) -> None:
    """Remove a stream's rejected rows with these values of a column."""
    for start in range(0, len(values), _PORTION):
        portion = ", ".join(map(quote_text, list(values)[start : start + _PORTION]))
        session.execute(f"delete from {Table(platform, 'rejected_rows')} where {_name_stream(record)} and {quote(column)} in ({portion})")


def forget_failed_rejects(session: Session, platform: str, record: LoadRecord) -> None:
    """Remove the rows that loads of the stream have rejected which failed then: they were read again by the one that succeeds."""
    session.execute(f"delete from {Table(platform, 'rejected_rows')} where {_name_stream(record)} and load_id in ({select_failed_loads(platform)})")


def select_failed_loads(platform: str) -> str:
    return f"select load_id from {Table(platform, 'loads')} where status = 'failed'"


def _now() -> str:
    """The time as a literal: a transaction's own clock stands still, and it may have begun with the commit before it."""
    return f"cast({quote_text(datetime.now(UTC).isoformat())} as timestamp with time zone)"


def _stage(session: Session) -> Table:
    return Table(session.temporary_schema, "_fabric_rejects")


def _build_row(reject: Reject, copies: Counter[str], source: str, stream: str) -> dict[str, Any]:
    row_id = _digest(source, stream, reject.origin, reject.row_number, reject.raw)
    if reject.row_number is None:
        # A table without a key may hold the same row several times, and each of them is rejected.
        copies[row_id] += 1
        row_id = row_id if copies[row_id] == 1 else _digest(row_id, copies[row_id])
    row = {
        "row_id": row_id,
        "source": source,
        "stream": stream,
        "origin": reject.origin,
        "row_number": reject.row_number,
        "column_name": reject.column,
        "reason": reject.reason,
        "message": reject.message,
        "raw": reject.raw[:RAW_CHARACTERS],
        "raw_truncated": len(reject.raw) > RAW_CHARACTERS,
    }
    return {name: _clean(value) if isinstance(value, str) else value for name, value in row.items()}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _clean(text: str) -> str:
    """Replace what no text of Postgres can hold: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


# --- afterwards, over any DB-API connection


def read_successes(connection: Any, *, tenant: str, source: str, run_ids: Sequence[str]) -> dict[str, LoadRecord]:
    """Read what these runs have loaded: the newest load of each stream."""
    names, cursor = [field.name for field in fields(LoadRecord)], connection.cursor()
    cursor.execute(
        f"select {quote_all(names)} from {Table(naming.platform_dataset(tenant), 'loads')}"
        f" where source = {quote_text(source)} and status = 'success' and run_id in ({', '.join(map(quote_text, run_ids))}) order by loaded_at"
    )
    found = {}
    for values in cursor.fetchall():
        row = dict(zip(names, values, strict=True))
        changes = row["schema_changes"] if isinstance(row["schema_changes"], list) else json.loads(row["schema_changes"])
        found[row["stream"]] = LoadRecord(**{**row, "schema_changes": tuple(SchemaChange(**change) for change in changes)})
    return found


def read_given_up(connection: Any, *, tenant: str, source: str, run_id: str) -> dict[str, str]:
    """Read which streams a run has failed to load for good, and why."""
    cursor = connection.cursor()
    cursor.execute(
        f"select stream, error from {Table(naming.platform_dataset(tenant), 'loads')}"
        f" where source = {quote_text(source)} and run_id = {quote_text(run_id)} and status = 'failed' and not retriable"
    )
    return dict(cursor.fetchall())


def get_last_load(connection: Any, *, tenant: str, source: str, stream: str) -> datetime | None:
    """When the stream was last loaded; None if never. The names are fixed points of our own rule."""
    dataset, cursor = naming.platform_dataset(tenant), connection.cursor()
    cursor.execute(f"select 1 from information_schema.columns where table_schema = '{dataset}' and table_name = 'loads' and column_name = 'status'")
    if cursor.fetchone() is None:
        return None
    cursor.execute(f"select max(loaded_at) from {quote(dataset)}.loads where source = '{source}' and stream = '{stream}' and status = 'success'")
    found = cursor.fetchone()[0]
    return None if found is None else found.astimezone(UTC)
