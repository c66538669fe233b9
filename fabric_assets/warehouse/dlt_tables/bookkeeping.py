"""A raw dataset's rows of `_dlt_version` and `_dlt_pipeline_state`: what earlier loads have written, and what each commit adds (ADR 0060).

Commits only add rows, so that transactions of one load never conflict; the next load deletes all but the newest ones. A row is ours if its state names it:
rows of a pipeline that somebody has run on the dataset are deleted, and reported.
"""

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fabric_assets.quoting import quote_text
from fabric_assets.rows.arrow_types import BIGINT, TEXT, TIMESTAMP_UTC
from fabric_assets.rows.column_names import is_of_family
from fabric_assets.warehouse.dlt_tables import pipeline_state, stored_schema
from fabric_assets.warehouse.dlt_tables.stored_schema import TableHints, Tables, Texts, build_schema, build_tables, read_hints
from fabric_assets.warehouse.session import Columns, Session, Table

VERSION, STATE, LOADS = "_dlt_version", "_dlt_pipeline_state", "_dlt_loads"
# The same tables as dlt's, in its order of columns. Users join `_dlt_loads` with the rows' _dlt_load_id.
DLT_TABLES = {
    LOADS: {"load_id": TEXT, "schema_name": TEXT, "status": BIGINT, "inserted_at": TIMESTAMP_UTC, "schema_version_hash": TEXT},
    VERSION: {
        "version": BIGINT,
        "engine_version": BIGINT,
        "inserted_at": TIMESTAMP_UTC,
        "schema_name": TEXT,
        "version_hash": TEXT,
        "schema": TEXT,
    },
    STATE: {
        "version": BIGINT,
        "engine_version": BIGINT,
        "pipeline_name": TEXT,
        "state": TEXT,
        "created_at": TIMESTAMP_UTC,
        "version_hash": TEXT,
        "_dlt_load_id": TEXT,
        "_dlt_id": TEXT,
    },
}
T = TypeVar("T")
_NEVER = datetime.min.replace(tzinfo=UTC)
# Versions that a new load keeps of each.
_KEPT = 2
# The beginning of _dlt_id of the states that loads write; dlt's own ids have no such sign.
_OURS = "fabric:"


@dataclass(frozen=True)
class DatasetNames:
    """What dlt calls a source's dataset and its parts.

    Args:
        schema: the source's name.
        destination: the destination's type.
    """

    pipeline: str
    schema: str
    dataset: str
    destination: str


@dataclass(frozen=True)
class TableChange:
    """The tables of one stream after its part of a transaction.

    Args:
        root: the stream's table; its tables of nested lists belong to it.
        hints: None where the transaction does not tell them, as that of a replay.
    """

    root: str
    layout: Mapping[str, Columns]
    hints: TableHints | None


@dataclass(frozen=True)
class Recorded:
    """What the two tables hold, before a load.

    Args:
        tables: of the newest schema that a load has written; None without one.
        previous: the hash of that schema, then of those before it.
        version, state_version, moment: the highest of all rows, also of foreign ones.
        load_id: the highest of our states.
        written_at: when that schema was written.
        is_foreign: whether somebody else has written rows of the source's pipeline or schema.
    """

    tables: Tables | None = None
    previous: tuple[str, ...] = ()
    version: int = 0
    state_version: int = 0
    load_id: str = ""
    moment: datetime | None = None
    written_at: datetime | None = None
    is_foreign: bool = False


def read_recorded(session: Session, names: DatasetNames) -> Recorded:
    """Read what the tables hold, and delete the rows of foreign pipelines and all but the newest of ours."""
    of_pipeline = f"{Table(names.dataset, STATE)} where pipeline_name = {quote_text(names.pipeline)}"
    of_schema = f"{Table(names.dataset, VERSION)} where schema_name = {quote_text(names.schema)}"
    newest = "row_number() over (order by inserted_at desc) = 1"
    # One statement: each takes a millisecond, of the hundred of a small load.
    rows = session.query(
        f"select version, version_hash, inserted_at, case when {newest} then schema end as content, null as load_id, null as row_id from {of_schema}"
        f" union all select version, null, null, state, _dlt_load_id, coalesce(_dlt_id, '') from {of_pipeline}"
    ).to_pylist()
    versions = sorted((each for each in rows if each["row_id"] is None), key=lambda each: each["inserted_at"] or _NEVER, reverse=True)
    states = sorted((each for each in rows if each["row_id"] is not None), key=lambda each: each["version"] or 0, reverse=True)
    ours = [each for each in states if each["row_id"].startswith(_OURS)]
    hashes = {pipeline_state.read_layout(each["content"]) for each in ours}
    latest = next((each for each in versions if each["version_hash"] in hashes), None)
    if latest is not None and latest["content"] is None:
        # A foreign schema is newer.
        latest["content"] = session.ask(f"select max(schema) from {Table(names.dataset, VERSION)} where {_name_version(latest)}")[0][0]
    content = _parse(latest["content"]) if latest else None
    if content is None:
        latest, content = None, {"tables": {}, "previous_hashes": []}
    known = [each for each in versions if each["version_hash"] in {*hashes, *content["previous_hashes"]}]
    if len(versions) > len(known[:_KEPT]):
        others = f" and coalesce(not ({' or '.join(map(_name_version, known[:_KEPT]))}), true)" if known else ""
        session.execute(f"delete from {of_schema}{others}")
    if len(states) > len(ours[:1]):
        others = f" and coalesce(_dlt_id <> {quote_text(ours[0]['row_id'])}, true)" if ours else ""
        session.execute(f"delete from {of_pipeline}{others}")
    return Recorded(
        tables={name: table for name, table in content["tables"].items() if name not in DLT_TABLES} if latest else None,
        previous=(latest["version_hash"], *content["previous_hashes"]) if latest else (),
        version=max((each["version"] or 0 for each in versions), default=0),
        state_version=max((each["version"] or 0 for each in states), default=0),
        load_id=max((each["load_id"] or "" for each in ours), default=""),
        moment=max((each["inserted_at"].astimezone(UTC) for each in versions if each["inserted_at"]), default=None),
        written_at=latest["inserted_at"].astimezone(UTC) if latest else None,
        is_foreign=len(known) < len(versions) or len(ours) < len(states),
    )


