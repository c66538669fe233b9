"""A raw dataset on which somebody has run a dlt pipeline since the last load -> what that run has changed, for the run's summary."""

import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from fabric_assets.quoting import quote_text
from fabric_assets.rows.column_names import SEPARATOR, is_of_family
from fabric_assets.warehouse.dlt_tables.bookkeeping import LOADS, DatasetNames, Recorded
from fabric_assets.warehouse.session import Columns, Session, Table

# Names that one message lists.
_SHOWN = 5


@dataclass
class ForeignRuns:
    """What pipelines of others have changed since the last load; each change is described once.

    Args:
        dataset: for messages.
        parts: table -> what has changed in it, as parts of a sentence.
    """

    dataset: str = ""
    parts: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_warnings(self, roots: Collection[str], streams: Collection[str]) -> Iterator[str]:
        """Describe the changes in a stream's tables, and those in tables of no stream.

        Args:
            roots: the stream's tables.
            streams: the tables of all streams of the source.
        """
        with self._lock:
            taken = [name for name in self.parts if _is_of(name, roots) or not _is_of(name, streams)]
            parts = [part for name in taken for part in self.parts.pop(name)]
        if parts:
            more = [f"{len(parts) - _SHOWN} more changes"] if len(parts) > _SHOWN else []
            yield (
                f"somebody has run a dlt pipeline that writes into {self.dataset}: {', '.join([*parts[:_SHOWN], *more])}. Loads keep this, and have written"
                " their own _dlt_version and _dlt_pipeline_state again; give that pipeline a dataset of its own"
            )


def find_foreign_runs(session: Session, names: DatasetNames, recorded: Recorded, layouts: Mapping[str, Columns]) -> ForeignRuns:
    """Find what has changed since the newest schema of ours was written. Without such a schema nothing is known."""
    found = ForeignRuns(names.dataset)
    if recorded.tables is None or recorded.written_at is None:
        return found
    before = {name: list(table["columns"]) for name, table in recorded.tables.items()}
    if not recorded.is_foreign and before == {name: list(columns) for name, columns in layouts.items()}:
        return found
    since = f"inserted_at > cast({quote_text(recorded.written_at.isoformat())} as timestamp with time zone)"
    # dlt notes a schema's hash with each load; loads of ours do not.
    load_ids = [load_id for (load_id,) in session.ask(f"select load_id from {Table(names.dataset, LOADS)} where schema_version_hash is not null and {since}")]
    if not load_ids and not recorded.is_foreign:
        return found
    for name in sorted({*before, *layouts}):
        columns = layouts.get(name, {})
        parts = list(_describe(name, before.get(name), list(columns)))
        if name in before and load_ids and "_dlt_load_id" in columns:
            ids = ", ".join(map(quote_text, load_ids))
            ((rows,),) = session.ask(f"select count(*) from {Table(names.dataset, name)} where _dlt_load_id in ({ids})")
            parts += [f"{rows:,} {'row' if rows == 1 else 'rows'} of {name}"] if rows else []
        if parts:
            found.parts[name] = parts
    if not found.parts:
        found.parts[SEPARATOR] = ["no table has changed"]
    return found


def _describe(name: str, before: list[str] | None, after: list[str]) -> Iterator[str]:
    if before is None:
        yield f"the new table {name}"
    elif not after:
        yield f"the table {name} is gone"
    else:
        yield from (f"the new column {name}.{column}" for column in after if column not in before)
        yield from (f"the column {name}.{column} is gone" for column in before if column not in after)


def _is_of(table: str, roots: Collection[str]) -> bool:
    return any(is_of_family(table, root) for root in roots)
