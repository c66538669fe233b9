"""The `auth:` of a rest_api source -> the login that signs each request.

dlt's auth classes are not used: they are configuration objects, which dlt completes from its own look-up. Their OAuth sends the word "None" if a server
returns no token.
"""

import hashlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, quote_plus

from requests import PreparedRequest, Response, Session

from fabric_assets.config.base import SecretRef
from fabric_assets.config.sources.rest import ApiKeyAuth, AuthConfig, BasicAuth, BearerAuth
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_api.session import Login
from fabric_assets.errors import RefusedRequest, SecretError, SourceError
from fabric_assets.security.redaction import hide

_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_HTTP_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s@\[\]:/?#]+)(:\d{1,5})?([/?#][^\s@]*)?")
# A token is renewed this long before it expires, so that it does not expire on the way to the server.
_MARGIN_SECONDS = 30
_DEFAULT_LIFETIME_SECONDS = 3600


# The statuses with which servers answer invalid_client.
_REFUSES_CLIENT = {400, 401, 403}

Method = Literal["client_secret_post", "client_secret_basic"]
OpenSession = Callable[[str, str, Login], Session]


def build_login(auth: AuthConfig | None, context: SourceContext, open_session: OpenSession) -> Login:
    """Resolve the login's secrets.

    Args:
        open_session: opens a session for the token's address, by the start of messages, URL and login.

    Raises:
        SecretError: a secret is missing, or cannot be part of a header.
    """
    if auth is None:
        return Login()
    if isinstance(auth, BearerAuth):
        token = _resolve_header(auth.token, context)
        return _HeaderLogin("Authorization", f"Bearer {token}", token)
    if isinstance(auth, ApiKeyAuth):
        key = _resolve_header(auth.key, context)
        return _HeaderLogin(auth.name, key, key)
    if isinstance(auth, BasicAuth):
        password = context.resolve(auth.password)
        both = b64encode(f"{resolve_text(auth.username, context)}:{password}".encode()).decode()
        hide(both)
        return _HeaderLogin("Authorization", f"Basic {both}", password, both, user=resolve_text(auth.username, context))
    form = {"grant_type": "client_credentials", **({"scope": auth.scope} if auth.scope else {})}
    client = _Client(resolve_text(auth.client_id, context), context.resolve(auth.client_secret))
    hide(client.basic)
    url = resolve_url(auth.token_url, context, "token_url")
    return _ClientLogin(f"{context.describe()}, the token of its auth", url, form, client, method=auth.method, open_session=open_session)


def resolve_text(value: str | SecretRef, context: SourceContext) -> str:
    return context.resolve(value) if isinstance(value, SecretRef) else value


def resolve_url(value: str | SecretRef, context: SourceContext, field: str) -> str:
    """Resolve an http(s) URL.

    Raises:
        SecretError: the secret is not an address, or contains a login.
    """
    url = context.resolve(value, hidden=False) if isinstance(value, SecretRef) else value
    if not _HTTP_URL.fullmatch(url):
        at = f", at {value.describe()}," if isinstance(value, SecretRef) else ""
        raise SecretError(f"{context.describe()}: {field}{at} is not an http:// or https:// address without a login", remedy="e.g. https://api.example.com/v2")
    return url


def _resolve_header(ref: SecretRef, context: SourceContext) -> str:
    value = context.resolve(ref)
    if not _HEADER_VALUE.fullmatch(value):
        raise SecretError(
            f"{context.describe()}: the value at {ref.describe()} cannot be part of a header: it has a line break, an outer blank or a non-ASCII character",
            remedy="store the token alone, on one line",
        )
    return value


class _HeaderLogin(Login):
    """A login that is one constant header.

    Args:
        user: whose password it is; empty for a token, which says itself whose it is.
    """

    def __init__(self, name: str, value: str, *secrets: str, user: str = "") -> None:
        self._name, self._value, self._secrets, self._user = name, value, secrets, user

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._secrets

    def identify(self, salt: str) -> str:
        # Slow on purpose: a short token could be guessed from a plain digest of it.
        return f"user {self._user}" if self._user else hashlib.scrypt(self._value.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=16).hex()

    def sign(self, request: PreparedRequest) -> None:
        request.headers[self._name] = self._value


