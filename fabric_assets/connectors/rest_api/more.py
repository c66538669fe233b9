"""Signs of further pages in an answer, independent of what the stream declares: fields and headers with names that APIs use for it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from requests import Response

_SAYS_MORE = {"hasmore", "hasnext", "hasnextpage", "hasmorepages"}
_GOES_ON = re.compile(
    r"next.*|.*next(?:link|page|ur[li]|href|token|cursor|key|marker|offset|records|results|batch).*"
    r"|continuation.*|cursor|scrollid|resumptiontoken"
)
_TOTALS = {"total", "totalcount", "totalsize", "totalresults", "totalitems", "totalrecords", "totalelements", "numfound", "recordcount", "count"}
_PAGES = {"lastpage", "pagecount", "totalpages", "pages", "numpages"}
_HEADERS_THAT_GO_ON = {"nextpage", "nextcursor", "nextlink", "nexturl", "nexttoken", "nextoffset"}
# Part of the rows: "items 0-24/319" or "0-24/319".
_PART = re.compile(r"\s*(?:[\w.-]+\s+)?\d+-\d+/(\d{1,18})\s*")
_PARTIAL_CONTENT = 206
# How deep the objects around the rows are searched; anything deeper, or in a list, is data.
_DEPTH = 3


def is_empty(response: Response) -> bool:
    """Whether an answer has no content."""
    return not response.content.strip()


def find_claim(body: Any, rows: Sequence[Any]) -> str | None:
    """The first field that states that there are more pages."""
    return next((key for key, value in _walk(body, rows) if _plain(key) in _SAYS_MORE and value is True), None)


def find_signs(body: Any, rows: Sequence[Any]) -> Iterator[str]:
    """Yield the fields of an answer that show further pages."""
    for key, value in _walk(body, rows):
        name = _plain(key)
        number = int(value) if type(value) is int or (isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value)) else None
        if (
            (name in _SAYS_MORE and value is True)
            or (_GOES_ON.fullmatch(name) and isinstance(value, str | int) and value and not isinstance(value, bool))
            or (number is not None and ((name in _TOTALS and number > len(rows)) or (name in _PAGES and number > 1)))
            # Airtable's next page is a text called offset; other APIs repeat the number of the request.
            or (name == "offset" and isinstance(value, str) and value and number is None)
        ):
            yield key


def find_header_signs(response: Response, rows: Sequence[Any]) -> Iterator[str]:
    """Yield the headers of an answer that show further pages: Content-Range, and custom ones such as X-Total-Count."""
    part = _PART.fullmatch(response.headers.get("Content-Range", ""))
    if int(part[1]) > len(rows) if part else response.status_code == _PARTIAL_CONTENT:
        yield "Content-Range"
    for key, value in response.headers.items():
        if not key.lower().startswith("x-"):
            continue
        name, text = _plain(key[2:]).removeprefix("wp"), value.strip()
        number = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
        if (
            (name in _SAYS_MORE and text.lower() == "true")
            or (name in _HEADERS_THAT_GO_ON and text)
            or (number is not None and ((name in _TOTALS and number > len(rows)) or (name in _PAGES and number > 1)))
        ):
            yield key


def _walk(body: Any, rows: Sequence[Any], depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield the fields of the objects around the rows; an object that is a row itself is data."""
    if not isinstance(body, Mapping) or (len(rows) == 1 and body is rows[0]):
        return
    for key, value in body.items():
        if isinstance(value, Mapping) and depth < _DEPTH:
            yield from _walk(value, rows, depth + 1)
        else:
            yield key, value


def _plain(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())
