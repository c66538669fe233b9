"""A connector's catalog and the tenant's streams -> the configured catalog that it reads by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fabric_assets.config.sources.connectors import AirbyteSource, AirbyteStream
from fabric_assets.errors import ConfigurationError, SourceError
from fabric_assets.rows.batches import WriteDisposition
from fabric_assets.suggestions import suggest


@dataclass(frozen=True)
class SelectedStream:
    """A stream as the connector reads it.

    Args:
        name: the stream's name in the tenant's YAML.
        key: the primary key; empty without one.
        schema: the JSON Schema of its rows.
        descriptor: name and namespace, as the protocol has them.
    """

    name: str
    key: tuple[str, ...]
    is_incremental: bool
    schema: Mapping[str, Any]
    descriptor: Mapping[str, str]

    @property
    def disposition(self) -> WriteDisposition:
        return "merge" if self.is_incremental else "replace"


def get_key(name: str, namespace: str | None) -> str:
    """Get the name by which the load knows a stream of a connector."""
    return f"{namespace}.{name}" if namespace else name


def configure(messages: bytes, config: AirbyteSource, names: tuple[str, ...], *, where: str) -> tuple[bytes, dict[str, SelectedStream]]:
    """Configure the named streams of a discovered catalog.

    Returns:
        the configured catalog; and the streams, by the connector's key.

    Raises:
        SourceError: the output has no catalog.
        ConfigurationError: the connector has no such stream or field, or cannot read it so.
    """
    entries = {get_key(entry["name"], entry.get("namespace")): entry for entry in _find_catalog(messages, config, where)}
    selected, configured = dict[str, SelectedStream](), list[dict[str, Any]]()
    for name in names:
        declared = config.streams[name]
        key = declared.stream or name
        if key not in entries:
            raise ConfigurationError(
                f"{where}, stream {name}: {config.connector} has no stream {key!r}{suggest(key, entries)}",
                remedy=f"name the connector's stream: streams.{name}.stream",
            )
        selected[key] = stream = _select(name, entries[key], declared, where=f"{where}, stream {name}")
        cursor = declared.cursor.field if declared.cursor else None
        configured.append(
            {
                "stream": entries[key],
                "sync_mode": "incremental" if stream.is_incremental else "full_refresh",
                "destination_sync_mode": "append_dedup" if stream.is_incremental else "overwrite",
                "cursor_field": [cursor] if cursor else entries[key].get("default_cursor_field") or [],
                "primary_key": [[field] for field in stream.key],
            }
        )
    return json.dumps({"streams": configured}).encode(), selected


def _find_catalog(messages: bytes, config: AirbyteSource, where: str) -> list[dict[str, Any]]:
    for line in messages.splitlines():
        try:
            message = json.loads(line)
            if message["type"] == "CATALOG" and all(map(_is_entry, message["catalog"]["streams"])):
                return message["catalog"]["streams"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    raise SourceError(
        f"{where}: discover of {config.connector} did not write a catalog that follows the protocol", remedy="see what the connector needs in its arguments"
    )


def _is_entry(entry: Mapping[str, Any]) -> bool:
    keys, modes = entry.get("source_defined_primary_key") or [], entry.get("supported_sync_modes") or []
    return (
        isinstance(entry["name"], str)
        and isinstance(entry.get("namespace") or "", str)
        and isinstance((entry.get("json_schema") or {}).get("properties") or {}, Mapping)
        and all(isinstance(path, list) and all(isinstance(part, str) for part in path) for path in keys)
        and all(isinstance(mode, str) for mode in modes)
    )


def _select(name: str, entry: Mapping[str, Any], declared: AirbyteStream, *, where: str) -> SelectedStream:
    schema, modes = entry.get("json_schema") or {}, entry.get("supported_sync_modes") or ["full_refresh"]
    fields = schema.get("properties") or {}
    for field in [*([declared.cursor.field] if declared.cursor else []), *(declared.primary_key or ())]:
        if fields and field not in fields:
            raise ConfigurationError(f"{where}: the connector has no field {field!r}{suggest(field, fields)}", remedy="name a field of the connector's stream")
    wanted = declared.replication or ("incremental" if declared.cursor or entry.get("source_defined_cursor") else "full_table")
    if wanted == "incremental" and "incremental" not in modes:
        if declared.replication or declared.cursor:
            raise ConfigurationError(f"{where}: the connector reads the stream as a whole only", remedy="drop the cursor, or use replication: full_table")
        wanted = "full_table"
    own = entry.get("source_defined_primary_key") or []
    # A key within an object has the name of its column.
    key = declared.primary_key or tuple("__".join(path) if len(path) > 1 else path[0] for path in own if path)
    descriptor = {word: entry[word] for word in ("name", "namespace") if entry.get(word)}
    return SelectedStream(name, key, wanted == "incremental", schema, descriptor)
