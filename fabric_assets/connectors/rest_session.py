"""An origin -> an HTTP session for it alone, which retries what passes and turns the rest into our errors.

The session, not the code that pages, guards the origin: page links, redirects and paths made of row values all end here, and
each of them would carry the tenant's token. No error keeps a request or an answer: dlt writes whole exception chains to disk.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dlt.sources.helpers.requests import Client
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, HTTPError, RequestException, SSLError, Timeout, TooManyRedirects

from fabric_assets.errors import FabricError, SourceError, SourceUnavailable
from fabric_assets.security.redaction import redact

CONNECT_SECONDS, READ_SECONDS = 10, 60
ATTEMPTS = 5
# A server may ask for more patience than this; then the step's own retry comes back later.
LONGEST_WAIT_SECONDS = 60

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PASSING = {408, 425, 429}
_SHOWN = 200

_REMEDIES = {
    401: "check the source's auth and the secret it names",
    403: "the login is known but may not read this: ask the API's owner for the right, or check the source's auth",
    404: "check base_url and the stream's path",
    410: "check base_url and the stream's path",
    429: "the API limits how often it is asked; the load tries again later",
}


def get_origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL, spelled one way.

    Raises:
        ValueError: the port is no number.
    """
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())


def show_url(url: str) -> str:
    """A URL for messages: no userinfo, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def build_session(place: str, *, url: str, auth: AuthBase, secrets: Sequence[str] = (), headers: Mapping[str, str] | None = None) -> Session:
    """Build a session that only ever talks to one origin.

    Args:
        place: tenant, source and stream, for messages.
        url: any URL of the origin.
        secrets: what no message may hold, whatever the server answers.
    """
    session = Client(
        request_timeout=(CONNECT_SECONDS, READ_SECONDS),
        raise_for_status=False,
        request_max_attempts=ATTEMPTS,
        request_max_retry_delay=LONGEST_WAIT_SECONDS,
    ).session
    adapter = _OneOrigin(place, get_origin(url))
    for scheme in _DEFAULT_PORTS:
        session.mount(f"{scheme}://", adapter)
    session.headers.update(headers or {})
    session.hooks["response"] = [raise_refusal]
    # An auth of its own, and none after a redirect, keep the operator's ~/.netrc out of a tenant's requests.
    session.auth = auth
    session.rebuild_auth = lambda prepared_request, response: None
    retrying = session.send

    def send(request: PreparedRequest, **kwargs: Any) -> Response:
        try:
            return retrying(request, **kwargs)
        except RequestException as error:
            failure = _build_failure(error, place, request, secrets)
        # Outside of the handler: an exception remembers the one that it was raised under, and that one holds the request.
        raise failure

    session.send = send
    return session


def raise_refusal(response: Response, **_options: Any) -> None:
    """Raise for each status that is no success; dlt's session tries again what may pass."""
    # Read to the end first: a connection with an answer in it goes back to no pool, and stays open.
    _ = response.content
    response.raise_for_status()


class _OneOrigin(HTTPAdapter):
    """Sends requests to one origin; every page and every hop of a redirect passes here."""

    def __init__(self, place: str, origin: tuple[str, str, int | None]) -> None:
        super().__init__()
        self._place, self._origin = place, origin

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        url = request.url or ""
        if get_origin(url) != self._origin:
            scheme, host, port = self._origin
            raise SourceError(
                f"{self._place}: the API leads to {show_url(url)}, which is not at {scheme}://{host}:{port}; it was not followed, for it would get the login",
                remedy="if the other address is right, put it into base_url",
            )
        try:
            return super().send(request, *args, **kwargs)
        except SSLError as error:
            reason = _find_reason(error)
        # No retry makes a certificate good.
        raise SourceError(f"{self._place}: no trusted TLS connection to {show_url(url)}: {reason}", remedy="check base_url and the server's certificate")


def _build_failure(error: RequestException, place: str, request: PreparedRequest, secrets: Sequence[str]) -> FabricError:
    asked = f"{request.method} {show_url(request.url or '')}"
    if isinstance(error, HTTPError) and error.response is not None:
        status, said = error.response.status_code, _quote_answer(error.response, [*secrets, urlsplit(request.url or "").query])
        passing = status in _PASSING or status >= 500
        remedy = _REMEDIES.get(status, "the API itself failed; the load tries again later" if passing else "check the stream's path and params")
        return (SourceUnavailable if passing else SourceError)(f"{place}: {asked} was answered with {status}{said}", remedy=remedy)
    if isinstance(error, TooManyRedirects):
        return SourceError(f"{place}: {asked} is redirected without end", remedy="check base_url and the stream's path")
    remedy = "check that the API is up and base_url is right"
    if isinstance(error, Timeout):
        seconds = CONNECT_SECONDS if isinstance(error, ConnectTimeout) else READ_SECONDS
        return SourceUnavailable(
            f"{place}: {asked} was not answered within {seconds} s, {ATTEMPTS} times", remedy="check that the API is up and base_url is right"
        )
    if isinstance(error, RequestsConnectionError):
        return SourceUnavailable(f"{place}: {asked} failed: {_find_reason(error)}", remedy=remedy)
    if type(error).__name__ in {"ChunkedEncodingError", "ContentDecodingError"}:
        return SourceUnavailable(f"{place}: the answer to {asked} broke off", remedy="the load tries again later")
    return SourceError(f"{place}: {asked} cannot be sent ({type(error).__name__})", remedy="check base_url and the stream's path")


def _quote_answer(response: Response, secrets: Sequence[str]) -> str:
    """What the server says of its refusal, in one short line."""
    if not re.match(r"(application/([\w.-]+\+)?json|text/plain)\b", response.headers.get("Content-Type", "")):
        return ""
    said = " ".join(redact(response.text[:4000], secrets).split())
    return f"; it says: {said[:_SHOWN]}{'…' if len(said) > _SHOWN else ''}" if said else ""


def _find_reason(error: BaseException) -> str:
    """The operating system's or TLS's own words, from below the layers that repeat the URL."""
    text = str(error)
    for pattern, reason in (
        (r"Connection refused", "connection refused"),
        (r"NameResolutionError|Name or service not known|nodename nor servname|Temporary failure in name resolution", "the host's name is unknown"),
        (r"No route to host|Network is unreachable", "the host cannot be reached"),
        (r"certificate verify failed: ([^(]+)", "the certificate is not trusted"),
        (r"RemoteDisconnected|Connection reset|Connection aborted|IncompleteRead", "the connection broke off"),
        (r"ProxyError|Cannot connect to proxy", "the proxy failed"),
    ):
        if re.search(pattern, text):
            return reason
    return type(error).__name__
