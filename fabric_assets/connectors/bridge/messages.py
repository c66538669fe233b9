"""A connector's lines of JSON -> rows per stream. Lines of records wait, so that those of one stream are read together, as columns where that is exact."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.bridge.json_columns import list_present, read_columns
from fabric_assets.connectors.bridge.json_lines import read_line
from fabric_assets.connectors.bridge.spill import Spill
from fabric_assets.errors import FabricError, SourceError
from fabric_assets.masking import mask
from fabric_assets.rows.batches import Row, WriteDisposition

_SHOWN = 200
# Lines of records that wait, in bytes: of one stream, and of all. Fewer than so many lines are read one by one.
_WAITING_BYTES, _ALL_WAITING_BYTES, _FEWEST_LINES = 4 * 1024 * 1024, 32 * 1024 * 1024, 32
# The beginning of a record's line, from which its stream follows.
_BEGIN = re.compile(rb'\s*\{\s*"type"\s*:\s*"RECORD"\s*,\s*"stream"\s*:\s*"[^"\\]*"')
_ENVELOPE = [("type", pa.string()), ("stream", pa.string()), ("version", pa.int64()), ("time_extracted", pa.string())]


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
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    waiting_bytes: int = 0

    def set_fields(self, fields: pa.StructType | None) -> None:
        """Set the fields of the records that follow; None if they cannot be read as columns."""
        self.form = None if fields is None else pa.schema([*_ENVELOPE, ("record", fields)])

    def build_empty_table(self) -> pa.Table:
        """Build a table with the columns whose types are known, for a stream without rows."""
        return pa.schema(list(self.types.items())).empty_table()


class Messages(ABC):
    """The messages of one run of a connector.

    Args:
        where: tenant and source, for messages.
    """

    def __init__(self, *, where: str, connector: str) -> None:
        self.where, self.connector, self._line = where, connector, 0
        self._begins: dict[bytes, ReceivedStream] = {}
        self._waiting_bytes = 0
        # Rows of streams that are not selected, by the connector's name.
        self.others: dict[str, int] = {}

    @abstractmethod
    def list_received(self) -> Iterable[ReceivedStream]:
        """List the streams, and tables of their own, that rows are kept for."""

    @abstractmethod
    def find(self, stream: str) -> ReceivedStream | None:
        """Find what was received of a stream, by the connector's name; None if it is not selected."""

    @abstractmethod
    def handle(self, kind: str, stream: str, message: Mapping[str, Any]) -> None:
        """Handle a message that is not a record.

        Raises:
            SourceError: it is not valid.
        """

    def note_record(self, received: ReceivedStream, version: Any) -> None:  # noqa: B027 - a dialect without versions has nothing to note
        """Note the version of a record."""

    def close(self) -> None:
        for received in self.list_received():
            received.spill.close()

    def read(self, lines: list[bytes]) -> None:
        """Read lines of the connector's output.

        Raises:
            SourceError: a line is not a message, or a record precedes its schema.
        """
        begin, current = b"", None
        for line in lines:
            self._line += 1
            if current is None or not line.startswith(begin):
                begin, current = self._find_begin(line)
            if current is None:
                if line.strip():
                    self._read_message(line)
                continue
            current.waiting.append((self._line, line))
            current.waiting_bytes += len(line)
            self._waiting_bytes += len(line)
            if current.waiting_bytes >= _WAITING_BYTES:
                self._add_waiting(current)
            elif self._waiting_bytes >= _ALL_WAITING_BYTES:
                self.finish()

    def finish(self) -> None:
        """Read the lines that wait.

        Raises:
            SourceError: as `read`.
        """
        for received in self.list_received():
            self._add_waiting(received)

    def build_error(self, problem: str) -> FabricError:
        return SourceError(
            f"{self.where}: line {self._line} of the output of {self.connector} {problem}",
            remedy="report it to the connector's maintainers, or install another version of it; nothing of this run was loaded",
        )

    def forget_begins(self, received: ReceivedStream) -> None:
        """Look at the next record's line again: the stream's fields have changed."""
        self._begins = {begin: stream for begin, stream in self._begins.items() if stream is not received}

    def _find_begin(self, line: bytes) -> tuple[bytes, ReceivedStream | None]:
        """Find the stream of a record's line by its beginning; None for a line that is to be read by itself."""
        if (found := _BEGIN.match(line)) is None:
            return b"", None
        if (begin := found[0]) not in self._begins:
            received = self.find(json.loads(begin + b"}")["stream"])
            if received is None or received.form is None:
                return b"", None
            self._begins[begin] = received
        return begin, self._begins[begin]

    def _add_waiting(self, received: ReceivedStream) -> None:
        waiting, received.waiting = received.waiting, []
        self._waiting_bytes -= received.waiting_bytes
        received.waiting_bytes = 0
        if not waiting or self._add_columns(received, [line for _, line in waiting]):
            return
        reached = self._line
        for self._line, line in waiting:
            self._read_message(line)
        self._line = reached

    def _add_columns(self, received: ReceivedStream, lines: list[bytes]) -> bool:
        """Add records as columns, if they can be read so."""
        if received.form is None or len(lines) < _FEWEST_LINES:
            return False
        messages = read_columns(lines, received.form)
        if messages is None or messages["record"].null_count:
            return False
        for version in messages["version"].drop_null().unique().to_pylist():
            self.note_record(received, version)
        records, first = pa.Table.from_struct_array(messages["record"]), list(read_line(lines[0])["record"])
        places = {name: place for place, name in enumerate(first)}
        received.spill.add_table(records.select(sorted(list_present(records, lines), key=lambda name: places.get(name, len(first)))), is_json=True)
        return True

    def _read_message(self, line: bytes) -> None:
        try:
            message = read_line(line)
            kind, stream = message["type"], message.get("stream", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self.build_error(f"is not a message: {mask(line[:_SHOWN].decode(errors='replace'))!r}") from None
        # Rows keep their order.
        if isinstance(stream, str) and stream and (received := self.find(stream)) and received.waiting:
            self._add_waiting(received)
        if kind == "RECORD":
            self._add(stream, message)
        else:
            self.handle(kind, stream, message)

    def _add(self, stream: str, message: Mapping[str, Any]) -> None:
        received, row = self.find(stream), message.get("record")
        if received is None:
            self.others[stream] = self.others.get(stream, 0) + 1
            return
        if not received.is_described:
            raise self.build_error(f"is a RECORD of the stream {stream} before its SCHEMA")
        if not isinstance(row, dict):
            raise self.build_error(f"is a RECORD of the stream {stream} without an object in `record`")
        if (version := message.get("version")) is not None:
            self.note_record(received, version)
        self.add_row(received, row)

    def add_row(self, received: ReceivedStream, row: Row) -> None:
        received.spill.add(row)
