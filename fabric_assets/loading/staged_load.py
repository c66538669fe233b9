"""The load of a source whose rows are read before the lease is taken: by a connector that may take hours.

The lease is taken to read what earlier loads have left, then for each commit unit that the connector has completed. At last it is taken for the failures of
the others. So a slow connector holds neither the tenant's lease nor a transaction.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.registry import plan_stream, stage_source
from fabric_assets.errors import FabricError, RetriableError
from fabric_assets.loading.failures import build_error
from fabric_assets.loading.finished import find_finished
from fabric_assets.loading.leased_load import Outcome, Target, load_with_lease, open_target
from fabric_assets.rows.batches import Item, ReadGroup, SourceReader, StreamFailed
from fabric_assets.rows.named_tables import load_named
from fabric_assets.rows.reports import LoadRequest, StreamReport

Report = Callable[[str], None]
States = Mapping[str, Mapping[str, Any]]


def load_staged(request: LoadRequest, context: SourceContext[AnySource], report: Report) -> Iterator[Outcome]:
    """Read the context's streams, load each commit unit once it is complete, and yield each stream's outcome as soon as it is final."""
    with open_target(request, context, report) as target:
        done = find_finished(request, context.streams, target.destination)
        states = _read_states(request, context, target)
    yield from done
    before = {found.stream for found in done}
    loaded = tuple(found.stream for found in done if isinstance(found, StreamReport))
    context = replace(context, streams=tuple(name for name in context.streams if name not in before), loaded_before=loaded)
    if not context.streams:
        return
    waiting = dict.fromkeys(context.streams)
    try:
        with closing(stage_source(context, states)) as readers:
            for reader in readers:
                names = tuple(plan.name for group in reader.groups for plan in group.streams)
                waiting = {name: None for name in waiting if name not in names}
                checked = _check_states(reader, states, context)
                yield from load_with_lease(request, replace(context, streams=names), report, open_reader=lambda _, checked=checked: checked)
    except Exception as error:
        if not waiting or getattr(error, "at_destination", False):
            raise
        ours = error if isinstance(error, FabricError) else build_error(error, tenant=request.tenant, settings=request.settings, where=context.describe())
        failed = _build_failed(context, tuple(waiting), ours)
        yield from load_with_lease(request, replace(context, streams=tuple(waiting)), report, open_reader=lambda _: failed)


def _read_states(request: LoadRequest, context: SourceContext[AnySource], target: Target) -> States:
    """Read the state of each declared stream; empty without its table, whatever the state says, and for the chosen ones if they are loaded anew."""
    layouts, states = target.job.call(target.warehouse.read_layouts), target.job.call(target.warehouse.read_states)
    new = context.streams if request.full_refresh else ()

    def is_kept(name: str) -> bool:
        return name in states and name not in new and bool({name, *load_named(states[name].column_names)} & layouts.keys())

    return {name: states[name].state if is_kept(name) else {} for name in context.config.streams}


def _check_states(reader: SourceReader, states: States, context: SourceContext[AnySource]) -> SourceReader:
    """Build a reader that refuses rows which were read from a state that is no longer the stream's."""

    def check(group: ReadGroup) -> ReadGroup:
        def read(memories: Mapping[str, Any]) -> Iterator[Item]:
            for name, memory in memories.items():
                if memory.state != states[name]:
                    raise RetriableError(
                        f"{context.describe(name)}: another run has loaded the stream while its rows were read, so they are not used",
                        remedy="let one run at a time load a source; the next run reads on from the last commit",
                    )
            yield from group.read(memories)

        return replace(group, read=read)

    return replace(reader, groups=tuple(map(check, reader.groups)))


def _build_failed(context: SourceContext[AnySource], streams: tuple[str, ...], error: FabricError) -> SourceReader:
    """Build a reader whose streams have all failed, so that the ledger says so."""

    def read(memories: Mapping[str, Any]) -> Iterator[Item]:
        for name in memories:
            yield StreamFailed(name, error)

    return SourceReader((ReadGroup(tuple(plan_stream(context.config, name) for name in streams), read),))
