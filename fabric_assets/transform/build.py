"""A tenant's chosen models -> one dbt call in a worker process, and the result of each model and test.

The caller holds the tenant's warehouse lease: dbt opens the DuckDB file.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.destinations import get_destination
from fabric_assets.drivers.kinds import DEFAULT_ADAPTER, get_kind
from fabric_assets.errors import ConfigurationError, DestinationError, DestinationUnavailable, InternalError, TransformError
from fabric_assets.masking import mask
from fabric_assets.own_faults import keep_traceback
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import get_prepared_file
from fabric_assets.transform.folders import sweep_folders
from fabric_assets.transform.graph import load_graph
from fabric_assets.transform.process import WorkerProcess
from fabric_assets.transform.project import prepare_project

# A model's unique_id, or source and stream.
Owner = str | tuple[str, str]


@dataclass(frozen=True)
class BuildRequest:
    """The models and tests to build, and the tenant that they are built for.

    Args:
        models: unique ids. Other models that these refer to must have been built before.
        tests: unique ids of data tests, of unit tests, and of the sources whose freshness is tested.
        run_id: part of the name of the run's folder, so that a person can find it while it runs.
        timeout_seconds: None waits forever.
    """

    tenant: TenantConfig
    models: tuple[str, ...]
    tests: tuple[str, ...]
    settings: Settings
    run_id: str = ""
    full_refresh: bool = False
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class ModelResult:
    """The result of a model.

    Args:
        message: why it failed or was skipped; for a model that was built, what could not be found out about it.
        rows: None if it was not built, or its rows could not be counted.
        columns: names and the warehouse's types.
        lineage: each column with the columns that it is made from.
        table_name: database.schema.table.
    """

    unique_id: str
    status: Literal["success", "error", "skipped"]
    message: str = ""
    seconds: float = 0.0
    rows: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    lineage: dict[str, list[tuple[Owner, str]]] = field(default_factory=dict)
    table_name: str = ""


@dataclass(frozen=True)
class TestResult:
    """The result of a test.

    Args:
        failures: number of rows that the test found; None if it ended before.
        message: may show values of rows. Logs and errors use `log_message`, which shows none.
        facts: what else was found out, for the check's metadata.
    """

    __test__ = False  # pytest takes every Test* for its own

    unique_id: str
    status: Literal["pass", "fail", "warn", "error", "skipped", "left_out"]
    severity: Literal["error", "warn"]
    failures: int | None = None
    message: str = ""
    seconds: float = 0.0
    log_message: str = ""
    facts: dict[str, str | int] = field(default_factory=dict)


class DbtWorker:
    """A dbt process that is ready for one build."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    @classmethod
    def start(cls, settings: Settings, *, adapter: str = DEFAULT_ADAPTER) -> "DbtWorker":
        """Start a worker. It imports dbt, and does a trial run on the prepared project, while the caller goes on.

        Args:
            adapter: the kind of warehouse to prepare for. Another one works too, but is imported only when it is used.
        """
        return cls(WorkerProcess([adapter, str(settings.dbt_project_dir), str(get_prepared_file(settings, adapter))]))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for the imports. Only benchmarks need this."""
        self._process.wait_until_ready()

    def build(self, request: BuildRequest) -> Iterator[ModelResult | TestResult]:
        """Build, yielding tests and failed models as they end, built models after the last one.

        Raises:
            ConfigurationError: the project or the destination's url is wrong.
            DestinationError: a schema of a managed tenant is missing.
            DestinationUnavailable: no connection.
            TransformError: dbt could build nothing, died, or took too long.
        """
        where = f"tenant {request.tenant.tenant}"
        destination = _get_destination(request.tenant, request.settings)
        try:
            _check_schemas(request)
            for event in self._receive(_build_message(request, destination), request.timeout_seconds, where):
                yield _read_event(event, where)
        except InternalError as error:
            keep_traceback(error, data_dir=request.settings.data_dir, tenant=request.tenant.tenant)
            raise
        finally:
            self.close()
            sweep_folders(naming.dbt_dir(request.settings.data_dir, request.tenant.tenant))

    def _receive(self, message: dict[str, Any], timeout_seconds: float | None, where: str) -> Iterator[dict[str, Any]]:
        """Yield the worker's events, with all secrets masked."""
        try:
            for event in self._process.request(message, timeout_seconds=timeout_seconds):
                yield event | {"message": mask(event["message"])}
        except TransformError as error:
            raise TransformError(f"{where}: {error.message}", remedy=error.remedy) from None

    def close(self) -> None:
        """Kill the process, even while it builds."""
        self._process.close()


