"""The settings of a stream's readers, and what each reader provides: the types that fit a file's columns, then its rows in pieces."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from fabric_assets.config.sources.files import FileLimits, FileStream
from fabric_assets.connectors.files.database import Engine
from fabric_assets.connectors.files.types import Fits
from fabric_assets.rows.batches import Reject

BATCH_ROWS, BATCH_BYTES = 50_000, 32 * 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """The settings with which the files of a stream are read.

    Args:
        where: tenant, source and stream, for messages.
        value_forms: the version of the forms (value_forms.py) in which the stream's values are written.
        is_known: whether the stream's table has a column of that name.
        report: is called with notes for the reader of the run.
        engine: reads the texts of one file at a time.
    """

    stream: FileStream
    limits: FileLimits
    where: str
    value_forms: int
    is_known: Callable[[str], bool]
    report: Callable[[str], None]
    engine: Engine


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a file, or bad lines of it.

    Args:
        rows: None for bad lines alone.
        first: the first row's number in the file, from 1.
    """

    rows: pa.Table | None
    first: int
    rejects: tuple[Reject, ...] = ()


class Reader(Protocol):
    def inspect(self) -> Fits:
        """Find the types that each column's values fit, in the file's order of columns."""
        ...

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        """Yield the rows, in order; after `inspect`. Values that do not fit the requested types stay as they are in the file."""
        ...


def count_batch_rows(size: int, rows: int) -> int:
    """The number of rows that fit a batch's bytes, by their mean size."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))
