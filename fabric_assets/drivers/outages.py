"""A driver's exception -> whether the same call may succeed later: no connection, a lost one, or a server that is busy with others.

Sources and destinations share one list. Servers send a code, in any language; drivers and TLS, which report that a server is gone, use words.
"""

import re

# SQLSTATE: connections that break, transactions that were rolled back for others, too many connections, locks, servers that stop.
_STATES = ("08", "40", "53300", "55P03", "57P0")
_WORDS = (
    # No connection.
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
    # The connection was lost.
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
    # The connection works, but others came first.
    "conflict with recovery",
    "deadlock",
    "is locked",
    "could not set lock",
)
# Whole words: an error may quote a statement with a column session_timeout.
_PATTERN = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)


def is_outage(error: BaseException) -> bool:
    """Whether an exception is an outage. Check for permanent errors first: their messages may contain any of these words."""
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    return isinstance(error, ConnectionError | TimeoutError) or state.startswith(_STATES) or _PATTERN.search(str(error)) is not None
