"""A tap's messages -> rows per stream, and the state that covers them."""

import gzip
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from fabric_assets.connectors.bridge.json_columns import list_present, read_columns, read_fields
from fabric_assets.connectors.bridge.json_lines import read_line
from fabric_assets.connectors.bridge.json_schema import read_types
from fabric_assets.connectors.bridge.singer.catalog import SelectedStream, Selection
from fabric_assets.connectors.bridge.spill import Budget, Spill
from fabric_assets.errors import FabricError, SourceError
from fabric_assets.masking import mask

_SHOWN = 200
# Lines of records that wait to be read together, in bytes: of one stream, and of all. Fewer than so many lines are read one by one.
_WAITING_BYTES, _ALL_WAITING_BYTES, _FEWEST_LINES = 4 * 1024 * 1024, 32 * 1024 * 1024, 32
# The beginning of a record's line, from which its stream follows.
_BEGIN = re.compile(rb'\s*\{\s*"type"\s*:\s*"RECORD"\s*,\s*"stream"\s*:\s*"[^"\\]*"')


_ENVELOPE = [("type", pa.string()), ("stream", pa.string()), ("version", pa.int64()), ("time_extracted", pa.string())]


@dataclass
class ReceivedStream:
    """What a run of the tap has sent of one stream.

    Args:
        key: of the last SCHEMA message.
        fields: the fields of the SCHEMA messages, in order.
        versions: of the rows.
        activated: the version that the tap declared to be the whole table.
    """

    stream: SelectedStream
    spill: Spill
    is_described: bool = False
    key: tuple[str, ...] = ()
    types: dict[str, pa.DataType] = field(default_factory=dict)
    versions: set[int] = field(default_factory=set)
    activated: int | None = None
    # How a record is read into columns; None if its fields decide it.
    form: pa.Schema | None = None
    waiting: list[tuple[int, bytes]] = field(default_factory=list)
    waiting_bytes: int = 0

    def build_empty_table(self) -> pa.Table:
        """Build a table with the columns whose types are known, for a stream without rows."""
        return pa.schema(list(self.types.items())).empty_table()


