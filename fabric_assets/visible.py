"""Texts and names of others -> what a terminal and a log can show of them: no character that is unseen, moves the cursor or turns the reading direction."""

import re
import unicodedata

_UNSEEN_KINDS = {"Cc", "Cf", "Zl", "Zp", "Cs"}
# A quick look: most texts hold none of these.
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff]")


def show_text(text: str) -> str:
    """Spell out the characters of a message that nobody sees; its lines stay lines."""
    return _SUSPECT.sub(lambda found: _spell(found[0]) if unicodedata.category(found[0]) in _UNSEEN_KINDS else found[0], text)


def show_name(name: str) -> str:
    """A column's or a file's name for a message: characters that nobody sees are spelt out, in quotes."""
    spelt = "".join(char if char == " " or unicodedata.category(char)[0] not in "CZ" else _spell(char) for char in name)
    return name if spelt == name else f"'{spelt}'"


def _spell(char: str) -> str:
    return char.encode("unicode_escape").decode()
