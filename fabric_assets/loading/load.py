"""A tenant's source and the chosen streams -> rows in the warehouse, and an outcome per stream as it finishes.

One transaction commits a stream's rows, its rejected rows, its state and its row of the ledger.
So a process may die at any point: the warehouse alone holds the truth, and the next load begins where the last commit ended.
"""

from collections.abc import Callable, Iterator

from fabric_assets.config.checks import SourceRowCountCheck
from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError, FabricError, InternalError, RetriableError
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.leased_load import load_with_lease
from fabric_assets.loading.staged_load import load_staged
from fabric_assets.rows.reports import LoadRequest, StreamFailure, StreamReport
from fabric_assets.suggestions import suggest
from fabric_assets.visible import show_text

Report = Callable[[str], None]
Outcome = StreamReport | StreamFailure
_SHOWN = 5


def run_load(request: LoadRequest, *, report: Report = lambda message: None) -> tuple[StreamReport, ...]:
    """Load the chosen streams of one source. Streams that succeeded stay loaded, even if others fail.

    Raises:
        FabricError: names the streams that failed, and why.
    """
    reports, failures = [], []
    for outcome in load_streams(request, report=report):
        (failures if isinstance(outcome, StreamFailure) else reports).append(outcome)
    order = request.streams or tuple(request.tenant.sources[request.source].streams)
    if failures:
        raise join_failures(sorted(failures, key=lambda found: order.index(found.stream)), of=len(reports) + len(failures))
    return tuple(sorted(reports, key=lambda found: order.index(found.stream)))


def load_streams(request: LoadRequest, *, report: Report = lambda message: None) -> Iterator[Outcome]:
    """Load the chosen streams of one source, and yield each one's outcome as soon as it is final.

    Args:
        report: called with each line of progress, in the caller's thread.

    Raises:
        FabricError: nothing could be loaded at all: the source or the destination as a whole.
    """
    report = _make_visible(report)
    context = _build_context(request, report)
    load = load_staged if context.config.is_staged else load_with_lease
    try:
        yield from load(request, context, report)
    except FabricError:
        raise
    except Exception as error:
        raise build_error(error, tenant=request.tenant, settings=request.settings, where=context.describe(), writing=True) from error


def join_failures(failures: list[StreamFailure], *, of: int) -> FabricError:
    """Build one error for all streams that failed. It is retriable if one of them is, else internal if one of them is.

    Args:
        of: how many streams were to be loaded.
    """
    errors = [failure.error for failure in failures]
    first = next((error for kind in (RetriableError, InternalError) for error in errors if isinstance(error, kind)), errors[0])
    if len(failures) == 1:
        return first
    # Streams that fail for the same reason share a line.
    streams: dict[tuple[str, str], list[StreamFailure]] = {}
    for failure in failures:
        streams.setdefault((failure.error.message, failure.error.remedy), []).append(failure)
    lines = [f"{len(failures)} of {of} streams failed:"]
    lines += [f"- {', '.join(failure.stream for failure in alike)}: {alike[0].error}" for alike in [*streams.values()][:_SHOWN]]
    if rest := [failure.stream for alike in [*streams.values()][_SHOWN:] for failure in alike]:
        lines.append(f"- and {', '.join(rest)}")
    joined = type(first)("\n".join(lines))
    joined.traceback = "\n".join(error.traceback for error in errors if error.traceback)
    joined.is_kept = any(error.is_kept for error in errors)
    return joined


def _make_visible(report: Report) -> Report:
    """Escape invisible characters in reports, which contain names of files and texts of servers."""
    return lambda message: report(show_text(message))


def _build_context(request: LoadRequest, report: Report) -> SourceContext[AnySource]:
    sources = request.tenant.sources
    if request.source not in sources:
        raise ConfigurationError(f"tenant {request.tenant.tenant} has no source {request.source}{suggest(request.source, sources)}")
    config = sources[request.source]
    for stream in request.streams:
        if stream not in config.streams:
            raise ConfigurationError(f"tenant {request.tenant.tenant}, source {request.source}: there is no stream {stream}{suggest(stream, config.streams)}")
    return SourceContext(
        tenant=request.tenant.tenant,
        name=request.source,
        config=config,
        streams=request.streams or tuple(config.streams),
        settings=request.settings,
        full_refresh=request.full_refresh,
        counted=frozenset(stream for stream in config.streams if _is_counted(request, stream)),
        report=report,
    )


def _is_counted(request: LoadRequest, stream: str) -> bool:
    return any(isinstance(check, SourceRowCountCheck) for check in request.tenant.checks.get(f"raw/{request.source}/{stream}", ()))
