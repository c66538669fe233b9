"""A tenant's destination -> its tables counted, read for an export, and gone: the same verbs for DuckDB and Postgres."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Relation:
    """A table or view.

    Args:
        kind: `table` or `view`; a view holds no rows of its own.
        rows: None of a view, or where they could not be counted.
    """

    schema: str
    name: str
    kind: str = "table"
    rows: int | None = None
    database: str = ""


@dataclass(frozen=True)
class Column:
    """How a column is read.

    Args:
        sql: the expression, quoted.
        declared: its type in the database's words.
        kind: what Parquet keeps; None for as Arrow carries it.
    """

    name: str
    sql: str
    declared: str
    kind: pa.DataType | None = None


class Warehouse(ABC):
    """Where a tenant's rows are.

    Args:
        location: for people, without a login.
        has_catalog: whether a server keeps it, which goes on when the tenant has gone.
    """

    location: str
    has_catalog = True

    @abstractmethod
    def list_relations(self) -> list[Relation]:
        """Tables and views, with their rows counted."""

    @abstractmethod
    def find_left(self) -> list[str]:
        """What is there of the tenant, in words; empty once it has gone."""

    def find_namesakes(self) -> list[str]:
        """What is there and only called like the tenant's own, in words: it is left."""
        return []

    def find_uncounted(self) -> list[str]:
        """What `list_relations` could not count, in words, with the reason."""
        return []

    @abstractmethod
    def get_columns(self, relation: Relation, *, as_text: bool) -> Sequence[Column]:
        """Args:
        as_text: columns whose values may not fit their own type's Arrow counterpart are read as the database writes them.
        """

    @abstractmethod
    @contextmanager
    def read(self, relation: Relation, columns: Sequence[Column]) -> Iterator[tuple[int, pa.RecordBatchReader]]:
        """The number of rows, and the rows batch by batch, as of one moment."""

    @abstractmethod
    def find_fault(self, relation: Relation) -> str | None:
        """Execute a view, whose rows go nowhere: the kind of error by which the database refuses it, or None; any other trouble is raised."""

    @abstractmethod
    def describe(self) -> dict[str, list[str]]:
        """What a database holds besides tables: schemas, roles, databases."""

    @abstractmethod
    def delete(self) -> None:
        """Delete everything of the tenant; a file is deleted with the other files."""


def carry(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Give each column the type that it is kept in.

    Raises:
        pa.ArrowException: a value does not fit it.
    """
    arrays, fields = [], []
    for values, column in zip(batch.columns, columns, strict=True):
        array = values
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.cast(array.type.storage_type)
        if column.kind is not None and array.type != column.kind:
            array = array.cast(column.kind)
        arrays.append(array)
        fields.append(pa.field(column.name, array.type, metadata={"declared": column.declared}))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
