"""A failed request -> one of our errors, and whether another try may help. No message contains a secret or a query."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.exceptions import ChunkedEncodingError, ConnectTimeout, ContentDecodingError, SSLError, Timeout, TooManyRedirects
from requests.exceptions import ConnectionError as RequestsConnectionError

from fabric_assets.connectors.rest_api.limits import find_patience, says_rate_limit
from fabric_assets.errors import FabricError, RefusedRequest, SourceError, SourceUnavailable
from fabric_assets.masking import redact
from fabric_assets.security.outgoing import CONNECT_SECONDS, READ_SECONDS, TooLate, show_url

# 202 means that data will follow, e.g. a report that is still computed. Read as an empty answer, it would empty the table.
_PASSING = {202, 408, 425, 429}
_SHOWN = 200
_LATER = "the load tries again later"
_LIMITED = f"the API limits how often it is asked; {_LATER}"
_REMEDIES = {
    202: f"the API has not finished its answer; {_LATER}",
    401: "check the source's auth and the secret it names",
    403: "the login is known but may not read this: ask the API's owner for the right, or check the source's auth",
    404: "check base_url and the stream's path",
    410: "check base_url and the stream's path",
    429: _LIMITED,
}


@dataclass(frozen=True)
class Failure:
    """A failed request.

    Args:
        passing: another try may help.
        wait: seconds until then, if the server names them.
    """

    error: FabricError
    passing: bool = False
    status: int | None = None
    wait: float | None = None


def describe_refusal(response: Response, where: str, request: PreparedRequest, secrets: Sequence[str]) -> Failure:
    """Describe an answer without rows: 202, a redirect without a target, and 400 and above."""
    status, said, patience = response.status_code, quote_answer(response, secrets), find_patience(response)
    limited = status == 403 and (patience is not None or says_rate_limit(response))
    passing = limited or status in _PASSING or status >= 500
    remedy = _LIMITED if limited else _REMEDIES.get(status, f"the API itself failed; {_LATER}" if passing else "check the stream's path and params")
    message = f"{where}: {request.method} {show_url(request.url or '')} was answered with {status}"
    if limited:
        message += " (the API's rate limit is reached)"
    elif status == 202:
        message += " (the data are not ready yet)"
    if passing and patience and patience.words:
        message += f", {patience.words}"
    error = SourceUnavailable(message + said, remedy=remedy) if passing else RefusedRequest(message + said, remedy=remedy, status=status)
    return Failure(error, passing, status, patience.seconds if patience else None)


def describe_failure(error: Exception, where: str, request: PreparedRequest) -> Failure:
    """Describe a request without an answer, or with an incomplete one."""
    asked, remedy = f"{request.method} {show_url(request.url or '')}", "check that the API is up and base_url is right"
    if isinstance(error, SSLError):
        # A retry does not make a certificate valid.
        reason = _find_reason(error)
        return Failure(
            SourceError(f"{where}: no trusted TLS connection to {show_url(request.url or '')}: {reason}", remedy="check base_url and the server's certificate")
        )
    if isinstance(error, TooManyRedirects):
        return Failure(SourceError(f"{where}: {asked} is redirected without end", remedy="check base_url and the stream's path"))
    if isinstance(error, TooLate):
        return Failure(SourceUnavailable(f"{where}: the answer to {asked} is too slow to end in time", remedy=remedy), passing=True)
    if isinstance(error, Timeout):
        seconds = CONNECT_SECONDS if isinstance(error, ConnectTimeout) else READ_SECONDS
        return Failure(SourceUnavailable(f"{where}: {asked} was not answered within {seconds} s", remedy=remedy), passing=True)
    if isinstance(error, RequestsConnectionError):
        return Failure(SourceUnavailable(f"{where}: {asked} failed: {_find_reason(error)}", remedy=remedy), passing=True)
    if isinstance(error, ContentDecodingError) and (packed := _find_claim(error)):
        return Failure(
            SourceError(
                f"{where}: the answer to {asked} has the header Content-Encoding: {packed}, but its body is not {packed}",
                remedy="correct the API, or the proxy before it: it must compress the body, or leave the header out",
            )
        )
    if isinstance(error, ChunkedEncodingError | ContentDecodingError):
        return Failure(SourceUnavailable(f"{where}: the answer to {asked} broke off", remedy=_LATER), passing=True)
    return Failure(SourceError(f"{where}: {asked} cannot be sent ({type(error).__name__})", remedy="check base_url and the stream's path"))


def _find_claim(error: ContentDecodingError) -> str | None:
    """The compression that an answer's header names although its body does not have it; None if the body was damaged on its way."""
    claim = re.search(r"content-encoding: ([\w-]+)", str(error))
    # The messages of zlib and of zstd; deflate has no magic bytes.
    return claim[1] if claim and re.search("encoding: deflate|incorrect header check|Unknown frame descriptor", str(error)) else None


def quote_answer(response: Response, secrets: Sequence[str]) -> str:
    """Quote the answer's text in one short line, without secrets; empty unless it is JSON or plain text."""
    if not re.match(r"(application/([\w.-]+\+)?json|text/plain)\b", response.headers.get("Content-Type", "")):
        return ""
    said = " ".join(redact(response.content[:4000].decode(errors="replace"), [*secrets, response.url, urlsplit(response.url).query]).split())
    return f"; it says: {said[:_SHOWN]}{'…' if len(said) > _SHOWN else ''}" if said else ""


def _find_reason(error: BaseException) -> str:
    """The reason in plain words, from an error that repeats the URL in each of its layers."""
    text = str(error)
    for pattern, reason in (
        (r"Connection refused", "connection refused"),
        (r"NameResolutionError|Name or service not known|nodename nor servname|Temporary failure in name resolution", "the host's name is unknown"),
        (r"No route to host|Network is unreachable", "the host cannot be reached"),
        (r"certificate verify failed: ([^(]+)", "the certificate is not trusted"),
        (r"RemoteDisconnected|Connection reset|Connection aborted|IncompleteRead", "the connection broke off"),
    ):
        if re.search(pattern, text):
            return reason
    return type(error).__name__
