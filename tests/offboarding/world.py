"""Three tenants with a history, one of which is offboarded: `acme`, beside `acme_two` and `acm`, whose names are similar to its own.

All that may hold a trace of a tenant holds one here. These are tables, rejected rows, files in an inbox, sealed secrets, ticks, cursors, pools, partitions and
backfills. There are also runs by hand, by schedule and shared with another tenant, and a failed run with a message of the source's.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from cryptography.fernet import Fernet
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import EngineEventData
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData, SensorInstigatorData, TickData, TickStatus
from dagster._core.snap import snapshot_from_execution_plan

from fabric_assets.config.loader import load_fleet
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.factories.instance.records.databases import list_shards, open_databases, open_shard
from fabric_assets.factories.runs import run_tenant
from fabric_assets.security.secrets import write_secret
from fabric_assets.settings import Settings
from tests.conftest import ROOT

TENANTS = ("acme", "acme_two", "acm")
OTHERS = ("acme_two", "acm")
# Whatever names acme as such, told by another rule than the product's own.
NAMED = re.compile(
    r"(?<![a-z0-9_])(?:stg_|fabric_)?acme(?:__|_raw_|_fabric|_marts|_staging|_intermediate|_ro\b|/raw|\.duckdb|\.lock)|\"acme\"|tenant acme(?![a-z0-9_])|^acme$"
)
_OTHERS = re.compile(r"(?<![a-z0-9])(?:acme_two|acm)(?![a-z0-9])")


def canary(tenant: str) -> str:
    """In every row, secret, error and file name of a tenant."""
    return f"Canary{tenant.replace('_', '').upper()}7351"


def get_tenant(tenant: str, folder: Path, destination: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "tenant": tenant,
        "owners": [f"{canary(tenant).lower()}@example.com"],
        "destination": destination,
        "sources": {
            "shop": {
                "type": "sql_database",
                "url": {"secret": "shop_url"},
                "retries": {"max": 0},
                "streams": {"customers": {"primary_key": "id"}, "orders": {"primary_key": "id"}},
            },
            "ads": {
                "type": "csv_import",
                "path": f"inbox/{tenant}/ads",
                "ready": "done_file",
                "archive": True,
                "streams": {"spend": {"glob": "*.csv", "columns": {"day": {"type": "date", "required": True}, "note": {"type": "text"}}}},
            },
        },
        "checks": {"raw/shop/orders": [{"type": "row_count", "min": 1}]},
        "schedules": {"nightly": {"cron": "0 3 * * *"}},
    }


def build_world(
    folder: Path,
    *,
    storage: str = "",
    destinations: dict[str, dict[str, Any]] | None = None,
    prepare: Callable[[Settings], None] = lambda settings: None,
) -> Settings:
    """Make the tenants and their past.

    Args:
        storage: URL of the database that Dagster keeps its records in, laid out as a deployment's; default: SQLite, all in one folder.
        destinations: of tenants that are not in DuckDB.
        prepare: called when the YAML is there, and nothing was loaded yet.
    """
    keys = (Fernet.generate_key().decode(),)
    settings = Settings(folder / "tenants", ROOT / "dbt_project", folder / "data", secret_keys=keys, publish_dir=folder / "published")
    settings.tenants_dir.mkdir(parents=True)
    settings.data_dir.mkdir(mode=0o700)
    for tenant in TENANTS:
        _make_source(folder / f"{tenant}.db", tenant)
        write_secret(tenant, "shop_url", f"sqlite:///{folder / f'{tenant}.db'}", settings=settings)
        write_secret(tenant, "token", canary(tenant), settings=settings)
        inbox = settings.data_dir / "inbox" / tenant / "ads"
        inbox.mkdir(parents=True)
        (inbox / f"{canary(tenant)}.csv").write_text(f"day,note\n2026-01-01,{canary(tenant)}\nno day,{canary(tenant)}\n" + "2026-01-02,a\n" * 40)
        (inbox / f"broken_{canary(tenant)}.csv").write_text(f"{canary(tenant)},b\n1,2\n")
        for file in list(inbox.iterdir()):
            file.with_name(f"{file.name}.done").touch()
        config = get_tenant(tenant, folder, (destinations or {}).get(tenant, {"type": "duckdb"}))
        (settings.tenants_dir / f"{tenant}.yaml").write_text(yaml.safe_dump(config))
    prepare(settings)
    make_home(settings, storage)
    with open_instance(settings) as instance:
        _run(settings, instance)
        for tenant in TENANTS:
            _record(tenant, instance)
    return settings


def get_dagster_files(settings: Settings) -> Path:
    """What the deployment calls DAGSTER_FILES: beside the data folder, and not where Dagster's configuration is."""
    return settings.data_dir.parent / "files"


