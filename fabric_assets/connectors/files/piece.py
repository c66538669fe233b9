"""How the files of a stream are read, and what a reader gives: the types that a file's columns fit, then its rows, piece by piece."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from fabric_assets.config.sources.files import FileLimits, FileStream
from fabric_assets.connectors.files.types import Fits
from fabric_assets.rows.batches import Reject

BATCH_ROWS, BATCH_BYTES = 50_000, 32 * 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """How the files of a stream are read.

    Args:
        where: tenant, source and stream, for messages.
        value_forms: the version of the forms (value_forms.py) in which the stream's values are written.
        is_known: whether the stream's table has a column of that name.
        report: takes what a reader of the run should know.
    """

    stream: FileStream
    limits: FileLimits
    where: str
    value_forms: int
    is_known: Callable[[str], bool]
    report: Callable[[str], None]


@dataclass(frozen=True)
class Piece:
    """Rows that follow each other in a file, or lines of it that are no rows.

    Args:
        rows: None for bad lines alone.
        first: the first row's number in the file, from 1.
    """

    rows: pa.Table | None
    first: int
    rejects: tuple[Reject, ...] = ()


class Reader(Protocol):
    def inspect(self) -> Fits:
        """The types that each column's values fit, in the file's order of columns."""
        ...

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        """The rows, in order, after an inspection; values that are not of the types asked for stay what they are in the file."""
        ...


def count_batch_rows(size: int, rows: int) -> int:
    """As many rows as fit a batch's bytes, going by the mean."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))
