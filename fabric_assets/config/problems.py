"""A mistake in a YAML file -> `FILE:LINE:COLUMN: dotted.path: message`, the line and a caret; with everything masked that could be a secret.

The line is the danger: a password put where a reference belongs, or beside the mistake, or under a key that is itself misspelt. So what stands under
a key that sounds like a secret is masked, wherever in the line the mistake is; and whole lines where the file is too broken to tell.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.cyaml import CParser  # pyright: ignore[reportAttributeAccessIssue]

from fabric_assets.config.base import Path as KeyPath

MASK = "***"
_WIDTH = 160
_SECRET_WORDS = (
    "url", "uri", "dsn", "token", "key", "secret", "secrets", "password", "passwd", "passphrase", "pwd", "credential", "credentials", "authorization",
    "cookie", "apikey", "bearer", "username", "user", "login", "client_id",
)  # fmt: skip
# Names that hold such a word and still are no secret; literal values of theirs are worth showing.
_PLAIN_KEYS = frozenset({"primary_key", "base_url", "token_url", "endpoint_url", "user_id"})
_REFERENCE = frozenset({"env", "file", "secret"})
_USERINFO = re.compile(r"://[^/\s'\"]*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Origin:
    """Where a key or value stands; line and column count from 1."""

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
        where = f"{shorten(self.file)}:{self.line}:{self.column}: "
        return where + (f"{self.path}: " if self.path else "") + self.message + (f"\n{self.snippet}" if self.snippet else "")


def make_problem(tenant: str, file: Path, place: tuple[int, int], path: KeyPath, message: str, *, text: str) -> Problem:
    """Make a problem that is safe to show to anybody.

    Args:
        place: line and column.
        text: the file's, for the snippet.
    """
    dotted = clean(".".join(str(part) for part in path))
    return Problem(tenant, file, *place, dotted, clean(message), get_snippet(text, place, hide=is_secret_path(path)))


def shorten(file: Path) -> str:
    """Write a path relative to the current folder where it lies below it."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def clean(text: str) -> str:
    """Take credentials and control characters out of text that goes to terminals and logs."""
    return _CONTROL.sub("�", _USERINFO.sub(f"://{MASK}@", text))[:2000]


def is_secret_key(key: str) -> bool:
    """Whether a value under this key may be a secret; misspelt words count."""
    lower = key.lower().replace("-", "_")
    if difflib.get_close_matches(lower, _PLAIN_KEYS, 1, 0.85):
        return False
    words = [lower, *lower.split("_")]
    return any(word in _SECRET_WORDS for word in words) or any(len(word) > 4 and difflib.get_close_matches(word, _SECRET_WORDS, 1, 0.8) for word in words)


def is_secret_path(path: KeyPath) -> bool:
    """Whether a path leads to, or below, a key that is called like a secret."""
    return any(isinstance(part, str) and is_secret_key(part) for part in path[2:])


def get_snippet(text: str, place: tuple[int, int], *, hide: bool = False) -> str:
    """Quote a line, with a caret under the place.

    Args:
        hide: mask the place's own value, too.
    """
    line, column = place
    lines = text.splitlines()
    if not 0 < line <= len(lines):
        return ""
    shown, caret = _mask(lines[line - 1], column, _get_spans(text, lines, line, column if hide else 0))
    if caret > _WIDTH - 40:
        cut = caret - _WIDTH // 2
        shown, caret = "..." + shown[cut:], caret - cut + 3
    shown = shown if len(shown) <= _WIDTH else shown[:_WIDTH] + "..."
    return f"    {clean(shown.replace(chr(9), ' '))}\n    {' ' * (caret - 1)}^"


def _mask(line: str, column: int, spans: list[tuple[int, int]]) -> tuple[str, int]:
    """Put the mask over spans of columns (from 0), and move the caret along."""
    spans = spans + [(match.start() + 3, match.end() - 1) for match in _USERINFO.finditer(line)]
    shown, caret, done = "", column, 0
    for begin, end in sorted(spans):
        if end <= done:
            continue
        start = max(begin, done)
        shown += line[done:start] + (MASK if start > done or not shown.endswith(MASK) else "")
        done = end
        if column > end:
            caret = len(shown) + column - end
        elif column > start:
            caret = len(shown) - len(MASK) + 1
    return shown + line[done:], caret


def _get_spans(text: str, lines: list[str], line: int, hidden_column: int) -> list[tuple[int, int]]:
    """Find the columns of a line that hold values of secret keys."""
    spans: list[tuple[int, int]] = []
    keys: list[str | None] = []  # of the open mappings and lists: the key that each stands under
    pending: list[str | None] = []  # of the open mappings: the key whose value comes next; a list has the word it stands under
    parser = CParser(text)
    try:
        while (event := parser.get_event()) is not None:
            if event.start_mark.line + 1 > line and not keys:
                break
            if isinstance(event, yaml.ScalarEvent):
                is_key = bool(pending) and pending[-1] == ""
                if is_key:
                    pending[-1] = event.value or " "
                    continue
                is_named = hidden_column > 0 and (event.start_mark.line + 1, event.start_mark.column + 1) == (line, hidden_column)
                if is_named or _is_hidden(event.value, [*keys, *pending[-1:]]):
                    spans += _clip(event, lines, line)
                if pending and pending[-1] != "[":
                    pending[-1] = ""
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                keys.append(pending[-1] if pending and pending[-1] not in {"", "["} else None)
                pending.append("" if isinstance(event, yaml.MappingStartEvent) else "[")
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                keys.pop()
                pending.pop()
                if pending and pending[-1] != "[":
                    pending[-1] = ""
    except yaml.YAMLError:
        return spans + _guess_spans(lines, line)
    return spans


def _is_hidden(value: str, keys: list[str | None]) -> bool:
    """Whether a value stands under a secret key. Names of secrets may be shown: {env: NAME} says where, not what."""
    named = [key for key in keys if key and key not in {"[", " "}]
    if named and named[-1] in _REFERENCE and len(named) > 1 and is_secret_key(named[-2]):
        return re.fullmatch(r"[A-Za-z0-9_./-]{1,60}", value) is None
    return any(is_secret_key(key) for key in named[-2:])


def _clip(event: yaml.ScalarEvent, lines: list[str], line: int) -> list[tuple[int, int]]:
    first, last = event.start_mark.line + 1, event.end_mark.line + 1
    if not first <= line <= last:
        return []
    begin = event.start_mark.column if line == first else len(lines[line - 1]) - len(lines[line - 1].lstrip())
    end = event.end_mark.column if line == last else len(lines[line - 1])
    return [(begin, end)] if end > begin else []


def _guess_spans(lines: list[str], line: int) -> list[tuple[int, int]]:
    """For a file that cannot be parsed: hide all that follows a secret's key, and lines that are indented below one."""
    content = lines[line - 1]
    for match in re.finditer(r"([\w-]+)[\"']?\s*:\s*", content):
        if is_secret_key(match[1]):
            return [(match.end(), len(content))] if match.end() < len(content) else []
    indent = len(content) - len(content.lstrip())
    for above in reversed(lines[: line - 1]):
        depth = len(above) - len(above.lstrip())
        if above.strip() and depth < indent:
            indent = depth
            name = re.match(r"[\s-]*[\"']?([\w-]+)[\"']?\s*:", above)
            if name and is_secret_key(name[1]):
                return [(len(content) - len(content.lstrip()), len(content))]
    return []
