"""A failed check or dbt test -> two messages: `message` with a few values, for the check's metadata; `log_message` with only counts, for logs and alerts.

Values of customers' rows are shown where the tenant's rows are, and nowhere else. So each message has two forms, which are built together.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from fabric_assets.masking import mask_values

MOST_VALUES = 5
MOST_CHARACTERS = 100

Words = dict[str, str]


def count(number: int, noun: str) -> str:
    """Write `1 row`, `2 rows`, `12,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_duration(seconds: float) -> str:
    """Write a duration for people, in its two largest units: 326 -> 5m 26s, 93600 -> 1d 2h."""
    rest, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if parts or number:
            parts.append((number, unit))
    return " ".join(f"{number}{unit}" for number, unit in parts[:2] if number) or "0s"


def show(value: Any) -> str:
    """Write one value of a row: quoted, shortened, and without the platform's secrets."""
    if value is None:
        return "NULL"
    text = mask_values(str(value))
    return repr(text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "...")


def describe_unexpected(column: str, values: int, rows: int, shown: Sequence[tuple[Any, int]]) -> Words:
    """Describe the values that a column should not hold.

    Args:
        values: the number of different values.
        shown: the most frequent of them with their rows; empty where the column is sensitive.
    """
    begin = f"{column} has {count(values, 'unexpected value')}"
    return _join(f"{begin} ({count(rows, 'row')})", begin, [f"{show(value)} ({count(found, 'row')})" for value, found in shown], values)


def describe_duplicates(columns: Iterable[str], values: int, shown: Sequence[tuple[Sequence[Any], int]]) -> Words:
    """Say which values of a key are not unique."""
    begin = f"{count(values, 'value')} of {', '.join(columns)} {'is' if values == 1 else 'are'} not unique"
    words = [f"{', '.join(show(value) for value in key)}, {count(found, 'row')}" for key, found in _limit(shown)]
    if not words:
        return {"message": begin}
    more = "; ..." if values > len(words) else ""
    return {"message": f"{begin} ({'; '.join(words)}{more})", "log_message": begin}


def describe_unmatched(column: str, target: str, values: int, rows: int, shown: Sequence[tuple[Any, int]]) -> Words:
    """Describe the values of a foreign key that refer to no row."""
    begin = f"{count(values, 'value')} of {column} {'is' if values == 1 else 'are'} not in {target}"
    return _join(f"{begin} ({count(rows, 'row')})", begin, [f"{show(value)} ({count(found, 'row')})" for value, found in shown], values)


def describe_rows(rows: int, columns: Sequence[str], shown: Sequence[Sequence[Any]]) -> Words:
    """Describe the rows that a test of the author's own found."""
    begin = f"{count(rows, 'row')} found"
    left, words = MOST_VALUES, []
    for row in shown:
        cells = [f"{column} {show(value)}" for column, value in zip(columns, row, strict=True)][:left]
        left -= len(cells)
        words += [", ".join(cells)] if cells else []
    return {"message": f"{begin}: {'; '.join(words)}{'; ...' if rows > len(words) else ''}", "log_message": begin} if words else {"message": begin}


def _limit(shown: Sequence[tuple[Sequence[Any], int]]) -> Iterable[tuple[Sequence[Any], int]]:
    """Keep as many keys as have five values in total, and at least one."""
    return shown[: max(1, MOST_VALUES // len(shown[0][0]))] if shown else ()


def _join(counts: str, begin: str, words: Sequence[str], values: int) -> Words:
    if not words:
        return {"message": counts}
    return {"message": f"{begin}: {', '.join(words)}{', ...' if values > len(words) else ''}", "log_message": counts}
