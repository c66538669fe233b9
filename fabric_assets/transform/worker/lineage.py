"""A model's compiled SQL -> for each of its columns, the columns of other tables that it is made from.

The statement is qualified once, with the tables' real columns, so `select *` and bare column names are exact. The lineage() of sqlglot walks the whole
statement again for every column; this walk keeps the result for each column of each CTE.
"""

from collections.abc import Mapping
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, find_all_in_scope
from sqlglot.schema import MappingSchema

from fabric_assets.transform.worker.relations import Table, TableColumns

# A column of a table.
Leaf = tuple[Table, str]
Lineage = dict[str, list[Leaf]]

# Schema, table and column as sqlglot writes them.
_Name = tuple[str, str, str]


class LineageFinder:
    """A finder of the lineage of statements over tables whose columns are known.

    Args:
        tables: the columns of everything that a statement may read.
        dialect: sqlglot's name of it.
        folds_names: whether quoted names that differ only in case are one name, which sqlglot then writes in lower case.
    """

    def __init__(self, tables: Mapping[Table, TableColumns], *, dialect: str, folds_names: bool) -> None:
        self._dialect = dialect
        fold = str.lower if folds_names else str
        self._leaves = {(*map(fold, table), fold(name)): (table, name) for table, columns in tables.items() for name, _ in columns}
        schema: dict[str, dict[str, dict[str, str]]] = {}
        for (dataset, table), columns in tables.items():
            schema.setdefault(fold(dataset), {})[fold(table)] = {fold(name): kind for name, kind in columns}
        self._schema = MappingSchema(schema, dialect=dialect, normalize=False)

    def find(self, sql: str) -> Lineage:
        """Trace every column of the statement. A column of an unknown table is left out.

        Raises:
            sqlglot.errors.SqlglotError: sqlglot cannot process the statement.
        """
        statement = parse_one(sql, dialect=self._dialect)
        for table in statement.find_all(exp.Table):
            table.set("catalog", None)  # one warehouse, one catalog
        qualified = qualify(statement, schema=self._schema, dialect=self._dialect, validate_qualify_columns=False, quote_identifiers=False)
        scope = build_scope(qualified)
        if scope is None:
            return {}
        tracer = _Tracer()
        return {
            select.alias_or_name: sorted(self._leaves[leaf] for leaf in tracer.trace(scope, index) if leaf in self._leaves)
            for index, select in enumerate(_get_selects(scope))
            if not select.is_star
        }


class _Tracer:
    """A walk over scopes that traces each output column of each scope once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], frozenset[_Name]] = {}

    def trace(self, scope: Scope, index: int) -> frozenset[_Name]:
        key = (id(scope), index)
        if key not in self._known:
            self._known[key] = frozenset()  # a recursive CTE reads itself: its columns come from the half that does not
            self._known[key] = self._trace(scope, index)
        return self._known[key]

    def _trace(self, scope: Scope, index: int) -> frozenset[_Name]:
        if scope.union_scopes:
            return frozenset[_Name]().union(*(self.trace(part, index) for part in scope.union_scopes))
        if isinstance(scope.expression, exp.Subquery):
            return frozenset[_Name]().union(*(self.trace(part, index) for part in scope.subquery_scopes))
        selects = _get_selects(scope)
        if index >= len(selects):
            return frozenset()
        return self._trace_expression(scope, selects[index])

    def _trace_expression(self, scope: Scope, expression: Any) -> frozenset[_Name]:
        found: set[_Name] = set()
        for column in find_all_in_scope(expression, exp.Column):
            found |= self._trace_column(scope, column)
        inner = {id(part.expression): part for part in scope.subquery_scopes}
        for query in find_all_in_scope(expression, exp.Query):
            if part := inner.get(id(query)):
                for index in range(len(_get_selects(part))):
                    found |= self.trace(part, index)
        return frozenset(found)

    def _trace_column(self, scope: Scope, column: exp.Column) -> frozenset[_Name]:
        source = _find_source(scope, column.table)
        if isinstance(source, Scope):
            if isinstance(source.expression, exp.UDTF):
                return self._trace_expression(source, source.expression)
            names = [select.alias_or_name for select in _get_selects(source)]
            return self.trace(source, names.index(column.name)) if column.name in names else frozenset()
        if isinstance(source, exp.Table) and not source.args.get("pivots"):
            return frozenset([(source.db, source.name, column.name)])
        # A pivot gives its columns new names: each may come from any column that it reads.
        parts = [part for pivot in scope.pivots for part in pivot.find_all(exp.Column)]
        tables = [table for _, table in scope.selected_sources.values() if isinstance(table, exp.Table)]
        return frozenset((table.db, table.name, part.name) for table in tables for part in parts)


def _find_source(scope: Scope | None, name: str) -> Any:
    """Look up the table in this scope, then in the scopes around it, which a correlated subquery reads."""
    while scope is not None:
        if name in scope.sources:
            return scope.sources[name]
        scope = scope.parent
    return None


def _get_selects(scope: Scope) -> list[Any]:
    return getattr(scope.expression, "selects", [])