def make_home(settings: Settings, storage: str = "") -> None:
    home = settings.data_dir / "dagster"
    home.mkdir(mode=0o700, exist_ok=True)
    config = yaml.safe_load((ROOT / ("deploy/dagster.yaml" if storage else "dagster.yaml")).read_text())
    if storage:
        config["storage"]["postgres"]["postgres_url"] = storage
        for part in ("local_artifact_storage", "compute_logs"):
            config[part]["config"]["base_dir"] = str(get_dagster_files(settings))
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))


@contextlib.contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(settings.data_dir / "dagster")) as instance:
        yield instance


def copy_world(settings: Settings, folder: Path) -> Settings:
    """The same world in a folder of its own; only for records in SQLite."""
    shutil.copytree(settings.data_dir, folder / "data", symlinks=True)
    shutil.copytree(settings.tenants_dir, folder / "tenants")
    if settings.publish_dir.exists():
        shutil.copytree(settings.publish_dir, folder / "published")
    return replace(settings, tenants_dir=folder / "tenants", data_dir=folder / "data", publish_dir=folder / "published")


def get_environ(settings: Settings) -> dict[str, str]:
    return {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir),
        "FABRIC_DATA_DIR": str(settings.data_dir),
        "FABRIC_PUBLISH_DIR": str(settings.publish_dir),
        "FABRIC_SECRET_KEYS": ",".join(settings.secret_keys),
        "DAGSTER_HOME": str(settings.data_dir / "dagster"),
    }


