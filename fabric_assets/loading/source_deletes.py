"""The keys that a load reads at its source -> whether the stream's table may follow the source's deletes, and what is said of it.

The stream's state remembers what the keys were read with, and when. It is saved with the rows, so a load that is killed reads the keys again.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import InternalError
from fabric_assets.loading.shaping.fitting import fit
from fabric_assets.loading.shaping.frames import Frame, build_frame, find_faults
from fabric_assets.loading.shaping.json_rows import JsonRows
from fabric_assets.loading.stream_tables import RootTable
from fabric_assets.rows.batches import KeysRead, Row, SourceKeys, StreamPlan
from fabric_assets.warehouse.written import FollowedDeletes

STATE_KEY = "deletes"


class SourceDeletes:
    """The deletes of one stream in one load.

    Args:
        known: what earlier loads have saved under STATE_KEY; None if none has read the keys.
        is_new: no earlier load has left a table.
        where: tenant, source and stream, for messages.
    """

    def __init__(self, plan: StreamPlan, known: dict[str, Any] | None, *, is_new: bool, where: str) -> None:
        self._plan, self._known, self._is_new, self._where = plan, known, is_new, where
        # Of each pass over the source: the keys, and those that have no value in the table's columns.
        self._keys, self._misfits = Counter[int](), Counter[int]()
        self._end: KeysRead | None = None
        self._followed: FollowedDeletes | None = None

    @property
    def needs_keys(self) -> bool:
        """Whether the load reads the keys: the stream follows deletes, and the last read is old enough."""
        if self._plan.deletes.mode == "ignore":
            return False
        last = (self._known or {}).get("at")
        return last is None or datetime.now(UTC) - datetime.fromisoformat(last) >= self._plan.deletes.every

    def convert(self, keys: SourceKeys, table: RootTable) -> pa.Table | None:
        """Convert keys as the rows are converted, to the types and names of the stream's table; None if there is no table.

        A key that has no value there belongs to a row that was rejected. It may also be a row of the table whose key has got another form at the source: see
        `misfits`.
        """
        self._keys[keys.number] += len(keys.keys)
        columns = table.shaper.tables.get(table.plan.name)
        names = [table.names.find_column(label) for label in self._plan.key]
        if columns is None or any(name not in columns for name in names):
            return None
        shaper = table.shaper
        if isinstance(keys.keys, list):
            frame, faults, given = self._read_objects(keys.keys, table)
        else:
            frame = build_frame(table.plan.name, keys.keys.select(self._plan.key), table.names, self._where, value_forms=shaper.value_forms)
            faults = {}
            is_given = [reduce(pc.or_, (part.is_valid() for part in frame.columns[name].parts)) for name in names]
            given = pc.sum(reduce(pc.and_, is_given)).as_py() or 0
        faults = {*faults, *find_faults(frame, refuse_nul=shaper.refuse_nul)}
        nothing = pa.nulls(frame.size)
        fitted = [
            pc.coalesce(*(fit(part, columns[name])[0] for part in frame.columns[name].parts)) if name in frame.columns else nothing.cast(columns[name])
            for name in names
        ]
        rows = pa.table(fitted, names=names)
        if faults:
            rows = rows.take(pa.array([row for row in range(frame.size) if row not in faults], pa.int64()))
        rows = pc.drop_null(rows)
        self._misfits[keys.number] += given - rows.num_rows
        return rows

    def _read_objects(self, rows: list[Row], table: RootTable) -> tuple[Frame, Iterable[int], int]:
        """Read keys from JSON objects.

        Returns:
            Their columns, the positions of those that no column can hold, and how many keys have all of their values.
        """
        given = sum(all(row.get(label) is not None for label in self._plan.key) for row in rows)
        single = [{label: value for label, value in row.items() if not isinstance(value, dict | list)} for row in rows]
        objects = JsonRows(table.plan.name, table.names, load_id="", with_root=False, where=self._where)
        (frame, *_), faults = objects.flatten(single, range(len(single)))
        return frame, faults, given

    def end(self, end: KeysRead) -> None:
        """Note that the source has given all of its keys, or why it has not."""
        self._end = end

    @property
    def misfits(self) -> int:
        """The number of the source's keys that have no value in the table's columns, or that cannot be read."""
        return max(self._misfits.values(), default=0) + (self._end.unknown if self._end else 0)

    @property
    def may_follow(self) -> bool:
        """Whether the keys are those of all rows that the source holds, and can be compared with the last read."""
        return self.needs_keys and not self._find_problem() and not self._has_changed

    def finish(self, followed: FollowedDeletes | None, state: dict[str, Any]) -> FollowedDeletes | None:
        """Save in the stream's state what was read, and return what became of the rows; None if the load does not follow deletes.

        Raises:
            InternalError: the connector has not said that it has given all keys.
        """
        if not self.needs_keys:
            if self._known is not None:
                state[STATE_KEY] = self._known
            return None
        if self._end is None:
            raise InternalError(f"{self._where}: a fault of ETL Fabric: the connector has not given the source's keys; nothing of the load is kept")
        self._followed = followed or FollowedDeletes(problem=self._find_problem())
        saved = dict(self._known or {}) if self._followed.problem else {"identity": self._end.identity}
        # A read that was compared with no earlier one does not count: the next load reads the keys again.
        if not self._followed.problem and not self._has_changed:
            saved["at"] = datetime.now(UTC).isoformat()
        state |= {STATE_KEY: saved} if saved else {}
        return self._followed

    def describe(self) -> Iterator[str]:
        """Describe what a reader of the run should know, as warnings of its summary."""
        if self._followed is None:
            return
        if self._followed.problem:
            remedy = "see whether the source is whole; if the rows are really gone, raise deletes.max for one load, or load with --full-refresh"
            yield f"{self._followed.problem}. {remedy[0].upper()}{remedy[1:]}"
        elif self._has_changed:
            why = "this is the first read of the source's keys" if self._known is None else "what the source's keys were last read with has changed"
            yield f"{why} (login, table or path, where or params, primary_key). So no row counts as deleted in this load; the next load compares"

    def summarise(self) -> str:
        """Say how many rows were deleted or marked; empty if none were."""
        rows = self._followed.rows if self._followed else 0
        what = "marked as deleted" if self._plan.deletes.mode == "soft" else "deleted"
        return f"{rows:,} {'row' if rows == 1 else 'rows'} {what}, which the source no longer has" if rows else ""

    @property
    def _has_changed(self) -> bool:
        """Whether the keys were never read before, although the stream has rows, or were read with something else."""
        if self._known is None:
            return not self._is_new
        return self._end is not None and self._known.get("identity") != self._end.identity

    def _find_problem(self) -> str:
        if self._end is None or self._end.problem:
            return self._end.problem if self._end else "the source's keys were not read"
        if (read := min(self._keys.values(), default=0)) < self._end.count:
            return f"the source's keys are not complete: {read:,} were read, and the source counts {self._end.count:,} rows"
        return ""
