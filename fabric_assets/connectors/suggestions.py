"""A wrong table, column or cursor name -> a SourceError that names it, the nearest real one and the rest."""

from collections.abc import Iterable
from difflib import get_close_matches

from fabric_assets.errors import SourceError

_SHOWN = 30
# Of one name: a file that is no table can have its whole text for a header.
LONGEST_NAME = 100


def build_missing_error(place: str, *, kind: str, name: str, known: Iterable[str], remedy: str) -> SourceError:
    """Args:
    place: tenant, source and stream.
    kind: what is missing, in the YAML's words: `table`, `cursor field`.
    known: the names that the source does have.
    """
    names = sorted(candidate[:LONGEST_NAME] for candidate in known)
    lowered = {candidate.lower(): candidate for candidate in names}
    nearest = get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f"; did you mean {lowered[nearest[0]]!r}?" if nearest else ""
    listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return SourceError(f"{place}: the source has no {kind} {name!r}{hint}; it has: {listed or 'nothing'}", remedy=remedy)