def _build_message(request: BuildRequest, destination: dict[str, Any]) -> dict[str, Any]:
    tenant, settings = request.tenant, request.settings
    variables = dict(tenant.transform.vars) if tenant.transform else {}
    return {
        "do": "build",
        "tenant": tenant.tenant,
        "project_dir": str(settings.dbt_project_dir),
        "file": str(prepare_project(settings, destination["type"])),
        "folder": str(naming.dbt_dir(settings.data_dir, tenant.tenant)),
        "run_id": request.run_id,
        "data_dir": str(settings.data_dir),
        "destination": destination,
        "models": list(request.models),
        "tests": list(request.tests),
        "vars": json.dumps(variables | {"fabric_tenant": tenant.tenant}),
        "full_refresh": request.full_refresh,
    }


def _get_destination(tenant: TenantConfig, settings: Settings) -> dict[str, Any]:
    return {"type": get_kind(tenant).dbt_adapter, **get_destination(tenant, settings).get_dbt_login()}


def _check_schemas(request: BuildRequest) -> None:
    """Check that all schemas exist. Otherwise dbt would try to create them, and its message would only say that it may not.

    Raises:
        DestinationError: a model's schema is missing, and the tenant's role may not create it.
    """
    if not request.tenant.destination.managed:
        return
    tenant, graph = request.tenant.tenant, load_graph(request.settings)
    nodes = [*(graph.models.get(name) for name in request.models), *(graph.tests.get(name) for name in request.tests)]
    wanted = {naming.dbt_schema(tenant, node.schema) for node in nodes if node is not None and node.schema}
    with contextlib.closing(get_destination(request.tenant, request.settings).connect(read_only=True)) as connection, connection.cursor() as cursor:
        cursor.execute("select nspname::text from pg_catalog.pg_namespace where nspname = any(%s)", (sorted(wanted),))
        if missing := sorted(wanted - {name for (name,) in cursor.fetchall()}):
            raise DestinationError(f"tenant {tenant}: there is no schema {missing[0]} for its models or tests", remedy=f"fabric provision {tenant}")


def _read_event(event: dict[str, Any], where: str) -> ModelResult | TestResult:
    """Turn the worker's event into a result.

    Raises:
        ConfigurationError, DestinationUnavailable, InternalError, TransformError: the event ended the whole build.
    """
    kind = event.pop("event")
    if kind == "test":
        return TestResult(**event)
    if kind == "model":
        columns = tuple((name, type_) for name, type_ in event.pop("columns", ()))
        lineage = {column: [(_read_owner(owner), name) for owner, name in origins] for column, origins in event.pop("lineage", {}).items()}
        return ModelResult(**event, columns=columns, lineage=lineage)
    if kind == "refused":
        raise ConfigurationError(f"{where}: {event['message']}", remedy=event["remedy"])
    if kind == "fault":
        raise InternalError(f"{where}: {event['message']}", traceback=event["traceback"])
    if event["unreachable"]:
        raise DestinationUnavailable(f"{where}: the warehouse cannot be reached: {event['message']}", remedy="it is tried again as the retry policy says")
    raise TransformError(f"{where}: dbt could not build anything: {event['message']}", remedy="fix what the message names, then run the transformation again")


def _read_owner(owner: str | list[str]) -> Owner:
    return owner if isinstance(owner, str) else (owner[0], owner[1])
