"""A Singer tap -> readers of its streams, each with the state that covers its rows.

The tap runs once for all chosen streams: discovery, then the sync. Nothing is committed before the tap has ended without an error, because a tap may send a
bookmark ahead of its rows. Then each stream is a commit unit with its own bookmark. A tap whose state is not bookmarks alone makes one unit of all streams.
"""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from fabric_assets.config.sources.connectors import SingerSource
from fabric_assets.connectors.bridge.session import Session, open_session
from fabric_assets.connectors.bridge.singer.catalog import Selection, select_streams
from fabric_assets.connectors.bridge.singer.messages import Messages, ReceivedStream, split_state
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError, SourceError
from fabric_assets.rows.batches import Batch, Item, ReadGroup, SourceReader, StreamFailed, StreamPlan

# Keys of a stream's state. A tap that keeps no bookmarks has its whole state in each of the streams that share it.
_STATE, _BOOKMARK, _WHOLE, _VERSION, _KEY, _DISPOSITION = "singer", "bookmark", "state", "version", "key", "disposition"
States = Mapping[str, Mapping[str, Any]]


def plan_stream(config: SingerSource, name: str, state: Mapping[str, Any]) -> StreamPlan:
    """Plan a stream by its YAML, and by what the tap said of it when it was read last."""
    declared, said = config.streams[name], state.get(_STATE, {})
    disposition = declared.write_disposition or said.get(_DISPOSITION) or declared.disposition
    key = declared.primary_key or tuple(said.get(_KEY, ()))
    return StreamPlan.declared(name, declared, disposition=disposition, key=key, deduplicates=disposition == "replace", is_json=True)


def stage_source(context: SourceContext[SingerSource], states: States) -> Generator[SourceReader, None, None]:
    """Run the tap, and yield a reader of its streams once it has ended.

    Raises:
        FabricError: the tap failed, or what it sent is not valid.
    """
    where = context.describe()
    with open_session(context) as session:
        config = json.dumps(session.settings).encode()
        state = _join_states(context, states)
        selection = select_streams(session.ask("--config", config, "--discover"), context.config, context.streams, where=where)
        messages = Messages(selection, folder=session.folder, budget=session.build_budget(), where=where, connector=session.name)
        with closing(messages):
            _run(session, messages, config, selection, state)
            for stream, number in messages.others.items():
                context.report(f"{where}: {session.name} also sent {number:,} rows of its stream {stream}, which is not declared; they are not loaded")
            yield _build_reader(context, messages, states, state)


def _run(session: Session, messages: Messages, config: bytes, selection: Selection, state: Any) -> None:
    known: list[str | bytes] = ["--state", json.dumps(state).encode()] if state else []
    # A tap knows its catalog by one of two options, and refuses the other.
    with session.run("--config", config, "--catalog", selection.catalog, *known) as connector:
        for lines in connector.read_lines():
            messages.read(lines)
        # A tap that dies in the middle of a line is told by how it ended.
        messages.read([connector.finish()])
        messages.finish()


def _join_states(context: SourceContext[SingerSource], states: States) -> Any:
    """Join the states of the chosen streams to one state for the tap; None at the first load.

    Raises:
        ConfigurationError: one state covers several streams, and they are not all chosen, or it does not cover a chosen one.
    """
    own = {name: state.get(_STATE, {}) for name, state in states.items()}
    sharing = [name for name in context.config.streams if _WHOLE in own[name]]
    if not sharing:
        ids = {name: context.config.streams[name].stream or name for name in context.streams}
        bookmarks = {own[name].get("tap_id", tap_id): own[name][_BOOKMARK] for name, tap_id in ids.items() if _BOOKMARK in own[name]}
        return {"bookmarks": bookmarks} if bookmarks else None
    where, connector = context.describe(), context.config.connector
    if lacking := [name for name in sharing if name not in context.streams]:
        raise ConfigurationError(
            f"{where}: {connector} keeps one state for {', '.join(sharing)}, so they are loaded together; {lacking[0]} is not selected",
            remedy=f"select raw/{context.name} as a whole, with --full-refresh too if one of them is to be loaded anew",
        )
    if new := [name for name in context.streams if name not in sharing]:
        raise ConfigurationError(
            f"{where}: {connector} keeps one state for {', '.join(sharing)}, which says nothing of {new[0]}: its earlier rows would be left out",
            remedy=f"load raw/{context.name} as a whole once with --full-refresh",
        )
    return own[sharing[0]][_WHOLE]


