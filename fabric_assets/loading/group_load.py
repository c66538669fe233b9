"""A group of streams that are read together -> their transactions in the warehouse. Each stream gets an outcome, whatever happens.

A group runs in a thread of its own. Each stream has its own transaction, but streams with few rows share one: for them the statements of a
transaction take longer than the rows.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from fabric_assets.errors import RetriableError
from fabric_assets.loading.commit_batcher import CommitBatcher
from fabric_assets.loading.failures import build_error, report_unrecorded
from fabric_assets.loading.job import Job, LoadAbandoned
from fabric_assets.loading.read_ahead import ReadAhead
from fabric_assets.loading.stream_load import LoadContext, StreamLoad, is_small
from fabric_assets.rows.batches import Batch, Item, ReadGroup, StreamFailed
from fabric_assets.rows.reports import StreamFailure


def load_group(group: ReadGroup, context: LoadContext, batcher: CommitBatcher[StreamLoad]) -> None:
    """Load a group's streams.

    Args:
        batcher: gets the streams with few rows, for `commit_together`.
    """
    loads: dict[str, StreamLoad] = {}
    try:
        loads = {plan.name: StreamLoad(plan, context, group.after_commit) for plan in group.streams}
        if group.is_atomic:
            _share_transaction(list(loads.values()))
        read = group.read({name: load.memory for name, load in loads.items()})
        with contextlib.closing(ReadAhead(read, context.job.check, is_small=is_small)) as items:
            _write_items(items, loads, context.job, is_atomic=group.is_atomic)
        if group.is_atomic:
            _commit(list(loads.values()))
        for name in [name for name, load in loads.items() if load.may_share]:
            batcher.add(loads.pop(name))
        for load in loads.values():
            if not load.is_over:
                _attempt(load, lambda load=load: _commit([load]))
    except LoadAbandoned:
        pass
    except BaseException as error:  # noqa: BLE001 - also exceptions that are not an Exception (a panic of a driver): the load waits for each outcome
        if loads:
            for load in loads.values():
                load.fail(error)
        else:
            _fail_all(group, context, error)
    finally:
        for load in loads.values():
            load.close()


def _fail_all(group: ReadGroup, context: LoadContext, error: BaseException) -> None:
    """Give each stream its outcome if the group could not even begin."""
    for plan in group.streams:
        ours = build_error(error, tenant=context.request.tenant, settings=context.request.settings, where=context.source.describe(plan.name))
        failed = replace(context.records[plan.name], status="failed", error=str(ours), loaded_at=datetime.now(UTC), retriable=isinstance(ours, RetriableError))
        try:
            context.warehouse.record_failure(failed, [])
        except Exception as second:  # noqa: BLE001 - as in StreamLoad.fail: the load waits for each outcome
            report_unrecorded(
                second,
                error,
                tenant=context.request.tenant,
                settings=context.request.settings,
                where=context.source.describe(plan.name),
                report=context.job.report,
            )
        context.job.finish(StreamFailure(plan.name, ours))


def commit_together(loads: Sequence[StreamLoad], context: LoadContext) -> None:
    """Commit streams in one transaction. If that fails, commit each by itself, so that one stream's error does not affect the others."""
    try:
        if len(loads) > 1 and _commit_at_once(loads, context):
            return
        for load in loads:
            _attempt(load, lambda load=load: _commit([load]))
    except LoadAbandoned:
        raise
    except BaseException as error:  # noqa: BLE001 - as in load_group: no stream may be left without an outcome
        for load in loads:
            load.fail(error, writing=True)
    finally:
        for load in loads:
            load.close()


def _commit_at_once(loads: Sequence[StreamLoad], context: LoadContext) -> bool:
    """Commit all streams in one transaction; return whether it succeeded. If not, nothing is kept."""
    try:
        _commit(loads)
    except LoadAbandoned:
        raise
    except Exception as error:  # noqa: BLE001 - the second try shows which stream fails
        for load in loads:
            load.close()
        where = context.source.describe()
        reason = build_error(error, tenant=context.request.tenant, settings=context.request.settings, where=where, writing=True).message
        context.job.report(f"{where}: {len(loads)} streams could not be committed together, so each is committed by itself: {reason}")
        return False
    return True


def _commit(loads: Sequence[StreamLoad]) -> None:
    """Make the streams' rows visible, with everything that belongs to them."""
    first, *others = loads
    transaction = first.open()
    for load in others:
        load.open(transaction)
    reports = [load.finish() for load in loads]

    def write() -> None:
        transaction.commit([load.build_commit() for load in loads])
        for load in loads:
            load.after_commit()

    first.job.commit(write, reports)
    for load in loads:
        load.is_over = True


def _write_items(items: Iterable[Item], loads: Mapping[str, StreamLoad], job: Job, *, is_atomic: bool) -> None:
    for item in items:
        job.check()
        _handle_item(loads[item.stream], item, is_atomic=is_atomic)
        if all(load.is_over for load in loads.values()):
            return


def _share_transaction(loads: Sequence[StreamLoad]) -> None:
    transaction = loads[0].open()
    for load in loads[1:]:
        load.open(transaction)


def _handle_item(load: StreamLoad, item: Item, *, is_atomic: bool) -> None:
    """Write an item. Its error fails the stream; in an atomic group it is raised, and fails all streams.

    Raises:
        Exception: in an atomic group.
    """
    if load.is_over:
        return
    if is_atomic:
        if isinstance(item, StreamFailed):
            raise item.error
        load.write_batch(item) if isinstance(item, Batch) else load.write_keys(item)
    elif isinstance(item, StreamFailed):
        load.fail(item.error)
    elif isinstance(item, Batch):
        _attempt(load, lambda: load.write_batch(item))
    else:
        _attempt(load, lambda: load.write_keys(item))


def _attempt(load: StreamLoad, step: Callable[[], None]) -> None:
    try:
        step()
    except LoadAbandoned:
        raise
    except Exception as error:  # noqa: BLE001 - one stream's error must not fail the streams that are read with it
        load.fail(error, writing=True)
