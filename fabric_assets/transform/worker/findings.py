"""The dbt tests that failed -> what each one found: how many rows, and a few of their values, read by the test's own query.

dbt only says `Got 1 result, configured to fail if != 0`. So the query of a failed test runs once more. Values are not shown of a column that is tagged
`sensitive`, in the model or in what the model reads. If a test's columns are not known, no values are shown if anything that it reads has such a column.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.findings import MOST_VALUES, Words, count, describe_duplicates, describe_rows, describe_unexpected, describe_unmatched
from fabric_assets.own_faults import ReportFault
from fabric_assets.transform.worker.relations import Warehouse, open_warehouse

SENSITIVE_TAG = "sensitive"


def find_sensitive(node: Any) -> set[str]:
    """Find the columns of a model or source that are tagged `sensitive`, in lower case."""
    return {name.lower() for name, column in node.columns.items() if SENSITIVE_TAG in {*column.tags, *column.config.tags}}


def describe_failures(
    manifest: Manifest, failed: Mapping[str, tuple[Any, int]], *, destination: Mapping[str, Any], spill: Path, report: ReportFault
) -> Iterable[tuple[str, Words]]:
    """Yield what each failed test found.

    Args:
        failed: the compiled node of each test, and the failures that dbt counted.
        report: stores the traceback of a fault of the platform's.
    """
    if not failed:
        return
    with open_warehouse(destination, spill=spill) as warehouse:
        for unique_id, (node, failures) in failed.items():
            try:
                yield unique_id, _describe(node, warehouse, manifest)
            except Exception as error:  # noqa: BLE001 - the test has failed either way; a driver's text may hold values, so its kind alone is shown
                yield unique_id, {"message": f"{count(failures, 'row')} found; their values could not be read ({_describe_kind(error, report)})"}


def _describe_kind(error: Exception, report: ReportFault) -> str:
    fault = report(error, "the values that a test has found")
    return f"a fault of ETL Fabric: {type(error).__name__}; traceback: {fault.traceback_file or 'in the log'}" if fault else type(error).__name__


def _describe(node: Any, warehouse: Warehouse, manifest: Manifest) -> Words:
    query = f"(\n{node.compiled_code}\n) as found"
    metadata = getattr(node, "test_metadata", None)
    kind = metadata.name if metadata is not None and metadata.namespace in {None, "dbt"} else ""
    arguments = metadata.kwargs if metadata is not None else {}
    column = str(arguments.get("column_name") or "")
    hidden = _is_hidden(node, manifest, column if kind in {"unique", "accepted_values", "relationships"} else "")
    if kind == "not_null" and column:
        (rows,) = warehouse.ask(f"select count(*) from {query}")[0]
        return {"message": f"{column} is NULL in {count(rows, 'row')}"}
    if kind == "accepted_values" and column:
        values, rows = warehouse.ask(f"select count(*), sum(n_records) from {query}")[0]
        shown = [] if hidden else warehouse.ask(f"select value_field, n_records from {query} order by n_records desc, value_field limit {MOST_VALUES}")
        return describe_unexpected(column, values, int(rows), shown)
    if kind == "unique" and column:
        (values,) = warehouse.ask(f"select count(*) from {query}")[0]
        shown = [] if hidden else warehouse.ask(f"select unique_field, n_records from {query} order by n_records desc, unique_field limit {MOST_VALUES}")
        return describe_duplicates([column], values, [((value,), rows) for value, rows in shown])
    if kind == "relationships" and column:
        values, rows = warehouse.ask(f"select count(distinct from_field), count(*) from {query}")[0]
        shown = [] if hidden else warehouse.ask(f"select from_field, count(*) from {query} group by 1 order by 2 desc, 1 limit {MOST_VALUES}")
        target = re.findall(r"[\w.]+(?=['\"])", str(arguments.get("to")))[-1:]  # the last name of ref('x') or source('x', 'y')
        return describe_unmatched(column, ".".join([*target, str(arguments.get("field"))]), values, rows, shown)
    (rows,) = warehouse.ask(f"select count(*) from {query}")[0]
    names, shown = ([], []) if hidden else warehouse.ask_named(f"select * from {query} limit {MOST_VALUES}")
    return describe_rows(rows, names, shown)


def _is_hidden(node: Any, manifest: Manifest, column: str) -> bool:
    """Whether values may not be shown.

    Args:
        column: the one whose values the test's query gives; empty where that is not known.
    """
    sensitive = {name for read in _list_ancestors(node, manifest) for name in find_sensitive(read)}
    # An expression such as first_name || last_name is not a column's name, and may hold any column.
    return bool(sensitive) and (not column.isidentifier() or column.lower() in sensitive)


def _list_ancestors(node: Any, manifest: Manifest) -> Iterator[Any]:
    """List everything that a test reads, directly or not. A column that keeps its name keeps its tag."""
    waiting, seen = [*node.depends_on.nodes], set[str]()
    while waiting:
        unique_id = waiting.pop()
        if unique_id not in seen and (read := manifest.nodes.get(unique_id) or manifest.sources.get(unique_id)):
            seen.add(unique_id)
            waiting += getattr(read, "depends_on_nodes", [])
            yield read
