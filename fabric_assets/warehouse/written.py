"""What a load has written into a stream's table."""

from dataclasses import dataclass

from fabric_assets.rows.reports import ColumnReport


@dataclass(frozen=True)
class FollowedDeletes:
    """The rows of a table that the source no longer has.

    Args:
        rows: deleted or marked by this load.
        returned: rows that the source has again, whose mark is gone.
        problem: why nothing was deleted or marked, although rows are missing from the source.
    """

    rows: int = 0
    returned: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Written:
    """The state of a stream's table after the load.

    Args:
        rows_total: rows in the stream's table after the commit.
        columns: of the stream's table.
        duplicates: rows left out because a newer row has their key.
        keeps_columns: a full refresh read no rows, so the empty table keeps its columns.
        missing: rows that were in the table after the last load, and were gone when this one began.
        deletes: what became of rows that the source no longer has; None where the load did not look for them.
    """

    rows_total: int
    columns: tuple[ColumnReport, ...]
    duplicates: int = 0
    keeps_columns: bool = False
    missing: int = 0
    deletes: FollowedDeletes | None = None
