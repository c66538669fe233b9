"""A dlt source -> readers of its resources, each with the state that covers its rows.

The source runs once for all chosen resources, in a process of its own (`dlt_program`), which sends rows, hints and dlt's state. The state of a resource is its
stream's bookmark. The source's own state, and that of a resource which others are transformed from, makes one commit unit of all streams.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from fabric_assets.config.sources.connectors import DltSource
from fabric_assets.connectors.bridge.commit_units import DISPOSITION, KEY, States, build_reader, join_states
from fabric_assets.connectors.bridge.dlt.messages import SourceMessages
from fabric_assets.connectors.bridge.messages import ReceivedStream
from fabric_assets.connectors.bridge.session import Session, open_session
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import FabricError, SourceError, SourceUnavailable
from fabric_assets.masking import mask
from fabric_assets.rows.batches import SourceReader, StreamPlan

_ARROW = "arrow"


def plan_stream(config: DltSource, name: str, state: Mapping[str, Any]) -> StreamPlan:
    """Plan a stream by its YAML, and by what the resource said when it was read last."""
    declared, said = config.streams[name], state.get(config.type, {})
    disposition = declared.write_disposition or said.get(DISPOSITION) or declared.disposition
    key = declared.primary_key or tuple(said.get(KEY, ()))
    return StreamPlan.declared(
        name, declared, disposition=disposition, key=key, deduplicates=disposition == "replace" and bool(key), is_json=not said.get(_ARROW)
    )


def stage_source(context: SourceContext[DltSource], states: States) -> Generator[SourceReader, None, None]:
    """Run the source, and yield a reader of its resources once it has ended.

    Raises:
        FabricError: the source failed, or does what a load cannot keep.
    """
    with open_session(context) as session:
        resources = {context.config.streams[name].resource or name: name for name in context.streams}
        messages = SourceMessages(resources, session.open_spill_file(), where=context.describe(), connector=session.name)
        with closing(messages):
            state = join_states(context, states)
            _run(session, messages, context, resources, state)
            yield build_reader(
                context,
                messages.streams,
                states,
                messages.state,
                plan=partial(_plan, context, messages),
                describe=lambda received, plan, before: {DISPOSITION: received.disposition, **({_ARROW: True} if received.name in messages.arrow else {})},
                find_problem=partial(_find_problem, context, messages),
                list_tables=messages.tables.__getitem__,
            )


def _run(session: Session, messages: SourceMessages, context: SourceContext[DltSource], resources: Mapping[str, str], state: Any) -> None:
    declared = {resource: context.config.streams[name].write_disposition for resource, name in resources.items()}
    order = {
        "source": session.environment.entry.source,
        "path": [str(session.environment.own_files)],
        "settings": session.settings,
        "resources": dict(resources),
        "dispositions": {resource: disposition for resource, disposition in declared.items() if disposition},
        "state": _to_dlt(state),
    }
    with session.run("read", json.dumps(order).encode()) as connector:
        for block in connector.read_blocks():
            messages.read(block)
        messages.read(connector.finish())
    messages.finish()
    # It is sent last: a source that ends the process leaves it out.
    if messages.state is None:
        raise SourceUnavailable(
            f"{messages.where}: the connector {session.name} ended in the middle of its resources, without an error",
            remedy="see what ends the source's process; nothing of this run was loaded",
        )


def _to_dlt(state: Any) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"resources": state["bookmarks"]} if "bookmarks" in state else state


def _plan(context: SourceContext[DltSource], messages: SourceMessages, received: ReceivedStream, before: Mapping[str, Any]) -> StreamPlan:
    """Plan how a resource's rows are written: as the YAML says, else as the resource does."""
    declared = context.config.streams[received.name]
    # A resource whose hints depend on its rows says nothing without rows.
    key = declared.primary_key or received.key or tuple(before.get(KEY, ()))
    disposition = declared.write_disposition or ("merge" if declared.primary_key and received.disposition == "append" else received.disposition) or "append"
    newest = messages.newest_by.get(received.name) if disposition == "merge" else None
    is_json = received.name not in messages.arrow
    known = {"key": key, "is_json": is_json, "types": received.types, "newest_by": newest, "reads_all": disposition == "replace"}
    return StreamPlan.declared(received.name, declared, disposition=disposition, deduplicates=disposition == "replace" and bool(key), **known)


def _find_problem(context: SourceContext[DltSource], messages: SourceMessages, received: ReceivedStream, plan: StreamPlan) -> FabricError | None:
    where = context.describe(plan.name)
    if (message := messages.failed.get(plan.name)) is not None:
        return SourceUnavailable(
            f"{where}: the resource {received.own_name} of {messages.connector} failed: {mask(message)}",
            remedy="see the run's log for the source's own lines; the next run reads on from the last commit",
        )
    if plan.disposition == "merge" and not plan.key:
        return SourceError(
            f"{where}: the resource merges its rows and names no primary key: a row that changes would be loaded twice",
            remedy="declare a primary_key; or write_disposition: append where rows never change; or replace",
        )
    chosen = context.config.streams[plan.name].write_disposition
    if plan.disposition == "append" and chosen is None and not messages.keeps_state(received.own_name):
        return SourceError(
            f"{where}: the resource appends its rows and keeps no state: each run would load all of them again",
            remedy="declare a primary_key, or write_disposition: replace; or append, if the resource gives each row only once",
        )
    return None
