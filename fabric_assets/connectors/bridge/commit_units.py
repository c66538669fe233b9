"""What a connector has sent, and its state -> readers of the streams, each with the state that covers its rows.

Nothing is committed before the connector has ended without an error, because it may send a state ahead of its rows. Then each stream is a commit unit with its
own bookmark. A state that is not bookmarks alone covers all streams, which are one unit.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fabric_assets.config.sources.connectors import AnyConnectorSource
from fabric_assets.connectors.bridge.messages import Messages, ReceivedStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.rows.batches import Batch, Item, ReadGroup, SourceReader, StreamFailed, StreamPlan

# Keys of a stream's state, below the source's type. A connector that keeps no bookmarks has its whole state in each of the streams that share it.
BOOKMARK, WHOLE, VERSION, KEY, DISPOSITION = "bookmark", "state", "version", "key", "disposition"
_OWN_NAME = "tap_id"
Context = SourceContext[AnyConnectorSource]
States = Mapping[str, Mapping[str, Any]]
FindProblem = Callable[[ReceivedStream, StreamPlan], FabricError | None]


def join_states(context: Context, states: States) -> Any:
    """Join the states of the chosen streams to one state for the connector; None at the first load.

    Raises:
        ConfigurationError: one state covers several streams, and they are not all chosen, or it does not cover a chosen one.
    """
    kind = context.config.type
    own = {name: state.get(kind, {}) for name, state in states.items()}
    sharing = [name for name in context.config.streams if WHOLE in own[name]]
    if not sharing:
        ids = {name: context.config.streams[name].own_name or name for name in context.streams}
        bookmarks = {own[name].get(_OWN_NAME, own_name): own[name][BOOKMARK] for name, own_name in ids.items() if BOOKMARK in own[name]}
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
    return own[sharing[0]][WHOLE]


def build_reader(
    context: Context,
    received: Mapping[str, ReceivedStream],
    states: States,
    state: Any,
    *,
    plan: Callable[[ReceivedStream, Mapping[str, Any]], StreamPlan],
    describe: Callable[[ReceivedStream, StreamPlan, Mapping[str, Any]], Mapping[str, Any]],
    find_problem: FindProblem,
    list_tables: Callable[[str], Mapping[str, ReceivedStream]] = lambda name: {},
) -> SourceReader:
    """Build the reader of what a connector has sent.

    Args:
        states: what the last load has left of each stream.
        state: of the connector, after this run.
        plan: plans a stream, from what was received and its state.
        describe: what is kept of a stream beside its bookmark.
        list_tables: the tables that the rows of a stream name, beside its own.
    """
    bookmarks, is_split = split_state(state)
    kind = context.config.type
    plans = {name: plan(each, states[name].get(kind, {})) for name, each in received.items()}
    new = dict[str, dict[str, Any]]()
    for name, each in received.items():
        before = states[name].get(kind, {})
        own: dict[str, Any] = {_OWN_NAME: each.own_name, KEY: list(plans[name].key), **describe(each, plans[name], before)}
        # Some connectors send only the bookmarks that have moved.
        if is_split and (bookmark := bookmarks.get(each.own_name, before.get(BOOKMARK))) is not None:
            own[BOOKMARK] = bookmark
        new[name] = own if is_split else {**own, WHOLE: state}
    groups = [(name,) for name in plans] if is_split else [tuple(plans)]
    read = partial(_read, kind, received, plans, new, find_problem, list_tables)
    return SourceReader(tuple(ReadGroup(tuple(plans[name] for name in names), read, is_atomic=not is_split) for names in groups))


def split_state(state: Any) -> tuple[dict[str, Any], bool]:
    """Split a connector's state by stream.

    Returns:
        The bookmark of each stream, by the connector's name; and whether the state is nothing but bookmarks. Else it belongs to the source as a whole.
    """
    if state in (None, {}):
        return {}, True
    if not isinstance(state, dict) or state.keys() - {"bookmarks", "currently_syncing"} or not isinstance(state.get("bookmarks", {}), dict):
        return {}, False
    return state.get("bookmarks", {}), True


def report_others(context: Context, messages: Messages) -> None:
    """Report the rows of streams that are not declared."""
    for stream, number in messages.others.items():
        context.report(
            f"{context.describe()}: {messages.connector} also sent {number:,} rows of its stream {stream}, which is not declared; they are not loaded"
        )


def _read(
    kind: str,
    received: Mapping[str, ReceivedStream],
    plans: Mapping[str, StreamPlan],
    new: Mapping[str, Any],
    find_problem: FindProblem,
    list_tables: Callable[[str], Mapping[str, ReceivedStream]],
    memories: Mapping[str, Any],
) -> Iterator[Item]:
    for name, memory in memories.items():
        if problem := find_problem(received[name], plans[name]):
            yield StreamFailed(name, problem)
            continue
        first = 1
        for rows, is_json in received[name].spill.read():
            yield Batch(name, rows, first_row=first, has_fixed_positions=False, is_json=is_json)
            first += len(rows)
        if first == 1 and (empty := received[name].build_empty_table()).num_columns:
            yield Batch(name, empty)
        for table, each in list_tables(name).items():
            first = 1
            for rows, is_json in each.spill.read():
                yield Batch(name, rows, first_row=first, has_fixed_positions=False, is_json=is_json, table=table)
                first += len(rows)
        memory.state[kind] = new[name]
