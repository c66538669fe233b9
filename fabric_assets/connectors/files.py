"""A `files` source's config -> a dlt source with one Arrow resource per stream, of the new and changed files only.

What was loaded is remembered per stream, in a state that commits with the rows. Without a primary key a file's
rows replace those of its earlier version, so that loading a file twice, for whatever reason, changes nothing.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
from dlt.extract import DltResource, DltSource

from fabric_assets import naming
from fabric_assets.config.sources import FilesSource, FileStream
from fabric_assets.connectors import arrow_types, file_types
from fabric_assets.connectors.arrow_hints import mark_naive
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.file_listing import FetchedFile, SourceFile, fetch, list_files, make_empty_folder
from fabric_assets.connectors.file_readers import Reader, build_reader
from fabric_assets.connectors.stream_state import get_stream_state
from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.errors import DataError, SourceError, SourceUnavailable

FILE, HASH, ROW, ORDER = "_fabric_file", "_fabric_file_sha256", "_fabric_row", "_fabric_order"
_ROWS_BITS = 36


def build_source(context: SourceContext) -> DltSource:
    """Build the dlt source of the context's streams; nothing is listed or read before the extraction."""
    config = context.config
    assert isinstance(config, FilesSource)
    resources = [_build_resource(context, name, config.streams[name]) for name in context.streams]

    @dlt.source(name=context.name, max_table_nesting=0)
    def source() -> list[DltResource]:
        return resources

    return source()


def _build_resource(context: SourceContext, name: str, stream: FileStream) -> DltResource:
    def rows() -> Iterator[Any]:
        yield from (mark_naive(table) for table in _read_stream(context, name, stream, get_stream_state(context, name)))

    columns: dict[str, Any] = {key: {"name": key, "nullable": False} for key in stream.primary_key or ()}
    options: dict[str, Any] = {"write_disposition": stream.disposition, "primary_key": list(stream.primary_key or ()) or None}
    if stream.disposition == "merge":
        columns[ORDER] = {"name": ORDER, "dedup_sort": "desc"}
    elif stream.disposition == "append":
        options = {"write_disposition": {"disposition": "merge", "strategy": "delete-insert"}, "merge_key": FILE}
    return dlt.resource(rows, name=name, table_name=name, columns=columns, **options)


def _read_stream(context: SourceContext, name: str, stream: FileStream, state: dict[str, Any]) -> Iterator[pa.Table]:
    place = context.describe(name)
    end = time.monotonic() + context.config.timeout.total_seconds()
    known: dict[str, Any] = {} if stream.disposition == "replace" else dict(state.get("files", {}))
    found, any_file = list_files(context, stream, place=place)
    _check_found(context, stream, found, any_file, state, place)
    folder = make_empty_folder(naming.pipelines_dir(context.settings.data_dir, context.tenant, context.name) / "files" / name)
    try:
        fetched = _fetch_new(context, found, known, folder, place)
        readers = [(file, build_reader(file, stream.format, place=place)) for file in fetched]
        types = _decide_types(readers, state, stream, place)
        sequence = state.get("sequence", 0)
        yield _build_empty(types, stream)
        for number, (file, reader) in enumerate(readers, start=1):
            yield from _read_file(file, reader, types, stream, sequence + number, place)
            known[file.source.name] = {"version": file.source.version, "sha256": file.sha256}
            if time.monotonic() > end:
                raise SourceUnavailable(f"{place}: the load took longer than the source's timeout", remedy="raise the source's timeout")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    state["types"] = {column: str(kind) for column, kind in types.items()}
    state["files"], state["sequence"] = known, sequence + len(readers)


def _check_found(context: SourceContext, stream: FileStream, found: Sequence[SourceFile], any_file: bool, state: dict[str, Any], place: str) -> None:
    if found:
        return
    path = context.config.path if isinstance(context.config, FilesSource) else ""
    if stream.disposition == "replace" and state.get("files"):
        raise SourceError(
            f"{place}: no file matches {stream.glob} in {path} any more, and replace would empty the table",
            remedy="put the files back, or load with --full-refresh",
        )
    if any_file and not state.get("files"):
        raise SourceError(f"{place}: {path} holds files, but none matches {stream.glob}", remedy="correct the stream's glob; ** matches folders of any depth")
    context.report(f"{place}: no file matches {stream.glob} in {path}, so nothing is loaded")


