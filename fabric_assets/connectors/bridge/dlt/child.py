"""A dlt source as a connector's program. The connector's own Python runs this file; it imports the standard library, dlt and the source, and nothing else.

    python -I child.py read|describe ORDER

ORDER is a JSON file. Each line of the output is a JSON object: SCHEMA, RECORD (one row), TABLE (an Arrow table), FAILED, STATE, or ERROR. What the source
prints goes to the log. dlt's private names that are used here are listed in `_PRIVATE`; a test runs this file with each version of dlt that is admitted.
"""

import base64
import contextlib
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any
from uuid import UUID

_PRIVATE = (
    "dlt.common.configuration.container.Container",
    "dlt.common.configuration.resolve.inject_section",
    "dlt.common.json.custom_encode",
    "dlt.common.pipeline.StateInjectableContext",
    "dlt.extract.hints.HintsMeta",
    "dlt.extract.items.TableNameMeta",
    "dlt.extract.pipe_iterator.PipeIterator",
    "dlt.extract.source.SourceInjectableContext",
    "dlt.extract.source.SourceSchemaInjectableContext",
    "DltSource._get_config_section_context",
    "DltSource.resources.selected_pipes",
    "DltSource.resources.with_pipe",
    "DltResource._pipe",
    "DltResource._table_name_hint_fun",
)
# An Arrow table is sent in parts of so many bytes.
_TABLE_BYTES = 8_000_000
_MOST_DIGITS = 38


class _Refused(Exception):
    """Something that the load cannot keep, or settings that the source does not take."""


class Output:
    """The messages, on a copy of the standard output."""

    def __init__(self) -> None:
        self._file: IO[bytes] = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
        # Whatever the source prints belongs to the log.
        os.dup2(2, 1)

    def send(self, kind: str, **message: Any) -> None:
        self._file.write(json.dumps({"type": kind, **message}).encode() + b"\n")

    def send_rows(self, stream: str, rows: list[bytes]) -> None:
        begin = b'{"type":"RECORD","stream":' + json.dumps(stream).encode() + b',"record":'
        self._file.write(begin + (b"}\n" + begin).join(rows) + b"}\n")

    def close(self) -> None:
        self._file.close()


def main() -> int:
    """Do what the arguments say."""
    output = Output()
    # dlt looks for its own files here, and for settings in variables: there are none.
    os.environ |= {"DLT_PROJECT_DIR": os.environ["HOME"], "DLT_DATA_DIR": os.environ["HOME"], "RUNTIME__DLTHUB_TELEMETRY": "false", "DO_NOT_TRACK": "1"}
    order = json.loads(Path(sys.argv[2]).read_bytes())
    sys.path[:0] = order["path"]
    try:
        if sys.argv[1] == "describe":
            output.send("SPEC", **describe(order))
        else:
            read(order, output)
    except _Refused as error:
        output.send("ERROR", message=str(error))
        return 2
    finally:
        output.close()
    return 0


# --- the source


def find_function(name: str) -> Callable[..., Any]:
    """Import the function that `source` names."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise _Refused(f"source: {name} cannot be imported: {type(error).__name__}: {error}") from None
    return found


def make_source(order: dict[str, Any]) -> Any:
    """Call the function with the tenant's settings."""
    import dlt
    from dlt.common.configuration.exceptions import ConfigurationException
    from dlt.extract.resource import DltResource
    from dlt.extract.source import DltSource

    function = find_function(order["source"])
    try:
        made = function(**order["settings"])
    except ConfigurationException as error:
        raise _Refused(f"the source lacks settings, or does not take them: {_shorten(error)}") from None
    except TypeError as error:
        raise _Refused(f"the source does not take these settings: {error}") from None
    if isinstance(made, DltSource):
        return made
    if isinstance(made, DltResource):
        return DltSource(dlt.Schema(made.source_name or made.name), made.section or "", [made])
    raise _Refused(f"{order['source']} returns {type(made).__name__}, not a dlt source or resource")


def _shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])


