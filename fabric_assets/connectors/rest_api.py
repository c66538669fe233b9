"""A rest_api source -> a dlt source: one resource of pages per endpoint, and one per loaded stream that takes rows from it.

Two, so that a parent is read once for itself and its children, and a parent that nobody chose is read but not loaded. Built on
dlt's REST client and paginators, not on its `rest_api_resources`: that one completes logins from dlt's own configuration, puts
row values into paths as they are, and has no place for a stream's own errors.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import dlt
from dlt.extract import DltResource, DltSource

from fabric_assets.config.rest import RestCursor, RestStream
from fabric_assets.config.sources import RestApiSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_auth import Login, build_login, resolve_url
from fabric_assets.connectors.rest_cursor import Border, RestCursorReader
from fabric_assets.connectors.rest_numbers import NumberWatch
from fabric_assets.connectors.rest_pages import PageReader
from fabric_assets.connectors.rest_rows import Row, check_keys, get_parent_value, quote_value
from fabric_assets.connectors.rest_session import build_session

Pages = Iterator[list[Row]]


def build_source(context: SourceContext) -> DltSource:
    """Build the source of the context's chosen streams.

    Raises:
        ConfigurationError: a secret that is not there, or a JSONPath that is none.
    """
    config = context.config
    if not isinstance(config, RestApiSource):
        raise TypeError(f"{context.describe()} is no rest_api source")
    api = _Api(context, config)

    @dlt.source(name=context.name)
    def build_resources() -> list[DltResource]:
        return api.build_resources()

    return build_resources().with_resources(*context.streams)


class _Api:
    """What the resources of one load share: the address, the login, and who is whose parent."""

    def __init__(self, context: SourceContext, config: RestApiSource) -> None:
        self._context, self._config = context, config
        self._ends = time.monotonic() + config.timeout.total_seconds()
        self._base_url = resolve_url(config.base_url, context, "base_url")
        self._login: Login = build_login(config.auth, context)
        self._pages: dict[str, DltResource] = {}

    def build_resources(self) -> list[DltResource]:
        loaded = [self._build_stream(name) for name in self._context.streams]
        return [*self._pages.values(), *loaded]

    def _build_stream(self, name: str) -> DltResource:
        stream = self._config.streams[name]
        keys, place = stream.primary_key or (), self._context.describe(name)
        numbers = NumberWatch(place, name, fresh=self._context.full_refresh)
        border: list[Border] = []

        def keep(page: list[Row]) -> Any:
            check_keys(page, keys, place)
            if stream.cursor and stream.disposition == "append":
                # The state is there only now, inside of the extraction.
                if not border:
                    border.append(Border(place, stream.cursor, state=self._get_state(name), keys=keys, forget=self._context.full_refresh))
                page = border[0].keep_new(page)
            doubles = numbers.find_new_doubles(page)
            return dlt.mark.with_hints(page, dlt.mark.make_hints(columns=doubles)) if doubles else page

        hints: dict[str, Any] = {"primary_key": list(keys)} if keys else {}
        if stream.cursor and keys and "." not in stream.cursor.field:
            # Should the pages hold a key twice, its newest row wins.
            hints["columns"] = {stream.cursor.field: {"dedup_sort": "desc"}}
        return dlt.transformer(
            keep,
            data_from=self._get_pages(name),
            name=name,
            write_disposition=stream.disposition,
            **hints,
        )

    def _get_pages(self, name: str) -> DltResource:
        """The pages of a stream's endpoint; one resource, however many take from it."""
        if name not in self._pages:
            stream = self._config.streams[name]
            parent = stream.get_parent()
            hidden = f"_{name}"  # no stream's name begins with an underscore
            if parent is None:
                self._pages[name] = dlt.resource(self._build_root_reader(name, stream), name=hidden, selected=False)
            else:
                read = self._build_child_reader(name, stream, *parent)
                self._pages[name] = dlt.transformer(read, data_from=self._get_pages(parent[0]), name=hidden, selected=False)
        return self._pages[name]

    def _build_root_reader(self, name: str, stream: RestStream) -> Callable[[], Pages]:
        def read() -> Pages:
            with ExitStack() as stack:
                reader = self._open(name, stream, stack)
                params = get_params(stream.params)
                if stream.cursor is None:
                    yield from reader.read(stream.path, params)
                else:
                    yield from self._read_new(name, stream.cursor, reader, stream.path, params)

        return read

    def _read_new(self, name: str, cursor: RestCursor, reader: PageReader, path: str, params: dict[str, str | int]) -> Pages:
        """Read from where the loaded ones of a stream and its descendants came to, and let each remember how far that was."""
        positions = RestCursorReader(self._context.describe(name), cursor)
        states = [self._get_state(loaded) for loaded in self._context.streams if name in self._get_lineage(loaded)]
        start = positions.get_start(None if self._context.full_refresh else state.get("position") for state in states)
        if start is not None:
            params[cursor.param] = start  # type: ignore[assignment]
        highest = None
        for page in reader.read(path, params):
            highest = positions.get_highest(page, position=highest, start=start)
            yield page
        for state in states:
            position = None if self._context.full_refresh else state.get("position")
            if highest is not None and (position is None or positions.sort(highest) > positions.sort(position)):
                state["position"] = highest

    def _build_child_reader(self, name: str, stream: RestStream, parent: str, field: str) -> Callable[[list[Row]], Pages]:
        place, params = self._context.describe(name), get_params(stream.params)

        def read(page: list[Row]) -> Pages:
            with ExitStack() as stack:
                reader = self._open(name, stream, stack)
                for row in page:
                    path = stream.path.replace(f"{{{parent}.{field}}}", quote_value(row, field, place, parent))
                    kept = {f"_{parent}_{kept}": get_parent_value(row, kept, place, parent) for kept in stream.include_from_parent}
                    for rows in reader.read(path, params):
                        yield [{**child, **kept} for child in rows] if kept else rows

        return read

    def _open(self, name: str, stream: RestStream, stack: ExitStack) -> PageReader:
        place = self._context.describe(name)
        session = build_session(place, url=self._base_url, auth=self._login.auth, secrets=self._login.secrets, headers=self._config.headers)
        stack.callback(session.close)
        stack.callback(self._login.close)
        paginator = stream.paginator or self._config.paginator
        return PageReader(place, base_url=self._base_url, session=session, stream=stream, paginator=paginator, ends=self._ends)

    def _get_lineage(self, name: str) -> list[str]:
        """The stream and its ancestors, nearest first."""
        lineage = [name]
        while parent := self._config.streams[lineage[-1]].get_parent():
            lineage.append(parent[0])
        return lineage

    def _get_state(self, name: str) -> dict[str, Any]:
        return dlt.current.resource_state(name)


def get_params(params: Mapping[str, str | int | bool]) -> dict[str, str | int]:
    """Query parameters as APIs expect them: true, not True."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
