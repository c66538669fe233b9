"""A model's compiled SQL -> for each of its columns, the columns of other tables that it is made from.

The statement is qualified once, with the columns that the tables really have, so `select *` and bare column names are exact. sqlglot's own lineage() walks
the whole statement again for every column; this walk remembers each column of each CTE.
"""

from collections.abc import Mapping
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, find_all_in_scope

from fabric_assets.transform.worker.relations import Table, TableColumns

# A column of a table.
Leaf = tuple[Table, str]
Lineage = dict[str, list[Leaf]]


def find_lineage(sql: str, *, dialect: str, tables: Mapping[Table, TableColumns]) -> Lineage:
    """Trace every column of the statement.

    Args:
        tables: the columns of all tables that the statement may read.

    Raises:
        sqlglot.errors.SqlglotError: the statement is beyond sqlglot.
    """
    schema: dict[str, dict[str, dict[str, str]]] = {}
    for (dataset, name), columns in tables.items():
        schema.setdefault(dataset, {})[name] = dict(columns)
    statement = parse_one(sql, dialect=dialect)
    for table in statement.find_all(exp.Table):
        table.set("catalog", None)  # one warehouse, one catalog
    # Types are of no use here, and their inference is the slow half of it.
    scope = build_scope(qualify(statement, schema=schema, dialect=dialect, validate_qualify_columns=False, quote_identifiers=False, identify=False))
    if scope is None:
        return {}
    tracer = _Tracer()
    return {select.alias_or_name: sorted(tracer.trace(scope, index)) for index, select in enumerate(_get_selects(scope)) if not select.is_star}


class _Tracer:
    """Walks scopes; each output column of each scope is traced once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], frozenset[Leaf]] = {}

    def trace(self, scope: Scope, index: int) -> frozenset[Leaf]:
        key = (id(scope), index)
        if key not in self._known:
            self._known[key] = frozenset()  # a recursive CTE reads itself: what it adds comes from its other half
            self._known[key] = self._trace(scope, index)
        return self._known[key]

    def _trace(self, scope: Scope, index: int) -> frozenset[Leaf]:
        if scope.union_scopes:
            return frozenset[Leaf]().union(*(self.trace(part, index) for part in scope.union_scopes))
        if isinstance(scope.expression, exp.Subquery):
            return frozenset[Leaf]().union(*(self.trace(part, index) for part in scope.subquery_scopes))
        selects = _get_selects(scope)
        if index >= len(selects):
            return frozenset()
        return self._trace_expression(scope, selects[index])

    def _trace_expression(self, scope: Scope, expression: Any) -> frozenset[Leaf]:
        found: set[Leaf] = set()
        for column in find_all_in_scope(expression, exp.Column):
            found |= self._trace_column(scope, column)
        inner = {id(part.expression): part for part in scope.subquery_scopes}
        for query in find_all_in_scope(expression, exp.Query):
            if part := inner.get(id(query)):
                for index in range(len(_get_selects(part))):
                    found |= self.trace(part, index)
        return frozenset(found)

    def _trace_column(self, scope: Scope, column: exp.Column) -> frozenset[Leaf]:
        source = _find_source(scope, column.table)
        if isinstance(source, Scope):
            if isinstance(source.expression, exp.UDTF):
                return self._trace_expression(source, source.expression)
            names = [select.alias_or_name for select in _get_selects(source)]
            return self.trace(source, names.index(column.name)) if column.name in names else frozenset()
        if isinstance(source, exp.Table) and not source.args.get("pivots"):
            return frozenset([((source.db, source.name), column.name)])
        # What a pivot makes of its columns has new names: any of those that it reads.
        parts = [part for pivot in scope.pivots for part in pivot.find_all(exp.Column)]
        tables = [table for _, table in scope.selected_sources.values() if isinstance(table, exp.Table)]
        return frozenset(((table.db, table.name), part.name) for table in tables for part in parts)


def _find_source(scope: Scope | None, name: str) -> Any:
    """Look the table up here, then in the statements around it: a correlated subquery reads those."""
    while scope is not None:
        if name in scope.sources:
            return scope.sources[name]
        scope = scope.parent
    return None


def _get_selects(scope: Scope) -> list[Any]:
    return getattr(scope.expression, "selects", [])
