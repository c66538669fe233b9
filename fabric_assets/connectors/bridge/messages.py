"""A connector's lines of JSON -> rows per stream. Lines of records wait, so that those of one stream are read together, as columns where that is exact."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from fabric_assets.connectors.bridge.json_columns import list_present, read_columns
from fabric_assets.connectors.bridge.json_lines import read_line
from fabric_assets.connectors.bridge.spill import Spill, SpillFile
from fabric_assets.errors import FabricError, SourceError
from fabric_assets.masking import mask
from fabric_assets.rows.batches import WriteDisposition

_SHOWN = 200
# Lines of records that wait, in bytes: of one stream, and of all. Fewer than so many lines are read one by one.
_WAITING_BYTES, _ALL_WAITING_BYTES, _FEWEST_LINES = 4 * 1024 * 1024, 32 * 1024 * 1024, 32


@dataclass
class ReceivedStream:
    """What a run of a connector has sent of one stream.

    Args:
        own_name: the connector's name of the stream.
        is_described: whether the connector has said which fields the stream has.
        key: the primary key that the connector names.
        types: field -> the type that the connector gives it.
        form: how a line with a record is read into columns; None if its fields decide it.
    """

    name: str
    own_name: str
    spill: Spill
    is_described: bool = False
    key: tuple[str, ...] = ()
    disposition: WriteDisposition | None = None
    types: dict[str, pa.DataType] = field(default_factory=dict)
    form: pa.Schema | None = None
    # Of each part its first line's number, and its lines.
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    waiting_bytes: int = 0

    def build_empty_table(self) -> pa.Table:
        """Build a table with the columns whose types are known, for a stream without rows."""
        return pa.schema(list(self.types.items())).empty_table()


class _Begun(NamedTuple):
    """Lines of records that are being read into columns."""

    received: ReceivedStream
    waiting: list[tuple[int, bytes]]
    found: Future[tuple[pa.Table, list[Any]] | None]


class Record(NamedTuple):
    """A record's message.

    Args:
        stream: the connector's name of its stream.
        row: None if it has none.
    """

    stream: str
    row: Any
    version: Any = None


@dataclass(frozen=True)
class Dialect:
    """How a connector writes records.

    Args:
        called: what a line is, for messages.
        begin: the beginning of a record's line, which decides its stream.
        close: what makes JSON of such a beginning.
        read_record: gives a record's message, parsed or as such a beginning; raises LookupError or TypeError if it is not one.
        build_form: gives the columns of a record's line from those of its row.
        get_rows: gives the rows of the columns that were read; and their versions, if records have any.
    """

    called: str
    begin: re.Pattern[bytes]
    close: bytes
    read_record: Callable[[Mapping[str, Any]], Record]
    build_form: Callable[[pa.StructType], pa.Schema]
    get_rows: Callable[[pa.Table], tuple[Any, Any]]


# As Singer has them, and our own program for dlt.
RECORDS = Dialect(
    called="message",
    begin=re.compile(rb'\s*\{\s*"type"\s*:\s*"RECORD"\s*,\s*"stream"\s*:\s*"[^"\\]*"'),
    close=b"}",
    read_record=lambda message: Record(message["stream"], message.get("record"), message.get("version")),
    build_form=lambda fields: pa.schema(
        [("type", pa.string()), ("stream", pa.string()), ("version", pa.int64()), ("time_extracted", pa.string()), ("record", fields)]
    ),
    get_rows=lambda messages: (messages["record"], messages["version"]),
)


class Messages(ABC):
    """The messages of one run of a connector.

    Args:
        spill_file: is closed with the messages.
        where: tenant and source, for messages.
    """

    dialect = RECORDS

    def __init__(self, spill_file: SpillFile, *, where: str, connector: str) -> None:
        self.spill_file, self.where, self.connector, self._line = spill_file, where, connector, 0
        self._begins: dict[bytes, ReceivedStream] = {}
        self._waiting_bytes = 0
        # One block is read into columns while the next one arrives.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"{where}: lines of {connector}")
        self._begun: _Begun | None = None
        # Rows of streams that are not selected, by the connector's name.
        self.others: dict[str, int] = {}

    @abstractmethod
    def list_received(self) -> Iterable[ReceivedStream]:
        """List the streams, and tables of their own, that rows are kept for."""

    @abstractmethod
    def find(self, stream: str) -> ReceivedStream | None:
        """Find what was received of a stream, by the connector's name; None if it is not selected."""

    @abstractmethod
    def handle(self, kind: str, message: Mapping[str, Any]) -> None:
        """Handle a message that is not a record.

        Raises:
            SourceError: it is not valid.
        """

    def note_record(self, received: ReceivedStream, version: Any) -> None:  # noqa: B027 - a dialect without versions has nothing to note
        """Note the version of a record."""

    def close(self) -> None:
        self._pool.shutdown()
        self.spill_file.close()

    def read(self, block: bytes) -> None:
        """Read whole lines of the connector's output; the last one may lack its line end.

        Raises:
            SourceError: a line is not a message, or a record precedes its schema.
        """
        begin, current = self._find_begin(block)
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        # Most blocks are records of one stream.
        if current is not None and block.count(b"\n" + begin) == lines - 1:
            self._keep(current, block.removesuffix(b"\n"), lines)
            return
        for line in block.removesuffix(b"\n").split(b"\n"):
            if current is None or not line.startswith(begin):
                begin, current = self._find_begin(line)
            if current is not None:
                self._keep(current, line, 1)
                continue
            self._line += 1
            if line.strip():
                self._read_message(line)

    def _keep(self, received: ReceivedStream, block: bytes, lines: int) -> None:
        """Let lines of records wait."""
        received.waiting.append((self._line + 1, block))
        self._line += lines
        received.waiting_bytes += len(block)
        self._waiting_bytes += len(block)
        if received.waiting_bytes >= _WAITING_BYTES:
            self._add_waiting(received)
        elif self._waiting_bytes >= _ALL_WAITING_BYTES:
            self.finish()

    def finish(self) -> None:
        """Read the lines that wait.

        Raises:
            SourceError: as `read`.
        """
        for received in self.list_received():
            self._add_waiting(received)
        self._end_begun()

    def build_error(self, problem: str) -> FabricError:
        return SourceError(
            f"{self.where}: line {self._line} of the output of {self.connector} {problem}",
            remedy="report it to the connector's maintainers, or install another version of it; nothing of this run was loaded",
        )

    def _find_begin(self, line: bytes) -> tuple[bytes, ReceivedStream | None]:
        """Find the stream of a record's line by its beginning; None for a line that is to be read by itself."""
        if (found := self.dialect.begin.match(line)) is None:
            return b"", None
        if (begin := found[0]) not in self._begins:
            received = self.find(self.dialect.read_record(json.loads(begin + self.dialect.close)).stream)
            if received is None or received.form is None:
                return b"", None
            self._begins[begin] = received
        return begin, self._begins[begin]

    def _add_waiting(self, received: ReceivedStream) -> None:
        waiting, received.waiting = received.waiting, []
        self._waiting_bytes -= received.waiting_bytes
        received.waiting_bytes = 0
        if not waiting:
            return
        self._end_begun()
        block = b"\n".join(each for _, each in waiting)
        self._begun = _Begun(received, waiting, self._pool.submit(_read_records, block, received.form, self.dialect))

    def _end_begun(self) -> None:
        """Add the rows of the block that is being read."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        if (found := begun.found.result()) is not None:
            records, versions = found
            for version in versions:
                self.note_record(begun.received, version)
            begun.received.spill.add_table(records, is_json=True)
            return
        reached = self._line
        for first, block in begun.waiting:
            for self._line, line in enumerate(block.split(b"\n"), first):
                self._read_message(line)
        self._line = reached

    def set_fields(self, received: ReceivedStream, fields: pa.StructType | None) -> None:
        """Set the fields of a stream's records that follow; None if they cannot be read as columns."""
        self.end_stream(received)
        received.form = None if fields is None else self.dialect.build_form(fields)
        # The next record's line is looked at again.
        self._begins = {begin: stream for begin, stream in self._begins.items() if stream is not received}

    def end_stream(self, received: ReceivedStream) -> None:
        """Read the lines of a stream that wait: rows keep their order."""
        self._add_waiting(received)
        self._end_begun()

    def _read_message(self, line: bytes) -> None:
        try:
            message = read_line(line)
            kind = message["type"]
            record = self.dialect.read_record(message) if kind == "RECORD" else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self.build_error(f"is not a {self.dialect.called}: {mask(line[:_SHOWN].decode(errors='replace'))!r}") from None
        if record is None:
            self.handle(kind, message)
        else:
            self._add(*record)

    def _add(self, stream: str, row: Any, version: Any) -> None:
        received = self.find(stream)
        if received is None:
            self.others[stream] = self.others.get(stream, 0) + 1
            return
        if not received.is_described:
            raise self.build_error(f"is a RECORD of the stream {stream} before its SCHEMA")
        if not isinstance(row, dict):
            raise self.build_error(f"is a RECORD of the stream {stream} without an object in `record`")
        if version is not None:
            self.note_record(received, version)
        self.end_stream(received)
        received.spill.add(row)


def _read_records(block: bytes, form: pa.Schema | None, dialect: Dialect) -> tuple[pa.Table, list[Any]] | None:
    """Read lines of records into columns, in the order of the first record's fields; with the versions. None if they are to be read one by one."""
    lines = block.count(b"\n") + 1
    if form is None or lines < _FEWEST_LINES:
        return None
    messages = read_columns(block, lines, form)
    if messages is None:
        return None
    rows, versions = dialect.get_rows(messages)
    if rows.null_count:
        return None
    records, first = pa.Table.from_struct_array(rows), dialect.read_record(read_line(block[: block.index(b"\n")])).row
    places = {name: place for place, name in enumerate(first)}
    names = sorted(list_present(records, block), key=lambda name: places.get(name, len(places)))
    return records.select(names), [] if versions is None else versions.drop_null().unique().to_pylist()
