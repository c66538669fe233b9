"""A tap's catalog -> the same catalog with the tenant's streams selected, and what it says of each of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fabric_assets.config.sources.connectors import SingerSource, SingerStream
from fabric_assets.errors import ConfigurationError, SourceError
from fabric_assets.suggestions import suggest

Method = Literal["FULL_TABLE", "INCREMENTAL", "LOG_BASED"]
_METHODS: dict[str, Method] = {"full_table": "FULL_TABLE", "incremental": "INCREMENTAL", "log_based": "LOG_BASED"}
# The names of the tap's rules about a field that the tenant cannot change.
_ALWAYS = ("automatic", "unsupported")


@dataclass(frozen=True)
class SelectedStream:
    """A stream as the tap reads it.

    Args:
        name: the stream's name in the tenant's YAML.
        tap_id: its name in the tap's catalog and bookmarks.
    """

    name: str
    tap_id: str
    method: Method


@dataclass(frozen=True)
class Selection:
    """What a run of the tap reads.

    Args:
        catalog: to be given to the tap.
        streams: the name of a stream in the tap's messages -> the stream.
    """

    catalog: bytes
    streams: Mapping[str, SelectedStream]


def select_streams(catalog: bytes, config: SingerSource, names: tuple[str, ...], *, where: str) -> Selection:
    """Select the named streams of a discovered catalog, and deselect all others.

    Raises:
        SourceError: the tap's output is not a catalog.
        ConfigurationError: the tap has no such stream, field or replication key.
    """
    try:
        found = json.loads(catalog)
        entries = {_get_id(entry): entry for entry in found["streams"]}
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{where}: --discover of {config.connector} did not write a catalog", remedy="see what the tap needs in its arguments") from None
    selected = dict[str, SelectedStream]()
    for name in names:
        declared = config.streams[name]
        entry = entries.get(declared.stream or name) or next((each for each in entries.values() if each.get("stream") == (declared.stream or name)), None)
        if entry is None:
            raise ConfigurationError(
                f"{where}, stream {name}: {config.connector} has no stream {declared.stream or name!r}{suggest(declared.stream or name, entries)}",
                remedy=f"name the tap's stream: streams.{name}.stream",
            )
        selected[_get_id(entry)] = SelectedStream(name, _get_id(entry), _select(entry, declared, where=f"{where}, stream {name}"))
    for tap_id, entry in entries.items():
        if tap_id not in selected:
            _set(entry, selected=False)
    by_message = {str(entries[tap_id].get("stream", tap_id)): stream for tap_id, stream in selected.items()}
    return Selection(json.dumps(found).encode(), {**selected, **by_message})


def _get_id(entry: Mapping[str, Any]) -> str:
    return str(entry.get("tap_stream_id") or entry["stream"])


def _select(entry: dict[str, Any], declared: SingerStream, *, where: str) -> Method:
    """Select a stream in its catalog entry; return how the tap reads it."""
    root = _get_root(entry)
    method, key = _choose_method(entry, root, declared), declared.cursor and declared.cursor.field
    fields = entry.get("schema", {}).get("properties", {})
    for field in [*([key] if key else []), *(declared.columns or ()), *(declared.primary_key or ())]:
        if field not in fields:
            raise ConfigurationError(f"{where}: the tap has no field {field!r}{suggest(field, fields)}", remedy="name a field of the tap's stream")
    _set(entry, **{"selected": True, "replication-method": method}, **({"replication-key": key} if key else {}))
    entry["replication_method"] = method
    if key:
        entry["replication_key"] = key
    if declared.columns:
        needed = {*declared.columns, *(declared.primary_key or ()), *_list_keys(entry, root), *([key] if key else [])}
        for metadata in _list_fields(entry):
            if metadata["metadata"].get("inclusion") not in _ALWAYS:
                metadata["metadata"]["selected"] = metadata["breadcrumb"][1] in needed
    return method


def _choose_method(entry: Mapping[str, Any], root: Mapping[str, Any], declared: SingerStream) -> Method:
    if declared.replication:
        return _METHODS[declared.replication]
    if declared.cursor:
        return "INCREMENTAL"
    said = root.get("forced-replication-method") or entry.get("replication_method") or root.get("replication-method")
    for method in _METHODS.values():
        if method == said:
            return method
    return "INCREMENTAL" if entry.get("replication_key") or root.get("replication-key") else "FULL_TABLE"


def _list_keys(entry: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    replication = entry.get("replication_key") or root.get("replication-key")
    return [*(entry.get("key_properties") or root.get("table-key-properties") or ()), *([replication] if isinstance(replication, str) else [])]


def _get_root(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of the stream itself; it is added if the tap has none."""
    every = entry.setdefault("metadata", [])
    for each in every:
        if not each.get("breadcrumb"):
            return each.setdefault("metadata", {})
    every.append({"breadcrumb": [], "metadata": {}})
    return every[-1]["metadata"]


def _list_fields(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metadata of each top-level field; it is added where the tap has none."""
    known = {each["breadcrumb"][1]: each for each in entry["metadata"] if len(each.get("breadcrumb", ())) == 2}
    for field in entry.get("schema", {}).get("properties", {}):
        if field not in known:
            entry["metadata"].append(made := {"breadcrumb": ["properties", field], "metadata": {}})
            known[field] = made
        known[field].setdefault("metadata", {})
        yield known[field]


def _set(entry: dict[str, Any], **values: Any) -> None:
    _get_root(entry).update(values)
    # Older taps read the entry's schema instead of its metadata.
    if isinstance(entry.get("schema"), dict):
        entry["schema"]["selected"] = values["selected"]
