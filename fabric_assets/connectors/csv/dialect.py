"""The beginning of a CSV file -> how it is written: its line ends, its delimiter and the line of its header.

The delimiter is the one under which the first record scores highest. The caller scores its cells: by known names, or by their number.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fabric_assets.config.sources.imports import DELIMITERS
from fabric_assets.connectors.csv.records import Grammar, Record

# A line such as `sep=;`, which spreadsheets write and understand: it names the character that separates fields.
_HINT = re.compile(r'"?sep=([!#-&(-/:-@\[\]-`{-~\t])"?[ \t]*(?:\r*\n|\r|\Z)', re.IGNORECASE)
LINE_END = r"\r\n|\n|\r(?=[^\n])"
_LINE_END = re.compile(LINE_END)
_QUOTE_OR_END = re.compile(r'"|\r*\n|\r')


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Args:
        newline: "\\n" (also after "\\r"), or "\\r".
        first_line: the line that the records begin with; 2 after a line `sep=;`.
    """

    delimiter: str
    quote: str = '"'
    newline: str = "\n"
    first_line: int = 1


@dataclass(frozen=True)
class Beginning:
    """The beginning of a file, without the lines before its records.

    Args:
        text: begins with the first record.
        hint: the delimiter that a line `sep=` names; empty without such a line.
        skipped: the number of lines that are left out.
    """

    text: str
    newline: str
    hint: str = ""
    skipped: int = 0


def find_beginning(head: str, skip_rows: int) -> Beginning:
    """Leave out the declared lines before the header, and a line `sep=;`."""
    for _ in range(skip_rows):
        end = _LINE_END.search(head)
        head = head[end.end() :] if end else ""
    hint = _HINT.match(head)
    return Beginning(head[hint.end() :] if hint else head, find_newline(head), hint[1] if hint else "", skip_rows + bool(hint))


def find_newline(head: str) -> str:
    """The character that ends the first line. A quoted line end counts only if there is no other."""
    first, is_quoted = "", False
    for found in _QUOTE_OR_END.finditer(head):
        if found[0] == '"':
            is_quoted = not is_quoted
            continue
        first = first or found[0]
        if not is_quoted:
            first = found[0]
            break
    return "\r" if first == "\r" else "\n"


def find_header(grammar: Grammar, text: str, line: int, *, final: bool) -> Record | None:
    """The first record that is not blank; a bad record counts. None if all records are blank."""
    return next((record for record in grammar.scan(text, line, final=final) if not record.is_blank), None)


@dataclass(frozen=True)
class Reading:
    """A file's first record under one dialect."""

    dialect: Dialect
    header: Record = field(compare=False)

    @property
    def cells(self) -> Sequence[str]:
        """The cells of the first record; empty if the record is bad."""
        return self.header.cells or ()


def read_headers(beginning: Beginning, delimiters: Iterable[str], quotes: Iterable[str], *, final: bool, field_chars: int, most: int) -> list[Reading]:
    """The first record under each dialect; a dialect under which all records are blank is left out."""
    readings = []
    for delimiter in delimiters:
        for quote in quotes:
            dialect = Dialect(delimiter, quote, beginning.newline, beginning.skipped + 1)
            grammar = Grammar(delimiter, quote, beginning.newline, field_chars=field_chars, most=most)
            if header := find_header(grammar, beginning.text, dialect.first_line, final=final):
                readings.append(Reading(dialect, header))
    return readings


def choose(readings: Sequence[Reading], score: Callable[[Reading], int]) -> list[Reading]:
    """The readings with the highest score, one for each delimiter."""
    scores = list(map(score, readings))
    best: dict[str, Reading] = {}
    for each, found in zip(readings, scores, strict=True):
        if found == max(scores):
            best.setdefault(each.dialect.delimiter, each)
    return list(best.values())


def find_unused(readings: Sequence[Reading], text: str) -> Reading | None:
    """The first delimiter that the text does not contain; None if the header contains a delimiter. A file of one column is read by it, undivided."""
    if any(each.dialect.delimiter in each.header.text for each in readings):
        return None
    return next((each for each in readings if each.dialect.delimiter not in text), None)


def list_delimiters(declared: str | None, hint: str) -> tuple[str, ...]:
    """The delimiters to try: the declared one, else the one that the file names itself, else the usual ones."""
    return (declared or hint,) if declared or hint else DELIMITERS


def list_good(records: Iterable[Record], count: int) -> list[Record]:
    """The first `count` good records."""
    return list(islice((record for record in records if record.cells is not None), count))
