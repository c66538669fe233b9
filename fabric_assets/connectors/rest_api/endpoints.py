"""One pass over a root endpoint's pages and, depth first, over the streams below its rows."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from fabric_assets.config.sources.models import RestApiSource
from fabric_assets.config.sources.rest import RestStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_api.answers import AnswerFormat
from fabric_assets.connectors.rest_api.cursor import CursorBoundary, Position, RestCursorReader
from fabric_assets.connectors.rest_api.pages import PageReader
from fabric_assets.connectors.rest_api.rows import KeyCheck, Page, ParentRows, fill_placeholders, get_parent_value
from fabric_assets.connectors.rest_api.session import HttpPolicy, Login
from fabric_assets.errors import DataError, FabricError
from fabric_assets.rows.batches import Batch, Row, StreamFailed, StreamMemory
from fabric_assets.rows.value_forms import CURRENT, WHOLE_STREAM

Memories = Mapping[str, StreamMemory]


def get_lineage(config: RestApiSource, name: str) -> list[str]:
    """The stream and its ancestors, nearest first."""
    lineage = [name]
    while parent := config.streams[lineage[-1]].get_parent():
        lineage.append(parent)
    return lineage


@dataclass(frozen=True)
class Api:
    """The settings and sessions that the groups of one load share."""

    context: SourceContext[RestApiSource]
    config: RestApiSource
    base_url: str
    login: Login
    policy: HttpPolicy
    reported: set[str] = field(default_factory=set)

    def open_pages(self, name: str, stack: ExitStack, *, loaded: list[str], is_entity: bool, warn: Callable[[str], None]) -> PageReader:
        """Open the reader of an endpoint.

        Args:
            loaded: the streams that get rows from the endpoint.
            is_entity: an object in the answer is the row itself.
            warn: is called with warnings for the run's summary.
        """
        stream, where = self.config.streams[name], self.context.describe(name)
        written = AnswerFormat(lines=stream.format == "jsonl", encoding=stream.encoding)
        session = self.policy.open_session(where, self.base_url, self.login, self.config.headers, written=written)
        stack.callback(session.close)
        paginator = stream.paginator or self.config.paginator
        is_merged = all(self.config.streams[other].disposition == "merge" for other in loaded)
        return PageReader(
            where,
            base_url=self.base_url,
            session=session,
            stream=stream,
            paginator=paginator,
            is_merged=is_merged,
            is_entity=is_entity,
            report_list=partial(self._report_list, name, is_old=stream.asks_for_one() and not is_entity),
            warn=warn,
            ends=self.policy.ends,
        )

    def _report_list(self, name: str, selector: str, *, is_old: bool) -> None:
        """Report once that a table of an earlier version keeps reading a list from an object that would be the row today."""
        if is_old and name not in self.reported:
            self.reported.add(name)
            self.context.report(
                f"{self.context.describe(name)}: its rows are the list `{selector}` in each answer, because an earlier version made its table."
                f" To load the objects themselves, load {name} with --full-refresh; to keep the list, declare `data: {selector}`"
            )


class EndpointPass:
    """One pass over a root endpoint. A stream that fails is left out from then on; the others continue.

    Args:
        memories: of the loaded streams, which may not include the root itself.
    """

    def __init__(self, api: Api, root: str, memories: Memories, stack: ExitStack) -> None:
        self._api, self._root, self._memories = api, root, memories
        self._streams = api.config.streams
        # Each endpoint on the path to a loaded stream -> the loaded streams that get rows from it; parents first.
        self._below: dict[str, list[str]] = {}
        for name in memories:
            for endpoint in get_lineage(api.config, name):
                self._below.setdefault(endpoint, []).append(name)
        endpoints = sorted(self._below, key=lambda name: len(get_lineage(api.config, name)))
        self._readers = {
            name: api.open_pages(name, stack, loaded=self._below[name], is_entity=self._is_entity(name), warn=partial(self._warn, name)) for name in endpoints
        }
        self._filters = {name: RowFilter(api.context.describe(name), self._streams[name], memory) for name, memory in memories.items()}
        self._parents = {
            name: ParentRows(api.context.describe(name), parent, self._streams[name]) for name in endpoints if (parent := self._streams[name].get_parent())
        }
        # Streams that are not read any further.
        self.failed: set[str] = set()

    def read(self) -> Iterator[Batch | StreamFailed]:
        """Read the root endpoint and its children. If the root cannot be read, its children fail first, each with an error of its own."""
        try:
            yield from self._read()
            for name, rows in self._parents.items():
                if said := rows.describe_skipped():
                    self._warn(name, said)
        except FabricError as error:
            yield from self._fail_below(self._root, error)
            raise

    def _read(self) -> Iterator[Batch | StreamFailed]:
        declared = self._streams[self._root].cursor
        if declared is None:
            yield from self._read_root(None, None)
            return
        cursor = RestCursorReader(self._api.context.describe(self._root), declared)
        start = cursor.get_start(cursor.get_position(memory) for memory in self._memories.values())
        highest = yield from self._read_root(cursor, start)
        if self._is_done(self._root):
            return
        gone_back = [name for name, memory in self._memories.items() if cursor.has_gone_back(memory, highest)]
        if gone_back:
            yield from self._begin_again(gone_back, declared.field, highest)
            if self._is_done(self._root):
                return
            start = declared.initial
            highest = yield from self._read_root(cursor, start)
        if self._root in self._filters and (older := self._filters[self._root].older):
            self._api.context.report(
                f"{self._api.context.describe(self._root)}: rows left out because they come before the last load's highest {declared.field!r}: {older}."
                " An append assumes that they are loaded; if rows arrive late, use merge with a lag"
            )
        for name, memory in self._memories.items():
            cursor.move(memory, start=start, highest=highest)
            if ahead := cursor.describe_if_ahead(memory):
                self._api.context.report(f"{self._api.context.describe(name)}: the cursor field {declared.field!r} has come to {ahead}")

    def _read_root(self, cursor: RestCursorReader | None, start: Position | None) -> Generator[Batch | StreamFailed, None, Position | None]:
        """Read all pages from a position on; return their highest cursor value."""
        stream, highest = self._streams[self._root], None
        query = stream.get_query()
        if stream.cursor and start is not None:
            query[stream.cursor.param] = start  # type: ignore[assignment]
        for page in self._readers[self._root].read(stream.path, query):
            if cursor and page.rows:
                highest = cursor.get_highest(page.rows, position=highest, start=start)
            yield from self._read_page(self._root, page, f"page {page.number}")
            if self._is_done(self._root):
                break
        return highest

    def _begin_again(self, names: list[str], field: str, highest: Position | None) -> Iterator[StreamFailed]:
        """Report that an API's data were set back. Merged streams are read again; an append fails, because it cannot tell which rows are new."""
        what = f"{self._api.context.describe(self._root)}: the cursor field {field!r} went back to {highest}: the API's data look restored"
        appended = [name for name in names if self._streams[name].disposition == "append"]
        yield from self._fail(
            appended,
            DataError(f"{what}, and an append cannot tell which rows it has loaded", remedy="look at the API, then load the stream with --full-refresh"),
        )
        if len(appended) < len(names):
            self._api.context.report(f"{what}; all of its rows are read again")

    def _read_page(self, name: str, page: Page, origin: str) -> Iterator[Batch | StreamFailed]:
        """Yield a page's own rows, then those of the streams below them."""
        if name in self._filters and name not in self.failed:
            try:
                kept = self._filters[name].keep(page.rows) if page.rows else []
            except FabricError as error:
                yield from self._fail([name], error)
            else:
                if kept or page.strays:
                    # Rows of an earlier load were dropped from the page, so the numbers of the others are not known.
                    is_whole = len(kept) == len(page.rows) and not page.strays
                    yield Batch(name, kept, origin=origin, first_row=1 if is_whole else None, rejects=page.reject_strays(origin), has_fixed_positions=False)
        for child in self._readers:
            if self._streams[child].get_parent() == name and not self._is_done(child):
                try:
                    for row in self._parents[child].select(page.rows):
                        yield from self._read_child(child, row, name)
                except FabricError as error:
                    yield from self._fail([child], error)
                    yield from self._fail_below(child, error)

    def _read_child(self, name: str, row: Row, parent: str) -> Iterator[Batch | StreamFailed]:
        stream, where = self._streams[name], self._api.context.describe(name)
        path, query = fill_placeholders(stream, row, where)
        inherited = {f"_{parent}_{kept}": get_parent_value(row, kept) for kept in stream.include_from_parent}
        first = stream.get_parent_fields()[0]
        for page in self._readers[name].read(path, query):
            origin = f"{parent}.{first} {get_parent_value(row, first)}, page {page.number}"
            whole = replace(page, rows=[{**child, **inherited} for child in page.rows]) if inherited else page
            yield from self._read_page(name, whole, origin)
            if self._is_done(name):
                return

    def _is_entity(self, name: str) -> bool:
        """Whether an object in the answer is the row itself. Tables of earlier versions hold the rows of the first list in it, and keep doing so."""
        stream = self._streams[name]
        if stream.data is not None or not stream.asks_for_one():
            return False
        older = [loaded for loaded in self._below[name] if self._memories[loaded].value_forms < CURRENT]
        for loaded in older:
            self._memories[loaded].note_older_form(WHOLE_STREAM, "rows")
        return not older

    def _warn(self, endpoint: str, message: str) -> None:
        """Add a warning about an endpoint, once, to all streams that are loaded from it or from below it."""
        for name in self._below[endpoint]:
            said = message if name == endpoint else f"{endpoint}: {message}"
            if said not in self._memories[name].warnings:
                self._memories[name].warnings.append(said)

    def _is_done(self, endpoint: str) -> bool:
        return self.failed.issuperset(self._below[endpoint])

    def _fail_below(self, endpoint: str, error: FabricError) -> Iterator[StreamFailed]:
        """Fail the streams below an endpoint. The endpoint's own stream, if it is loaded, reports the whole error."""
        for name in self._below[endpoint]:
            if name != endpoint:
                what = f"{self._api.context.describe(name)}: not loaded, because its parent {endpoint} failed"
                is_said = endpoint in self._memories
                yield from self._fail([name], type(error)(what if is_said else f"{what}: {error.message}", remedy="" if is_said else error.remedy))

    def _fail(self, names: list[str], error: FabricError) -> Iterator[StreamFailed]:
        for name in names:
            if name not in self.failed:
                self.failed.add(name)
                yield StreamFailed(name, error)


class RowFilter:
    """A filter of one stream's rows: checks the key, and drops the rows that an earlier load brought."""

    def __init__(self, where: str, stream: RestStream, memory: StreamMemory) -> None:
        keys = stream.primary_key or ()
        self._keys = KeyCheck(where, keys)
        self._boundary = CursorBoundary(where, stream.cursor, memory=memory, keys=keys) if stream.cursor and stream.disposition == "append" else None
        if self._boundary is None:
            # The boundary of an earlier append would be out of date if the stream became one again.
            memory.state.pop("border", None)

    @property
    def older(self) -> int:
        """The number of rows that an append left out as older than its last load."""
        return self._boundary.older if self._boundary else 0

    def keep(self, rows: list[Row]) -> list[Row]:
        """Drop the rows that an earlier load brought.

        Raises:
            SourceError: no row has the key.
            DataError: whether a row is new is not known.
        """
        self._keys.check(rows)
        return self._boundary.keep_new(rows) if self._boundary else rows
