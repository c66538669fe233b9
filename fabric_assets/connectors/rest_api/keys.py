"""A root endpoint's streams -> the primary keys that the API holds, by which a load finds deletes.

A pass of its own reads all pages again, after the rows and without the cursor's parameter. A key that is missing then belongs to a row that the API no longer
has. If a row is deleted while pages are read, the rows behind it move up, and one of them may be in no page. So keys that come in several pages are read
twice, and a row counts as deleted only where both passes lack it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from fabric_assets.config.sources.rest import RestDeletesConfig, RestStream
from fabric_assets.config.sources.rest_paging import CursorPaginator
from fabric_assets.connectors.rest_api.endpoints import Api, EndpointPass, Memories, get_lineage
from fabric_assets.connectors.rest_api.rows import Page
from fabric_assets.errors import FabricError, InternalError
from fabric_assets.rows.batches import Batch, KeysRead, SourceKeys, StreamFailed


def read_keys(api: Api, root: str, memories: Memories, stack: ExitStack) -> Iterator[SourceKeys | KeysRead]:
    """Read the keys of the streams that follow deletes. A failure ends the read of the keys, not the load.

    Args:
        memories: of these streams; those below the root are read through all of its rows.
    """
    own = root in memories and bool(api.config.streams[root].deletes.list_own())
    for names in ((root,), tuple(name for name in memories if name != root)) if own else (tuple(memories),):
        if names:
            keyed = _leave_cursor_out(api, root, follows_own_address=own and names == (root,))
            yield from _read_twice(keyed, root, {name: memories[name] for name in names}, stack, identities={name: identify(api, name) for name in names})


def _read_twice(api: Api, root: str, memories: Memories, stack: ExitStack, *, identities: dict[str, str]) -> Iterator[SourceKeys | KeysRead]:
    passes = [KeyPass(api, root, memories, stack)]
    yield from passes[0].read_keys(1)
    if passes[0].has_moving_pages and len(passes[0].problems) < len(memories):
        passes.append(KeyPass(api, root, memories, stack))
        yield from passes[1].read_keys(2)
    for name, memory in memories.items():
        problem = next((each.problems[name] for each in passes if name in each.problems), "")
        if not problem:
            memory.source_rows = passes[-1].counts[name]
        told = f"the source's keys could not be read: {problem}" if problem else ""
        yield KeysRead(name, identity=identities[name], unknown=max(each.unknown[name] for each in passes), problem=told)


def identify(api: Api, name: str) -> str:
    """Identify what is read, and as whom: another login or address may give fewer rows."""
    streams = [api.config.streams[each] for each in get_lineage(api.config, name)]
    read = [stream.model_dump(mode="json", include={"path", "params", "data", "paginator"}) for stream in streams]
    read.append(streams[0].deletes.model_dump(mode="json", exclude={"mode", "every", "max"}))
    content = [api.base_url, api.login.identify(api.context.describe()), dict(api.config.headers), read, sorted(streams[0].primary_key or ())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class KeyPass(EndpointPass):
    """One pass over all pages for the keys alone.

    problems: why a stream's keys are not complete.
    counts, unknown: rows of each stream, and those among them that cannot be read.
    has_moving_pages: some rows may have moved between two pages.
    """

    def __init__(self, api: Api, root: str, memories: Memories, stack: ExitStack) -> None:
        self.problems: dict[str, str] = {}
        self.counts, self.unknown = Counter[str](), Counter[str]()
        self.has_moving_pages = False
        super().__init__(api, root, memories, stack)

    def read_keys(self, number: int) -> Iterator[SourceKeys]:
        """Yield the keys, page by page.

        Args:
            number: of this pass.
        """
        try:
            for item in self._read():
                if isinstance(item, StreamFailed):
                    self._note(item.stream, item.error)
                    continue
                self.counts[item.stream] += len(item.rows) + len(item.rejects)
                self.unknown[item.stream] += len(item.rejects)
                key = self._streams[item.stream].primary_key or ()
                yield SourceKeys(item.stream, [{field: row.get(field) for field in key} for row in item.rows], number)
        except FabricError as error:
            for name in self._memories:
                self._note(name, error)

    def _note(self, stream: str, error: FabricError) -> None:
        if isinstance(error, InternalError):
            raise error
        self.problems.setdefault(stream, error.message)

    def _read_page(self, name: str, page: Page, origin: str) -> Iterator[Batch | StreamFailed]:
        # A cursor that the API gives out belongs to a row, whatever comes and goes before it.
        if page.number > 1 and not isinstance(self._streams[name].paginator or self._api.config.paginator, CursorPaginator):
            self.has_moving_pages = True
        yield from super()._read_page(name, page, origin)

    def _warn(self, endpoint: str, message: str) -> None:
        """What is a warning about rows is a problem here: some of the keys may be missing."""
        for name in self._below[endpoint]:
            self.problems.setdefault(name, message)


def _leave_cursor_out(api: Api, root: str, *, follows_own_address: bool) -> Api:
    """Let the root be read from its beginning.

    Args:
        follows_own_address: from where its `deletes` says.
    """
    stream = api.config.streams[root]
    changed: dict[str, object] = {"cursor": None}
    if follows_own_address:
        changed |= _get_own_address(stream, stream.deletes)
    streams = {**api.config.streams, root: stream.model_copy(update=changed)}
    return replace(api, config=api.config.model_copy(update={"streams": streams}))


def _get_own_address(stream: RestStream, deletes: RestDeletesConfig) -> dict[str, object]:
    return {
        "path": deletes.path or stream.path,
        "params": {**stream.params, **deletes.params},
        "data": deletes.data or stream.data,
        "paginator": deletes.paginator or stream.paginator,
    }
