"""Text with secrets in it -> the same text without them: for messages built from what a driver or a server said."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
# Shorter values would tear holes into plain words, and are no secrets.
_SHORTEST = 4

_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]*@")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask the secrets, in every spelling they take in URLs, headers and JSON, and the userinfo of every URL."""
    spellings = {spelling for secret in secrets for part in _split(secret) for spelling in _spell(part)}
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, MASK)
    return _USERINFO.sub(rf"\1{MASK}@", text)


def _split(secret: str) -> Iterator[str]:
    """Give the secret, and the password where it is a URL: drivers quote it alone."""
    yield secret
    try:
        password = urlsplit(secret).password if "://" in secret else None
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def _spell(value: str) -> Iterator[str]:
    if len(value) < _SHORTEST:
        return
    yield from (value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1], repr(value)[1:-1])
    for shift in range(3):
        # In `user:password` the value begins at any of three places of a base64 group; the characters at its ends are shared with its neighbours.
        encoded = base64.b64encode(b"\0" * shift + value.encode(errors="replace")).decode()
        inner = encoded[-(-shift * 8 // 6) : (shift + len(value.encode(errors="replace"))) * 8 // 6]
        if len(inner) >= _SHORTEST:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
