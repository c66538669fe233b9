"""What a connector gives the load engine: groups of streams that are read together, and their rows, batch by batch.

A batch holds Arrow data where the source can give it, else JSON objects. Connectors name columns as the source does and choose
no warehouse types. For all connectors the engine shapes rows for the warehouse and rejects those that do not fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from fabric_assets.config.sources.deletes import DeletesConfig
from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.config.sources.streams import SchemaContract, StreamConfig, WriteDisposition
from fabric_assets.errors import FabricError
from fabric_assets.rows.imported_file import ImportedFile

Row = dict[str, Any]


@dataclass(frozen=True)
class Reject:
    """A row that cannot be loaded.

    Args:
        origin: the file or page that it comes from; empty for a table.
        row_number: the line of a dropped CSV as an editor counts it, or the row of its sheet. In other files and in pages the row's number from 1.
            None where rows have no order.
        column: the first column with an error; None for the row as a whole.
        reason: a stable code: lower-case words joined by underscores.
        raw: the whole row as JSON text, or the line as it is in the file.
        has_fixed_position: every load finds the row at this origin and number, as a line of a file; else its content identifies it.
        table: the table that the row was meant for; empty for the stream's own.
    """

    origin: str
    row_number: int | None
    column: str | None
    reason: str
    message: str
    raw: str
    has_fixed_position: bool = True
    table: str = ""


@dataclass(frozen=True)
class Batch:
    """Rows of one stream, in the source's spelling.

    Args:
        origin: the file or page that they come from; empty for a table.
        first_row: the number of the first row within its origin.
        rejects: rows in the same piece of the source that the connector could not read at all; not among `rows`.
        content: tells apart origins of one name: the SHA-256 of a dropped file.
        has_fixed_positions: see `Reject.has_fixed_position`; False for pages, which begin elsewhere in the next load.
        table: the table that the rows go to, in the source's spelling; empty for the stream's own. The stream's transaction commits all of them.
        is_json: the columns of `rows` are the fields of JSON objects, of which none is a list. A field that an object lacks is NULL.
    """

    stream: str
    rows: pa.Table | list[Row]
    origin: str = ""
    first_row: int | None = None
    rejects: tuple[Reject, ...] = ()
    content: str = ""
    has_fixed_positions: bool = True
    table: str = ""
    is_json: bool = False


@dataclass(frozen=True)
class StreamFailed:
    """A stream of a group that cannot be read any further, while the others can."""

    stream: str
    error: FabricError


@dataclass(frozen=True)
class SourceKeys:
    """Primary keys of rows that the source holds now, as columns or objects in its spelling. A connector yields them after the stream's rows.

    Args:
        number: of the pass over the source. A row counts as deleted if all passes lack its key.
    """

    stream: str
    keys: pa.Table | list[Row]
    number: int = 1


@dataclass(frozen=True)
class KeysRead:
    """The end of a stream's keys.

    Args:
        count: the source's own count of the rows; a read that gave fewer keys is not complete.
        identity: of what was read: login, table and condition. Keys of another identity say nothing about deletes.
        unknown: rows of the source whose keys cannot be read.
        problem: why the keys are not complete; empty if they are.
    """

    stream: str
    count: int = 0
    identity: str = ""
    unknown: int = 0
    problem: str = ""


Item = Batch | StreamFailed | SourceKeys | KeysRead


@dataclass(frozen=True)
class StreamPlan:
    """How the engine writes a stream's rows. The engine does not read the YAML for it a second time.

    Args:
        key: the primary key, in the source's spelling; empty without one.
        deduplicates: a replaced table keeps one row of each key, as a merged one does.
        newest_by: of rows with the same key the one with the highest value in this column is kept, then the one read last.
        replaced_by: rows with a value of this column replace all rows with it (an append of files, by file name).
        reads_all: each load reads all rows of the source, and so also those that earlier loads have rejected.
        yields: on a key conflict, keep the existing row unless this one is newer.
        read_by: for `yields` without `newest_by`, the load that has read these rows: rows of later loads are newer.
        is_judged: the reader itself applies the limit of rejected rows, to each file.
        declares_columns: the source says which columns it has (database, Parquet, CSV header), so a column that is missing from its rows is gone.
        unread: columns of the source that the stream does not read, in the source's spelling.
        drops_files: the reader keeps a ledger of dropped files, and so gets a `DropMemory`.
        is_json: rows come as JSON objects; else as columns.
        types: field of JSON objects, in the source's spelling -> the type of its column. Other columns that the load adds get the type of their values.
        contract: what may change in the tables.
        rename: field in the source's spelling -> the name of its column.
        rejects: how many rows may be rejected.
        deletes: what happens to rows that the source no longer has.
    """

    name: str
    disposition: WriteDisposition
    key: tuple[str, ...] = ()
    deduplicates: bool = False
    newest_by: str | None = None
    replaced_by: str | None = None
    reads_all: bool = False
    yields: bool = False
    read_by: str = ""
    is_judged: bool = False
    declares_columns: bool = False
    unread: tuple[str, ...] = ()
    drops_files: bool = False
    is_json: bool = False
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    contract: SchemaContract = field(default_factory=SchemaContract)
    rename: Mapping[str, str] = field(default_factory=dict)
    rejects: RejectsConfig = field(default_factory=RejectsConfig)
    deletes: DeletesConfig = field(default_factory=DeletesConfig)

    @classmethod
    def declared(cls, name: str, stream: StreamConfig, **more: Any) -> "StreamPlan":
        """Plan what a stream's YAML declares.

        Args:
            more: other fields of the plan, which win.
        """
        known = {"disposition": stream.disposition, "key": stream.primary_key or (), "contract": stream.schema_contract, "rejects": stream.rejects}
        beside = {"rename": getattr(stream, "rename", {}), "deletes": getattr(stream, "deletes", DeletesConfig())}
        return cls(name, **{**known, **beside, **more})


class StreamMemory(Protocol):
    """What earlier loads have left of a stream; empty if the stream is loaded anew.

    `has_loaded`: an earlier load has committed the stream, even if this one loads it anew.
    `state` may be changed while reading; it is saved in the transaction that commits the rows.
    Connectors append to `warnings` what the run's summary says of the stream.
    `needs_keys`: the load looks for deletes, so the connector gives the source's keys after the rows.
    `source_rows`: the connector's count of the source's rows.
    `value_forms` is the version of the forms (value_forms.py) in which the stream's values are written, in this load too.
    """

    state: dict[str, Any]
    window: "Window"
    value_forms: int
    warnings: list[str]
    has_loaded: bool
    needs_keys: bool
    source_rows: int | None

    def note_older_form(self, field: str, form: str) -> None:
        """Note that a field of the row itself keeps an earlier form, by its word in value_forms.OLDER_FORMS."""
        ...

    def get_column(self, field: str) -> str:
        """Return the column in the warehouse that a field of the source has, or would get."""
        ...

    def get_type(self, column: str) -> pa.DataType | None:
        """Return the type of a column in the warehouse, by the source's spelling; None if the column is new."""
        ...

    def get_highest(self, column: str) -> Any:
        """Return the highest value of a column in the warehouse; None without rows."""
        ...

    def get_rows_at(self, column: str, value: Any) -> pa.Table:
        """Return the warehouse's rows with this value, columns by their names there."""
        ...

    def find_known(self, rows: pa.Table) -> pa.Array:
        """Tell for each row whether the warehouse has one with the same values in these columns; columns in the source's spelling.

        Raises:
            DataError: the warehouse cannot compare a column's type.
        """
        ...

    def replace_rows_of(self, value: str) -> None:
        """Delete rows with this value of the plan's `replaced_by`, although no new rows replace them (a file that has become empty)."""
        ...