def describe(order: dict[str, Any]) -> dict[str, Any]:
    """Describe the function's settings as a JSON Schema, and name its resources if it can be called without settings."""
    function = find_function(order["source"])
    properties, required = dict[str, Any](), list[str]()
    for name, parameter in inspect.signature(inspect.unwrap(function)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        described = _describe_parameter(parameter)
        if not described.pop("has_default"):
            required.append(name)
        properties[name] = described
    open_ended = any(parameter.kind == parameter.VAR_KEYWORD for parameter in inspect.signature(inspect.unwrap(function)).parameters.values())
    spec: dict[str, Any] = {"type": "object", "properties": properties, "required": required, "additionalProperties": open_ended}
    names = None
    if not required:
        with contextlib.suppress(Exception):
            names = sorted(make_source({**order, "settings": {}}).resources)
    return {"settings": spec, "resources": names}


def _describe_parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    import dlt

    default = parameter.default
    is_given = default is not parameter.empty
    is_marked = (
        default is dlt.secrets.value or default is dlt.config.value or (is_given and type(default).__name__ in ("SecretSentinel", "ConfigValueSentinel"))
    )
    hint = str(parameter.annotation)
    is_secret = default is dlt.secrets.value or "Secret" in hint or "Credentials" in hint
    described: dict[str, Any] = {"secret": True} if is_secret else {}
    for word, kind in (("bool", "boolean"), ("int", "integer"), ("float", "number"), ("str", "string")):
        if parameter.annotation in ({"bool": bool, "int": int, "float": float, "str": str}[word], word):
            described["type"] = kind
    if is_given and not is_marked and isinstance(default, str | int | float | bool | None):
        described["default"] = default
    return {**described, "has_default": is_given and not is_marked}


# --- reading


def read(order: dict[str, Any], output: Output) -> None:
    """Read the chosen resources, and send rows and state."""
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.resolve import inject_section
    from dlt.common.json import json as typed
    from dlt.common.pipeline import StateInjectableContext
    from dlt.extract.exceptions import ResourcesNotFoundError
    from dlt.extract.pipe_iterator import PipeIterator
    from dlt.extract.source import SourceInjectableContext, SourceSchemaInjectableContext

    source = make_source(order)
    try:
        selected = source.with_resources(*order["resources"])
    except ResourcesNotFoundError as error:
        raise _Refused(
            f"the source has no resource {', '.join(sorted(error.not_found_resources))}; it has {', '.join(sorted(error.available_resources))}"
        ) from None
    known = order["state"] or {}
    own = {**(typed.typed_loads(known["source"]) if known.get("source") else {})}
    own["resources"] = {name: typed.typed_loads(text) for name, text in known.get("resources", {}).items()}
    state: Any = {"sources": {source.name: own}}
    section = selected._get_config_section_context()
    container = Container()
    with (
        inject_section(section),
        container.injectable_context(StateInjectableContext(state=state)),
        container.injectable_context(SourceSchemaInjectableContext(selected.schema)),
        container.injectable_context(SourceInjectableContext(selected)),
    ):
        failed = set[str]()
        streams = {name: Stream(resource, selected, order["resources"][name], output) for name, resource in selected.resources.selected.items()}
        for name, stream in streams.items():
            # As dlt does it: a table that is replaced is read as a whole, whatever the last run has seen.
            if (order["dispositions"].get(name) or stream.disposition) == "replace":
                own["resources"].pop(name, None)
        # Resources that share no parent are read one after the other, so that one that fails spares the rest.
        for names in group_by_parents(streams):
            try:
                with PipeIterator.from_pipes([selected.resources[name]._pipe for name in names]) as pipes:
                    for item in pipes:
                        resource = selected.resources.with_pipe(item.pipe)
                        # A parent that is read for a transformer alone has no stream.
                        if (stream := streams.get(resource.name)) is not None and item.item is not None:
                            stream.write(item.item, item.meta)
                for name in names:
                    streams[name].finish()
            except _Refused:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the source raises, told to the load
                traceback.print_exc()
                for name in names:
                    output.send("FAILED", stream=streams[name].name, message=describe_failure(error))
                failed.update(names)
    send_state(state, streams, failed, output)


def group_by_parents(streams: "dict[str, Stream]") -> Iterator[list[str]]:
    """Yield the names of resources that have a parent in common, or are one another's parent."""
    left = {name: {name, *stream.parents} for name, stream in streams.items()}
    while left:
        name, reached = left.popitem()
        names = [name]
        while joined := [other for other, lineage in left.items() if lineage & reached]:
            for other in joined:
                reached |= left.pop(other)
                names.append(other)
        yield sorted(names)


def describe_failure(error: BaseException) -> str:
    """Describe what a resource itself has raised, below the exceptions that dlt wraps it in."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_shorten(error)}"


def send_state(state: dict[str, Any], streams: "dict[str, Stream]", failed: set[str], output: Output) -> None:
    """Send the state: by resource, if it is of the chosen resources alone; else as one that covers all of them."""
    from dlt.common.json import json as typed

    own = dict(next(iter(state["sources"].values()), {}))
    # What a resource that has failed left in its state does not count.
    resources = {name: value for name, value in own.pop("resources", {}).items() if value and name not in failed}
    written = {name: typed.typed_dumps(value) for name, value in resources.items()}
    if own or not written.keys() <= streams.keys() or any(parent in written for stream in streams.values() for parent in stream.parents):
        output.send("STATE", value={"source": typed.typed_dumps(own) if own else None, "resources": written})
    else:
        output.send("STATE", value={"bookmarks": written})


class Stream:
    """The rows of one resource, in the tables that they name."""

    def __init__(self, resource: Any, source: Any, name: str, output: Output) -> None:
        self._resource, self.name, self._output = resource, name, output
        self._tables: dict[str, Table] = {}
        self._hints: dict[str, Any] | None = None
        self.disposition = _get_disposition(resource)
        nesting = getattr(resource, "max_table_nesting", None)
        self._nesting = nesting if nesting is not None else source.max_table_nesting
        self.parents = list[str]()
        pipe = resource._pipe.parent
        while pipe is not None:
            self.parents.append(pipe.name)
            pipe = pipe.parent

    def write(self, item: Any, meta: Any) -> None:
        """Send an item: a row, a list of them, or a table."""
        from dlt.extract.hints import HintsMeta
        from dlt.extract.items import TableNameMeta

        name = meta.table_name if isinstance(meta, TableNameMeta) else None
        if isinstance(meta, HintsMeta):
            hints: Any = meta.hints
            name = hints.get("table_name") if isinstance(hints.get("table_name"), str) else None
            if hints.get("write_disposition"):
                _get_disposition(self._resource, hints["write_disposition"])
        if _is_table(item):
            self._get_table(name or self._get_name(), item, meta).write_table(item)
            return
        rows = item if isinstance(item, list) else [item]
        function = self._resource._table_name_hint_fun if name is None else None
        if function is None:
            self._write_rows(name or self._get_name(), rows, meta)
            return
        by_table: dict[str, list[Any]] = {}
        for row in rows:
            by_table.setdefault(function(row), []).append(row)
        for table, of_table in by_table.items():
            self._write_rows(table, of_table, meta)

    def finish(self) -> None:
        """Describe the resource's own table if no row has gone there."""
        if (own := self._get_name()) not in self._tables:
            hints = self._compute(None, None) if self._hints is None else self._hints
            self._tables[own] = Table(self.name, hints, self.disposition, self._nesting, self._output)

    def _write_rows(self, name: str, rows: list[Any], meta: Any) -> None:
        if any(_is_table(row) for row in rows[:1]):
            for row in rows:
                self._get_table(name, row, meta).write_table(row)
        elif rows:
            self._get_table(name, rows, meta).write_rows(rows)

    def _get_name(self) -> str:
        name = self._resource.table_name
        return name if isinstance(name, str) else self._resource.name

    def _get_table(self, name: str, item: Any, meta: Any) -> "Table":
        if name not in self._tables:
            self._hints = self._compute(item, meta)
            stream = self.name if name == self._get_name() else f"{self.name}/{name}"
            self._tables[name] = Table(stream, self._hints, self.disposition, self._nesting, self._output)
        return self._tables[name]

    def _compute(self, item: Any, meta: Any) -> dict[str, Any]:
        from dlt.extract.exceptions import DataItemRequiredForDynamicTableHints

        first = item[0] if isinstance(item, list) and item else item
        try:
            return self._resource.compute_table_schema(None if _is_table(first) else first, meta)
        except DataItemRequiredForDynamicTableHints:
            return {"columns": {}}


def _get_disposition(resource: Any, hint: Any = None) -> str:
    hint = hint or resource.write_disposition
    where = f"the resource {resource.name}"
    if callable(hint):
        raise _Refused(
            f"{where} decides its write_disposition by each row, which a load cannot keep; declare write_disposition in the YAML, or load it otherwise"
        )
    if isinstance(hint, dict):
        if hint.get("strategy") == "scd2":
            raise _Refused(f"{where} has the merge strategy scd2, which a load does not keep; use merge, and a dbt snapshot for the history")
        hint = hint["disposition"]
    if hint not in ("append", "replace", "merge"):
        raise _Refused(f"{where} has the write_disposition {hint}, which a load does not know; known: append, replace, merge")
    return str(hint)


class Table:
    """The rows of one table of a resource.

    Args:
        stream: the stream's name; with a slash and the table's, for a table that the rows name.
        nesting: levels of objects and lists that become columns and tables; deeper ones are kept as JSON.
    """

    def __init__(self, stream: str, hints: dict[str, Any], disposition: str, nesting: int | None, output: Output) -> None:
        self._stream, self._output, self._nesting = stream, output, nesting
        self._disposition, columns = disposition, hints.get("columns", {})
        self._key = [name for name, hint in columns.items() if hint.get("primary_key")]
        self._types = {name: word for name, hint in columns.items() if (word := _get_word(hint))}
        self._newest_by = _find_newest_by(columns, stream)
        if not self._key and any(hint.get("merge_key") for hint in columns.values()):
            raise _Refused(f"the resource {stream} has a merge_key and no primary_key; declare a primary_key in the YAML")
        if deleted := [name for name, hint in columns.items() if hint.get("hard_delete")]:
            raise _Refused(f"the resource {stream} marks deleted rows in {deleted[0]} (hard_delete), which a load does not follow; filter them in a model")
        self._as_json = {name for name, word in self._types.items() if word == "json"}
        self._fields: dict[str, Any] = {}
        self._settled = set[str]()
        self._describe()

    def write_rows(self, rows: list[Any]) -> None:
        if not all(type(row) is dict for row in rows):
            rows = [_get_object(row) for row in rows]
        if self._nesting is not None or self._as_json:
            rows = [self._fold(row) for row in rows]
        self._note(rows)
        self._output.send_rows(self._stream, [write_json(row) for row in rows])

    def write_table(self, item: Any) -> None:
        import io

        import pyarrow as pa

        table = item if isinstance(item, pa.Table) else pa.Table.from_batches([item]) if isinstance(item, pa.RecordBatch) else pa.Table.from_pandas(item)
        rows = max(1, table.num_rows * _TABLE_BYTES // max(table.nbytes, 1))
        for first in range(0, max(table.num_rows, 1), rows):
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.slice(first, rows))
            self._output.send("TABLE", stream=self._stream, arrow=base64.b64encode(sink.getvalue()).decode())

    def _fold(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write what lies too deep, and what is declared as JSON, as a text."""
        folded = {}
        for name, value in row.items():
            if isinstance(value, dict | list) and (name in self._as_json or self._nesting == 0):
                self._types[name] = "json"
                folded[name] = write_json(value).decode()
            else:
                folded[name] = value if self._nesting is None else _fold_below(value, self._nesting - 1)
        return folded

    def _note(self, rows: list[dict[str, Any]]) -> None:
        """Note the types of fields that are new, and tell the load."""
        settled, found = self._settled, False
        for row in rows:
            if row.keys() <= settled:
                continue
            for name, value in row.items():
                if name not in settled:
                    kind = _describe_value(value, self._types, name)
                    if name not in self._fields or kind != {"type": "null"}:
                        found |= self._fields.get(name) != kind
                        self._fields[name] = kind
                    if kind != {"type": "null"}:
                        settled.add(name)
        if found:
            self._describe()

    def _describe(self) -> None:
        hints = {"key": self._key, "disposition": self._disposition, "types": self._types, "newest_by": self._newest_by}
        self._output.send("SCHEMA", stream=self._stream, schema={"properties": self._fields}, **hints)


def _fold_below(value: Any, nesting: int) -> Any:
    if isinstance(value, dict):
        return {name: _fold_inner(inner, nesting) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fold_below(inner, nesting) if isinstance(inner, dict) else inner for inner in value]
    return value


def _fold_inner(value: Any, nesting: int) -> Any:
    if isinstance(value, dict | list):
        return write_json(value).decode() if nesting <= 0 else _fold_below(value, nesting - 1)
    return value


def _get_object(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    dump = getattr(row, "model_dump", None) or getattr(row, "_asdict", None)
    return dump() if dump else {"value": row}


def _describe_value(value: Any, types: dict[str, str], name: str = "") -> dict[str, Any]:
    """Describe a value as a JSON Schema, and note the type of one that JSON does not have."""
    kind = type(value)
    if value is None:
        return {"type": "null"}
    if kind is bool or kind is int or kind is str:
        return {"type": {bool: "boolean", int: "integer", str: "string"}[kind]}
    if kind is float:
        return {"type": "number"}
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: _describe_value(inner, {}) for key, inner in value.items()}}
    if isinstance(value, list | tuple | set | frozenset):
        return {"type": "array"}
    word = "timestamp" if isinstance(value, datetime) else "date" if isinstance(value, date) else "time" if isinstance(value, time) else None
    if isinstance(value, Decimal):
        types.setdefault(name, f"decimal({_MOST_DIGITS},9)")
        return {"type": "number"}
    if word:
        types.setdefault(name, word)
    return {"type": "string"}


def _get_word(hint: dict[str, Any]) -> str | None:
    """Return the type that a column's hints give it."""
    kind = hint.get("data_type")
    if kind == "decimal":
        return f"decimal({hint.get('precision') or _MOST_DIGITS},{hint['scale'] if hint.get('scale') is not None else 9})"
    if kind == "timestamp" and hint.get("timezone") is False:
        return "naive_timestamp"
    return kind if isinstance(kind, str) else None


def _find_newest_by(columns: dict[str, Any], stream: str) -> str | None:
    for name, hint in columns.items():
        if hint.get("dedup_sort") == "asc":
            raise _Refused(f"the resource {stream} keeps the row with the lowest {name} (dedup_sort: asc), which a load does not; use desc")
        if hint.get("dedup_sort"):
            return name
    return None


def _is_table(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] in ("pyarrow", "pandas") and hasattr(item, "columns" if hasattr(item, "iloc") else "schema")


# --- JSON


def write_json(value: Any) -> bytes:
    """Write a value as JSON, each of its numbers with all digits."""
    import orjson

    try:
        return orjson.dumps(value, _encode, orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Whole numbers beyond 64 bits, and halves of surrogate pairs.
        return "".join(_iterate(value)).encode()


def _encode(value: Any) -> Any:
    import orjson

    if isinstance(value, Decimal):
        return orjson.Fragment(str(value) if value.is_finite() else "null")
    return _make_plain(value)


def _make_plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    from dlt.common.json import custom_encode

    return custom_encode(value)


def _iterate(value: Any) -> Iterator[str]:
    """Yield the parts of a value's JSON."""
    if isinstance(value, dict):
        yield "{"
        for index, (name, inner) in enumerate(value.items()):
            yield f"{', ' if index else ''}{json.dumps(str(name))}: "
            yield from _iterate(inner)
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        yield "["
        for index, inner in enumerate(value):
            yield ", " if index else ""
            yield from _iterate(inner)
        yield "]"
    elif isinstance(value, Decimal):
        yield str(value) if value.is_finite() else "null"
    elif value is None or isinstance(value, str | int | float | bool):
        yield json.dumps(value)
    else:
        yield from _iterate(_make_plain(value))


if __name__ == "__main__":
    sys.exit(main())
