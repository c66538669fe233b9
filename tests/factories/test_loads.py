"""Loads as Dagster shows them: each stream an event of its own, and a repeat of only what failed."""

import sqlite3
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fabric_assets.config.loader import load_fleet
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.registry import open_source
from fabric_assets.errors import SourceUnavailable
from fabric_assets.factories.tenant import build_tenant_definitions
from fabric_assets.loading import leased_load
from fabric_assets.rows.batches import ReadGroup, SourceReader
from fabric_assets.settings import load_settings
from tests.factories.shop import get_tenant
from tests.support.tracebacks import read_traceback

STREAMS: dict[str, Any] = {
    "orders": {"primary_key": "id"},
    "items": {"primary_key": "id"},
    "payments": {"primary_key": "id"},
}


def build_job() -> dg.JobDefinition:
    """The tenant's load and an asset below it; of module level, since Dagster builds it anew to go on with a failed run."""
    settings = load_settings()
    loaded = load_fleet(settings).tenants["acme"]

    @dg.asset(deps=[dg.AssetKey(["acme", "raw", "shop", "orders"])])
    def below() -> None: ...

    tenant = build_tenant_definitions(loaded, None, settings=settings)
    job = dg.define_asset_job("everything", selection="*")
    return dg.Definitions(assets=[*tenant.assets, below], jobs=[job], executor=dg.in_process_executor).resolve_job_def("everything")