def _make_source(file: Path, tenant: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("create table customers (id integer primary key, name text)")
        database.execute("insert into customers values (1, ?), (2, 'Ada')", (canary(tenant),))
        database.execute("create table orders (id integer primary key, total numeric, note text)")
        database.executemany("insert into orders values (?, ?, ?)", [(number, number * 1.25, f"{canary(tenant)} {number}") for number in range(1, 21)])


def _run(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Make runs of each tenant by hand and by schedule, isolation checks, runs of several tenants, and one that fails with the source's message."""
    fleet = load_fleet(settings)
    for loaded in fleet.tenants.values():
        result = run_tenant(loaded, graph=None, settings=settings, instance=instance, workers={}, on_event=lambda event: None)
        # The file without a day is quarantined.
        assert result.run_id, result.error
    definitions = build_definitions(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shared = definitions.get_implicit_global_asset_job_def()
    keys = [dg.AssetKey([tenant, "raw", "shop", "orders"]) for tenant in ("acme", "acm")]
    result = shared.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)
    assert result.success
    # As the queue links the runs of a run that it has split.
    links = EngineEventData(metadata={f"tenant {tenant}": dg.MetadataValue.dagster_run(result.run_id) for tenant in ("acme", "acm")})
    instance.report_engine_event("2 runs do the work, one for each tenant", result.dagster_run, links)
    for tenant in ("acme", "acm"):
        definitions.resolve_job_def(f"{tenant}__nightly").execute_in_process(instance=instance, raise_on_error=False, tags={"tenant": tenant})
        dg.materialize([_build_broken(tenant)], instance=instance, raise_on_error=False, tags={"tenant": tenant})
        _check_walls(definitions, instance, tenant)
    assert definitions.resolve_job_def("fabric__isolation").execute_in_process(instance=instance).success


def _check_walls(definitions: dg.Definitions, instance: dg.DagsterInstance, tenant: str) -> None:
    """As the fleet's schedule has it done: by a run for each tenant."""
    check = dg.AssetCheckKey(dg.AssetKey([tenant, "isolation"]), "isolation")
    job = definitions.resolve_job_def("fabric__isolation").get_subset(asset_check_selection={check})
    run = instance.create_run(
        job_name=job.name,
        tags={"tenant": tenant},
        asset_selection=None,
        asset_check_selection=frozenset({check}),
        execution_plan_snapshot=snapshot_from_execution_plan(create_execution_plan(job), job.get_job_snapshot_id()),
        job_snapshot=job.get_job_snapshot(),
        asset_graph=job.asset_layer.asset_graph,
        **dict.fromkeys(
            ("run_id", "run_config", "status", "root_run_id", "parent_run_id", "step_keys_to_execute", "parent_job_snapshot", "resolved_op_selection",
             "op_selection", "remote_job_origin", "job_code_origin")
        ),
    )  # fmt: skip
    execute_run(InMemoryJob(job), run, instance, raise_on_error=True)


def _build_broken(tenant: str) -> dg.AssetsDefinition:
    @dg.asset(key=[tenant, "raw", "shop", "broken"], name=None, tags={"tenant": tenant})
    def broken() -> None:
        raise dg.Failure(f"the source says: {canary(tenant)}")

    return broken


def _record(tenant: str, instance: dg.DagsterInstance) -> None:
    """What the daemon and the UI would leave."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("fabric"), "__repository__")
    data = {
        InstigatorType.SCHEDULE: (f"{tenant}__nightly", ScheduleInstigatorData("0 3 * * *")),
        InstigatorType.SENSOR: (f"{tenant}__ads__inbox", SensorInstigatorData(cursor=canary(tenant))),
    }
    for kind, (name, state) in data.items():
        origin = RemoteInstigatorOrigin(repository, name)
        added = instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, state))
        instance.create_tick(
            TickData(origin.get_id(), name, kind, TickStatus.SKIPPED, 1.7e9, skip_reason=f"{canary(tenant)} waits", selector_id=added.selector_id)
        )
    instance.add_dynamic_partitions(f"{tenant}__days", ["2026-01-01"])
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=dg.AssetKey([tenant, "config"]), check_name="config", passed=False, metadata={"errors": canary(tenant)})
    )
    instance.run_storage.set_cursor_values({f"{tenant}__shop__cursor": canary(tenant)})
    keys = [dg.AssetKey([tenant, "raw", "shop", "orders"])]
    instance.add_backfill(PartitionBackfill(f"bf{tenant}"[:32], BulkActionStatus.COMPLETED_SUCCESS, False, {"tenant": tenant}, 1.7e9, asset_selection=keys))


# --- looking at it


def read_records(settings: Settings) -> set[tuple[str, ...]]:
    """Every row of every table of Dagster's storage, packed columns unpacked."""
    rows = set()
    with open_instance(settings) as instance:
        databases = open_databases(instance)
        shards = list_shards(instance, databases)
        for database in [*databases, *map(open_shard, shards)]:
            with database.begin() as sql:
                for table in database.tables:
                    rows |= {(database.shard, table, *map(_show, row)) for row in sql.ask(f"select * from {table}")}
            database.dispose()
    return rows


def _show(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        with contextlib.suppress(zlib.error):
            value = zlib.decompress(bytes(value)).decode()
    return str(value)


def get_records_of_others(settings: Settings) -> set[tuple[str, ...]]:
    """Rows that name no more than the others; those that the tenants share are looked at by themselves."""
    return {row for row in read_records(settings) if not any(NAMED.search(cell) for cell in row) and any(_OTHERS.search(cell) for cell in row)}


def get_files_of_others(settings: Settings) -> dict[str, bytes]:
    return {
        str(file.relative_to(settings.data_dir)): file.read_bytes()
        for file in settings.data_dir.rglob("*")
        if file.is_file() and "dagster" not in file.parts and any(part.split(".")[0] in OTHERS for part in file.relative_to(settings.data_dir).parts)
    }


def find_traces(settings: Settings, *words: str) -> list[str]:
    """Find all files of the platform and of Dagster whose names or bytes hold one of the words, except the certificate's."""
    found = []
    for folder in (settings.data_dir, get_dagster_files(settings)):
        for root, _, names in os.walk(folder):
            for file in (Path(root, name) for name in names):
                inner = file.relative_to(folder)
                if "offboarded" not in inner.parts:
                    content = str(inner).encode() + b"\n" + file.read_bytes()
                    found += [f"{file}: {word}" for word in words if word.encode() in content]
    return found
