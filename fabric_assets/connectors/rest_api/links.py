"""A Link header (RFC 8288) -> the address of the next page.

`Response.links` of requests is not used. It misses several relations in one `rel`, and names and values in another case. It also splits at semicolons and
commas within quotes and addresses. A missed link would end the load after its first page, as a success.
"""

import re
from collections.abc import Iterator
from urllib.parse import urljoin

Parameters = dict[str, str]

_TARGET = re.compile(r"\s*<([^>]*)>")
# A value without quotes ends at the next separator; some servers use wrong quotes.
_PARAMETER = re.compile(r"""\s*;\s*([^\s=;,"]*)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,"]*)))?""", re.DOTALL)
_SEPARATOR = re.compile(r"\s*(?:,|$)")


def find_link(header: str, *, rel: str, url: str) -> str | None:
    """Find the absolute target of a relation's link. Of several links, the first whose type is JSON or missing.

    Args:
        header: all Link headers, joined by commas.
        url: the answer's address: the base of relative targets, and the context of links without an anchor.

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
    """Decode a header again: HTTP libraries read headers as Latin-1, servers write them in UTF-8."""
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
            # If a parameter occurs twice, the first one counts.
            parameters.setdefault(name.lower(), value)
            position = parameter.end()
        if not _SEPARATOR.match(header, position):
            raise ValueError("a parameter of a link is not valid")
        yield target[1].strip(), parameters
