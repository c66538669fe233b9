"""Text that may hold secrets -> the same text without them: the one mask of all messages, log lines and rejected rows.

What was given out in this process is remembered here (`security/redaction.py` says when). It lies at the ground because every error masks its own text
as it is made: whatever becomes of an error, a log line, a row of the ledger, metadata or a line on the terminal, none of them can show more (ADR 0015).
"""

import base64
import re
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from html.entities import html5
from itertools import groupby, pairwise
from urllib.parse import parse_qsl, unquote

MASK = "***"
# Shorter values would tear holes into plain words, and are no secrets.
_SHORTEST = 4
# Of a key or a certificate that is printed in lines, a line.
_LONG_LINE = 16
# Base64 in lines, broken in the text or in a text within it.
_WRAPPED = re.compile(r"([A-Za-z0-9+/_-]{40})(?:\r?\n|(?:\\r)?\\n)[ \t]*(?=[A-Za-z0-9+/=_-])")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_DOTS = "..."
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_NAMES: dict[str, list[str]] = {}
for _name, _char in html5.items():
    _NAMES.setdefault(_char, []).append(_name.rstrip(";"))
_RUNS = re.compile(r"[A-Za-z0-9]+|\s+|\\+|'+|\"+|(?s:.)")
_SLASH, _QUOTES = r"\\{1,4}+", "'\""
# Values of one process that are remembered: the least recently used ones go first. One run of one tenant needs some dozens.
_MOST = 1_000

# Runs before a word are bounded: else a long text without a credential would be looked through again from each of its characters.
_RUN = r"[\w.-]{0,40}"
_PASSWORD = rf"{_RUN}(?:password|passwd|passphrase|pwd)"
_WORDS = "token|secret|credential|signature|api[_-]?key|access[_-]?key|private[_-]?key"
_CREDENTIAL = rf"(?:{_PASSWORD}|{_RUN}(?:{_WORDS}){_RUN}|key|sig|auth|authorization|jwt|sas)"
_IS_CREDENTIAL = re.compile(_CREDENTIAL, re.IGNORECASE)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<login>.*)@)?(?P<rest>[^@]*)", re.DOTALL)
_PATTERNS = (
    # The userinfo of every URL; the example in a remedy stays readable.
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)(?!user:password@)[^/\s'\"]*@"), rf"\1{MASK}@"),
    # Query parameters with the name of a credential.
    (re.compile(rf"([?&]{_CREDENTIAL}=)[^&#\s'\"<>]+", re.IGNORECASE), rf"\1{MASK}"),
    # Passwords in the connection strings of libpq, ODBC and others.
    (re.compile(rf"\b({_PASSWORD}\s*=\s*)(?:'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&;,'\")]+)", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token|digest)\s+)[^\s'\",;]+", re.IGNORECASE), rf"\1{MASK}"),
)


def mask(text: str) -> str:
    """Mask what is remembered, and what has the form of a credential: for texts of our own, of drivers and of servers."""
    return _mask_forms(_KNOWN.mask_cut(mask_values(text)))


def mask_values(text: str) -> str:
    """Mask what is remembered and nothing else: for customers' rows, in which a token of theirs is data."""
    return _KNOWN.mask(text)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask these too, which nobody will meet again."""
    needles = _list_needles(secrets)
    return mask(_mask_cut(_replace(text, needles), needles))


def remember(secret: str) -> None:
    """Mask a value from now on. For any thread."""
    _KNOWN.add(secret)


def count_remembered() -> int:
    return _KNOWN.count


class _KnownValues:
    """The values that this process was given, in every spelling that they take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, tuple[_Needle, ...]] = {}
        # Replaced as a whole, so that readers need no lock.
        self._needles: tuple[_Needle, ...] = ()

    @property
    def count(self) -> int:
        return len(self._values)

    def add(self, value: str) -> None:
        with self._lock:
            known = self._values.pop(value, None)
            self._values[value] = _list_needles([value]) if known is None else known
            if known is None:
                if len(self._values) > _MOST:
                    del self._values[next(iter(self._values))]
                self._needles = _sort(needle for needles in self._values.values() for needle in needles)

    def mask(self, text: str) -> str:
        return _replace(text, self._needles)

    def mask_cut(self, text: str) -> str:
        return _mask_cut(text, self._needles)