class DropMemory(StreamMemory, Protocol):
    """What is known of a stream whose plan `drops_files`."""

    def get_files(self) -> Sequence[ImportedFile]:
        """Return the dropped files that earlier loads have dealt with."""
        ...

    def record_file(self, file: ImportedFile) -> None:
        """Note what became of a dropped file; kept with the rows, which are counted by their batches' origin."""
        ...


@dataclass
class Window:
    """The part of a stream that a load has read, for the ledger: both ends included, in the source's spelling; None if open."""

    start: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class ReadGroup:
    """Streams that are read in one pass, e.g. an endpoint and those below it.

    Args:
        is_atomic: one transaction commits all streams, because one state covers the rows of all.
        read: opens the source and gives its batches; called in a thread of its own, with a memory per stream. A stream
            without rows still gives one empty Arrow table where its columns are known.
        after_commit: called with a stream once its rows are committed. If a process dies before the call, the next load must do its work.
    """

    streams: tuple[StreamPlan, ...]
    # Called with a StreamMemory per stream; a DropMemory where the plan says so.
    read: Callable[[Mapping[str, Any]], Iterator[Item]]
    after_commit: Callable[[str], None] = lambda stream: None
    is_atomic: bool = False


@dataclass(frozen=True)
class SourceReader:
    """An opened source, for one load.

    Args:
        connections: how many groups may be read at a time.
        close: releases what the groups share.
    """

    groups: tuple[ReadGroup, ...]
    connections: int = 1
    close: Callable[[], None] = field(default=lambda: None)
