"""The load of a source while its tenant's lease is held: from an opened reader to an outcome per stream."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple

from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.registry import open_source
from fabric_assets.drivers.destinations import Destination, get_destination
from fabric_assets.errors import FabricError, RetriableError
from fabric_assets.loading.commit_batcher import CommitBatcher
from fabric_assets.loading.failures import build_error, report_unrecorded
from fabric_assets.loading.finished import find_finished
from fabric_assets.loading.group_load import commit_together, load_group
from fabric_assets.loading.job import Job
from fabric_assets.loading.stream_load import LoadContext, StreamLoad
from fabric_assets.loading.stream_tables import TableOwners
from fabric_assets.rows.batches import ReadGroup, SourceReader
from fabric_assets.rows.reports import LoadRecord, LoadRequest, StreamFailure, StreamReport
from fabric_assets.warehouse.lease import LEASE_SECONDS, load_lease
from fabric_assets.warehouse.warehouse import Warehouse, open_warehouse

Report = Callable[[str], None]
Outcome = StreamReport | StreamFailure
# The time that a load gets after its end to roll back, and to write its failures into the ledger.
_GRACE_SECONDS = 5.0


class Target(NamedTuple):
    """What a load writes to, while the lease is held."""

    destination: Destination
    warehouse: Warehouse
    job: Job


@contextmanager
def open_target(request: LoadRequest, context: SourceContext[AnySource], report: Report) -> Iterator[Target]:
    """Take the lease and open the warehouse for the block.

    Raises:
        FabricError: the destination as a whole; `at_destination` says so.
    """
    with ExitStack() as stack:
        try:
            # One destination for the whole load: its login is resolved once.
            destination = get_destination(request.tenant, request.settings, report=report)
            target = (request.tenant, request.source, request.settings)
            stack.enter_context(load_lease(*target, timeout_seconds=LEASE_SECONDS, report=report, destination=destination))
            warehouse = stack.enter_context(open_warehouse(*target, destination=destination))
        except FabricError as error:
            error.at_destination = True
            raise
        # The load's time begins here: waiting for another run does not count.
        job = Job(context.describe(), context.config.timeout.total_seconds())
        job.call(warehouse.prepare)
        yield Target(destination, warehouse, job)


def load_with_lease(
    request: LoadRequest, context: SourceContext[AnySource], report: Report, *, open_reader: Callable[[SourceContext[AnySource]], SourceReader] | None = None
) -> Iterator[Outcome]:
    """Load the context's streams with the lease held, and yield each one's outcome as soon as it is final.

    Args:
        open_reader: opens the source; default: its connector does.
    """
    with open_target(request, context, report) as target:
        yield from _load(request, replace(context, report=target.job.report), target, report, open_reader or open_source)


def _load(
    request: LoadRequest, context: SourceContext[AnySource], target: Target, report: Report, open_reader: Callable[[SourceContext[AnySource]], SourceReader]
) -> Iterator[Outcome]:
    destination, warehouse, job = target
    done = job.call(lambda: find_finished(request, context.streams, destination))
    yield from done
    before = {found.stream for found in done}
    loaded = tuple(found.stream for found in done if isinstance(found, StreamReport))
    context = replace(context, streams=tuple(name for name in context.streams if name not in before), loaded_before=loaded)
    if not context.streams:
        return
    records = _start_records(request, context.streams)
    try:
        reader = job.call(lambda: _open(request, context, open_reader))
    except FabricError as error:
        for record in records.values():
            _record_failure(record, error, request=request, warehouse=warehouse, job=job, report=report)
        raise
    # The ledger records the plan's disposition, because the plan decides what is done.
    dispositions = {plan.name: plan.disposition for group in reader.groups for plan in group.streams}
    records = {name: replace(record, write_disposition=dispositions.get(name, record.write_disposition)) for name, record in records.items()}
    try:
        job.call(lambda: warehouse.start(list(records.values())))
        shared = LoadContext(
            request=request,
            source=context,
            warehouse=warehouse,
            layouts=job.call(warehouse.read_layouts),
            states=(states := job.call(warehouse.read_states)),
            owners=TableOwners(request.tenant.sources[request.source].streams, states),
            records=records,
            database=destination.database,
            job=job,
        )
        yield from _run_groups(reader, shared, report)
    finally:
        reader.close()


def _open(request: LoadRequest, context: SourceContext[AnySource], open_reader: Callable[[SourceContext[AnySource]], SourceReader]) -> SourceReader:
    try:
        return open_reader(context)
    except FabricError:
        raise
    except Exception as error:
        raise build_error(error, tenant=request.tenant, settings=request.settings, where=context.describe()) from error


def _start_records(request: LoadRequest, streams: Sequence[str]) -> dict[str, LoadRecord]:
    """Build a row of the ledger per stream. A load's id is the time in seconds, as in dlt, and differs by a microsecond between streams.

    The disposition is the declared one until there is a plan.
    """
    begun, config = datetime.now(UTC), request.tenant.sources[request.source]
    return {
        stream: LoadRecord(
            load_id=f"{begun.timestamp() + number / 1e6:.6f}",
            run_id=request.run_id,
            source=request.source,
            stream=stream,
            write_disposition=config.streams[stream].disposition,
            started_at=begun,
        )
        for number, stream in enumerate(streams)
    }


def _run_groups(reader: SourceReader, shared: LoadContext, report: Report) -> Iterator[Outcome]:
    """Load the groups in as many threads as the source allows, and yield the outcomes."""
    job, groups, closing = shared.job, SimpleQueue[ReadGroup](), set[threading.Thread]()
    for group in reader.groups:
        groups.put(group)

    def work() -> None:
        while True:
            try:
                group = groups.get_nowait()
            except Empty:
                break
            load_group(group, shared, batcher)
        closing.add(threading.current_thread())
        if not others.acquire(blocking=False) and not job.is_over:
            # The last thread closes: DuckDB then writes its log into the file while the caller still handles the outcomes.
            shared.warehouse.close()
        closing.discard(threading.current_thread())

    batcher = CommitBatcher[StreamLoad](lambda loads: commit_together(loads, shared), job.check)
    number = min(reader.connections, len(reader.groups))
    others = threading.Semaphore(number - 1)
    threads = [threading.Thread(target=work, daemon=True, name=f"{job.where}: {index}") for index in range(number)]
    for thread in threads:
        thread.start()
    waiting = dict(shared.records)
    try:
        while waiting and (outcome := job.wait(report)):
            del waiting[outcome.stream]
            yield outcome
    finally:
        # If the load ends early, its threads get a moment to roll back before the lease is released. A thread in a dead socket is left behind.
        job.stop()
        ends = time.monotonic() + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(ends - time.monotonic(), 0))
            if thread in closing:
                # A process that ends while a thread is within DuckDB is aborted.
                thread.join()
    error = job.build_late_error()
    for stream, record in waiting.items():
        _record_failure(record, error, request=shared.request, warehouse=shared.warehouse, job=job, report=report)
        yield StreamFailure(stream, error)


def _record_failure(record: LoadRecord, error: FabricError, *, request: LoadRequest, warehouse: Warehouse, job: Job, report: Report) -> None:
    """Write into the ledger that a stream without an outcome from a thread was not loaded."""
    failed = replace(record, status="failed", loaded_at=datetime.now(UTC), error=str(error), retriable=isinstance(error, RetriableError))
    try:
        job.call(lambda: warehouse.record_failure(failed, []), grace=_GRACE_SECONDS)
    except Exception as second:  # noqa: BLE001 - the stream's outcome is the first one
        where = f"{job.where}, stream {record.stream}"
        report_unrecorded(second, error, tenant=request.tenant, settings=request.settings, where=where, report=report)