def _build_reader(context: SourceContext[SingerSource], messages: Messages, states: States, sent: Any) -> SourceReader:
    """Build the reader of what the tap has sent.

    Args:
        sent: the state that the tap was given; it stays in force if the tap sends none.
    """
    state = sent if messages.state is None else messages.state
    bookmarks, is_split = split_state(state)
    plans = {name: _plan(context, received, states[name]) for name, received in messages.streams.items()}
    whole = {} if is_split else {_WHOLE: state}
    new = {name: {**_build_state(received, bookmarks, plans[name], states[name]), **whole} for name, received in messages.streams.items()}
    groups = [(name,) for name in plans] if is_split else [tuple(plans)]
    read = partial(_read, context, messages, plans, new)
    return SourceReader(tuple(ReadGroup(tuple(plans[name] for name in names), read, is_atomic=not is_split) for names in groups))


def _build_state(received: ReceivedStream, bookmarks: Mapping[str, Any], plan: StreamPlan, before: Mapping[str, Any]) -> dict[str, Any]:
    tap_id, earlier = received.stream.tap_id, before.get(_STATE, {})
    # A version that replaces the table once does not make the stream one that is always replaced.
    is_whole = received.stream.method == "FULL_TABLE"
    state: dict[str, Any] = {"tap_id": tap_id, _KEY: list(plan.key), _DISPOSITION: "replace" if is_whole else "merge"}
    # Some taps send only the bookmarks that have moved.
    if (bookmark := bookmarks.get(tap_id, earlier.get(_BOOKMARK))) is not None:
        state[_BOOKMARK] = bookmark
    version = received.activated if received.activated is not None else max(received.versions, default=earlier.get(_VERSION))
    return state if version is None else state | {_VERSION: version}


def _plan(context: SourceContext[SingerSource], received: ReceivedStream, state: Mapping[str, Any]) -> StreamPlan:
    """Plan how a stream's rows are written: as the YAML says, else as the tap read them."""
    name, declared = received.stream.name, context.config.streams[received.stream.name]
    key, method = declared.primary_key or received.key, received.stream.method
    disposition = declared.write_disposition or ("replace" if method == "FULL_TABLE" else "merge")
    # The tap says that the rows of this run are the whole table.
    if received.activated is not None and received.versions <= {received.activated} and state.get(_STATE, {}).get(_VERSION) != received.activated:
        disposition = "replace"
    known = {"key": key, "is_json": True, "types": received.types, "reads_all": method == "FULL_TABLE"}
    return StreamPlan.declared(name, declared, disposition=disposition, deduplicates=disposition == "replace", **known)


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


def _read(
    context: SourceContext[SingerSource], messages: Messages, plans: Mapping[str, StreamPlan], new: Mapping[str, Any], memories: Mapping[str, Any]
) -> Iterator[Item]:
    for name, memory in memories.items():
        received = messages.streams[name]
        if problem := _find_problem(context, received, plans[name]):
            yield StreamFailed(name, problem)
            continue
        first = 1
        for rows in received.spill.read():
            yield Batch(name, rows, first_row=first, has_fixed_positions=False, is_json=not isinstance(rows, list))
            first += len(rows)
        if first == 1:
            yield Batch(name, received.build_empty_table())
        memory.state[_STATE] = new[name]
