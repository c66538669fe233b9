"""An Airbyte connector -> readers of its streams, each with the state that covers its rows.

The connector runs once for all chosen streams: discover, then read. A stream that it has completed, with a state of its own, is a commit unit. A global state
makes one unit of all streams. Rows that the connector's own count denies are not loaded.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import yaml

from fabric_assets.config.sources.connectors import AirbyteSource
from fabric_assets.connectors.bridge.airbyte.catalog import configure
from fabric_assets.connectors.bridge.airbyte.messages import ConnectorMessages
from fabric_assets.connectors.bridge.commit_units import DISPOSITION, KEY, States, build_reader, join_states, report_others
from fabric_assets.connectors.bridge.messages import ReceivedStream
from fabric_assets.connectors.bridge.session import Session, open_session
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import ConfigurationError, FabricError, SourceError
from fabric_assets.rows.batches import SourceReader, StreamPlan

# By this setting the program of airbyte-cdk gets a manifest.
_MANIFEST = "__injected_declarative_manifest"


def plan_stream(config: AirbyteSource, name: str, state: Mapping[str, Any]) -> StreamPlan:
    """Plan a stream by its YAML, and by what the connector said of it when it was read last."""
    declared, said = config.streams[name], state.get(config.type, {})
    disposition = declared.write_disposition or said.get(DISPOSITION) or declared.disposition
    key = declared.primary_key or tuple(said.get(KEY, ()))
    return StreamPlan.declared(name, declared, disposition=disposition, key=key, deduplicates=disposition == "replace" and bool(key), is_json=True)


def stage_source(context: SourceContext[AirbyteSource], states: States) -> Generator[SourceReader, None, None]:
    """Run the connector, and yield a reader of its streams once it has ended.

    Raises:
        FabricError: the connector failed as a whole, or what it sent is not valid.
    """
    where = context.describe()
    with open_session(context) as session:
        settings = json.dumps(_build_settings(session)).encode()
        state = join_states(context, states)
        catalog, selected = configure(_discover(session, settings), context.config, context.streams, where=where)
        messages = ConnectorMessages(selected, session.open_spill_file(), where=where, connector=session.name)
        with closing(messages):
            _run(session, messages, settings, catalog, state)
            report_others(context, messages)
            if messages.has_new_settings:
                context.report(
                    f"{where}: warning: {session.name} has changed its own settings, perhaps a token that is valid once; they are not kept."
                    " If the next run fails to log in, give it a new token, and one that stays valid"
                )
            yield build_reader(
                context,
                messages.streams,
                states,
                state if messages.state is None else messages.state,
                plan=partial(_plan, context, messages),
                describe=lambda received, plan, before: {DISPOSITION: selected[received.own_name].disposition},
                find_problem=partial(_find_problem, context, messages),
            )


def _build_settings(session: Session) -> dict[str, Any]:
    manifest = session.environment.manifest
    return session.settings if manifest is None else {**session.settings, _MANIFEST: yaml.safe_load(manifest.read_text())}


def _discover(session: Session, settings: bytes) -> bytes:
    try:
        return session.ask("discover", "--config", settings)
    except FabricError as error:
        raise type(error)(f"{error.message}\nThe connector was asked which streams it has.", remedy=error.remedy) from None


def _run(session: Session, messages: ConnectorMessages, settings: bytes, catalog: bytes, state: Any) -> None:
    known: list[str | bytes] = ["--state", json.dumps(_to_airbyte(state, messages)).encode()] if state else []
    with session.run("read", "--config", settings, "--catalog", catalog, *known) as connector:
        for block in connector.read_blocks():
            messages.read(block)
        try:
            messages.read(connector.finish())
        except FabricError as error:
            messages.finish()
            messages.refusal_remedy = error.remedy if error.remedy and "allow_private_network" in error.remedy else ""
            # It ends with an error, too, if it has completed some streams and failed in others.
            if "COMPLETE" not in messages.statuses.values():
                told = messages.errors.get("") or next(iter(messages.errors.values()), None)
                raise messages.build_failure(messages.where, told) if told else error from None
            messages.errors.setdefault("", ("system_error", error.message))
    messages.finish()


def _to_airbyte(state: Mapping[str, Any], messages: ConnectorMessages) -> Any:
    """Write a state as the messages that the connector reads."""
    if "global" in state:
        return [{"type": "GLOBAL", "global": state["global"]}]
    if "legacy" in state:
        return state["legacy"]
    known = {key: value for key, value in state["bookmarks"].items() if key in messages.selected}
    return [{"type": "STREAM", "stream": {"stream_descriptor": messages.selected[key].descriptor, "stream_state": value}} for key, value in known.items()]


def _plan(context: SourceContext[AirbyteSource], messages: ConnectorMessages, received: ReceivedStream, before: Mapping[str, Any]) -> StreamPlan:
    """Plan how a stream's rows are written: as the YAML says, else as the connector reads them."""
    declared, selected = context.config.streams[received.name], messages.selected[received.own_name]
    disposition = declared.write_disposition or selected.disposition
    known = {"key": selected.key, "is_json": True, "types": received.types, "reads_all": not selected.is_incremental}
    return StreamPlan.declared(received.name, declared, disposition=disposition, deduplicates=disposition == "replace" and bool(selected.key), **known)


def _find_problem(context: SourceContext[AirbyteSource], messages: ConnectorMessages, received: ReceivedStream, plan: StreamPlan) -> FabricError | None:
    where = context.describe(plan.name)
    if problem := messages.find_problem(received.own_name, where):
        return problem
    if plan.disposition == "merge" and not plan.key:
        return SourceError(
            f"{where}: the connector reads the stream incrementally and names no key: a row that changes would be loaded twice",
            remedy="declare a primary_key; or write_disposition: append where rows never change; or replication: full_table",
        )
    if plan.disposition == "append" and plan.reads_all:
        return ConfigurationError(
            f"{where}: append would load all rows again in each run, as the connector reads the stream as a whole",
            remedy="use write_disposition: replace, or declare a primary_key (merge)",
        )
    return None
