"""Each snapshot's key and strategy -> a row of `<tenant>_fabric.snapshots`, and a refusal of a snapshot that changes them.

With another key, dbt would compare new rows with a history that has other keys, and end or duplicate rows for which nothing has changed. No later run corrects
that. The row is written before dbt begins: a run that is killed after its first rows leaves no history without a record.
"""

import json
from collections.abc import Collection
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets import naming
from fabric_assets.quoting import quote_all, quote_table, quote_text
from fabric_assets.transform.worker.relations import Warehouse

RECORDS = "snapshots"
FIELDS = ("unique_key", "strategy", "updated_at", "check_cols")
_HAS_SCHEMA = "select 1 from information_schema.schemata where schema_name = {}"


def list_snapshots(manifest: Manifest, selected: Collection[str]) -> list[Any]:
    """List the snapshots among the selected nodes."""
    nodes = (manifest.nodes.get(unique_id) for unique_id in selected)
    return [node for node in nodes if node is not None and node.resource_type == "snapshot"]


def refuse_changed(snapshots: Collection[Any], warehouse: Warehouse, *, tenant: str) -> None:
    """Record the key and strategy of each snapshot. If a table was built with others, let the snapshot fail before it reads its table."""
    platform = naming.platform_dataset(tenant)
    tables = warehouse.get_columns([platform, *(node.schema for node in snapshots)])
    known = _read(warehouse, platform) if (platform, RECORDS) in tables else {}
    new = dict[str, dict[str, str]]()
    for node in snapshots:
        wanted, recorded = _describe(node), known.get(node.alias)
        if recorded is not None and recorded != wanted and (node.schema, node.alias) in tables:
            # dbt then skips what reads the snapshot, as it does after any other error.
            node.raw_code = f"{{{{ exceptions.raise_compiler_error({json.dumps(_build_refusal(node, recorded, wanted))}) }}}}"
        elif recorded != wanted:
            new[node.alias] = wanted
    if new:
        _write(warehouse, platform, new, is_new=(platform, RECORDS) not in tables)


def _describe(node: Any) -> dict[str, str]:
    config = node.config
    return {
        "unique_key": _join(config.unique_key),
        "strategy": _join(config.strategy),
        "updated_at": _join(config.updated_at),
        "check_cols": _join(config.check_cols),
    }


def _join(value: Any) -> str:
    """Write a value as a text. The order of columns does not count."""
    return ", ".join(sorted(map(str, value))) if isinstance(value, list | tuple) else "" if value is None else str(value)


def _build_refusal(node: Any, recorded: dict[str, str], wanted: dict[str, str]) -> str:
    changes = [f"{field} was {recorded[field] or 'not set'} and is {wanted[field] or 'not set'}" for field in FIELDS if recorded[field] != wanted[field]]
    table = f"{node.schema}.{node.alias}"
    return (
        f"not built: {'; '.join(changes)}. The rows of {table} do not fit that. Change it back, or give the snapshot a new name, which begins a new history."
        f" If the history may go, drop the table {table}"
    )


def _read(warehouse: Warehouse, platform: str) -> dict[str, dict[str, str]]:
    rows = warehouse.ask(f"select snapshot, {quote_all(FIELDS)} from {quote_table(platform, RECORDS)}")
    return {name: dict(zip(FIELDS, values, strict=True)) for name, *values in rows}


def _write(warehouse: Warehouse, platform: str, records: dict[str, dict[str, str]], *, is_new: bool) -> None:
    table = quote_table(platform, RECORDS)
    statements = list[str]()
    if is_new:
        # A role without the right to create schemas may not even ask for one that exists.
        if not warehouse.ask(_HAS_SCHEMA.format(quote_text(platform))):
            statements.append(f"create schema {quote_table(platform)}")
        columns = ", ".join(f"{name} text not null" for name in ("snapshot", *FIELDS))
        statements.append(f"create table {table} ({columns}, recorded_at timestamp with time zone not null)")
    names = ", ".join(map(quote_text, records))
    rows = ", ".join(f"({', '.join(map(quote_text, (name, *values.values())))}, current_timestamp)" for name, values in records.items())
    warehouse.execute(*statements, f"delete from {table} where snapshot in ({names})", f"insert into {table} values {rows}")