class Messages:
    """The messages of one run of a tap.

    Args:
        folder: the only folder in which the files of BATCH messages may lie.
        where: tenant and source, for messages.
    """

    def __init__(self, selection: Selection, *, folder: Path, budget: Budget, where: str, connector: str) -> None:
        self._selection, self._folder, self._where, self._connector, self._line = selection, folder, where, connector, 0
        self.streams = {stream.name: ReceivedStream(stream, Spill(folder, budget)) for stream in selection.streams.values()}
        self.state: Any = None
        self._begins: dict[bytes, ReceivedStream] = {}
        self._waiting_bytes = 0
        # Rows of streams that are not selected, by the tap's name.
        self.others: dict[str, int] = {}

    def close(self) -> None:
        for received in self.streams.values():
            received.spill.close()

    def read(self, lines: list[bytes]) -> None:
        """Read lines of the tap's output.

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
        for received in self.streams.values():
            self._add_waiting(received)

    def _find_begin(self, line: bytes) -> tuple[bytes, ReceivedStream | None]:
        """Find the stream of a record's line by its beginning; None for a line that is to be read by itself."""
        if (found := _BEGIN.match(line)) is None:
            return b"", None
        if (begin := found[0]) not in self._begins:
            received = self._find(json.loads(begin + b"}")["stream"])
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
        received.versions.update(messages["version"].drop_null().unique().to_pylist())
        records, first = pa.Table.from_struct_array(messages["record"]), read_line(lines[0])["record"]
        names = list_present(records, lines)
        received.spill.add_table(records.select(sorted(names, key=lambda name: list(first).index(name) if name in first else len(first))))
        return True

    def _read_message(self, line: bytes) -> None:
        try:
            message = read_line(line)
            kind, stream = message["type"], message.get("stream", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._build_error(f"is not a Singer message: {mask(line[:_SHOWN].decode(errors='replace'))!r}") from None
        # Rows keep their order.
        if kind in ("RECORD", "SCHEMA", "BATCH") and (received := self._find(stream)) and received.waiting:
            self._add_waiting(received)
        if kind == "RECORD":
            self._add(stream, message)
        elif kind == "STATE":
            self.state = message.get("value")
        elif kind == "SCHEMA":
            self._describe(stream, message)
        elif kind == "BATCH":
            self._add_files(stream, message)
        elif kind == "ACTIVATE_VERSION" and (received := self._find(stream)):
            received.activated = message.get("version")

    def _find(self, stream: str) -> ReceivedStream | None:
        selected = self._selection.streams.get(stream)
        return self.streams[selected.name] if selected else None

    def _describe(self, stream: str, message: Mapping[str, Any]) -> None:
        received = self._find(stream)
        if received is None:
            self.others.setdefault(stream, 0)
            return
        schema = message.get("schema")
        if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
            raise self._build_error(f"is a SCHEMA of the stream {stream} without properties")
        received.is_described = True
        received.key = tuple(map(str, message.get("key_properties") or ()))
        received.types = {**received.types, **read_types(schema)}
        fields = read_fields(schema)
        received.form = None if fields is None else pa.schema([*_ENVELOPE, ("record", fields)])
        self._begins = {begin: stream for begin, stream in self._begins.items() if stream is not received}

    def _add(self, stream: str, message: Mapping[str, Any]) -> None:
        received, row = self._find(stream), message.get("record")
        if received is None:
            self.others[stream] = self.others.get(stream, 0) + 1
            return
        if not received.is_described:
            raise self._build_error(f"is a RECORD of the stream {stream} before its SCHEMA")
        if not isinstance(row, dict):
            raise self._build_error(f"is a RECORD of the stream {stream} without an object in `record`")
        if (version := message.get("version")) is not None:
            received.versions.add(version)
        received.spill.add(row)

    def _add_files(self, stream: str, message: Mapping[str, Any]) -> None:
        received, encoding = self._find(stream), message.get("encoding") or {}
        if received is None:
            self.others.setdefault(stream, 0)
            return
        if not received.is_described:
            raise self._build_error(f"is a BATCH of the stream {stream} before its SCHEMA")
        form, compression = encoding.get("format"), encoding.get("compression")
        if form != "jsonl" or compression not in (None, "none", "gzip"):
            raise self._build_error(f"is a BATCH in the format {form!r}, compression {compression!r}; known: jsonl, without compression or gzip")
        for address in message.get("manifest") or ():
            path = Path(unquote(urlsplit(str(address)).path))
            with self._open(path) as raw, gzip.open(raw) if compression == "gzip" else raw as file:
                for number, line in enumerate(file, 1):
                    row = self._read_row(line, number, path)
                    received.spill.add(row)
            path.unlink(missing_ok=True)

    def _read_row(self, line: bytes, number: int, path: Path) -> dict[str, Any]:
        try:
            row = read_line(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise self._build_error(f"names the file {path.name}, whose line {number} is not a JSON object")
        return row

    def _open(self, path: Path) -> IO[bytes]:
        """Open a file of a BATCH, which the tap may have replaced by a link to another tenant's."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._build_error(f"names the file {path.name}, which cannot be read: {error.strerror}") from None
        # The file that was opened, wherever links have led.
        found = Path(f"/proc/self/fd/{descriptor}").resolve()
        if not found.is_relative_to(self._folder.resolve()) or not found.is_file():
            os.close(descriptor)
            raise self._build_error(f"names the file {path.name} outside of the connector's own folder")
        return os.fdopen(descriptor, "rb")

    def _build_error(self, problem: str) -> FabricError:
        return SourceError(
            f"{self._where}: line {self._line} of the output of {self._connector} {problem}",
            remedy="report it to the connector's maintainers, or install another version of it; nothing of this run was loaded",
        )


def split_state(state: Any) -> tuple[dict[str, Any], bool]:
    """Split a tap's state by stream.

    Returns:
        The bookmark of each stream, by the tap's name; and whether the state is nothing but bookmarks. Else it belongs to the source as a whole.
    """
    if state in (None, {}):
        return {}, True
    if not isinstance(state, dict) or state.keys() - {"bookmarks", "currently_syncing"} or not isinstance(state.get("bookmarks", {}), dict):
        return {}, False
    return state.get("bookmarks", {}), True