@dataclass(frozen=True)
class _Client:
    """An OAuth client's name and secret."""

    id: str
    secret: str

    @property
    def basic(self) -> str:
        """The name and secret as a Basic login, each encoded like a form's value (RFC 6749, 2.3.1)."""
        return b64encode(f"{quote_plus(self.id)}:{quote_plus(self.secret)}".encode()).decode()


class _ClientLogin(Login):
    """A login by OAuth client credentials (RFC 6749, 4.4), for several threads.

    It fetches a token at first, shortly before a token expires, and when the API refuses one.

    Args:
        form: the fields that are sent with the client's name and secret.
        method: how name and secret are sent; None tries the form, then Basic, and keeps the one that the server accepts.
    """

    def __init__(self, where: str, url: str, form: dict[str, str], client: _Client, *, method: Method | None, open_session: OpenSession) -> None:
        self._where, self._url, self._form, self._client, self._open_session = where, url, form, client, open_session
        self._methods: list[Method] = [method] if method else ["client_secret_post", "client_secret_basic"]
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._token, self._ends = "", 0.0

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._client.secret, self._client.basic, *([self._token] if self._token else []))

    def identify(self, salt: str) -> str:
        return f"client {self._client.id} of {self._url}, {self._form.get('scope', '')}"

    def sign(self, request: PreparedRequest) -> None:
        with self._lock:
            if time.monotonic() >= self._ends:
                self._fetch()
            request.headers["Authorization"] = f"Bearer {self._token}"

    def renew(self, refused: PreparedRequest) -> bool:
        with self._lock:
            # Another thread may have had the same refusal, and have fetched a new token already.
            if refused.headers.get("Authorization") == f"Bearer {self._token}":
                self._fetch()
        return True

    def close(self) -> None:
        if self._session:
            self._session.close()

    def _fetch(self) -> None:
        if self._session is None:
            self._session = self._open_session(self._where, self._url, _ClientSecret(self._client))
        answer = _read_answer(self._ask(self._session))
        token = answer.get("access_token")
        if not isinstance(token, str) or not _HEADER_VALUE.fullmatch(token):
            raise SourceError(f"{self._where}: the answer holds no access_token", remedy="check auth.token_url")
        try:
            lifetime = float(answer.get("expires_in", _DEFAULT_LIFETIME_SECONDS))
        except (TypeError, ValueError):
            lifetime = _DEFAULT_LIFETIME_SECONDS
        hide(token)
        self._token, self._ends = token, time.monotonic() + max(lifetime - _MARGIN_SECONDS, 1.0)

    def _ask(self, session: Session) -> Response:
        """Request a token with each method until the server accepts one.

        Raises:
            RefusedRequest: the server accepts none; the error is that of the first method.
        """
        refusals = []
        for method in self._methods:
            form, headers = dict(self._form), {"Accept": "application/json"}
            if method == "client_secret_post":
                form |= {"client_id": self._client.id, "client_secret": self._client.secret}
            else:
                headers["Authorization"] = f"Basic {self._client.basic}"
            try:
                response = session.post(self._url, data=form, headers=headers)
            except RefusedRequest as error:
                refusals.append(error)
                if error.status not in _REFUSES_CLIENT:
                    break
            else:
                self._methods = [method]
                return response
        raise refusals[0]


def _read_answer(response: Response) -> dict[str, Any]:
    """The fields of an answer in JSON, or in the form encoding that some servers use."""
    try:
        answer = response.json()
    except ValueError:
        answer = dict(parse_qsl(response.text)) if "form-urlencoded" in response.headers.get("Content-Type", "") else None
    return answer if isinstance(answer, dict) else {}


class _ClientSecret(Login):
    """A login that adds nothing to a request, and keeps the client's secret out of messages."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._client.secret, self._client.basic)
