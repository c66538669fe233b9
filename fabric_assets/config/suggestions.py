"""A word that nobody knows, and the words that are known -> the tail of an error message."""

import difflib
from collections.abc import Iterable

_SHOWN = 20


def suggest(word: str, known: Iterable[str], meant: str = "") -> str:
    """Write `; did you mean 'x'? known: x, y, z`, as far as there is something to say.

    Args:
        meant: what the word means for certain, although it may not look like it.
    """
    names = sorted(set(known))
    near = [meant] if meant else difflib.get_close_matches(word[:80], names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    shown = near + [name for name in names if name not in near] if len(names) > _SHOWN else names
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{hint} known: {', '.join(shown[:_SHOWN]) or 'none'}{more}"