class _Needle:
    """A text to be masked however it is spelled.

    Escapes leave letters and digits alone, so the longest run of these is looked for first: most texts hold none, and that is all that they cost.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Of whitespace, which is found as whitespace of any length, too little else would be left.
        self._is_plain = (text.isalnum() and text.isascii()) or len(" ".join(text.split())) < _SHORTEST
        self._anchor = text if self._is_plain else max(re.findall("[A-Za-z0-9]*", text), key=len)

    def replace(self, text: str) -> str:
        if self._anchor not in text:
            return text
        return text.replace(self.text, MASK) if self._is_plain else self._pattern.sub(MASK, text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Made when it is needed: a key of some kilobytes takes milliseconds, and few are ever met."""
        runs = _RUNS.findall(self.text)
        return re.compile("".join(_build_pattern(run, after=before) for before, run in pairwise(["", *runs])))


def _build_pattern(run: str, *, after: str) -> str:
    """What may stand for letters and digits, for whitespace, for backslashes, for quotes or for one other character.

    No two runs can take each other's part of a text, so that none is tried twice: a secret of escapes would else be looked for in all its readings.

    Args:
        after: the run before; behind backslashes the one of an escape may have been taken for one of these.
    """
    if run.isascii() and run.isalnum():
        return run
    if run[0] == "\\":
        return rf"(?:\\{{{len(run)},{4 * len(run)}}}+|(?:{_build_escapes(run[0])}){{{len(run)}}})"
    behind = after.startswith("\\")
    slash = r"\\{0,4}+" if behind else _SLASH
    if run.isspace():
        # On one line all of it becomes one blank; else each is as it is, or escaped.
        parts = [(_build_escapes(char, slash) + (r"|\+" if char == " " else ""), len([*same])) for char, same in groupby(run)]
        as_it_is = r"|\s++" if len(parts) > 1 else ""
        return rf"(?:\s++|{''.join(rf'(?>(?:{escapes}){{{count}}}{as_it_is})' for escapes, count in parts)})"
    # Written in JSON, in Python, or in one within the other.
    char, count, escapes = re.escape(run[0]), len(run), _build_escapes(run[0], slash)
    raw = "" if behind else f"|{char}{{{count}}}"
    if run[0] not in _QUOTES:
        return f"(?:{slash}{char}{raw}|{escapes})"
    # Doubled in SQL and in CSV, never where they are escaped: there a second one closes the text.
    doubled, escaped = f"{char}{{{2 * count}}}", f"(?:{slash}{char}){{{count}}}"
    return f"(?>{f'{doubled}|{escaped}' if behind else f'{escaped}|{doubled}'}{raw}|(?:{escapes}){{{count}}})"


def _build_escapes(char: str, slash: str = _SLASH) -> str:
    code, data = ord(char), char.encode(errors="replace")
    escapes = [
        "".join(rf"%(?:25)*(?i:{byte:02x})" for byte in data),
        rf"&(?:amp;)*(?:{'|'.join((rf'#0*{code}', rf'#[xX]0*(?i:{code:x})', *_NAMES.get(char, ())))});",
        "".join(rf"{slash}u(?i:{unit:04x})" for unit in _list_units(code)),
        "".join(rf"{slash}x(?i:{byte:02x})" for byte in data),
        rf"{slash}x(?i:{code:02x})" if code < 256 else rf"{slash}U(?i:{code:08x})",
    ]
    escapes += [slash + _LETTERS[char]] if char in _LETTERS else []
    escapes += [r"\?"] if data == b"?" else []  # half of a surrogate pair
    return "|".join(escapes)


def _list_units(code: int) -> tuple[int, ...]:
    """UTF-16 by arithmetic: its codec is a file of Python's own, and a process that has run out of handles must mask as well."""
    return (code,) if code < 0x10000 else (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF))


_KNOWN = _KnownValues()


