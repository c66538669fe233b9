"""The bytes of an answer -> its JSON value, or the reason why it has no value: it broke off, or has another charset or format."""

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

from requests import Response

from fabric_assets.connectors.rest_api.json_objects import RepeatedNames, build_object_hook
from fabric_assets.errors import SourceError
from fabric_assets.rows.json_numbers import read_number
from fabric_assets.security.outgoing import show_url

_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE)
# The parser reports a value that breaks off at its end; a text that breaks off is reported at its beginning.
_OPEN_TEXT = ("Unterminated string", "Invalid \\escape", "Invalid \\uXXXX escape")
_CLOSED = {"{": "}", "[": "]"}
_PACKED = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "zip": b"PK\x03\x04"}
# Where a parsed answer keeps its objects that name a field twice.
_REPEATED = "fabric_repeated"
# Records of RFC 7464 begin with one.
_RECORD_SEPARATOR = "\x1e"


class UnreadableAnswer(Exception):
    """An answer has no JSON value.

    Args:
        message: what it is instead, without quoting it.
        is_cut_off: it begins like a value but ends early, so another try may bring the whole value.
    """

    def __init__(self, message: str, remedy: str = "check base_url and the stream's path", *, is_cut_off: bool = False) -> None:
        super().__init__(message)
        self.message, self.remedy, self.is_cut_off = message, remedy, is_cut_off


@dataclass(frozen=True)
class AnswerFormat:
    """The format of a stream's answers.

    Args:
        lines: one value per line (JSON Lines); together they are a list.
        encoding: the declared encoding; None uses the answer's own.
    """

    lines: bool = False
    encoding: str | None = None

    def parse(self, response: Response) -> Any:
        """Return the answer's value, which is parsed once; None for an answer without content.

        Raises:
            UnreadableAnswer: it has no JSON value.
        """
        if "json" not in vars(response):
            content_type, repeated = response.headers.get("Content-Type", ""), list[RepeatedNames]()
            try:
                body = self._read(response.content, content_type, repeated)
            except UnreadableAnswer as error:
                if packed := _find_packing(response):
                    raise UnreadableAnswer(f"is compressed ({packed}), which was not requested", "check the API, or the proxy before it") from None
                if response.headers.get("Content-Encoding", "").strip().lower() == "deflate" and not error.is_cut_off:
                    # Deflate has no checksum, so any bytes can be unpacked.
                    remedy = "check the API, or the proxy before it: the body may be compressed differently"
                    raise UnreadableAnswer(f"{error.message}; it has the header Content-Encoding: deflate", remedy) from None
                if "html" in content_type and not error.is_cut_off:
                    raise UnreadableAnswer(f"is not JSON, but {content_type}") from None
                raise
            response.json = lambda **_: body
            vars(response)[_REPEATED] = repeated
        return response.json()

    def read(self, response: Response, where: str) -> Any:
        """Return the answer's value.

        Raises:
            SourceError: it has no JSON value.
        """
        try:
            return self.parse(response)
        except UnreadableAnswer as error:
            found = error
        raise SourceError(f"{where}: the answer of {show_url(response.url)} {found.message}", remedy=found.remedy)

    def _read(self, content: bytes, content_type: str, repeated: list[RepeatedNames]) -> Any:
        if not content.strip():
            # An HTML page is not an answer, even if it is empty.
            if "html" in content_type:
                raise UnreadableAnswer("is empty")
            return None
        text = self._decode(content, content_type)
        try:
            return self._read_lines(text, repeated) if self.lines else _load(text, repeated)
        except json.JSONDecodeError as error:
            if "Extra data" in error.msg and text[error.pos :].lstrip(_RECORD_SEPARATOR).startswith(("{", "[")):
                raise UnreadableAnswer("holds several JSON values, one after the other", "declare `format: jsonl` if they stand one a line") from None
            detail = f", but {content_type or 'of no type'}" if "json" not in content_type else f": line {error.lineno}, column {error.colno}"
            raise UnreadableAnswer(f"is not JSON{detail}", is_cut_off=_is_cut_off(text, error)) from None
        except (ValueError, RecursionError):
            # A number of thousands of digits, or thousands of levels.
            raise UnreadableAnswer("is not JSON that can be read: it has a number of too many digits, or too many levels") from None

    def _read_lines(self, text: str, repeated: list[RepeatedNames]) -> list[Any]:
        values, lines = [], text.split("\n")
        for number, line in enumerate(lines, 1):
            if not (line := line.strip().lstrip(_RECORD_SEPARATOR)):
                continue
            try:
                values.append(_load(line, repeated))
            except json.JSONDecodeError as error:
                is_last = not any(rest.strip() for rest in lines[number:])
                raise UnreadableAnswer(
                    f"is not valid JSON Lines: line {number}, column {error.colno}",
                    "check that the API gives one JSON value a line",
                    is_cut_off=is_last and _is_cut_off(line, error),
                ) from None
        return values

    def _decode(self, content: bytes, content_type: str) -> str:
        found = _CHARSET.search(content_type)
        name = self.encoding or (found[1] if found else None)
        own = json.detect_encoding(content)
        codec = _look_up(name) if name else None
        if codec is None or codec in {"utf-8", "ascii"} or codec.startswith(("utf-16", "utf-32")) or own == "utf-8-sig":
            # JSON in a Unicode encoding can be recognised by its first bytes.
            return _decode_unicode(content, own, name)
        try:
            text = content.decode(codec)
        except UnicodeDecodeError as error:
            raise _build_error(content, name or codec, error, declared=name) from None
        if self.encoding is None and not content.isascii() and _is_utf8(content):
            raise UnreadableAnswer(
                f"declares the charset {name} and is valid UTF-8 as well", "declare the stream's `encoding`: the one in which its texts read correctly"
            )
        return text


