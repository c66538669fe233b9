"""A `files` source's config -> one group of batches per stream, of the new and changed files only.

A stream's state remembers the loaded files, and commits with the rows. Without a primary key a file's rows replace those of its
earlier version, so that loading a file twice changes nothing.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.sources.files import FilesSource, FileStream
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.files import types as file_types
from fabric_assets.connectors.files.database import Engine
from fabric_assets.connectors.files.listing import FetchedFile, SourceFile, list_files, make_empty_folder
from fabric_assets.connectors.files.news import find_news
from fabric_assets.connectors.files.piece import Piece, Reader, Reading
from fabric_assets.connectors.files.readers import build_reader
from fabric_assets.errors import DataError, SourceError, SourceUnavailable
from fabric_assets.rows import arrow_types
from fabric_assets.rows.batches import Batch, ReadGroup, SourceReader, StreamMemory, StreamPlan
from fabric_assets.rows.nested_types import declare, is_list
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.suggestions import build_missing_error

FILE, HASH, ROW, ORDER = "_fabric_file", "_fabric_file_sha256", "_fabric_row", "_fabric_order"
ROWS_BITS = 36
_ANY = frozenset(file_types.CANDIDATES)


def open_source(context: SourceContext[FilesSource]) -> SourceReader:
    """Return a group per stream. Nothing is listed or read before the group is read."""
    config = context.config
    # Files of a killed load are removed. A folder of its own keeps this load apart from a thread that an earlier load has abandoned.
    folder = Path(tempfile.mkdtemp(dir=make_empty_folder(naming.files_dir(context.settings.data_dir, context.tenant, context.name))))
    groups = tuple(ReadGroup((plan_stream(config, name),), partial(_read, context, name, folder)) for name in context.streams)
    return SourceReader(groups, connections=config.max_connections, close=partial(shutil.rmtree, folder, ignore_errors=True))


def plan_stream(config: FilesSource, name: str) -> StreamPlan:
    """Plan how a stream's rows are written."""
    stream = config.streams[name]
    merges, appends = stream.disposition == "merge", stream.disposition == "append"
    return StreamPlan.declared(
        name,
        stream,
        newest_by=ORDER if merges else None,
        replaced_by=FILE if appends else None,
        declares_columns=stream.format in ("csv", "parquet"),
    )


def _read(context: SourceContext[FilesSource], name: str, folder: Path, memories: Mapping[str, StreamMemory]) -> Iterator[Batch]:
    memory, where = memories[name], context.describe(name)
    if memory.value_forms < CURRENT and context.config.streams[name].format == "csv":
        for field in context.config.streams[name].primary_key or ():
            if memory.get_type(field) not in (None, arrow_types.TEXT):
                memory.note_older_form(field, "code")
    stream, end = context.config.streams[name], time.monotonic() + context.config.timeout.total_seconds()
    appends = stream.disposition == "append"
    remembered = {} if stream.disposition == "replace" else memory.state.get("files", {})
    found, any_file = list_files(context, stream, where=where)
    _check_found(context, stream, found, any_file, memory, where)
    own = make_empty_folder(folder / name)
    limits, check = context.config.limits, partial(_check_time, end, where)
    news = find_news(found, remembered, own, replaces=appends, most=limits.bytes, where=where, report=context.report, check=check)
    if found and not news.files:
        context.report(f"{where}: no new or changed file")
    sequence = memory.state.get("sequence", 0)
    with closing(Engine(own)) as engine:
        reading = Reading(stream, limits, where, memory.value_forms, lambda column: memory.get_type(column) is not None, context.report, engine)
        readers = [(file, build_reader(file, reading)) for file in news.files]
        types = _decide_types(readers, memory, stream, where)
        if types or (memory.get_type(FILE) is None and not stream.primary_key):  # else the columns are not known
            yield Batch(name, _add_origin(pa.schema(list(types.items())).empty_table(), None, 1, stream, 0))
        for number, (file, reader) in enumerate(readers, start=1):
            rows = 0
            with file.hold(where):
                for piece in reader.read(types):
                    batch = _build_batch(name, piece, file, types, stream, sequence + number)
                    rows += len(batch.rows)
                    yield batch
                    _check_time(end, where)
            file.refuse_change(where)
            if file.source.name in remembered or not rows:
                memory.replace_rows_of(file.source.name)
    for twin in news.forgotten:
        memory.replace_rows_of(twin)
    shutil.rmtree(own, ignore_errors=True)
    memory.state["files"], memory.state["sequence"] = {**remembered, **news.seen}, sequence + len(readers)


