"""Text that may hold secrets -> the same text without them: the one mask of all messages, log lines and rejected rows.

This module remembers the secrets that were used in this process (`security/redaction.py` says when). All other modules may import it, as every error masks
its own text when it is created. So no log line, row of the ledger, metadata or line on the terminal can show more than the error (ADR 0015).
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
# Shorter values would be masked within ordinary words, and are not secrets.
_SHORTEST = 4
# The shortest line of a key or a certificate that counts as a secret by itself.
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
# The most values that a process remembers; the least recently used ones are forgotten. A run of one tenant needs some dozens.
_MOST = 1_000

# Runs before a word are bounded: otherwise a long text without a credential would be searched again from each of its characters.
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
    """Mask remembered values and everything in the form of a credential: for texts of our own, of drivers and of servers."""
    return _mask_forms(_KNOWN.mask_cut(mask_values(text)))


def mask_values(text: str) -> str:
    """Mask remembered values only: for customers' rows, in which their own tokens are data."""
    return _KNOWN.mask(text)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask a text as `mask` does, and also the given secrets, which are not remembered."""
    needles = _list_needles(secrets)
    return mask(_mask_cut(_replace(text, needles), needles))


def remember(secret: str) -> None:
    """Remember a value, which is masked from now on; any thread may call it."""
    _KNOWN.add(secret)


def count_remembered() -> int:
    return _KNOWN.count


class _KnownValues:
    """The secrets that this process has used, in all of their spellings."""

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
    """A text that is masked in all of its spellings.

    Escapes do not change letters and digits, so the longest run of these is searched first. Most texts do not contain it, and need no other search.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Whitespace matches whitespace of any length, so a text of little else would match too much.
        self._is_plain = (text.isalnum() and text.isascii()) or len(" ".join(text.split())) < _SHORTEST
        self._anchor = text if self._is_plain else max(re.findall("[A-Za-z0-9]*", text), key=len)

    def replace(self, text: str) -> str:
        if self._anchor not in text:
            return text
        return text.replace(self.text, MASK) if self._is_plain else self._pattern.sub(MASK, text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The regular expression for all spellings, built at its first use: a key of some kilobytes takes milliseconds, and few occur in texts."""
        runs = _RUNS.findall(self.text)
        return re.compile("".join(_build_pattern(run, after=before) for before, run in pairwise(["", *runs])))


def _build_pattern(run: str, *, after: str) -> str:
    """Build the pattern for all spellings of a run: of letters and digits, whitespace, backslashes, quotes, or one other character.

    The patterns of two runs never match the same part of a text. Otherwise a secret of many escapes would be tried in every possible reading.

    Args:
        after: the run before. After backslashes, the backslash of an escape may already be matched as one of them.
    """
    if run.isascii() and run.isalnum():
        return run
    if run[0] == "\\":
        return rf"(?:\\{{{len(run)},{4 * len(run)}}}+|(?:{_build_escapes(run[0])}){{{len(run)}}})"
    behind = after.startswith("\\")
    slash = r"\\{0,4}+" if behind else _SLASH
    if run.isspace():
        # On one line all of it becomes one blank; otherwise each character is unchanged or escaped.
        parts = [(_build_escapes(char, slash) + (r"|\+" if char == " " else ""), len([*same])) for char, same in groupby(run)]
        as_it_is = r"|\s++" if len(parts) > 1 else ""
        return rf"(?:\s++|{''.join(rf'(?>(?:{escapes}){{{count}}}{as_it_is})' for escapes, count in parts)})"
    # The escapes of JSON, of Python, and of one within the other.
    char, count, escapes = re.escape(run[0]), len(run), _build_escapes(run[0], slash)
    raw = "" if behind else f"|{char}{{{count}}}"
    if run[0] not in _QUOTES:
        return f"(?:{slash}{char}{raw}|{escapes})"
    # SQL and CSV double quotes, but not escaped ones: there a second quote closes the text.
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
    """Compute UTF-16 units by arithmetic: Python would load its codec from a file, and a process without free handles must mask too."""
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
        # Where nothing is found, the text keeps its lines.
        return text if masked == joined else masked
    return text


def _mask_cut(text: str, needles: Iterable[_Needle]) -> str:
    """Mask the beginning or the end of a value that is cut off: Postgres shows a part of a long statement, between dots."""
    if _DOTS not in text:
        return text
    beginnings, ends = _Beginnings(needle.text for needle in needles), _Beginnings(needle.text[::-1] for needle in needles)
    parts = text.split(_DOTS)
    parts[:-1] = (beginnings.mask(part) for part in parts[:-1])
    parts[1:] = (ends.mask(part[::-1])[::-1] for part in parts[1:])
    return _DOTS.join(parts)


class _Beginnings:
    """Values, to find the beginning of one of them at the end of a text, in time that grows with the text only."""

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
    """Sort needles, the longest first: a shorter one may be a part of a longer one."""
    return tuple(sorted({needle.text: needle for needle in needles}.values(), key=lambda needle: len(needle.text), reverse=True))


def _split(secret: str) -> Iterator[str]:
    """Yield the secret, and the parts of it that messages quote alone: a URL's password, its query's credentials, a key's lines."""
    yield secret
    yield secret.strip()
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= _LONG_LINE)
    if url := _URL.fullmatch(secret.strip()):
        yield from _split_url(url)


def _split_url(url: re.Match[str]) -> Iterator[str]:
    user, _, password = (url["login"] or "").partition(":")
    host, _, path = url["rest"].partition("/")
    # A password that is also another part of its URL is not hidden. Masking it would remove ordinary words from every message, such as postgres in development.
    plain = {user, host.partition(":")[0], path.partition("?")[0], url["scheme"].partition("+")[0]}
    found = [password] if password not in plain else []
    if not password and url["scheme"] in {"http", "https"}:
        found.append(user)
    # After an unescaped @ or / in a password, drivers read the rest as the host, and name it up to the next such character.
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
