"""A tenant's raw dataset as dlt sees it: an attached pipeline of a fresh machine, and what the destination itself says."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt

from fabric_assets import naming
from fabric_assets.warehouse.dlt_tables import pipeline_state

Ask = Callable[[str], list[tuple[Any, ...]]]
OWN = {"_dlt_version", "_dlt_loads", "_dlt_pipeline_state"}


def get_destination(data_dir: Path, tenant: str, url: str | None) -> Any:
    """The tenant's DuckDB file; a Postgres for a URL."""
    if url is None:
        return dlt.destinations.duckdb(str(naming.warehouse_file(data_dir, tenant)))
    return dlt.destinations.postgres(url)


def attach(destination: Any, folder: Path, tenant: str = "acme", source: str = "shop") -> dlt.Pipeline:
    """Attach to a source's pipeline; the folder is that of one machine."""
    return dlt.attach(naming.pipeline(tenant, source), destination=destination, dataset_name=naming.raw_dataset(tenant, source), pipelines_dir=str(folder))


def compare(pipeline: dlt.Pipeline, ask: Ask) -> dict[str, int]:
    """Compare tables, columns in their order, and rows with the destination's own; return the rows of each table."""
    dataset, schema = pipeline.dataset(), pipeline.default_schema
    found: dict[str, list[str]] = {}
    for table, column in ask(
        f"select table_name, column_name from information_schema.columns where table_schema = '{pipeline.dataset_name}' order by 1, ordinal_position"
    ):
        found.setdefault(table, []).append(column)
    assert {name: list(table["columns"]) for name, table in schema.tables.items()} == found  # type: ignore[typeddict-item]
    assert set(dataset.tables) == found.keys()
    counts = {}
    for name in found.keys() - OWN:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # dlt calls a function of DuckDB's that is to go
            rows: Any = dataset[name].arrow()
        assert rows.column_names == found[name]
        assert [(rows.num_rows,)] == ask(f'select count(*) from "{pipeline.dataset_name}"."{name}"')
        counts[name] = rows.num_rows
    return counts


def check_recorded(ask: Ask, dataset: str = "acme_raw_shop") -> None:
    """Check that the newest version describes exactly the tables of the dataset, and that the newest state names it."""
    found: dict[str, list[str]] = {}
    for table, column in ask(f"select table_name, column_name from information_schema.columns where table_schema = '{dataset}' order by 1, ordinal_position"):
        found.setdefault(table, []).append(column)
    ((text, version_hash),) = ask(f"select schema, version_hash from {dataset}._dlt_version order by inserted_at desc limit 1")
    assert {name: list(table["columns"]) for name, table in json.loads(text)["tables"].items()} == found
    ((state,),) = ask(f"select state from {dataset}._dlt_pipeline_state order by version desc limit 1")
    assert pipeline_state.read_layout(state) == version_hash
