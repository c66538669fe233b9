"""The messages of our program for dlt sources -> rows per resource and table, hints, and the state that covers them."""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.bridge.json_columns import read_fields
from fabric_assets.connectors.bridge.messages import Messages, ReceivedStream
from fabric_assets.connectors.bridge.spill import SpillFile
from fabric_assets.errors import ConfigurationError
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC

_TYPES = {
    "text": TEXT,
    "double": DOUBLE,
    "bool": BOOL,
    "bigint": BIGINT,
    "timestamp": TIMESTAMP_UTC,
    "naive_timestamp": TIMESTAMP,
    "date": DATE,
    "time": TIME,
    "json": JSON,
    "wei": pa.decimal128(38, 0),
}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_MOST_DIGITS = 38


class SourceMessages(Messages):
    """The messages of one run of a dlt source.

    Args:
        streams: the source's resource -> the stream's name.
    """

    def __init__(self, streams: Mapping[str, str], spill_file: SpillFile, *, where: str, connector: str) -> None:
        super().__init__(spill_file, where=where, connector=connector)
        self.streams = {name: ReceivedStream(name, resource, spill_file.open_spill()) for resource, name in streams.items()}
        # Stream -> table that its rows name -> what was received of it.
        self.tables: dict[str, dict[str, ReceivedStream]] = {name: {} for name in self.streams}
        self.newest_by: dict[str, str] = {}
        # Streams that come as Arrow tables.
        self.arrow: set[str] = set()
        # Stream -> what its resource has raised.
        self.failed: dict[str, str] = {}
        self.state: Any = None

    def keeps_state(self, resource: str) -> bool:
        """Whether the next run goes on where this one has ended, for a resource."""
        state = self.state or {}
        return "bookmarks" not in state or resource in state["bookmarks"]

    def list_received(self) -> Iterable[ReceivedStream]:
        return [*self.streams.values(), *(each for tables in self.tables.values() for each in tables.values())]

    def find(self, stream: str) -> ReceivedStream | None:
        name, _, table = stream.partition("/")
        if not table or name not in self.tables:
            return self.streams.get(name)
        if table not in self.tables[name]:
            self.tables[name][table] = ReceivedStream(name, table, self.spill_file.open_spill())
        return self.tables[name][table]

    def handle(self, kind: str, message: Mapping[str, Any]) -> None:
        try:
            self._handle(kind, message)
        except (LookupError, TypeError, ValueError, AttributeError, pa.ArrowException):
            # The source runs in the program's process, and may have changed it.
            raise self.build_error(f"is a {kind} that the program for dlt sources does not write") from None

    def _handle(self, kind: str, message: Mapping[str, Any]) -> None:
        if kind == "ERROR":
            raise ConfigurationError(f"{self.where}: {self.connector}: {message['message']}", remedy="correct the source's arguments, secrets or streams")
        if kind == "STATE":
            self.state = message["value"]
            return
        if (received := self.find(message["stream"])) is None:
            raise LookupError(message["stream"])
        if kind == "SCHEMA":
            received.is_described, received.key, received.disposition = True, tuple(message["key"]), message["disposition"]
            received.types = {name: found for name, word in message["types"].items() if (found := _read_type(word)) is not None}
            self.set_fields(received, read_fields(message["schema"]))
            if message["newest_by"]:
                self.newest_by[received.name] = message["newest_by"]
        elif kind == "FAILED":
            self.failed[received.name] = message["message"]
        elif kind == "TABLE":
            self.arrow.add(received.name)
            self.end_stream(received)
            received.spill.add_table(pa.ipc.open_stream(base64.b64decode(message["arrow"])).read_all(), is_json=False)


def _read_type(word: str) -> pa.DataType | None:
    """Read the name of a type; None for one that decides nothing: bytes come as text."""
    if found := _DECIMAL.fullmatch(word):
        precision = min(int(found[1]), _MOST_DIGITS)
        return pa.decimal128(precision, min(int(found[2]), precision))
    return _TYPES.get(word)
