"""A Link header (RFC 8288) -> the address of the next page.

Not `Response.links` of requests: that misses several relations in one `rel`, and names and values in another case. It splits at semicolons and commas within
quotes and addresses. A link that is missed ends the load after its first page, as a success.
"""

import re
from collections.abc import Iterator
from urllib.parse import urljoin

Parameters = dict[str, str]

_TARGET = re.compile(r"\s*<([^>]*)>")
# A value without quotes ends at the next separator; some servers quote it the wrong way.
_PARAMETER = re.compile(r"""\s*;\s*([^\s=;,"]*)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"]*)))?""", re.DOTALL)
_SEPARATOR = re.compile(r"\s*(?:,|$)")


def find_link(header: str, *, rel: str, url: str) -> str | None:
    """The absolute target of the first link of a relation; of several the first that promises JSON, or nothing of its type.

    Args:
        header: of all its lines, joined by commas.
        url: of the answer: the base of relative targets, and what a link is about unless it has an anchor.

    Raises:
        ValueError: the header is not valid.
    """
    found = [
        (urljoin(url, target), parameters)
        for target, parameters in _parse(_decode(header))
        if rel.lower() in parameters.get("rel", "").lower().split() and urljoin(url, parameters.get("anchor", "")) == url
    ]
    fitting = [target for target, parameters in found if "type" not in parameters or "json" in parameters["type"].lower()]
    return next(iter(fitting or [target for target, _ in found]), None)


def _decode(header: str) -> str:
    """HTTP libraries read headers as Latin-1, servers write them in UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _parse(header: str) -> Iterator[tuple[str, Parameters]]:
    position = 0
    while position < len(header):
        if separator := _SEPARATOR.match(header, position):
            # An element of a list may be empty.
            position = separator.end()
            continue
        target = _TARGET.match(header, position)
        if target is None:
            raise ValueError("no <address> where a link begins")
        position, parameters = target.end(), Parameters()
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else (plain or "").strip().strip("'")
            # Of a parameter that comes twice the first counts.
            parameters.setdefault(name.lower(), value)
            position = parameter.end()
        if not _SEPARATOR.match(header, position):
            raise ValueError("a parameter of a link is not valid")
        yield target[1].strip(), parameters
