"""Tenants' `transform:` blocks -> the project's graph with what each block selects.

dbt's own selector evaluates all new selections in one process. The answers are kept beside the prepared project, and definitions only read them.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import DEFAULT_ADAPTER
from fabric_assets.errors import InternalError, TransformError
from fabric_assets.own_faults import keep_traceback
from fabric_assets.private_files import FileLock
from fabric_assets.settings import Settings
from fabric_assets.transform.fingerprint import get_fingerprint, get_lock_file, get_prepared_dir, get_selections_file
from fabric_assets.transform.graph import ProjectGraph, load_graph
from fabric_assets.transform.process import WorkerProcess
from fabric_assets.transform.project import prepare_project
from fabric_assets.transform.selection import get_evaluation, get_selection
from fabric_assets.transform.selections import Evaluation, Selection, read_evaluation, read_selections, write_selections

# Limit of processor time for one tenant's selection, so that it does not delay the others'.
SELECTION_SECONDS = 10
_TIMEOUT_SECONDS = 600


def prepare_graph(tenants: Iterable[TenantConfig], settings: Settings) -> ProjectGraph:
    """Prepare the dbt project and evaluate the tenants' selections, where either has changed.

    Raises:
        ConfigurationError: dbt cannot parse the project, or it breaks one of the platform's rules.
        InternalError: the platform's own code failed.
        TransformError: the dbt process ended early.
    """
    prepare_project(settings)
    return evaluate_selections(tenants, load_graph(settings), settings)


def list_unknown(tenants: Iterable[TenantConfig], graph: ProjectGraph) -> list[Selection]:
    """List the distinct selections that have not been evaluated."""
    found = dict[Selection, None]()
    for tenant in tenants:
        if tenant.transform is None or tenant.tenant in graph.broken:
            continue
        if get_evaluation(graph, tenant=tenant.tenant, transform=tenant.transform) is None:
            found[get_selection(graph, tenant=tenant.tenant, transform=tenant.transform)] = None
    return list(found)


def evaluate_selections(tenants: Iterable[TenantConfig], graph: ProjectGraph, settings: Settings) -> ProjectGraph:
    """Evaluate the selections that have not been evaluated, store the answers, and give the graph with them.

    Safe for several processes at once: one evaluates, the others wait for it.

    Raises:
        InternalError: the platform's own code failed.
        TransformError: the dbt process ended early.
    """
    chosen = list(tenants)
    if not list_unknown(chosen, graph):
        return graph
    file, fingerprint = get_selections_file(settings), get_fingerprint(settings)
    manifest = prepare_project(settings)  # one parse is enough: all kinds of warehouse share one graph
    with FileLock(get_lock_file(settings)):
        known = read_selections(file, fingerprint=fingerprint)
        if unknown := sorted(list_unknown(chosen, replace(graph, selections=known)), key=lambda selection: selection.tenant):
            found, lasting = _evaluate(unknown, str(manifest), settings)
            write_selections(file, known | lasting, fingerprint=fingerprint)
            known = known | found
    return replace(graph, selections=known)


def _evaluate(selections: list[Selection], manifest: str, settings: Settings) -> tuple[dict[Selection, Evaluation], dict[Selection, Evaluation]]:
    """Let dbt's process evaluate. Give all answers, and those to store: all except those that failed because of a fault of the platform's."""
    request = {
        "do": "select",
        "adapter": DEFAULT_ADAPTER,
        "project_dir": str(settings.dbt_project_dir),
        "folder": str(get_prepared_dir(settings) / "selecting"),
        "file": manifest,
        "selections": [asdict(selection) for selection in selections],
        "seconds": SELECTION_SECONDS,
    }
    where = f"what tenants select of the dbt project {settings.dbt_project_dir}"
    found, lasting = dict[Selection, Evaluation](), dict[Selection, Evaluation]()
    # The second argument makes the worker import what a build needs: a selection needs the same modules of dbt, and not those of a parse.
    process = WorkerProcess([DEFAULT_ADAPTER, str(settings.dbt_project_dir)])
    try:
        for event in process.request(request, timeout_seconds=_TIMEOUT_SECONDS):
            if event["event"] == "fault":
                fault = InternalError(f"{where}: {event['message']}", traceback=event["traceback"])
                keep_traceback(fault, data_dir=settings.data_dir)
                raise fault
            selection = selections[event["index"]]
            found[selection] = read_evaluation(event)
            if event["lasting"]:
                lasting[selection] = found[selection]
    except TransformError as error:
        raise TransformError(f"{where} could not be evaluated: {error.message}", remedy=error.remedy) from error
    finally:
        process.close()
    return found, lasting
