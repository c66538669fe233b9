"""The tables of one stream: its own, and those that its batches name. All of them are written in the stream's transaction.

The names that a load saves with the stream's state say which tables the stream has named, so that no other stream gets their names.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import DataError, InternalError
from fabric_assets.loading.shaping.shaper import Shaped, Shaper
from fabric_assets.loading.shaping.table_types import Layout
from fabric_assets.rows.batches import Batch, Reject, StreamPlan
from fabric_assets.rows.column_names import SEPARATOR, compose, is_of_family, spell_column
from fabric_assets.rows.named_tables import HAS_OWN, NAMED, dump, load_named
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.stream_names import NO_NAMES, StreamNames
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.source_keys import MARK
from fabric_assets.warehouse.transaction import Transaction
from fabric_assets.warehouse.writing import StreamWriter
from fabric_assets.warehouse.written import Written


class TableOwners:
    """The tables that the streams of one source have named, used by all threads of a load.

    Args:
        streams: the streams of the source's YAML.
        states: the streams' states before the load, also of streams that the YAML no longer has.
    """

    def __init__(self, streams: Iterable[str], states: Mapping[str, StreamState]) -> None:
        self._streams = {*streams, *states}
        self._owners = {table: stream for stream, state in states.items() for table in load_named(state.column_names)}
        self._lock = threading.Lock()

    @property
    def tables(self) -> set[str]:
        """The tables of all streams, without those of nested lists."""
        with self._lock:
            return {*self._streams, *self._owners}

    def claim(self, table: str, stream: str) -> str | None:
        """Give a table to a stream; return the stream that has it already, if another one has."""
        if table != stream and table in self._streams:
            return table
        with self._lock:
            owner = self._owners.get(table, stream) if table == stream else self._owners.setdefault(table, stream)
        return None if owner == stream else owner


@dataclass(frozen=True)
class RootTable:
    """One table of a stream, with the tables of lists nested in its rows.

    Args:
        plan: the stream's plan, under the table's name.
    """

    plan: StreamPlan
    names: StreamNames
    shaper: Shaper


class StreamTables:
    """The tables of one stream during a load or a replay, used by one thread at a time.

    Args:
        layouts: table -> column -> type, of the source's raw dataset.
        state: the stream's state when the load began.
        where: tenant, source and stream, for messages.
    """

    def __init__(
        self,
        plan: StreamPlan,
        *,
        tenant: TenantConfig,
        layouts: Layout,
        state: StreamState,
        owners: TableOwners,
        load_id: str,
        where: str,
        full_refresh: bool = False,
    ) -> None:
        self._plan, self._kind, self._layouts, self._state, self._owners = plan, get_kind(tenant), layouts, state, owners
        self._load_id, self._where, self._full_refresh = load_id, where, full_refresh
        family = self._find_family(plan.name)
        # The version of the existing tables; a stream without tables begins with the present forms.
        self.value_forms = state.value_forms if family else CURRENT
        # Names of the present form outlive the table; names of an earlier form do not.
        kept = state.column_names if state.value_forms == self.value_forms else None
        # A source's own field of the name of the marks gets a number.
        reserved = self._reserved = self._kind.reserved_columns | {MARK}
        # Names as committed: without those that the YAML gives.
        self.build_committed_names = partial(StreamNames, plan.name, layout=family, kept=kept, value_forms=self.value_forms, reserved=reserved)
        self.own = self._build(plan, self.build_committed_names(rename=plan.rename, where=where), self.value_forms)
        self._known = load_named(state.column_names)
        self._named: dict[str, RootTable] = {}
        self._transaction: Transaction | None = None
        self._writers: dict[str, StreamWriter] = {}
        self._problem = self._find_problem()

    @property
    def is_new(self) -> bool:
        """Whether no earlier load has left a table of the stream, or the stream is loaded anew."""
        return self._full_refresh or not ({self._plan.name, *self._known} & self._layouts.keys())

    @property
    def roots(self) -> list[str]:
        """The stream's own table, and those that this load or an earlier one has named."""
        return [self._plan.name, *dict.fromkeys([*self._known, *self._named])]

    @property
    def layout(self) -> Layout:
        """The tables and their columns as they are after the batches so far."""
        return {name: columns for table in self._list() for name, columns in table.shaper.tables.items()}

    @property
    def changes(self) -> list[SchemaChange]:
        """The changes to the tables, each once; complete after the last batch."""
        return [change for table in self._list() for change in table.shaper.changes]

    def shape(self, batch: Batch) -> tuple[RootTable, Shaped]:
        """Fit a batch to the tables that its rows go to.

        Raises:
            DataError: the stream cannot have a table of that name; or see `Shaper.shape`.
        """
        table = self.get(batch.table)
        shaped = table.shaper.shape(batch)
        if table is not self.own:
            rejects = [replace(reject, table=table.plan.name) for reject in shaped.rejects]
            shaped = replace(shaped, rejects=rejects)
        return table, shaped

    def get(self, name: str) -> RootTable:
        """Return a table of the stream.

        Args:
            name: as `Batch.table` has it; empty for the stream's own.

        Raises:
            DataError: the stream cannot have a table of that name.
        """
        if self._problem is not None:
            raise self._problem
        table = spell_column(compose(name)) if name else self._plan.name
        if table == self._plan.name:
            return self.own
        if table not in self._named:
            self._check(name, table)
            plan = replace(self._plan, name=table)
            names = StreamNames(
                table,
                layout=self._find_family(table),
                kept=self._known.get(table),
                rename=plan.rename,
                reserved=self._reserved,
                where=self._where,
            )
            self._named[table] = self._build(plan, names, CURRENT)
        return self._named[table]

    # --- writing

    def open(self, transaction: Transaction) -> None:
        """Begin to write in a transaction; what an earlier one was given is forgotten."""
        self._transaction, self._writers = transaction, {}
        self._get_writer(self.own)

    @property
    def writer(self) -> StreamWriter:
        """The writer of the stream's own table, which also writes the rejected rows of all tables."""
        return self._writers[self._plan.name]

    @property
    def named_writers(self) -> tuple[StreamWriter, ...]:
        return tuple(writer for name, writer in self._writers.items() if name != self._plan.name)

    def write(self, table: RootTable, rows: Mapping[str, pa.Table], rejects: list[Reject] | None = None) -> None:
        """Write shaped rows, and keep the rejected ones until the commit."""
        self.writer.write(rows if table is self.own else {}, rejects or [])
        if table is not self.own:
            self._get_writer(table).write(rows)

    def finish(self, *, follows_deletes: bool = False, misfits: int = 0) -> Written:
        """Write the remaining rows of all tables.

        Args:
            follows_deletes, misfits: see `StreamWriter.finish`.

        Returns:
            the state of the stream's own table; the duplicates are those of all tables.
        """
        if self._problem is not None:
            raise self._problem
        if self._full_refresh or self._plan.disposition == "replace":
            for name in self._known:
                self._get_writer(self.get(name))
        others = [writer.finish() for writer in self.named_writers]
        written = self.writer.finish(follows_deletes=follows_deletes, misfits=misfits)
        return replace(written, duplicates=written.duplicates + sum(other.duplicates for other in others))

    def find_new_names(self, *, keeps_columns: bool = False) -> str | None:
        """Return the names to save with the stream's state; None if they have not changed.

        Args:
            keeps_columns: see `Written.keeps_columns`.
        """
        kept = self._state.column_names or NO_NAMES
        found = json.loads(kept if keeps_columns else self.own.shaper.export_names())
        named = {name: self._export(name) for name in self.roots[1:] if name in self._known or name in self._named[name].shaper.tables}
        if named:
            has_own = self._plan.name in self.own.shaper.tables or json.loads(kept).get(HAS_OWN, False)
            found |= {NAMED: named, HAS_OWN: has_own}
        names = dump(found)
        return None if names == kept else names

    # --- parts

    def _list(self) -> list[RootTable]:
        return [self.own, *self._named.values()]

    def _build(self, plan: StreamPlan, names: StreamNames, value_forms: int) -> RootTable:
        refuse_nul = not self._kind.takes_nul_in_text
        shaper = Shaper(plan, names=names, refuse_nul=refuse_nul, load_id=self._load_id, where=self._where, value_forms=value_forms)
        return RootTable(plan, names, shaper)

    def _find_family(self, root: str) -> Layout:
        return {} if self._full_refresh else {name: columns for name, columns in self._layouts.items() if is_of_family(name, root)}

    def _export(self, name: str) -> object:
        table = self._named.get(name)
        return json.loads(self._known[name] if table is None or name not in table.shaper.tables else table.shaper.export_names())

    def _get_writer(self, table: RootTable) -> StreamWriter:
        name = table.plan.name
        if name not in self._writers:
            if self._transaction is None:
                raise InternalError(f"{self._where}: a fault of ETL Fabric: rows were written before the transaction began")
            # The writer of the stream's own table alone handles rejected rows, and counts the rows that are missing.
            state = self._state if table is self.own else replace(self._state, has_rejects=False, rows_total=None)
            opened = {"layouts": self._layouts, "names": table.names, "state": state, "full_refresh": self._full_refresh}
            self._writers[name] = self._transaction.open_writer(table.plan, **opened)
        return self._writers[name]

    def _find_problem(self) -> DataError | None:
        """Find why nothing can be loaded: another stream has the stream's own table, or a part of the tables is gone."""
        if owner := self._owners.claim(self._plan.name, self._plan.name):
            return DataError(
                f"{self._where}: its table {self._plan.name} belongs to the stream {owner}, whose rows name it",
                remedy=f"give one of them another name, or remove the stream {owner} with its tables",
            )
        has_own = bool(self._known) and json.loads(self._state.column_names or NO_NAMES)[HAS_OWN]
        known = {*self._known, *([self._plan.name] if has_own else [])}
        gone = sorted(known - self._layouts.keys())
        if self._full_refresh or not gone or not known & self._layouts.keys():
            return None
        return DataError(
            f"{self._where}: {', '.join(gone)} {'is' if len(gone) == 1 else 'are'} missing, which earlier loads have written, and its other tables are there",
            remedy="load the stream anew with --full-refresh",
        )

    def _check(self, name: str, table: str) -> None:
        if self._plan.replaced_by is not None:
            raise InternalError(f"{self._where}: a fault of ETL Fabric: rows that replace others by {self._plan.replaced_by} name the table {name}")
        reason, remedy = "", "let the source name another table"
        if SEPARATOR in table or table.startswith(("_dlt", "_fabric")):
            reason = "whose name is reserved: two underscores in a row belong to nested lists, and _dlt and _fabric to columns of loads"
        elif owner := self._owners.claim(table, self._plan.name):
            reason = f"which belongs to the stream {owner}"
        elif table in self._layouts and table not in self._known:
            reason, remedy = "which exists, and which no load of the stream has made", "rename or drop that table"
        if reason:
            shown = table if table == name else f"{table} ({name!r} in the source)"
            raise DataError(f"{self._where}: its rows name the table {shown}, {reason}; nothing of the stream is loaded", remedy=remedy)
