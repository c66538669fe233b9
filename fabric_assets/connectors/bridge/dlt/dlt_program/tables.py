"""The rows of one table of a resource -> lines, with what the load needs to know of their fields."""

import base64
import io
from typing import Any

from dlt_program.output import Output, Refused
from dlt_program.values import MOST_DIGITS, describe_value, fold_below, get_object, write_json

# An Arrow table is sent in parts of so many bytes.
_TABLE_BYTES = 8_000_000


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
            raise Refused(f"the resource {stream} has a merge_key and no primary_key; declare a primary_key in the YAML")
        if deleted := [name for name, hint in columns.items() if hint.get("hard_delete")]:
            raise Refused(f"the resource {stream} marks deleted rows in {deleted[0]} (hard_delete), which a load does not follow; filter them in a model")
        self._as_json = {name for name, word in self._types.items() if word == "json"}
        self._fields: dict[str, Any] = {}
        self._settled = set[str]()
        self._describe()

    def write_rows(self, rows: list[Any]) -> None:
        if not all(type(row) is dict for row in rows):
            rows = [get_object(row) for row in rows]
        if self._nesting is not None or self._as_json:
            rows = [self._fold(row) for row in rows]
        self._note(rows)
        self._output.send_rows(self._stream, [write_json(row) for row in rows])

    def write_table(self, item: Any) -> None:
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
                folded[name] = value if self._nesting is None else fold_below(value, self._nesting - 1)
        return folded

    def _note(self, rows: list[dict[str, Any]]) -> None:
        """Note the types of fields that are new, and tell the load."""
        settled, found = self._settled, False
        for row in rows:
            if row.keys() <= settled:
                continue
            for name, value in row.items():
                if name not in settled:
                    kind = describe_value(value, self._types, name)
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


def _get_word(hint: dict[str, Any]) -> str | None:
    """Return the type that a column's hints give it."""
    kind = hint.get("data_type")
    if kind == "decimal":
        return f"decimal({hint.get('precision') or MOST_DIGITS},{hint['scale'] if hint.get('scale') is not None else 9})"
    if kind == "timestamp" and hint.get("timezone") is False:
        return "naive_timestamp"
    return kind if isinstance(kind, str) else None


def _find_newest_by(columns: dict[str, Any], stream: str) -> str | None:
    for name, hint in columns.items():
        if hint.get("dedup_sort") == "asc":
            raise Refused(f"the resource {stream} keeps the row with the lowest {name} (dedup_sort: asc), which a load does not; use desc")
        if hint.get("dedup_sort"):
            return name
    return None


def is_table(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] in ("pyarrow", "pandas") and hasattr(item, "columns" if hasattr(item, "iloc") else "schema")
