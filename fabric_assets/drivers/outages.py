"""What a driver raises -> whether the same call may well succeed later: no connection, one that was lost, or a server that gives way to others.

One list for sources and destinations. Servers say it by code, in whatever language; drivers and TLS, where the server could say nothing any more, in words.
"""

import re

# SQLSTATE: connections that break, transactions that were rolled back for others, too many connections, locks, servers that stop.
_STATES = ("08", "40", "53300", "55P03", "57P0")
_WORDS = (
    # None was made.
    "could not connect",
    "can't connect",
    "connection refused",
    "connection to server",
    "could not translate host",
    "no route",
    "too many connections",
    "too many clients",
    "the database system is",
    "timeout",
    "timed out",
    # It was lost.
    "lost connection",
    "no connection to the server",
    "server closed the connection",
    "connection has been closed",
    "connection was killed",
    "connection reset",
    "broken pipe",
    "gone away",
    "could not receive data",
    "could not send data",
    "unexpected eof",
    "eof detected",
    "eof occurred",
    "terminating connection",
    "server shutdown",
    # It holds, and others went first.
    "conflict with recovery",
    "deadlock",
    "is locked",
    "could not set lock",
)
# Whole words: a statement that is refused may be quoted, and have a column session_timeout.
_PATTERN = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)


def is_outage(error: BaseException) -> bool:
    """Ask it last: a refusal for good may quote any of these words."""
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    return isinstance(error, ConnectionError | TimeoutError) or state.startswith(_STATES) or _PATTERN.search(str(error)) is not None
