"""Rows and rejected rows of one file, kept until the whole file is checked: in memory, and beyond a limit in a private folder."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from fabric_assets.rows.batches import Reject

IN_MEMORY = 64 * 1024 * 1024
_TYPES: dict[Any, pa.DataType] = {str: pa.string(), str | None: pa.string(), int | None: pa.int64(), bool: pa.bool_()}
# All fields of a rejected row, so that a new one cannot be forgotten here.
_REJECTS = pa.schema([(field.name, _TYPES[field.type]) for field in fields(Reject)])


class Spool:
    """A store of a file's rows, written once and then read any number of times, in order.

    Args:
        folder: must exist; gets two files if the rows exceed `in_memory`.
        in_memory: bytes that are kept in memory.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, in_memory: int = IN_MEMORY) -> None:
        self._schema, self._in_memory, self._size = schema, in_memory, 0
        self._paths = (folder / f"{id(self)}.rows", folder / f"{id(self)}.rejects")
        self._kept: list[tuple[pa.Table, pa.Table]] = []
        self._writers: tuple[Any, ...] = ()

    def write(self, table: pa.Table, rejects: Sequence[Reject]) -> None:
        if not table.num_rows and not rejects:
            return
        pair = (table, pa.table([pa.array([getattr(reject, field.name) for reject in rejects], field.type) for field in _REJECTS], schema=_REJECTS))
        self._kept.append(pair)
        self._size += pair[0].nbytes + pair[1].nbytes
        if self._size > self._in_memory:
            self._spill()

    def _spill(self) -> None:
        if not self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            schemas = zip(self._paths, (self._schema, _REJECTS), strict=True)
            self._writers = tuple(pa.ipc.new_stream(str(path), schema, options=options) for path, schema in schemas)
        for pair in self._kept:
            for writer, table in zip(self._writers, pair, strict=True):
                # One batch each, even if empty, so that both files can be read in step.
                writer.write_batch(table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema))
        self._kept, self._size = [], 0

    def read(self) -> Iterator[tuple[pa.Table, tuple[Reject, ...]]]:
        """Yield all pairs, the last ones from memory; one empty pair if there are no rows."""
        empty = not self._kept and not self._writers
        if self._writers:
            self._spill()
            for writer in self._writers:
                writer.close()
            yield from self._read_files()
        for table, rejects in self._kept:
            yield table, _build_rejects(rejects)
        if empty:
            yield self._schema.empty_table(), ()

    def _read_files(self) -> Iterator[tuple[pa.Table, tuple[Reject, ...]]]:
        # Given a path, pyarrow would map the whole file into memory.
        with pa.OSFile(str(self._paths[0])) as rows, pa.OSFile(str(self._paths[1])) as rejects:
            for batch, bad in zip(pa.ipc.open_stream(rows), pa.ipc.open_stream(rejects), strict=True):
                yield pa.Table.from_batches([batch]), _build_rejects(pa.table(bad))

    def close(self) -> None:
        self._kept = []
        for writer in self._writers:
            writer.close()
        for path in self._paths if self._writers else ():
            path.unlink(missing_ok=True)


def _build_rejects(table: pa.Table) -> tuple[Reject, ...]:
    return tuple(Reject(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True))