def _fetch_new(context: SourceContext, found: Sequence[SourceFile], known: dict[str, Any], folder: Path, place: str) -> list[FetchedFile]:
    """Fetch what is new or changed, oldest name first; the same bytes under another name only once."""
    fetched, hashes = [], {entry["sha256"]: name for name, entry in known.items()}
    for number, file in enumerate(found):
        if known.get(file.name, {}).get("version") == file.version:
            continue
        candidate = fetch(file, folder, number, place=place)
        twin = hashes.get(candidate.sha256)
        if twin is not None:
            if twin != file.name:
                context.report(f"{place}: {file.name} holds the same bytes as {twin}, which is loaded already, and is skipped")
            known[file.name] = {"version": file.version, "sha256": candidate.sha256}
            continue
        hashes[candidate.sha256] = file.name
        fetched.append(candidate)
    if not fetched and found:
        context.report(f"{place}: no new or changed file")
    return fetched


def _decide_types(readers: Sequence[tuple[FetchedFile, Reader]], state: dict[str, Any], stream: FileStream, place: str) -> dict[str, pa.DataType]:
    """One type per column for all files of the run, and the one that it has since its first load."""
    kept = {column: arrow_types.get_type(kind) for column, kind in state.get("types", {}).items()}
    fits: dict[str, frozenset[pa.DataType]] = {}
    for file, reader in readers:
        found = reader.inspect()
        for column, kinds in found.items():
            if column in (FILE, HASH, ROW, ORDER):
                raise DataError(f"{place}: the file {file.source.name} has a column {column}, a name that the platform gives", remedy="rename the column")
            fits[column] = fits[column] & kinds if column in fits else kinds
            wanted = kept.get(column)
            if stream.format != "parquet" and wanted is not None and wanted != arrow_types.TEXT and wanted not in kinds:
                raise DataError(
                    f"{place}: column {column} of the file {file.source.name} holds values that are no {wanted}, the type it was loaded with so far",
                    remedy="correct the file, or load the stream anew with --full-refresh so that the type is chosen again",
                )
        for key in stream.primary_key or ():
            if found and key not in found:
                raise build_missing_error(
                    f"{place}: the file {file.source.name}", kind="primary_key column", name=key, known=found, remedy="correct the stream's primary_key"
                )
    chosen = {column: _choose(kinds) for column, kinds in fits.items()}
    return {**kept, **{column: kind for column, kind in chosen.items() if column not in kept}}


def _choose(kinds: frozenset[pa.DataType]) -> pa.DataType:
    single = next(iter(kinds)) if len(kinds) == 1 else None
    return single if single is not None else file_types.choose(kinds)


def _read_file(file: FetchedFile, reader: Reader, types: dict[str, pa.DataType], stream: FileStream, sequence: int, place: str) -> Iterator[pa.Table]:
    first = 1
    for table in reader.read(types):
        for key in stream.primary_key or ():
            if table[key].null_count:
                raise DataError(
                    f"{place}: the primary_key column {key} is empty in {table[key].null_count} rows of the file {file.source.name}", remedy="correct the file"
                )
        conformed = arrow_types.conform(table, types, place=f"{place}, file {file.source.name}")
        yield _add_origin(conformed, file, first, stream, sequence)
        first += table.num_rows
    file.refuse_change(place)


def _add_origin(table: pa.Table, file: FetchedFile, first: int, stream: FileStream, sequence: int) -> pa.Table:
    count = table.num_rows
    numbers = pa.array(range(first, first + count), type=pa.int64())
    table = table.append_column(FILE, pa.repeat(pa.scalar(file.source.name, pa.string()), count))
    table = table.append_column(HASH, pa.repeat(pa.scalar(file.sha256, pa.string()), count)).append_column(ROW, numbers)
    if stream.disposition == "merge":
        start = (sequence << _ROWS_BITS) + first
        table = table.append_column(ORDER, pa.array(range(start, start + count), type=pa.int64()))
    return table


def _build_empty(types: dict[str, pa.DataType], stream: FileStream) -> pa.Table:
    """No rows, but all columns: the table is there even if the files are not."""
    names = {**types, FILE: pa.string(), HASH: pa.string(), ROW: pa.int64()}
    if stream.disposition == "merge":
        names[ORDER] = pa.int64()
    return pa.schema(list(names.items())).empty_table()
