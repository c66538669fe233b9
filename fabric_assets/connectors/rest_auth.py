"""The `auth:` of a rest_api source -> what puts the login into each request.

Not dlt's auth classes: they are configuration objects, which dlt completes from its own look-up, and whose OAuth sends the
word "None" where a server gives no token.
"""

import re
import time
from base64 import b64encode
from dataclasses import dataclass

from requests import PreparedRequest, Session
from requests.auth import AuthBase

from fabric_assets.config.base import SecretRef
from fabric_assets.config.rest import ApiKeyAuth, AuthConfig, BasicAuth, BearerAuth
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_session import build_session
from fabric_assets.errors import SecretError, SourceError

_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_HTTP_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s@\[\]:/?#]+)(:\d{1,5})?([/?#][^\s@]*)?")
# Renewed this long before it ends, so that it does not end between here and the server.
_MARGIN_SECONDS = 30
_DEFAULT_LIFETIME_SECONDS = 3600


@dataclass(frozen=True, repr=False)
class Login:
    """Args:
    secrets: the values behind it: no message may hold them.
    """

    auth: AuthBase
    secrets: tuple[str, ...] = ()

    def close(self) -> None:
        if isinstance(self.auth, _ClientCredentials):
            self.auth.close()


def build_login(auth: AuthConfig | None, context: SourceContext) -> Login:
    """Resolve the login's secrets.

    Raises:
        SecretError: one is missing, or cannot stand in a header.
    """
    if auth is None:
        return Login(_NoAuth())
    if isinstance(auth, BearerAuth):
        token = _resolve_header(auth.token, context)
        return Login(_HeaderAuth("Authorization", f"Bearer {token}"), (token,))
    if isinstance(auth, ApiKeyAuth):
        key = _resolve_header(auth.key, context)
        return Login(_HeaderAuth(auth.name, key), (key,))
    if isinstance(auth, BasicAuth):
        password = context.resolve(auth.password)
        both = b64encode(f"{resolve_text(auth.username, context)}:{password}".encode()).decode()
        return Login(_HeaderAuth("Authorization", f"Basic {both}"), (password, both))
    secret = context.resolve(auth.client_secret)
    form = {"grant_type": "client_credentials", "client_id": resolve_text(auth.client_id, context), "client_secret": secret}
    if auth.scope:
        form["scope"] = auth.scope
    place = f"{context.describe()}, the token of its auth"
    return Login(_ClientCredentials(place, resolve_url(auth.token_url, context, "token_url"), form), (secret,))


def resolve_text(value: str | SecretRef, context: SourceContext) -> str:
    return context.resolve(value) if isinstance(value, SecretRef) else value


def resolve_url(value: str | SecretRef, context: SourceContext, field: str) -> str:
    """Resolve an http(s) URL.

    Raises:
        SecretError: what a reference points at is none, or carries a login.
    """
    url = resolve_text(value, context)
    if not _HTTP_URL.fullmatch(url):
        at = f", at {value.describe()}," if isinstance(value, SecretRef) else ""
        raise SecretError(f"{context.describe()}: {field}{at} is no http:// or https:// address without a login", remedy="e.g. https://api.example.com/v2")
    return url


def _resolve_header(ref: SecretRef, context: SourceContext) -> str:
    value = context.resolve(ref)
    if not _HEADER_VALUE.fullmatch(value):
        raise SecretError(
            f"{context.describe()}: the value at {ref.describe()} cannot stand in a header: it holds a line break, a blank at an end, or other than ASCII",
            remedy="store the token alone, on one line",
        )
    return value


class _NoAuth(AuthBase):
    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        return r


class _HeaderAuth(AuthBase):
    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers[self._name] = self._value
        return r


class _ClientCredentials(AuthBase):
    """Fetches a token when there is none, or the one there is soon ends (RFC 6749, 4.4)."""

    def __init__(self, place: str, url: str, form: dict[str, str]) -> None:
        self._place, self._url, self._form = place, url, form
        self._session: Session | None = None
        self._token, self._ends = "", 0.0

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        if time.monotonic() >= self._ends:
            self._fetch()
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r

    def close(self) -> None:
        if self._session:
            self._session.close()

    def _fetch(self) -> None:
        if self._session is None:
            self._session = build_session(self._place, url=self._url, auth=_NoAuth(), secrets=(self._form["client_secret"],))
        response = self._session.post(self._url, data=self._form, headers={"Accept": "application/json"})
        try:
            answer = response.json()
        except ValueError:
            answer = None
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not _HEADER_VALUE.fullmatch(token):
            raise SourceError(f"{self._place}: the answer holds no access_token", remedy="check auth.token_url")
        try:
            lifetime = float(answer.get("expires_in", _DEFAULT_LIFETIME_SECONDS)) if isinstance(answer, dict) else 0.0
        except (TypeError, ValueError):
            lifetime = _DEFAULT_LIFETIME_SECONDS
        self._token, self._ends = token, time.monotonic() + max(lifetime - _MARGIN_SECONDS, 1.0)
