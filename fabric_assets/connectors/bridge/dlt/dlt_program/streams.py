"""A resource's items -> the tables that its rows go to."""

from typing import Any

from dlt_program.output import Output, Refused
from dlt_program.tables import Table, is_table


class Stream:
    """The rows of one resource, in the tables that they name."""

    def __init__(self, resource: Any, source: Any, name: str, output: Output) -> None:
        self._resource, self.name, self._output = resource, name, output
        self._tables: dict[str, Table] = {}
        self._hints: dict[str, Any] | None = None
        self.disposition = get_disposition(resource)
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
                get_disposition(self._resource, hints["write_disposition"])
        if is_table(item):
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
        if any(is_table(row) for row in rows[:1]):
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
            return self._resource.compute_table_schema(None if is_table(first) else first, meta)
        except DataItemRequiredForDynamicTableHints:
            return {"columns": {}}


def get_disposition(resource: Any, hint: Any = None) -> str:
    hint = hint or resource.write_disposition
    where = f"the resource {resource.name}"
    if callable(hint):
        raise Refused(
            f"{where} decides its write_disposition by each row, which a load cannot keep; declare write_disposition in the YAML, or load it otherwise"
        )
    if isinstance(hint, dict):
        if hint.get("strategy") == "scd2":
            raise Refused(f"{where} has the merge strategy scd2, which a load does not keep; use merge, and a dbt snapshot for the history")
        hint = hint["disposition"]
    if hint not in ("append", "replace", "merge"):
        raise Refused(f"{where} has the write_disposition {hint}, which a load does not know; known: append, replace, merge")
    return str(hint)