@pytest.fixture
def instance(isolated_home: object, tmp_path: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.local_temp(str(tmp_path))


@pytest.fixture
def tenant(write_tenant: Any, shop_url: str, settings_environ: Any) -> Any:
    def write(checks: Any = None, **source: Any) -> None:
        shop = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": STREAMS} | source
        write_tenant("acme", get_tenant(sources={"shop": shop}, checks=checks or {}, transform=None, schedules={}))

    return write


def make_payments(shop_url: str) -> None:
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("create table payments (id text primary key, amount integer)")
        database.execute("insert into payments values ('p1', 10)")
    database.close()


def run(instance: dg.DagsterInstance, **options: Any) -> dg.JobExecutionResult:
    return dg.execute_job(dg.reconstructable(build_job), instance=instance, raise_on_error=False, **options)


def fail_once(monkeypatch: pytest.MonkeyPatch, stream: str) -> Counter[str]:
    """Make a stream's source unreachable at its first read, and count the tries of each stream."""
    tried: Counter[str] = Counter()

    def open_watched(context: SourceContext) -> SourceReader:
        reader = open_source(context)
        return replace(reader, groups=tuple(replace(group, read=partial(read, group)) for group in reader.groups))

    def read(group: ReadGroup, memories: Any) -> Any:
        (name,) = memories
        tried[name] += 1
        if name == stream and tried[name] == 1:
            raise SourceUnavailable("the server is away for a moment")
        return group.read(memories)

    monkeypatch.setattr(leased_load, "open_source", open_watched)
    return tried


def read_loaded(result: Any) -> list[str]:
    return sorted(event.asset_key.path[-1] for event in result.get_asset_materialization_events())


def read_load_ids(result: dg.JobExecutionResult) -> dict[str, Any]:
    """Stream -> its load, of the assets that are loads."""
    events = {event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()}
    return {name: metadata["load_id"].value for name, metadata in events.items() if "load_id" in metadata}


def test_one_stream_that_fails_does_not_lose_the_others(tenant: Any, instance: dg.DagsterInstance) -> None:
    tenant(retries={"max": 0})
    result = run(instance)
    assert not result.success
    assert read_loaded(result) == ["items", "orders"]
    (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key == "acme__shop__load"]
    assert "payments" in failure.step_failure_data.user_failure_data.description


def test_streams_that_are_loaded_are_checked_although_another_one_failed(tenant: Any, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are checked on each try, and the failed stream only once it is loaded."""
    tenant(
        retries={"max": 1, "delay": "0s"},
        streams={"orders": STREAMS["orders"], "items": STREAMS["items"]},
        checks={f"raw/shop/{stream}": [{"type": "row_count", "min": 1}] for stream in ("orders", "items")},
    )
    fail_once(monkeypatch, "items")
    result = build_job().execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    tries = [event.event_type for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    checked = [evaluation.asset_key.path[-1] for evaluation in result.get_asset_check_evaluations()]
    assert (len(tries), Counter(checked)) == (1, {"orders": 2, "items": 1})


def test_a_permanently_failed_stream_is_not_retried_with_another_one(tenant: Any, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant(retries={"max": 2, "delay": "0s"})
    tried = fail_once(monkeypatch, "items")
    # Not by `run`: what can be reconstructed is built once, with the retries of whichever test was the first.
    result = build_job().execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert sorted(event.asset_key.path[-1] for event in result.get_asset_materialization_events()) == ["items", "orders"]
    assert tried == {"orders": 1, "items": 2, "payments": 1}


def test_a_re_execution_from_the_failure_loads_only_what_failed(tenant: Any, instance: dg.DagsterInstance, shop_url: str) -> None:
    tenant(retries={"max": 0})
    failed = run(instance)
    make_payments(shop_url)
    # As the UI and the daemon's own retries start it: they tag the run beside naming its parent.
    resumed = run(instance, reexecution_options=dg.ReexecutionOptions.from_failure(failed.run_id, instance), tags={"dagster/is_resume_retry": "true"})
    assert resumed.success
    found, before = read_load_ids(resumed), read_load_ids(failed)
    assert {name: found[name] for name in before} == before, "streams that were loaded already were loaded again"
    assert set(found) == {"orders", "items", "payments"}
    assert "below" in read_loaded(resumed)

    again = run(instance, reexecution_options=dg.ReexecutionOptions(parent_run_id=resumed.run_id))
    repeated = read_load_ids(again)
    assert repeated.keys() == found.keys() and not set(repeated.values()) & set(found.values()), "a run from the beginning must load everything"


def test_rejected_rows_and_changes_of_the_schema_are_in_the_events(tenant: Any, instance: dg.DagsterInstance, shop_url: str) -> None:
    make_payments(shop_url)
    tenant()
    assert run(instance).success
    with sqlite3.connect(shop_url.removeprefix("sqlite:///")) as database:
        database.execute("alter table payments add column method text")
        database.execute("insert into payments values ('p2', 20, 'card'), (null, 30, 'cash'), ('p3', 'many', 'card')")
    database.close()
    result = run(instance)
    assert result.success
    (metadata,) = [event.materialization.metadata for event in result.get_asset_materialization_events() if event.asset_key.path[-1] == "payments"]
    assert {name: metadata[name].value for name in ("rows_read", "rows_loaded", "rows_rejected", "dagster/row_count")} == {
        "rows_read": 4,
        "rows_loaded": 3,
        "rows_rejected": 1,
        "dagster/row_count": 3,
    }
    assert [record.data for record in metadata["schema_changes"].records] == [
        {"table": "payments", "column": "method", "change": "column_added", "before": "", "after": "text"},
        {"table": "payments", "column": "amount", "change": "type_changed", "before": "bigint", "after": "text"},
    ]
    assert metadata["values_kept_beside"].value == 1
    assert "1 value does not fit the type bigint of the column payments.amount: kept in amount__v_text" in metadata["warnings"].value


def test_a_fault_of_ours_is_reported_as_ours_and_its_traceback_is_kept_with_the_step(
    tenant: Any, shop_url: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant(streams={"orders": {"primary_key": "id"}})
    monkeypatch.setattr("fabric_assets.loading.shaping.shaper.build_frame", None)  # so that our own line fails
    result = build_job().execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert "a fault of ETL Fabric (TypeError at fabric_assets/loading/shaping/shaper.py:" in failure.description
    assert failure.metadata["kind"].value == "InternalError"
    assert "build_frame(" in failure.metadata["traceback"].value
    assert "build_frame(" in read_traceback(load_settings(), "acme", failure.description)