def _check_time(end: float, where: str) -> None:
    if time.monotonic() > end:
        raise SourceUnavailable(f"{where}: the load took longer than the source's timeout", remedy="raise the source's timeout")


def _check_found(
    context: SourceContext[FilesSource], stream: FileStream, found: Sequence[SourceFile], any_file: bool, memory: StreamMemory, where: str
) -> None:
    if found:
        return
    path = context.config.path
    if "://" not in path:  # the full path: it is relative to FABRIC_DATA_DIR, but people expect the project's folder
        path = str((context.settings.data_dir / path).absolute())
    if stream.disposition == "replace" and memory.get_highest(ROW) is not None:
        raise SourceError(
            f"{where}: no file matches {stream.glob} in {path} any more, and replace would empty the table",
            remedy="put the files back, or load with --full-refresh",
        )
    if any_file and not memory.state.get("files"):
        raise SourceError(f"{where}: {path} holds files, but none matches {stream.glob}", remedy="correct the stream's glob; ** matches folders of any depth")
    context.report(f"{where}: no file matches {stream.glob} in {path}, so nothing is loaded")


def _decide_types(readers: Sequence[tuple[FetchedFile, Reader]], memory: StreamMemory, stream: FileStream, where: str) -> dict[str, pa.DataType]:
    """Decide each column's type: the warehouse's, else one that fits all files of the run."""
    fits: dict[str, frozenset[pa.DataType]] = {}
    for file, reader in readers:
        with file.hold(where):
            found = reader.inspect()
        for column, kinds in found.items():
            if column in (FILE, HASH, ROW, ORDER):
                raise DataError(f"{where}: the file {file.source.shown} has a column {column}, a name that the platform uses", remedy="rename the column")
            fits[column] = _meet(fits.get(column, _ANY), kinds)
        for key in stream.primary_key or ():
            if found and key not in found:
                raise build_missing_error(
                    f"{where}: the file {file.source.shown}", kind="primary_key column", name=key, known=found, remedy="correct the stream's primary_key"
                )
    chosen = {column: memory.get_type(column) or _choose(kinds, value_forms=memory.value_forms) for column, kinds in fits.items()}
    return {column: declare(kind) for column, kind in chosen.items()}


def _meet(kinds: frozenset[pa.DataType], others: frozenset[pa.DataType]) -> frozenset[pa.DataType]:
    """The types that fit two files. A column without values fits any type, also a list."""
    if _ANY in (kinds, others):
        return others if kinds == _ANY else kinds
    return kinds & others


def _choose(kinds: frozenset[pa.DataType], *, value_forms: int) -> pa.DataType:
    single = next(iter(kinds)) if len(kinds) == 1 else None
    if single is not None and value_forms < 2 and (single == arrow_types.JSON or is_list(single)):
        return arrow_types.TEXT
    return single if single is not None else file_types.choose(kinds)


def _build_batch(name: str, piece: Piece, file: FetchedFile, types: Mapping[str, pa.DataType], stream: FileStream, sequence: int) -> Batch:
    if piece.rows is None:
        return Batch(name, [], file.source.name, rejects=piece.rejects)
    rows = piece.rows
    known = frozenset(rows.column_names)  # Arrow lists them anew each time that it is asked
    for column, kind in types.items():
        if column not in known:  # another file of the run has it
            rows = rows.append_column(column, pa.nulls(rows.num_rows, kind))
    return Batch(name, _add_origin(rows, file, piece.first, stream, sequence), file.source.name, piece.first)


def _add_origin(table: pa.Table, file: FetchedFile | None, first: int, stream: FileStream, sequence: int) -> pa.Table:
    count, name, sha256 = table.num_rows, file.source.name if file else "", file.sha256 if file else ""
    added: dict[str, Any] = {FILE: pa.repeat(pa.scalar(name), count), HASH: pa.repeat(pa.scalar(sha256), count)}
    added[ROW] = pa.array(range(first, first + count), type=arrow_types.BIGINT)
    if stream.disposition == "merge":
        start = (sequence << ROWS_BITS) + first
        added[ORDER] = pa.array(range(start, start + count), type=arrow_types.BIGINT)
    for column, values in added.items():
        table = table.append_column(column, values)
    return table
