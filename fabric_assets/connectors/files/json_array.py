"""The text of a JSON array, in blocks -> its elements, each on a line of its own.

Only one element is kept in memory at a time. Elements are not parsed here: a reader of JSON Lines rejects the bad ones.
"""

import json
import re
from collections.abc import Iterator

from fabric_assets.connectors.files.salvage import MAX_LINE
from fabric_assets.errors import DataError

# The tokens that decide where an element ends: a complete string, or a mark outside of strings. An open string waits for the next block.
_MARK = re.compile(r'"(?>(?:[^"\\]++|\\.)*)"|"|[\[\]{},]', re.DOTALL)
_SPACE = " \t\r\n"
_LINE_ENDS = str.maketrans("\r\n", "  ")


def find_array(head: str, *, is_whole: bool) -> bool:
    """Whether a file that should be JSON Lines is one array.

    A line that is a complete array, with more lines after it, is a bad line of JSON Lines.

    Args:
        head: the beginning of its text.
        is_whole: whether it is the whole text.
    """
    text = head.lstrip(_SPACE)
    if not text.startswith("["):
        return False
    line, _, rest = text.partition("\n")
    if _is_json(line):
        return is_whole and not rest.strip(_SPACE)
    # One bad line at the beginning does not turn JSON Lines into an array.
    line, second = line.rstrip(_SPACE), rest.partition("\n")[0].strip(_SPACE)
    return line in ("[", "[{") or line.endswith(",") or not (second.startswith("{") and _is_json(second))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def split_array(blocks: Iterator[str], name: str) -> Iterator[str]:
    """Yield the elements of an array, or a file's single object, as lines.

    Args:
        name: of the file, for errors.

    Raises:
        DataError: it is neither an array nor an object, or is not complete.
    """
    return _Splitter(name).split(blocks)


class _Splitter:
    def __init__(self, name: str) -> None:
        self._name, self._text = name, ""

    def split(self, blocks: Iterator[str]) -> Iterator[str]:
        opening = self._skip_to_content(blocks)
        if not opening:
            return
        if opening == "{":
            yield from self._split_from(blocks, depth=0, is_array=False)
        elif opening == "[":
            self._text = self._text[1:]
            yield from self._split_from(blocks, depth=0, is_array=True)
        else:
            raise DataError(f"{self._name} holds neither a JSON array nor a JSON object", remedy="write an array of objects, or declare another format")

    def _skip_to_content(self, blocks: Iterator[str]) -> str:
        for block in blocks:
            self._text = (self._text + block).lstrip(_SPACE)
            if self._text:
                return self._text[0]
        return ""

    def _split_from(self, blocks: Iterator[str], depth: int, *, is_array: bool) -> Iterator[str]:
        """Cut at the commas of the outermost level. Objects that follow each other outside of an array are cut at their ends."""
        start = position = 0
        is_first = True
        while True:
            match = _MARK.search(self._text, position)
            if match is None or match[0] == '"':
                kept = match.start() if match else len(self._text)
                if len(self._text) - start > MAX_LINE:
                    raise DataError(
                        f"{self._name} holds an object of more than {MAX_LINE // 1024**2} MB", remedy="correct the file; no row of it has been loaded"
                    )
                self._text, position, start = self._text[start:], kept - start, 0
                block = next(blocks, "")
                if not block:
                    break
                self._text += block
                continue
            mark, position = match[0], match.end()
            if mark in "[{":
                depth += 1
            elif mark in "]}" and depth:
                depth -= 1
                if not depth and not is_array:
                    yield self._build_line(start, position)
                    start = position
            elif mark == "]" and is_array:
                # An empty array has no element; a comma before the end adds an empty one.
                if self._text[start : match.start()].strip(_SPACE) or not is_first:
                    yield self._build_line(start, match.start())
                self._check_rest(self._text[position:], blocks)
                return
            elif mark == "," and not depth:
                yield self._build_line(start, match.start())
                start, is_first = position, False
        if is_array or self._text.strip(_SPACE):
            raise DataError(f"{self._name} ends before its JSON does: it is not complete", remedy="upload it again; no row of it has been loaded")

    def _build_line(self, start: int, end: int) -> str:
        # An empty line would be ignored; a character that is not JSON makes it a bad line.
        return (self._text[start:end].translate(_LINE_ENDS).strip(_SPACE) or "?") + "\n"

    def _check_rest(self, text: str, blocks: Iterator[str]) -> None:
        if text.strip(_SPACE) or any(block.strip(_SPACE) for block in blocks):
            raise DataError(f"{self._name} goes on after its JSON array has ended", remedy="correct the file; no row of it has been loaded")
