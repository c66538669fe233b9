"""Rows that cannot be loaded -> `<tenant>_fabric.rejected_rows`, each once, until a load or a replay has loaded it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from fabric_assets.masking import mask_values
from fabric_assets.quoting import quote_all, quote_text
from fabric_assets.rows.arrow_types import BIGINT, BOOL, TEXT, TIMESTAMP_UTC
from fabric_assets.rows.batches import Reject
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.warehouse.duplicates import delete_duplicates
from fabric_assets.warehouse.platform_tables.ledger import clean_text, name_stream, select_failed_loads, write_time
from fabric_assets.warehouse.session import Session, Table

RAW_CHARACTERS = 8_000
# Values in one list of a statement.
_PORTION = 10_000

_REJECT = {
    "row_id": TEXT,
    "source": TEXT,
    "stream": TEXT,
    "origin": TEXT,
    "row_number": BIGINT,
    "table_name": TEXT,
    "column_name": TEXT,
    "reason": TEXT,
    "message": TEXT,
    "raw": TEXT,
    "raw_truncated": BOOL,
}
REJECTED_ROWS = {**_REJECT, "load_id": TEXT, "run_id": TEXT, "rejected_at": TIMESTAMP_UTC}


def stage(session: Session, rejects: Sequence[Reject], copies: Counter[str], *, source: str, stream: str, is_first: bool) -> None:
    """Stage rejected rows in a temporary table until the load ends.

    Args:
        copies: how often the load has read each row without a number; changed here.
    """
    staged = _get_staged(session)
    if is_first:
        session.create(staged, _REJECT)
    # One search over all rows, because hardly any row holds a secret.
    said = "\n".join(f"{reject.raw}\n{reject.message}" for reject in rejects)
    hide = mask_values if mask_values(said) != said else str
    rows = [_build_row(reject, copies, source, stream, hide) for reject in rejects]
    session.insert(staged, pa.Table.from_pylist(rows, schema=pa.schema(list(_REJECT.items()))))


def write(session: Session, platform: str, record: LoadRecord) -> None:
    """Write the staged rows; a row that an earlier load has rejected is replaced, not doubled."""
    staged, table = _get_staged(session), Table(platform, "rejected_rows")
    delete_duplicates(session, staged, ("row_id",), None)
    session.execute(f"delete from {table} as t using {staged} as s where t.row_id = s.row_id")
    session.execute(
        f"insert into {table} ({quote_all(_REJECT)}, load_id, run_id, rejected_at)"
        f" select {quote_all(_REJECT)}, {quote_text(record.load_id)}, {quote_text(record.run_id)}, {write_time()} from {staged}"
    )
    session.execute(f"drop table {staged}")


def forget(
    session: Session, platform: str, record: LoadRecord, *, origins: Collection[str] = (), row_ids: Collection[str] = (), of_failed_loads: bool = False
) -> None:
    """Delete the rejected rows of a stream that a load has read again.

    Args:
        origins: files whose rows it has read.
        of_failed_loads: also rows that failed loads have rejected, because the load that succeeds reads them again.
    """
    for column, values in (("origin", list(origins)), ("row_id", list(row_ids))):
        for start in range(0, len(values), _PORTION):
            portion = ", ".join(map(quote_text, values[start : start + _PORTION]))
            _delete(session, platform, record, f"{column} in ({portion})")
    if of_failed_loads:
        _delete(session, platform, record, f"load_id in ({select_failed_loads(platform)})")


def forget_all(session: Session, platform: str, record: LoadRecord) -> None:
    """Delete all rejected rows of a stream."""
    _delete(session, platform, record, "true")


def _delete(session: Session, platform: str, record: LoadRecord, condition: str) -> None:
    session.execute(f"delete from {Table(platform, 'rejected_rows')} where {name_stream(record)} and {condition}")


def _get_staged(session: Session) -> Table:
    return Table(session.temporary_schema, "_fabric_rejects")


def build_row_id(source: str, stream: str, origin: str, row_number: int | None, raw: str, copies: Counter[str]) -> str:
    """Build the id of a rejected row, which is the same in every load.

    Args:
        copies: how often each row without a number was read; changed here.
    """
    row_id = _digest(source, stream, origin, row_number, raw)
    if row_number is None:
        # A source without a key may hold the same row several times; each copy is rejected.
        copies[row_id] += 1
        row_id = row_id if copies[row_id] == 1 else _digest(row_id, copies[row_id])
    return row_id


def _build_row(reject: Reject, copies: Counter[str], source: str, stream: str, hide: Callable[[str], str]) -> dict[str, Any]:
    origin, number = (reject.origin, reject.row_number) if reject.has_fixed_position else ("", None)
    row_id = build_row_id(source, ".".join(filter(None, (stream, reject.table))), origin, number, reject.raw, copies)
    raw = hide(reject.raw)
    row = {
        "row_id": row_id,
        "source": source,
        "stream": stream,
        "origin": reject.origin,
        "row_number": reject.row_number,
        "table_name": reject.table or None,
        "column_name": reject.column,
        "reason": reject.reason,
        "message": hide(reject.message),
        "raw": raw[:RAW_CHARACTERS],
        # A row with a masked secret counts as truncated too: a replay would load the mask.
        "raw_truncated": len(raw) > RAW_CHARACTERS or raw != reject.raw,
    }
    return {name: clean_text(value) if isinstance(value, str) else value for name, value in row.items()}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
