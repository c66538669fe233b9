"""The waits of one stream's requests -> a few lines for the reader of a run.

The first wait is reported when it begins. An API with a rate limit causes hundreds, so the others are counted, and reported once a minute and at the end.
"""

import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import unquote_plus, urlsplit

from requests import PreparedRequest

from fabric_assets.connectors.rest_api.failures import Failure
from fabric_assets.masking import mask
from fabric_assets.security.outgoing import show_url

_QUIET_SECONDS = 60
# A longer wait gets a line of its own.
_LONG_SECONDS = 30
_SHOWN = 120


class WaitLog:
    """A counter of waits, for one thread.

    Args:
        where: tenant, source and stream, for messages.
        report: is called with each line.
    """

    def __init__(self, where: str, report: Callable[[str], None]) -> None:
        self._where, self._report = where, report
        self._count, self._said_at = 0, 0.0
        self._waiting: Counter[str] = Counter()
        self._seconds, self._last = 0.0, ""

    def add(self, failure: Failure, request: PreparedRequest, seconds: float) -> None:
        """Note a wait that begins."""
        self._count += 1
        if self._count == 1 or seconds >= _LONG_SECONDS:
            self.flush()
            query = _show_query(request)
            self._report(f"{failure.error.message}{f'; query: {query}' if query else ''}; tries again in {seconds:.0f} s (wait {self._count})")
            self._said_at = time.monotonic()
            return
        self._waiting[str(failure.status or "no whole answer")] += 1
        self._seconds += seconds
        self._last = f"{request.method} {show_url(request.url or '')}{_show_query(request)}"
        if time.monotonic() - self._said_at >= _QUIET_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Report the number of waits since the last line."""
        if not self._waiting:
            return
        number = self._waiting.total()
        which = f"wait {self._count}" if number == 1 else f"waits {self._count - number + 1} to {self._count}"
        kinds = ", ".join(f"{kind}: {count}" for kind, count in self._waiting.items())
        self._report(f"{self._where}: {which}, {self._seconds:.0f} s in all ({kinds}); the last: {self._last}")
        self._waiting.clear()
        self._seconds, self._said_at = 0.0, time.monotonic()


def _show_query(request: PreparedRequest) -> str:
    """A request's query in readable form, without credentials."""
    query = urlsplit(request.url or "").query
    if not query:
        return ""
    shown = "".join(char if char.isprintable() else "?" for char in mask(f"?{unquote_plus(query)}"))
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