def get_repeated(response: Response) -> list[RepeatedNames]:
    """The objects of a parsed answer that name a field twice."""
    return vars(response).get(_REPEATED, [])


def _load(text: str, repeated: list[RepeatedNames]) -> Any:
    return json.loads(text, parse_float=read_number, object_pairs_hook=build_object_hook(repeated))


def _find_packing(response: Response) -> str | None:
    """The compression of an answer that is still compressed, by its header or its first bytes; None if it is not."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    # These two are unpacked by the HTTP library.
    if encoding not in {"", "identity", "gzip", "deflate", "x-gzip"}:
        return encoding
    return next((name for name, mark in _PACKED.items() if response.content.startswith(mark)), None)


def _look_up(name: str) -> str | None:
    """The codec of a charset; None if the charset is unknown, or is not one of text."""
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except (LookupError, UnicodeError):
        return None


def _decode_unicode(content: bytes, encoding: str, declared: str | None) -> str:
    try:
        return content.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise _build_error(content, encoding.removesuffix("-sig"), error, declared=declared) from None


def _build_error(content: bytes, encoding: str, error: UnicodeDecodeError, *, declared: str | None) -> UnreadableAnswer:
    said = f"it declares {declared}" if declared else "it declares no charset"
    # An answer may break off in the middle of a letter of several bytes.
    begins = content[: error.start].decode(encoding, "replace").lstrip("\ufeff").lstrip()[:1] in _CLOSED
    is_cut_off = begins and error.end >= len(content) and bool(re.search("end of data|incomplete|truncated", error.reason))
    return UnreadableAnswer(
        f"is not valid {encoding} at byte {error.start + 1}; {said}", "declare the stream's `encoding`, e.g. windows-1252", is_cut_off=is_cut_off
    )


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_cut_off(text: str, error: json.JSONDecodeError) -> bool:
    """Whether an invalid text begins like a value and lacks only its end."""
    text = text.strip()
    if text[:1] not in _CLOSED or error.msg.startswith("Extra data"):
        return False
    return not text.endswith(_CLOSED[text[0]]) or error.pos >= len(text) or error.msg.startswith(_OPEN_TEXT)
