"""An unknown name and the known names -> the end of an error message."""

from collections.abc import Iterable
from difflib import get_close_matches

from fabric_assets.errors import SourceError

# The most characters of one name: a file that is not a table can have its whole text as a header.
LONGEST_NAME = 100
_SHOWN = 20


def find_nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most like the word, in either case."""
    lowered = {name.lower(): name for name in sorted(known, reverse=True)}
    near = get_close_matches(word[:LONGEST_NAME].lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def build_hint(word: str, known: Iterable[str]) -> str:
    """Write `; did you mean 'x'?`, or nothing."""
    near = find_nearest(word, known)
    return f"; did you mean '{near}'?" if near is not None else ""


def suggest(word: str, known: Iterable[str], meant: str = "") -> str:
    """Write `; did you mean 'x'? known: x, y, z`, or the part of it that applies.

    Args:
        meant: the name that the word certainly means, also if it looks different.
    """
    names = sorted({name[:LONGEST_NAME] for name in known})
    near = meant or find_nearest(word, names)
    if near in names and len(names) > _SHOWN:
        names.remove(near)
        names.insert(0, near)
    hint = f"; did you mean '{near}'?" if near else ";"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{hint} known: {', '.join(names[:_SHOWN]) or 'none'}{more}"


def build_missing_error(where: str, *, kind: str, name: str, known: Iterable[str], remedy: str) -> SourceError:
    """Build the error for a source that lacks something that the YAML names.

    Args:
        where: tenant, source and stream.
        kind: what is missing, in the YAML's words: `table`, `cursor field`.
        known: the names that the source does have.
    """
    return SourceError(f"{where}: the source has no {kind} {name!r}{suggest(name, known)}", remedy=remedy)
