"""What a table must hold and what it holds -> four counts, all of which must be 0 (after Jepsen's set checker)."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

Row = tuple[Any, ...]


class Counts(NamedTuple):
    """Args:
    lost: rows of the source that the table lacks, as they stand there now.
    doubled: rows that it holds more often than the source.
    unexpected: rows that the source has never held, or holds no longer.
    leaked: rows of another tenant.
    """

    lost: int = 0
    doubled: int = 0
    unexpected: int = 0
    leaked: int = 0


NONE = Counts()


def count_rows(expected: Iterable[Row], found: Iterable[Row], *, owner: str) -> Counts:
    """Compare whole rows.

    Args:
        owner: the tenant; every row names its own in the second column.
    """
    wanted, held = Counter(expected), Counter(found)
    leaked = sum(times for row, times in held.items() if row[1] != owner)
    own = Counter({row: times for row, times in held.items() if row[1] == owner})
    return Counts(
        lost=sum(max(times - own[row], 0) for row, times in wanted.items()),
        doubled=sum(max(times - wanted[row], 0) for row, times in own.items() if row in wanted),
        unexpected=sum(times for row, times in own.items() if row not in wanted),
        leaked=leaked,
    )


def add(counts: Iterable[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*counts, strict=True)))