def _parse(schema: str | None) -> dict[str, Any] | None:
    """Parse a stored schema; None if somebody has damaged it."""
    try:
        content = json.loads(schema or "")
        return content if read_hints(content["tables"]) and isinstance(content["previous_hashes"], list) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _name_version(row: Mapping[str, Any]) -> str:
    return f"(version = {row['version'] or 0} and version_hash = {quote_text(row['version_hash'])})"


@dataclass(frozen=True)
class _Content:
    """The dataset as the newest version describes it."""

    layouts: dict[str, Columns]
    hints: dict[str, TableHints]
    tables: Tables


def _replace(whole: Mapping[str, T], former: Collection[str], new: Mapping[str, T]) -> dict[str, T]:
    return dict(sorted(({name: each for name, each in whole.items() if name not in former} | dict(new)).items()))


class DltBookkeeping:
    """The two tables during a load, used by all its threads.

    Args:
        layouts: the tables of the dataset when the load began.
    """

    def __init__(self, names: DatasetNames, recorded: Recorded, layouts: Mapping[str, Columns]) -> None:
        self._names, self._recorded, self._lock = names, recorded, threading.Lock()
        hints = {name: hint for name, hint in read_hints(recorded.tables or {}).items() if name in layouts}
        self._now = _Content(dict(layouts), hints, build_tables(layouts, hints))
        self._is_recorded, self._texts = self._now.tables == recorded.tables, Texts()

    @contextmanager
    def record(self, session: Session, changes: Sequence[TableChange], load_ids: Sequence[str]) -> Iterator[None]:
        """Add a version and a state to the transaction that the block commits, if the layout is not the recorded one.

        Other threads of the load wait until the block is done, because each version describes the tables of all streams.
        """
        with ExitStack() as held:
            held.enter_context(self._lock)
            new = self._apply(changes)
            # To compare all tables again would take longer than a small commit.
            if self._is_recorded if new is self._now else new.tables == self._recorded.tables:
                self._now, self._is_recorded = new, True
                held.close()
                yield
                return
            recorded = self._write(session, new, max(load_ids))
            yield
            self._now, self._recorded, self._is_recorded = new, recorded, True

    def _apply(self, changes: Sequence[TableChange]) -> _Content:
        found = self._now
        for change in changes:
            before = {name: columns for name, columns in found.layouts.items() if is_of_family(name, change.root)}
            hints = {change.root: change.hints or found.hints.get(change.root, TableHints())} if change.root in change.layout else {}
            has_same_order = before == change.layout and all(list(before[name]) == list(columns) for name, columns in change.layout.items())
            if has_same_order and hints.get(change.root) == found.hints.get(change.root):
                continue
            # A family's tables depend on no others.
            found = _Content(
                _replace(found.layouts, before, change.layout),
                _replace(found.hints, before, hints),
                _replace(found.tables, before, build_tables(change.layout, hints)),
            )
        return found

    def _write(self, session: Session, new: _Content, load_id: str) -> Recorded:
        names, last, now = self._names, self._recorded, datetime.now(UTC)
        if last.moment is not None:
            now = max(now, last.moment + timedelta(microseconds=1))  # dlt takes the schema that was inserted last
        # dlt takes the state with the highest load id, and a stream with a higher one may have been committed first.
        load_id = max(load_id, last.load_id)
        text, found = build_schema(names.schema, new.tables, version=last.version + 1, previous=last.previous, texts=self._texts)
        version = last.state_version + 1
        of_pipeline = {"dataset": names.dataset, "schema": names.schema, "destination": names.destination}
        state, state_hash = pipeline_state.build_state(names.pipeline, **of_pipeline, layout=found, version=version)
        moment = quote_text(now.isoformat())
        row = f"{last.version + 1}, {stored_schema.ENGINE_VERSION}, {moment}, {quote_text(names.schema)}, {quote_text(found)}, {quote_text(text)}"
        session.defer(f"insert into {Table(names.dataset, VERSION)} ({', '.join(DLT_TABLES[VERSION])}) values ({row})")
        row = (
            f"{version}, {pipeline_state.ENGINE_VERSION}, {quote_text(names.pipeline)}, {quote_text(state)}, {moment}, {quote_text(state_hash)},"
            f" {quote_text(load_id)}, {quote_text(f'{_OURS}{version}:{load_id}')}"
        )
        session.defer(f"insert into {Table(names.dataset, STATE)} ({', '.join(DLT_TABLES[STATE])}) values ({row})")
        previous = (found, *(each for each in last.previous if each != found))
        return Recorded(new.tables, previous, last.version + 1, version, load_id, now)
