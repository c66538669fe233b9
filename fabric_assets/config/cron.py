"""Five cron fields -> None, or what is wrong with them.

Deliberately narrower than the parsers of Dagster and dlt (no @daily, L, #, R, seconds): what passes here means the same everywhere.
`tests/config/test_cron.py` compares it with Dagster's own check.
"""

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"^(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d{1,3}))?$", re.ASCII)
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def get_cron_error(cron: str) -> str | None:
    """Describe what is wrong with a cron expression; None if it is right."""
    parts = cron.split()
    if cron.startswith("@"):
        return "must be five fields; write @daily as 0 0 * * *, @hourly as 0 * * * *"
    if len(parts) != 5:
        return f"must have five fields (minute, hour, day of month, month, day of week), not {len(parts)}"
    values: list[set[int]] = []
    for text, field in zip(parts, _FIELDS, strict=True):
        found = _expand(text.lower(), field)
        if isinstance(found, str):
            return f"{field[0]}: {found}"
        values.append(found)
    if min(values[2]) > max(_LONGEST_MONTH.get(month, 31) for month in values[3]):
        return f"never comes: no month that it names has a day {min(values[2])}"
    return None


def _expand(text: str, field: tuple[str, int, int, dict[str, int]]) -> set[int] | str:
    _, low, high, names = field
    values: set[int] = set()
    for piece in text.split(","):
        match = _PART.fullmatch(piece)
        if match is None:
            return "takes *, numbers, ranges (1-5), lists (1,15) and steps (*/15)"
        star, first, last, step = match.groups()
        begin = low if star else _number(first, names)
        end = high if star else (_number(last, names) if last else begin)
        if begin is None or end is None:
            return f"takes numbers from {low} to {high}" + (f" or names ({', '.join(names)})" if names else "")
        if not (low <= begin <= high and low <= end <= high):
            return f"must be from {low} to {high}"
        if begin > end:
            return "a range must go upwards"
        if step and not (star or last):
            return "a step needs * or a range before it: */15 or 0-30/5"
        if step and not 1 <= int(step) <= high:
            return f"a step must be from 1 to {high}"
        values |= set(range(begin, end + 1, int(step or 1)))
    return values


def _number(text: str, names: dict[str, int]) -> int | None:
    return names[text] if text in names else int(text) if text.isdecimal() and len(text) <= 2 else None
