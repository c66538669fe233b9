"""A tenant's destination -> its tables counted, exported and deleted: one interface for DuckDB and Postgres."""

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
        rows: their number; None for a view, or where they could not be counted.
    """

    schema: str
    name: str
    kind: str = "table"
    rows: int | None = None
    database: str = ""


@dataclass(frozen=True)
class Column:
    """A column, and how it is read.

    Args:
        sql: the expression, quoted.
        declared: its type as the database writes it.
        kind: the type in Parquet; None for the type in which Arrow delivers it.
    """

    name: str
    sql: str
    declared: str
    kind: pa.DataType | None = None


class Warehouse(ABC):
    """A store of a tenant's rows.

    Args:
        location: a name for messages, without a login.
        has_catalog: whether it is on a server, which remains when the tenant is gone.
    """

    location: str
    has_catalog = True

    @abstractmethod
    def list_relations(self) -> list[Relation]:
        """List tables and views, with their rows counted."""

    @abstractmethod
    def find_left(self) -> list[str]:
        """Describe what is left of the tenant; empty once all is deleted."""

    def find_namesakes(self) -> list[str]:
        """Describe what is only named like the tenant's own, and is not deleted."""
        return []

    def find_uncounted(self) -> list[str]:
        """Describe what `list_relations` could not count, with the reason."""
        return []

    @abstractmethod
    def get_columns(self, relation: Relation, *, as_text: bool) -> Sequence[Column]:
        """Give a relation's columns.

        Args:
            as_text: read columns as text if their values may not fit the Arrow type.
        """

    @abstractmethod
    @contextmanager
    def read(self, relation: Relation, columns: Sequence[Column]) -> Iterator[tuple[int, pa.RecordBatchReader]]:
        """Give the number of rows, and the rows batch by batch, as of one moment."""

    @abstractmethod
    def find_fault(self, relation: Relation) -> str | None:
        """Execute a view and discard its rows. Give the kind of error with which the database refuses the view, or None; other errors are raised."""

    @abstractmethod
    def describe(self) -> dict[str, list[str]]:
        """List what there is besides tables: schemas, roles, databases."""

    @abstractmethod
    def delete(self) -> None:
        """Delete everything that the tenant has on a server. A file is deleted with the tenant's other files."""


def carry(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Cast each column to the type in which it is exported.

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
