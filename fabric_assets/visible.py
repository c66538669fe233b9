"""Texts and names from outside -> texts without characters that are invisible, move the cursor or turn the reading direction."""

import re
import unicodedata

_UNSEEN_KINDS = {"Cc", "Cf", "Zl", "Zp", "Cs"}
# A quick test: most texts contain none of these.
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff]")


def show_text(text: str) -> str:
    """Spell out the invisible characters of a message; line breaks are kept."""
    return _SUSPECT.sub(lambda found: _spell(found[0]) if unicodedata.category(found[0]) in _UNSEEN_KINDS else found[0], text)


def show_name(name: str) -> str:
    """Write a column's or a file's name for a message; a name with invisible characters is quoted, with these spelt out."""
    spelt = "".join(char if char == " " or unicodedata.category(char)[0] not in "CZ" else _spell(char) for char in name)
    return name if spelt == name else f"'{spelt}'"


def _spell(char: str) -> str:
    return char.encode("unicode_escape").decode()
