"""A Singer tap -> readers of its streams, each with the state that covers its rows.

The tap runs once for all chosen streams: discovery, then the sync.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from fabric_assets.config.sources.connectors import SingerSource
from fabric_assets.connectors.bridge.commit_units import DISPOSITION, KEY, VERSION, States, build_reader, join_states, report_others
from fabric_assets.connectors.bridge.messages import ReceivedStream
from fabric_assets.connectors.bridge.session import Session, open_session
from fabric_assets.connectors.bridge.singer.catalog import Selection, select_streams
from fabric_assets.connectors.bridge.singer.messages import TapMessages, TapStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import SourceError
from fabric_assets.rows.batches import SourceReader, StreamPlan


def plan_stream(config: SingerSource, name: str, state: Mapping[str, Any]) -> StreamPlan:
    """Plan a stream by its YAML, and by what the tap said of it when it was read last."""
    declared, said = config.streams[name], state.get(config.type, {})
    disposition = declared.write_disposition or said.get(DISPOSITION) or declared.disposition
    key = declared.primary_key or tuple(said.get(KEY, ()))
    return StreamPlan.declared(name, declared, disposition=disposition, key=key, deduplicates=disposition == "replace", is_json=True)


def stage_source(context: SourceContext[SingerSource], states: States) -> Generator[SourceReader, None, None]:
    """Run the tap, and yield a reader of its streams once it has ended.

    Raises:
        FabricError: the tap failed, or what it sent is not valid.
    """
    where = context.describe()
    with open_session(context) as session:
        config = json.dumps(session.settings).encode()
        state = join_states(context, states)
        selection = select_streams(session.ask("--config", config, "--discover"), context.config, context.streams, where=where)
        messages = TapMessages(selection, session.open_spill_file(), folder=session.folder, where=where, connector=session.name)
        with closing(messages):
            _run(session, messages, config, selection, state)
            report_others(context, messages)
            # The state that the tap was given stays in force if it sends none.
            reached = state if messages.state is None else messages.state
            plan, find_problem = partial(_plan, context), partial(_find_problem, context)
            yield build_reader(context, messages.streams, states, reached, plan=plan, describe=_describe, find_problem=find_problem)


def _run(session: Session, messages: TapMessages, config: bytes, selection: Selection, state: Any) -> None:
    known: list[str | bytes] = ["--state", json.dumps(state).encode()] if state else []
    # A tap knows its catalog by one of two options, and refuses the other.
    with session.run("--config", config, "--catalog", selection.catalog, *known) as connector:
        for block in connector.read_blocks():
            messages.read(block)
        # A tap that dies in the middle of a line is told by how it ended.
        messages.read(connector.finish())
    messages.finish()


def _describe(received: ReceivedStream, plan: StreamPlan, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Describe what is kept of a stream beside its bookmark."""
    assert isinstance(received, TapStream)
    # A version that replaces the table once does not make the stream one that is always replaced.
    state: dict[str, Any] = {DISPOSITION: "replace" if received.method == "FULL_TABLE" else "merge"}
    version = received.activated if received.activated is not None else max(received.versions, default=before.get(VERSION))
    return state if version is None else state | {VERSION: version}


def _plan(context: SourceContext[SingerSource], received: ReceivedStream, before: Mapping[str, Any]) -> StreamPlan:
    """Plan how a stream's rows are written: as the YAML says, else as the tap read them."""
    assert isinstance(received, TapStream)
    declared, method = context.config.streams[received.name], received.method
    key = declared.primary_key or received.key
    disposition = declared.write_disposition or ("replace" if method == "FULL_TABLE" else "merge")
    # The tap says that the rows of this run are the whole table.
    if received.activated is not None and received.versions <= {received.activated} and before.get(VERSION) != received.activated:
        disposition = "replace"
    known = {"key": key, "is_json": True, "types": received.types, "reads_all": method == "FULL_TABLE"}
    return StreamPlan.declared(received.name, declared, disposition=disposition, deduplicates=disposition == "replace", **known)


def _find_problem(context: SourceContext[SingerSource], received: ReceivedStream, plan: StreamPlan) -> SourceError | None:
    """Find what keeps a stream from being loaded."""
    where, connector = context.describe(plan.name), context.config.connector
    if not received.is_described:
        return SourceError(
            f"{where}: {connector} ended without an error, and without a SCHEMA of the stream", remedy="see whether its login may read the stream"
        )
    if plan.disposition == "merge" and not plan.key:
        return SourceError(
            f"{where}: {connector} reads the stream incrementally and names no key: a row that changes would be loaded twice",
            remedy="declare a primary_key; or write_disposition: append where rows never change; or replication: full_table",
        )
    return None
