"""A rest_api source -> its readers: a root endpoint and the streams below it are read in one pass over its pages.

So a parent is read once, for itself and all its children. A parent that is not chosen is read but not loaded. This module uses dlt's REST client and
paginators, but not its `rest_api_resources`. That completes logins from dlt's own configuration, does not encode row values in paths, and fails as a whole.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from fabric_assets.config.sources.models import RestApiSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_api.auth import build_login, resolve_url
from fabric_assets.connectors.rest_api.endpoints import Api, EndpointPass, Memories, get_lineage
from fabric_assets.connectors.rest_api.keys import read_keys
from fabric_assets.connectors.rest_api.session import HttpPolicy
from fabric_assets.rows.batches import Item, ReadGroup, SourceReader, StreamPlan


def open_source(context: SourceContext[RestApiSource]) -> SourceReader:
    """Open the source for the context's chosen streams. Nothing is requested before a group is read.

    Raises:
        ConfigurationError: a secret is missing, or an address is not valid.
    """
    config = context.config
    ends = time.monotonic() + config.timeout.total_seconds()
    policy = HttpPolicy(ends, others=config.allowed_origins, allow_private_network=config.allow_private_network, report=context.report)
    # The request for a token contains the client's secret, so it may go only to its own address.
    login = build_login(config.auth, context, replace(policy, others=()).open_session)
    api = Api(context, config, base_url=resolve_url(config.base_url, context, "base_url"), login=login, policy=policy)
    roots: dict[str, list[str]] = {}
    for name in context.streams:
        roots.setdefault(get_lineage(config, name)[-1], []).append(name)
    groups = [ReadGroup(tuple(plan_stream(config, name) for name in loaded), partial(_read, api, root, loaded)) for root, loaded in roots.items()]
    return SourceReader(tuple(groups), connections=config.max_connections, close=login.close)


def plan_stream(config: RestApiSource, name: str) -> StreamPlan:
    """Plan how a stream's rows are written."""
    stream = config.streams[name]
    # If the pages have a key twice, its newest row wins; a nested field is not a column.
    newest = stream.cursor.field if stream.disposition == "merge" and stream.cursor and "." not in stream.cursor.field else None
    reads_all = all(config.streams[each].cursor is None for each in get_lineage(config, name))
    return StreamPlan.declared(name, stream, newest_by=newest, reads_all=reads_all, is_json=True)


def _read(api: Api, root: str, loaded: list[str], memories: Memories) -> Iterator[Item]:
    """Read the rows of a root endpoint and of the streams below it, then the keys of those that follow deletes."""
    with ExitStack() as stack:
        rows = EndpointPass(api, root, {name: memories[name] for name in loaded}, stack)
        yield from rows.read()
        following = {name: memories[name] for name in loaded if memories[name].needs_keys and name not in rows.failed}
        if following:
            yield from read_keys(api, root, following, stack)