def _mask_forms(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _replace(text: str, needles: Iterable[_Needle]) -> str:
    for needle in needles:
        text = needle.replace(text)
    if "\n" in text or "\\n" in text:
        masked = joined = _WRAPPED.sub(r"\1", text)
        if joined != text:
            for needle in needles:
                masked = needle.replace(masked)
        # Where nothing is found, its lines stay what they were.
        return text if masked == joined else masked
    return text


def _mask_cut(text: str, needles: Iterable[_Needle]) -> str:
    """Mask the beginning or the end of a value that somebody has cut off: Postgres shows a part of a long statement, between dots."""
    if _DOTS not in text:
        return text
    beginnings, ends = _Beginnings(needle.text for needle in needles), _Beginnings(needle.text[::-1] for needle in needles)
    parts = text.split(_DOTS)
    parts[:-1] = (beginnings.mask(part) for part in parts[:-1])
    parts[1:] = (ends.mask(part[::-1])[::-1] for part in parts[1:])
    return _DOTS.join(parts)


class _Beginnings:
    """Values -> what a text ends with of one of them, in time that grows with the text alone."""

    def __init__(self, values: Iterable[str]) -> None:
        self._by_head: dict[str, list[str]] = {}
        self._longest = 0
        for value in values:
            self._by_head.setdefault(value[:_SHORTEST], []).append(value)
            self._longest = max(self._longest, len(value))

    def mask(self, text: str) -> str:
        for start in range(max(0, len(text) - self._longest), len(text) - _SHORTEST + 1):
            for value in self._by_head.get(text[start : start + _SHORTEST], ()):
                if value.startswith(text[start:]):
                    return text[:start] + MASK
        return text


def _list_needles(secrets: Iterable[str]) -> tuple[_Needle, ...]:
    return _sort(_Needle(text) for text in {text for secret in secrets for part in _split(secret) for text in _spell(part)})


def _sort(needles: Iterable[_Needle]) -> tuple[_Needle, ...]:
    """The longest first: one may be a part of another."""
    return tuple(sorted({needle.text: needle for needle in needles}.values(), key=lambda needle: len(needle.text), reverse=True))


def _split(secret: str) -> Iterator[str]:
    """Give the secret, and the parts of it that are quoted alone: a URL's password, its query's credentials, a key's lines."""
    yield secret
    yield secret.strip()
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= _LONG_LINE)
    if url := _URL.fullmatch(secret.strip()):
        yield from _split_url(url)


def _split_url(url: re.Match[str]) -> Iterator[str]:
    user, _, password = (url["login"] or "").partition(":")
    host, _, path = url["rest"].partition("/")
    # A password that its own URL spells in the clear as well hides nothing, and masking it would take words out of every message: postgres, in development.
    plain = {user, host.partition(":")[0], path.partition("?")[0], url["scheme"].partition("+")[0]}
    found = [password] if password not in plain else []
    if not password and url["scheme"] in {"http", "https"}:
        found.append(user)
    # Where the @ or the / of a password is not escaped, drivers take what is behind it for the host, and name it up to the next such character.
    found += [part for signs in ("@", "/", "[@/?#:]") for part in re.split(signs, password) if part not in {password, *plain}]
    for value in found:
        yield value
        yield unquote(value)
    yield from (value for name, value in parse_qsl(url["rest"].partition("?")[2]) if _IS_CREDENTIAL.fullmatch(name))


def _spell(value: str) -> Iterator[str]:
    if len(value) < _SHORTEST:
        return
    yield value
    # As clients of HTTP write an address: what needs no escape has none.
    yield _ESCAPE.sub(lambda found: char if ((char := unquote(found[0])).isalnum() and char.isascii()) or char in "-._~" else found[0].upper(), value)
    size = len(data := value.encode(errors="replace"))
    for shift in range(3):
        # In `user:password` the value begins at any of three places of a base64 group; the characters at its ends are shared with its neighbours.
        encoded = base64.b64encode(b"\0" * shift + data).decode()
        inner = encoded[-(-shift * 8 // 6) : (shift + size) * 8 // 6]
        if len(inner) >= _SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
