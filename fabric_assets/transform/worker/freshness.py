"""dbt's sources with `freshness` -> a test of each, and its result from one call of `dbt source freshness`.

A source without `loaded_at_field` and `loaded_at_query` is as old as its last successful load, which the platform's own table `loads` records (ADR 0053).
"""

from collections.abc import Callable, Collection, Iterator
from datetime import MINYEAR, timedelta
from pathlib import Path
from typing import Any

from dbt.contracts.graph.manifest import Manifest

from fabric_assets import naming
from fabric_assets.findings import describe_duration
from fabric_assets.quoting import quote_table, quote_text
from fabric_assets.transform.graph import TestNode
from fabric_assets.transform.worker.adapters.adapter import Login, get_adapter
from fabric_assets.transform.worker.dbt_call import call_dbt, clean_message
from fabric_assets.transform.worker.manifest import SELECTED_TAG, TENANT_PLACEHOLDER
from fabric_assets.transform.worker.profiles import make_spill_folder
from fabric_assets.transform.worker.relations import Table, open_warehouse

_STATES = {"pass": "pass", "warn": "warn", "error": "fail"}
_LIMITS = ("warn_after", "error_after")


def measure_by_loads(manifest: Manifest) -> None:
    """Let dbt read the last load of every source that has `freshness` and names no column or query."""
    for source in manifest.sources.values():
        if source.has_freshness and not source.loaded_at_field and not source.loaded_at_query:
            source.loaded_at_query = _build_loads_query(source, TENANT_PLACEHOLDER)


def build_freshness_test(source: Any) -> TestNode | None:
    """Build the test of a source's age. None if the source has no `freshness`."""
    if not source.has_freshness:
        return None
    limits = {name: limit for name in _LIMITS if (limit := _get_limit(source, name))}
    return TestNode(
        unique_id=source.unique_id,
        name=naming.SOURCE_FRESHNESS_CHECK,
        kind="freshness",
        severity="error" if "error_after" in limits else "warn",
        description=f"dbt source freshness: {_describe_limits(limits)}.",
        depends_on_sources=((source.source_name, source.name),),
        max_age_seconds=int(min(limits.values()).total_seconds()),
    )


def measure_freshness(
    manifest: Manifest, unique_ids: Collection[str], request: dict[str, Any], *, folder: Path, check: Callable[[str | BaseException], None]
) -> Iterator[dict[str, Any]]:
    """Measure the age of the sources, which have the tag of what the run builds, and give an event for each.

    Args:
        folder: the run's own.
        check: called with the call's error, or the message of a source that cannot be measured. It raises if the warehouse cannot be reached.
    """
    outcome = call_dbt(
        *("source", "freshness", "--select", f"tag:{SELECTED_TAG}", "--vars", request["vars"]),
        project_dir=request["project_dir"],
        folder=folder,
        manifest=manifest,
    )
    if outcome.exception is not None:
        check(outcome.exception)
    # The project's hooks have results as well.
    results = {result.node.unique_id: result for result in getattr(outcome.result, "results", ()) if result.node.unique_id in manifest.sources}
    broken = {key: clean_message(result.message, hidden=folder) for key, result in results.items() if str(result.status) not in _STATES}
    for message in broken.values():
        check(message)
    tables = _list_tables([manifest.sources[key] for key in broken], request["destination"], folder)
    for unique_id in unique_ids:
        source = manifest.sources[unique_id]
        event = _describe(source, results.get(unique_id), tenant=request["tenant"])
        if unique_id in broken:
            is_missing = (source.schema, source.identifier) not in tables
            stream = f"{source.source_name}/{source.name}"
            event["message"] = f"the table {source.schema}.{source.name} does not exist yet: load raw/{stream} first" if is_missing else broken[unique_id]
        yield event


def _describe(source: Any, result: Any, *, tenant: str) -> dict[str, Any]:
    """Turn dbt's result of a source into the worker's event. A source without a limit for errors warns, whatever is wrong."""
    limits = {name: limit for name in _LIMITS if (limit := _get_limit(source, name))}
    status = _STATES.get(str(result.status), "error") if result is not None else "error"
    event = {
        "event": "test",
        "unique_id": source.unique_id,
        "status": status,
        "severity": "error" if "error_after" in limits and status != "warn" else "warn",
        "message": "",
        "failures": None,
        "seconds": round(result.execution_time, 3) if result is not None else 0.0,
    }
    if result is None or status == "error":
        return event | {"message": "dbt gave no result for it; its log says why"}
    subject = _describe_measure(source, tenant)
    facts = {"measured_by": subject, "criteria": _describe_limits(limits), "snapshotted_at": result.snapshotted_at.isoformat()}
    if result.max_loaded_at.year == MINYEAR:  # dbt's word for never
        return event | {"facts": facts, "message": f"{subject} is unknown: no row has a value"}
    facts |= {"max_loaded_at": result.max_loaded_at.isoformat(), "age_seconds": round(result.age)}
    exceeded = limits.get("error_after" if status == "fail" else "warn_after")
    message = f"{subject} is {describe_duration(result.age)} old, limit {describe_duration(exceeded.total_seconds())}" if status != "pass" and exceeded else ""
    return event | {"facts": facts, "message": message}


def _describe_measure(source: Any, tenant: str) -> str:
    if source.loaded_at_field:
        of_rows = f" where {source.freshness.filter}" if source.freshness.filter else ""
        return f"the newest {source.loaded_at_field}{of_rows}"
    return "the last load" if source.loaded_at_query == _build_loads_query(source, tenant) else "the moment of loaded_at_query"


def _build_loads_query(source: Any, tenant: str) -> str:
    loads = quote_table(*filter(None, (source.database, naming.platform_dataset(tenant), "loads")))
    of_stream = f"source = {quote_text(source.source_name)} and stream = {quote_text(source.name)}"
    return f"select max(loaded_at) from {loads} where {of_stream} and status = 'success'"


def _get_limit(source: Any, name: str) -> timedelta | None:
    limit = getattr(source.freshness, name)
    return timedelta(**{f"{limit.period}s": limit.count}) if limit else None


def _describe_limits(limits: dict[str, timedelta]) -> str:
    return ", ".join(f"{name.replace('_after', '')} after {describe_duration(limit.total_seconds())}" for name, limit in limits.items())


def _list_tables(sources: Collection[Any], destination: Login, folder: Path) -> Collection[Table]:
    """List the tables in the schemas of the sources. dbt's connection is closed for it."""
    if not sources:
        return ()
    get_adapter(destination["type"]).release()
    with open_warehouse(destination, spill=make_spill_folder(folder)) as warehouse:
        return warehouse.get_columns(source.schema for source in sources).keys()
