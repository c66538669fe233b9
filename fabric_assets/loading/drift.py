"""Changes that a load found in the source's columns, or in the table since the last load -> sentences for the run's summary."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.variant_columns import find_variants

_SHOWN = 20


def describe_drift(changes: Iterable[SchemaChange], contract: SchemaContract, *, tables: Mapping[str, Iterable[Any]], reads_all: bool) -> Iterator[str]:
    """Describe columns that are gone from a source that declares its columns, and values that went into variant columns.

    Args:
        tables: the columns of each table after the load.
        reads_all: each load writes all rows anew.
    """
    changes = list(changes)
    gone = [change.column for change in changes if change.change == "column_missing" and change.declared]
    if gone:
        subject = f"the column {gone[0]} is" if len(gone) == 1 else f"the columns {_list(gone)} are"
        yield (
            f"{subject} gone from the source: "
            + ("all rows that the source still has are NULL there. " if reads_all else "rows loaded before keep their values, new rows have NULL. ")
            + ("schema_contract.columns is freeze: the next minor version of ETL Fabric stops such a load. " if contract.columns == "freeze" else "")
            + "Bring it back at the source, or load the stream anew with --full-refresh"
        )
    for change in changes:
        if change.change == "type_changed" and change.values:
            verb = "does" if change.values == 1 else "do"
            yield (
                f"{_count(change.values)} {verb} not fit the type {change.before} of the column {change.table}.{change.column}: kept in "
                f"{_list(list(find_variants(change.column, change.column, tables[change.table])))}, and NULL in the column itself. "
                "Correct the values at the source; if the column has another type from now on, load the stream anew with --full-refresh"
            )


def describe_missing_rows(missing: int, expected: int | None, *, reads_all: bool) -> Iterator[str]:
    """Describe rows that something other than a load has deleted from the table since the last load.

    Args:
        expected: rows in the table at the end of the last load.
    """
    if missing and expected is not None:
        yield (
            f"the table held {expected - missing:,} rows before this load, and the last load had left {expected:,}:"
            f" {missing:,} were deleted at the destination. "
            + (
                "This load has written all rows of the source again"
                if reads_all
                else "Loads read new and changed rows alone; --full-refresh reads all rows again"
            )
        )


def describe_duplicates(duplicates: int, key: Sequence[str]) -> Iterator[str]:
    """Describe rows that were not kept because a newer row of the same load has their key: the key may lack a column."""
    if duplicates:
        subject = "1 row has" if duplicates == 1 else f"{duplicates:,} rows have"
        yield (
            f"{subject} the primary_key ({', '.join(key)}) of another row of this load: the newest row of each key is kept, the others are not in the table. "
            "If they are different rows, declare all columns of their key and load the stream anew with --full-refresh"
        )


def describe_change(change: SchemaChange) -> str:
    """Describe one change, as part of a sentence."""
    match change.change:
        case "column_added":
            return f"the new column {change.column} ({change.after})"
        case "column_missing":
            return f"the column {change.column} ({change.before}) is gone"
        case _:
            return f"{_count(change.values)} of another type in the column {change.column} ({change.before})"


def _count(values: int) -> str:
    return "1 value" if values == 1 else f"{values:,} values"


def _list(names: list[str]) -> str:
    shown = names if len(names) <= _SHOWN else [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
