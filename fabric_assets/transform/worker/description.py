"""The models that a run built -> the facts in their materialisations: rows, columns with types, column lineage, the table's full name."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.own_faults import ReportFault
from fabric_assets.transform.worker.adapters.adapter import get_adapter
from fabric_assets.transform.worker.lineage import LineageFinder
from fabric_assets.transform.worker.manifest import MODEL_TYPES
from fabric_assets.transform.worker.relations import Table, Warehouse, open_warehouse

# sqlglot warns of functions that it does not know, which helps nobody here.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


def describe_models(
    manifest: Manifest, built: Mapping[str, dict[str, Any]], *, destination: Mapping[str, Any], spill: Path, report: ReportFault
) -> Iterator[dict[str, Any]]:
    """Yield an event for each built model. Its message names what could not be found out about it.

    Args:
        report: stores the traceback of a fault of the platform's.
    """
    if not built:
        return
    owners: dict[Table, Any] = {(node.schema, node.alias): node.unique_id for node in manifest.nodes.values() if node.resource_type in MODEL_TYPES}
    owners |= {(source.schema, source.identifier): (source.source_name, source.name) for source in manifest.sources.values()}
    adapter = get_adapter(destination["type"])
    with open_warehouse(destination, spill=spill) as warehouse:
        tables = warehouse.get_columns(schema for schema, _ in owners)
        finder = LineageFinder(tables, dialect=adapter.name, folds_names=adapter.folds_names)
        for unique_id, outcome in built.items():
            node = manifest.nodes[unique_id]
            table = (node.schema, node.alias)
            rows, problem = _count_rows(warehouse, table, report)
            lineage, doubt = _find_lineage(node, finder, owners, report)
            yield {
                "event": "model",
                "unique_id": unique_id,
                "status": "success",
                "message": "\n".join(part for part in (problem, doubt) if part),
                "seconds": outcome["seconds"],
                "rows": rows,
                "columns": tables.get(table, []),
                "lineage": lineage,
                "table_name": ".".join((adapter.get_database(destination), *table)),
            }


def _count_rows(warehouse: Warehouse, table: Table, report: ReportFault) -> tuple[int | None, str]:
    try:
        return warehouse.count_rows(table), ""
    except Exception as error:  # noqa: BLE001 - a view's query fails in as many ways as there are models
        what = "its rows could not be counted"
        return None, fault.message if (fault := report(error, what)) else f"{what}: {str(error).strip()}"


def _find_lineage(node: Any, finder: LineageFinder, owners: Mapping[Table, Any], report: ReportFault) -> tuple[dict[str, list[Any]], str]:
    own = (node.schema, node.alias)
    if node.resource_type == "seed":  # its columns come from a file
        return {}, ""
    if not node.compiled_code or node.language != "sql":  # a microbatch model has a statement for each batch, a Python model has none
        return {}, "its column lineage is unknown: it is not built by one SQL statement"
    try:
        found = finder.find(node.compiled_code)
    except Exception as error:  # noqa: BLE001 - sqlglot raises KeyError and the like for SQL that it does not know; the model is built
        what = "its column lineage is unknown"
        return {}, fault.message if (fault := report(error, what)) else f"{what}: {(str(error).splitlines() or [type(error).__name__])[0]}"
    # An incremental model may read itself.
    known = {column: [(owners[table], name) for table, name in leaves if table in owners and table != own] for column, leaves in found.items()}
    return known, ""
