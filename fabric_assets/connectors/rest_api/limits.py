"""Whether a server asks the client to wait, and for how long: Retry-After, and the headers that name the remaining requests."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from requests import Response

_HEADER = re.compile(r"(?:x-)?rate-?limit-?(?:requests-)?(remaining|reset)(?:-?(?:after|time))?(-.+)?")
# Both drafts of the header RateLimit: `limit=10, remaining=0, reset=7` and `"default";r=0;t=7`.
_COMBINED = re.compile(r"\b(?:remaining|r)\s*=\s*0\b.*?\b(?:reset|t)\s*=\s*([0-9]{1,9})")
_SAYS_SO = re.compile(rb"rate.{0,3}limit|too many requests|throttl|slow.?down", re.IGNORECASE)
# Seconds since 1970 are larger than any wait, and milliseconds larger than these.
_EPOCH, _EPOCH_MILLISECONDS = 10**8, 10**11
_SHOWABLE = re.compile(r"[\w ,.:+-]{1,40}")


@dataclass(frozen=True)
class Patience:
    """A server's request to wait.

    Args:
        seconds: None if the server does not name them.
        words: the server's own, for messages; may be empty.
    """

    seconds: float | None
    words: str = ""


def find_patience(response: Response) -> Patience | None:
    """Find an answer's request to wait; None if it has none."""
    retry_after = response.headers.get("Retry-After")
    if retry_after is not None:
        return Patience(_parse_time(retry_after, response, is_delta=True), f"Retry-After: {retry_after}" if _SHOWABLE.fullmatch(retry_after) else "")
    remaining: dict[str, str] = {}
    reset: dict[str, str] = {}
    for name, value in response.headers.items():
        if name.lower() == "ratelimit" and (combined := _COMBINED.search(value)):
            return Patience(float(combined[1]), f"RateLimit resets in {combined[1]} s")
        if found := _HEADER.fullmatch(name.lower()):
            (remaining if found[1] == "remaining" else reset)[found[2] or ""] = value
    spent = [window for window, value in remaining.items() if re.match(r"\s*(?:0(?![.0-9])|-)", value)]
    if spent:
        waits = [_parse_time(value, response) for window in spent if (value := reset.get(window) or reset.get(""))]
        return Patience(max((wait for wait in waits if wait is not None), default=None), "no request is left of the rate limit")
    return None


def says_rate_limit(response: Response) -> bool:
    """Whether a refusal names a rate limit in its text."""
    return _SAYS_SO.search(response.content[:4000]) is not None


def _parse_time(value: str, response: Response, *, is_delta: bool = False) -> float | None:
    """Seconds from now, given a number of seconds, a time since 1970 or a date. None for anything else, and for a time in the past.

    Args:
        is_delta: a number is always a number of seconds.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", value):
        number = float(value)
        if is_delta or number < _EPOCH:
            return number or None
        # One second more: a request in the second in which the window ends may still be counted.
        moment = (number / 1000 if number > _EPOCH_MILLISECONDS else number) + 1
    elif (found := _parse_date(value)) is not None:
        moment = found
    else:
        return None
    # By the server's clock, which may differ from ours.
    now = _parse_date(response.headers.get("Date", "")) or time.time()
    seconds = moment - now
    return seconds if seconds > 0 else None


def _parse_date(value: str) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None
