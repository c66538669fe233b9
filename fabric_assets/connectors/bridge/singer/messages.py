"""A tap's messages -> rows per stream, and the state that covers them."""

import gzip
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from fabric_assets.connectors.bridge.json_columns import read_fields
from fabric_assets.connectors.bridge.json_lines import read_line
from fabric_assets.connectors.bridge.json_schema import read_types
from fabric_assets.connectors.bridge.messages import RECORDS, Messages, ReceivedStream
from fabric_assets.connectors.bridge.singer.catalog import Method, Selection
from fabric_assets.connectors.bridge.spill import SpillFile


@dataclass
class TapStream(ReceivedStream):
    """What a run of the tap has sent of one stream.

    Args:
        method: how the tap reads the stream.
        versions: of the rows.
        activated: the version that the tap declared to be the whole table.
    """

    method: Method = "FULL_TABLE"
    versions: set[int] = field(default_factory=set)
    activated: int | None = None


class TapMessages(Messages):
    """The messages of one run of a tap.

    Args:
        folder: the only folder in which the files of BATCH messages may lie.
    """

    dialect = replace(RECORDS, called="Singer message")

    def __init__(self, selection: Selection, spill_file: SpillFile, *, folder: Path, where: str, connector: str) -> None:
        super().__init__(spill_file, where=where, connector=connector)
        self._selection, self._folder = selection, folder
        self.streams = {each.name: TapStream(each.name, each.tap_id, spill_file.open_spill(), method=each.method) for each in selection.streams.values()}
        self.state: Any = None

    def list_received(self) -> Iterable[ReceivedStream]:
        return self.streams.values()

    def find(self, stream: str) -> TapStream | None:
        selected = self._selection.streams.get(stream)
        return self.streams[selected.name] if selected else None

    def note_record(self, received: ReceivedStream, version: Any) -> None:
        assert isinstance(received, TapStream)
        received.versions.add(version)

    def handle(self, kind: str, message: Mapping[str, Any]) -> None:
        stream = str(message.get("stream", ""))
        if kind == "STATE":
            self.state = message.get("value")
        elif kind == "SCHEMA":
            self._describe(stream, message)
        elif kind == "BATCH":
            self._add_files(stream, message)
        elif kind == "ACTIVATE_VERSION" and (received := self.find(stream)):
            received.activated = message.get("version")

    def _describe(self, stream: str, message: Mapping[str, Any]) -> None:
        received = self.find(stream)
        if received is None:
            self.others.setdefault(stream, 0)
            return
        schema = message.get("schema")
        if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
            raise self.build_error(f"is a SCHEMA of the stream {stream} without properties")
        received.is_described = True
        received.key = tuple(map(str, message.get("key_properties") or ()))
        received.types = {**received.types, **read_types(schema)}
        self.set_fields(received, read_fields(schema))

    def _add_files(self, stream: str, message: Mapping[str, Any]) -> None:
        received, encoding = self.find(stream), message.get("encoding") or {}
        if received is None:
            self.others.setdefault(stream, 0)
            return
        if not received.is_described:
            raise self.build_error(f"is a BATCH of the stream {stream} before its SCHEMA")
        self.end_stream(received)
        form, compression = encoding.get("format"), encoding.get("compression")
        if form != "jsonl" or compression not in (None, "none", "gzip"):
            raise self.build_error(f"is a BATCH in the format {form!r}, compression {compression!r}; known: jsonl, without compression or gzip")
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
            raise self.build_error(f"names the file {path.name}, whose line {number} is not a JSON object")
        return row

    def _open(self, path: Path) -> IO[bytes]:
        """Open a file of a BATCH, which the tap may have replaced by a link to another tenant's."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self.build_error(f"names the file {path.name}, which cannot be read: {error.strerror}") from None
        # The file that was opened, wherever links have led.
        found = Path(f"/proc/self/fd/{descriptor}").resolve()
        if not found.is_relative_to(self._folder.resolve()) or not found.is_file():
            os.close(descriptor)
            raise self.build_error(f"names the file {path.name} outside of the connector's own folder")
        return os.fdopen(descriptor, "rb")
