"""A mistake in a YAML file -> `FILE:LINE:COLUMN: dotted.path: message`, the line and a caret; with everything masked that could be a secret.

The quoted line is the danger: a password may be in it where a reference belongs, beside the mistake, or under a misspelt key. So each value under a
key that sounds like a secret is masked, also beside the mistake. In a file that cannot be parsed, all that follows such a key is masked.
"""

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from yaml.cyaml import CParser  # pyright: ignore[reportAttributeAccessIssue]

from fabric_assets.config.base import Path as KeyPath
from fabric_assets.config.yaml_tree import MAX_DEPTH
from fabric_assets.visible import show_name

MASK = "***"
_WIDTH = 160
# How far beyond the part of a line that is shown a credential may begin or end.
_REACH = 2000
_SECRET_WORDS = (
    "url", "uri", "dsn", "token", "key", "secret", "secrets", "password", "passwd", "passphrase", "pwd", "credential", "credentials", "authorization",
    "cookie", "apikey", "bearer", "username", "user", "login", "client_id",
)  # fmt: skip
# Keys that contain such a word but hold no secret; their values are worth showing.
_PLAIN_KEYS = frozenset({"primary_key", "base_url", "token_url", "endpoint_url", "user_id"})
# Each value below these keys is a secret, or wrong.
_SECRET_FIELDS = frozenset({"url", "token", "key", "password", "client_secret", "access_key_id", "secret_access_key"})
_REFERENCE = frozenset({"env", "file", "secret"})
_USERINFO = re.compile(r"://[^/\s'\"]*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Origin:
    """The file, line and column of a key or value; both numbers count from 1."""

    file: Path
    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One mistake of one tenant.

    Args:
        path: dotted, as in `sources.shop.streams.orders`; empty for the file as a whole.
        snippet: the line and the caret below it; empty where the file could not be read.
    """

    tenant: str
    file: Path
    line: int
    column: int
    path: str
    message: str
    snippet: str = ""

    def __str__(self) -> str:
        where = f"{show_name(shorten(self.file))}:{self.line}:{self.column}: "
        return where + (f"{self.path}: " if self.path else "") + self.message + (f"\n{self.snippet}" if self.snippet else "")


def make_problem(tenant: str, file: Path, location: tuple[int, int], path: KeyPath, message: str, *, text: str) -> Problem:
    """Build a problem that is safe to show to anybody.

    Args:
        location: line and column.
        text: the file's, for the snippet.
    """
    dotted = clean(".".join(str(part) for part in path))
    hide = any(isinstance(part, str) and is_secret_key(part) for part in path[-2:])
    return Problem(tenant, file, *location, dotted, clean(message), get_snippet(text, location, hide=hide))


def shorten(file: Path) -> str:
    """Write a path relative to the current folder where it lies below it."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def clean(text: str) -> str:
    """Take credentials and control characters out of text that goes to terminals and logs."""
    return _CONTROL.sub("�", _USERINFO.sub(f"://{MASK}@", text))[:2000]


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a value under this key may be a secret; misspelt words count."""
    lower = key.lower().replace("-", "_")
    if difflib.get_close_matches(lower, _PLAIN_KEYS, 1, 0.85):
        return False
    words = [lower, *lower.split("_")]
    return any(word in _SECRET_WORDS for word in words) or any(len(word) > 3 and difflib.get_close_matches(word, _SECRET_WORDS, 1, 0.8) for word in words)


def get_snippet(text: str, location: tuple[int, int], *, hide: bool = False) -> str:
    """Quote a line with a caret under the column; of a long line only the part around the column.

    Args:
        location: line and column.
        hide: also mask the value at the column.
    """
    line, column = location
    quoted = _read(text)
    if not 0 < line <= len(quoted.lines):
        return ""
    content = quoted.lines[line - 1]
    begin = 0 if len(content) <= _WIDTH else max(0, min(column - _WIDTH // 2, len(content) - _WIDTH))
    end = min(len(content), begin + _WIDTH)
    spans = quoted.get_hidden(line, begin, end, named=column - 1 if hide else -1)
    shown, caret = _mask(content[begin:end], column - begin, [(first - begin, last - begin) for first, last in spans])
    lead, tail = "..." if begin else "", "..." if end < len(content) else ""
    return f"    {lead}{clean(shown.replace(chr(9), ' '))}{tail}\n    {' ' * (len(lead) + caret - 1)}^"


def _mask(shown: str, column: int, spans: list[tuple[int, int]]) -> tuple[str, int]:
    """Put the mask over spans of columns (from 0), and move the caret (from 1) along."""
    masked, caret, done = "", column, 0
    for first, last in sorted(spans):
        begin, end = max(first, done), min(last, len(shown))
        if end <= begin:
            continue
        masked += shown[done:begin] if done and begin == done else shown[done:begin] + MASK
        done = end
        if column > end:
            caret = len(masked) + column - end
        elif column > begin:
            caret = len(masked) - len(MASK) + 1
    return masked + shown[done:], caret


class _Quoted:
    """The lines of a file, and the values in each line with the two keys above them. A file is scanned once for all of its mistakes."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.values: dict[int, list[tuple[int, int, str, str, str]]] = {}
        self.is_whole = False
        try:
            self._scan(CParser(text))
        except yaml.YAMLError:
            return

    def get_hidden(self, line: int, begin: int, end: int, *, named: int) -> list[tuple[int, int]]:
        """Find the columns between `begin` and `end` that must not be shown.

        Args:
            named: the column of a value that is hidden under any key.
        """
        content = self.lines[line - 1]
        spans = [
            (first, last)
            for first, last, above, key, value in self.values.get(line, ())
            if first < end and last > begin and (first == named or _is_hidden(above, key, value))
        ]
        start = max(0, begin - _REACH)
        spans += [(start + match.start() + 3, start + match.end() - 1) for match in _USERINFO.finditer(content[start : end + _REACH])]
        return spans if self.is_whole else spans + _guess_spans(self.lines, line)

    def _scan(self, parser: CParser) -> None:
        # For each open mapping or list: is it a mapping, the key above it, its own key. For a mapping also the key whose value comes next.
        stack: list[list[str | bool | None]] = []
        while (event := parser.get_event()) is not None:
            top = stack[-1] if stack else None
            if isinstance(event, yaml.ScalarEvent):
                if top and top[0] and top[3] is None:
                    top[3] = event.value
                    continue
                above, key = (top[2], top[3]) if top and top[0] else (top[1], top[2]) if top else ("", "")
                self._add(event, str(above), str(key))
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if len(stack) >= MAX_DEPTH:
                    return
                names = [top[2], top[3]] if top and top[0] else [top[1], top[2]] if top else ["", ""]
                stack.append([isinstance(event, yaml.MappingStartEvent), *names, None])
                continue
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                stack.pop()
                top = stack[-1] if stack else None
            if top and top[0]:
                top[3] = None
        self.is_whole = True

    def _add(self, event: yaml.ScalarEvent, above: str, key: str) -> None:
        first, last = event.start_mark.line, event.end_mark.line
        for number in range(first, min(last, len(self.lines) - 1) + 1):
            content = self.lines[number]
            begin = event.start_mark.column if number == first else len(content) - len(content.lstrip())
            end = event.end_mark.column if number == last else len(content)
            if end > begin:
                self.values.setdefault(number + 1, []).append((begin, end, above, key, event.value))


_read = lru_cache(maxsize=4)(_Quoted)


def _is_hidden(above: str, key: str, value: str) -> bool:
    """Whether a value is under a secret's key. References such as {env: NAME} may be shown: they name the secret without its value."""
    if above in _SECRET_FIELDS and key in _REFERENCE:
        return re.fullmatch(r"[A-Za-z0-9_./-]{1,60}", value) is None
    return above in _SECRET_FIELDS or is_secret_key(key)


def _guess_spans(lines: list[str], line: int) -> list[tuple[int, int]]:
    """Find what to hide in a file that cannot be parsed: all that follows a secret's key, and lines that are indented below one."""
    content = lines[line - 1]
    for match in re.finditer(r"([\w-]{1,60})[\"']?\s*:\s*", content):
        if is_secret_key(match[1]):
            return [(match.end(), len(content))] if match.end() < len(content) else []
    indent = len(content) - len(content.lstrip())
    for above in reversed(lines[: line - 1]):
        depth = len(above) - len(above.lstrip())
        if above.strip() and depth < indent:
            indent = depth
            name = re.match(r"[\s-]*[\"']?([\w-]{1,60})[\"']?\s*:", above)
            if name and is_secret_key(name[1]):
                return [(len(content) - len(content.lstrip()), len(content))]
    return []
