"""An origin -> an HTTP session that retries temporary failures, renews a refused login once, and turns other failures into our errors.

The login is added when a request is sent, because only then its address is certain. Page links, redirects and paths with row values all pass here, so none
of them can carry the tenant's token elsewhere. No error keeps a request or an answer.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter
from requests.auth import AuthBase
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from fabric_assets.connectors.rest_api.answers import AnswerFormat, UnreadableAnswer
from fabric_assets.connectors.rest_api.failures import Failure, describe_failure, describe_refusal, quote_answer
from fabric_assets.connectors.rest_api.waits import WaitLog
from fabric_assets.errors import SourceUnavailable
from fabric_assets.security.outgoing import Guard, Outgoing, show_url

ATTEMPTS = 5
# An answer that takes longer is cut off and requested again.
ANSWER_SECONDS = 300
# A longer wait is left to the retry of the step, because a waiting load occupies one of the running loads.
LONGEST_WAIT_SECONDS = 300
_AGENT = "etl-fabric"


class Login:
    """The absence of a login, and the base class of all logins."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no message may contain, whatever the server answers."""
        return ()

    def identify(self, salt: str) -> str:
        """Tell this login from others, without a secret: another login may see fewer rows."""
        return ""

    def sign(self, request: PreparedRequest) -> None:
        """Add the login to a request."""

    def renew(self, refused: PreparedRequest) -> bool:
        """Get a new login after a request was refused with 401; False if there is no other."""
        return False

    def close(self) -> None:
        """Close what renewing has opened."""


@dataclass(frozen=True)
class HttpPolicy:
    """The limits and permissions of all requests of one load.

    Args:
        ends: the time on the monotonic clock at which the load has taken too long.
        others: origins besides the source's own that links and redirects may lead to.
        report: is called with the waits that the reader of a run should know of.
    """

    ends: float
    others: tuple[str, ...] = ()
    allow_private_network: bool = False
    report: Callable[[str], None] = lambda message: None

    def open_session(
        self, where: str, url: str, login: Login, headers: Mapping[str, str] | None = None, *, written: AnswerFormat | None = None
    ) -> "ApiSession":
        """Build a session for one thread.

        Args:
            where: tenant, source and stream, for messages.
            url: any URL of the source's own origin.
            headers: are sent only to the source's own origin, like the login.
            written: the format of the answers; default: JSON.
        """
        guard = Guard(where, url=url, others=self.others, allow_private_network=self.allow_private_network)
        return ApiSession(_Adapter(self, where, guard, login, headers or {}, written or AnswerFormat()))


class ApiSession(Session):
    """One thread's session with one API."""

    def __init__(self, adapter: "_Adapter") -> None:
        super().__init__()
        self._adapter = adapter
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self.headers["User-Agent"] = _AGENT
        # Tenants' requests must not use the operator's proxies and ~/.netrc; an auth object keeps `requests` from reading the latter.
        self.trust_env = False
        self.auth = _NoAuth()

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Do nothing: the adapter signs each hop of a redirect by its address."""

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        try:
            return super().send(request, **kwargs)
        except RequestException as error:
            failure = self._adapter.describe(error, request)
        # Outside of the handler: an exception keeps the one that was being handled, and that one holds the request.
        raise failure.error

    def read(self, response: Response) -> Any:
        """The JSON value of an answer; None without content.

        Raises:
            SourceError: it has no JSON value.
        """
        return self._adapter.written.read(response, self._adapter.where)

    @property
    def reads_lines(self) -> bool:
        """Whether answers are JSON Lines."""
        return self._adapter.written.lines

    def quote(self, response: Response) -> str:
        """Quote the answer's text in one short line, without secrets."""
        return quote_answer(response, self._adapter.login.secrets)


class _NoAuth(AuthBase):
    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        return r


class _Adapter(BaseAdapter):
    """The adapter through which every page and every hop of a redirect passes."""

    def __init__(self, policy: HttpPolicy, where: str, guard: Guard, login: Login, headers: Mapping[str, str], written: AnswerFormat) -> None:
        super().__init__()
        self._policy, self.where, self._guard, self.login, self._headers, self.written = policy, where, guard, login, headers, written
        self._outgoing = Outgoing(guard)
        self._waits = WaitLog(where, policy.report)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        attempt = 1
        while not isinstance(answer := self._ask(request), Response):
            # Random, so that several loads do not retry at the same time.
            wait = answer.wait if answer.wait is not None else 2 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311
            if not answer.passing or attempt == ATTEMPTS or wait > LONGEST_WAIT_SECONDS or time.monotonic() + wait > self._policy.ends:
                raise answer.error
            self._waits.add(answer, request, wait)
            time.sleep(wait)
            attempt += 1
        answer.request = request
        return answer

    def close(self) -> None:
        self._waits.flush()
        self._outgoing.close()

    def describe(self, error: Exception, request: PreparedRequest) -> Failure:
        return describe_failure(error, self.where, request)

    def _ask(self, request: PreparedRequest) -> Response | Failure:
        signed = self._sign(request)
        answer = self._exchange(signed)
        if isinstance(answer, Failure) and answer.status == 401 and self._guard.is_own(request.url or "") and self.login.renew(signed):
            return self._exchange(self._sign(request))
        return answer

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        signed = request.copy()
        if self._guard.is_own(request.url or ""):
            signed.headers.update(self._headers)
            self.login.sign(signed)
        else:
            signed.headers.pop("Cookie", None)
        return signed

    def _exchange(self, request: PreparedRequest) -> Response | Failure:
        left = self._policy.ends - time.monotonic()
        if left <= 0:
            return Failure(build_timeout_error(self.where))
        try:
            response = self._outgoing.fetch(request, seconds=min(left, ANSWER_SECONDS))
        except (RequestException, HTTPError) as error:
            late = time.monotonic() >= self._policy.ends
            return Failure(build_timeout_error(self.where)) if late else self.describe(error, request)
        status = response.status_code
        if status >= 400 or (status >= 300 and not response.is_redirect) or (status == 202 and request.method == "GET"):
            return describe_refusal(response, self.where, request, self.login.secrets)
        if _is_cut_off(response, self.written):
            return Failure(
                SourceUnavailable(f"{self.where}: the answer to {request.method} {show_url(request.url or '')} broke off", remedy="the load tries again later"),
                passing=True,
            )
        return response


def build_timeout_error(where: str) -> SourceUnavailable:
    return SourceUnavailable(f"{where}: the load took longer than the source's timeout", remedy="raise the source's timeout")


def _is_cut_off(response: Response, written: AnswerFormat) -> bool:
    """Whether an answer begins like a value but ends early, although HTTP reports no error."""
    if response.is_redirect:
        return False
    try:
        written.parse(response)
    except UnreadableAnswer as error:
        return error.is_cut_off
    return False
