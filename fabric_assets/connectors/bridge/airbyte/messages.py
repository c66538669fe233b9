"""An Airbyte connector's messages -> rows per stream, what became of each stream, and the state that covers its rows."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.bridge.airbyte.catalog import SelectedStream, get_key
from fabric_assets.connectors.bridge.json_columns import read_fields
from fabric_assets.connectors.bridge.json_schema import read_types
from fabric_assets.connectors.bridge.messages import Dialect, Messages, ReceivedStream, Record
from fabric_assets.connectors.bridge.spill import SpillFile
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.masking import mask

_LEVELS = ("WARN", "ERROR", "FATAL")
_SHOWN = 400


def _build_form(fields: pa.StructType) -> pa.Schema:
    record = [("stream", pa.string()), ("namespace", pa.string()), ("data", fields), ("emitted_at", pa.int64())]
    return pa.schema([("type", pa.string()), ("record", pa.struct(record))])


AIRBYTE = Dialect(
    called="message of the Airbyte protocol",
    begin=re.compile(rb'\s*\{\s*"type"\s*:\s*"RECORD"\s*,\s*"record"\s*:\s*\{\s*"stream"\s*:\s*"[^"\\]*"'),
    close=b"}}",
    read_record=lambda message: Record(get_key(message["record"]["stream"], message["record"].get("namespace")), message["record"].get("data")),
    build_form=_build_form,
    get_rows=lambda messages: (messages["record"].combine_chunks().field("data"), None),
)


class ConnectorMessages(Messages):
    """The messages of one run of an Airbyte connector.

    Args:
        selected: the connector's key of a stream -> the stream.
    """

    dialect = AIRBYTE

    def __init__(self, selected: Mapping[str, SelectedStream], spill_file: SpillFile, *, where: str, connector: str) -> None:
        super().__init__(spill_file, where=where, connector=connector)
        self.selected = selected
        self._by_key = {key: ReceivedStream(each.name, key, spill_file.open_spill(), key=each.key) for key, each in selected.items()}
        self.streams = {received.name: received for received in self._by_key.values()}
        for key, received in self._by_key.items():
            received.is_described, received.types = True, read_types(selected[key].schema)
            # A beginning of a line with a namespace does not decide the stream.
            self.set_fields(received, None if "namespace" in selected[key].descriptor else read_fields(selected[key].schema))
        self.state: Any = None
        self.statuses: dict[str, str] = {}
        # What the connector says of a stream, or, under an empty name, of the whole run: the kind of its failure, and its words.
        self.errors: dict[str, tuple[str, str]] = {}
        # Rows by the connector's own count, of each stream or, under an empty name, of all; only if it counts.
        self.counts: dict[str, float] = {}
        self.has_new_settings = False
        self.log: list[str] = []
        # What to do if the load refused to connect; the connector itself does not know.
        self.refusal_remedy = ""

    def list_received(self) -> Iterable[ReceivedStream]:
        return self._by_key.values()

    def find(self, stream: str) -> ReceivedStream | None:
        return self._by_key.get(stream)

    def handle(self, kind: str, message: Mapping[str, Any]) -> None:
        try:
            if kind == "STATE":
                self._keep_state(message["state"])
            elif kind == "TRACE":
                self._read_trace(message["trace"])
            elif kind == "LOG" and message["log"].get("level") in _LEVELS:
                self.log = [*self.log[-4:], str(message["log"].get("message", ""))[:_SHOWN]]
            elif kind == "CONTROL":
                self.has_new_settings = True
        except (LookupError, TypeError, AttributeError):
            raise self.build_error(f"is a {kind} that does not follow the Airbyte protocol") from None

    def _keep_state(self, state: Mapping[str, Any]) -> None:
        key, count = "", (state.get("sourceStats") or {}).get("recordCount")
        if state.get("type") == "STREAM":
            key = _get_descriptor_key(state["stream"]["stream_descriptor"])
            bookmarks = {} if self.state is None else self.state.get("bookmarks", {})
            self.state = {"bookmarks": {**bookmarks, key: state["stream"].get("stream_state") or {}}}
        elif state.get("type") == "GLOBAL":
            self.state = {"global": state["global"]}
        else:
            self.state = {"legacy": state.get("data") or {}}
        if count is not None:
            self.counts[key] = self.counts.get(key, 0) + count

    def _read_trace(self, trace: Mapping[str, Any]) -> None:
        if trace.get("type") == "STREAM_STATUS":
            found = trace["stream_status"]
            self.statuses[_get_descriptor_key(found["stream_descriptor"])] = found["status"]
        elif trace.get("type") == "ERROR":
            error = trace["error"]
            key = _get_descriptor_key(error["stream_descriptor"]) if error.get("stream_descriptor") else ""
            self.errors[key] = (error.get("failure_type") or "system_error", str(error.get("message") or error.get("internal_message") or ""))

    def find_problem(self, key: str, where: str) -> FabricError | None:
        """Find why a stream's rows are not whole, by what the connector has said and by its counts."""
        status, rows = self.statuses.get(key), self._by_key[key].spill.rows
        if key in self.errors or status == "INCOMPLETE" or (status != "COMPLETE" and self.statuses):
            return self.build_failure(where, self.errors.get(key) or self.errors.get("") or ("system_error", f"it did not complete the stream: {status}"))
        if key in self.counts and self.counts[key] != rows:
            return self._build_count_error(where, rows, self.counts[key])
        total = sum(each.spill.rows for each in self._by_key.values())
        if "" in self.counts and self.counts[""] != total:
            return self._build_count_error(where, total, self.counts[""])
        return None

    def build_failure(self, where: str, error: tuple[str, str]) -> FabricError:
        """Build the error for what the connector says of a failure."""
        kind, words = error
        text = f"{where}: the connector {self.connector} failed: {mask(words[:_SHOWN])}" + "".join(f"\n  {self.connector}: {mask(line)}" for line in self.log)
        if self.refusal_remedy:
            return SourceError(text, remedy=self.refusal_remedy)
        if kind == "config_error":
            return ConfigurationError(text, remedy="correct the source's arguments or secrets, or what its login may read")
        if kind == "transient_error":
            return SourceUnavailable(text, remedy="the next run reads on from the last commit")
        return SourceError(text, remedy="report it to the connector's maintainers, or install another version of it")

    def _build_count_error(self, where: str, rows: int, count: float) -> FabricError:
        return SourceError(
            f"{where}: the connector {self.connector} counted {count:,.0f} rows in its state and sent {rows:,}; none of them is loaded",
            remedy="report it to the connector's maintainers, or install another version of it",
        )


def _get_descriptor_key(descriptor: Mapping[str, Any]) -> str:
    return get_key(descriptor["name"], descriptor.get("namespace"))
