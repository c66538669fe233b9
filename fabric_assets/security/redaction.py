"""A secret that is handed out -> a process that masks it in its logs and in the traceback that it prints when it dies.

The code that hands out a secret calls this, so a process is guarded from its first secret on, and nothing needs to be installed. One factory makes the records
of all loggers of a process, including Dagster's, dlt's and SQLAlchemy's. A filter on one logger would miss what the loggers below it pass up.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from fabric_assets.masking import mask, remember


def hide(*secrets: str) -> None:
    """Mask these secrets from now on in all that this process logs, raises, records and prints."""
    for secret in secrets:
        remember(secret)
    if not isinstance(make := logging.getLogRecordFactory(), _MaskedRecords):
        logging.setLogRecordFactory(_MaskedRecords(make))
    if not isinstance(show := sys.excepthook, _MaskedEnd):
        sys.excepthook = _MaskedEnd(show)
    if not isinstance(end := threading.excepthook, _MaskedThreadEnd):
        threading.excepthook = _MaskedThreadEnd(end)


def describe_masked(error: BaseException) -> str | None:
    """Give the traceback without its secrets; None where it holds no secret and may be shown as it is."""
    shown = _format(error)
    masked = mask(shown)
    return None if masked == shown else masked


class _MaskedRecords:
    """A factory of log records. It masks their text, traceback and stack before any handler sees them."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        record = self._make(*args, **named)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: logging would print them to standard error, as they are
            text, record.args = f"{record.msg} {record.args}", None
            record.msg = text
        if (masked := mask(text)) != text:
            record.msg, record.args = masked, None
        if record.exc_info and record.exc_info[1] and (masked := describe_masked(record.exc_info[1])):
            record.exc_text, record.exc_info = masked.rstrip("\n"), None
        if record.stack_info:
            record.stack_info = mask(record.stack_info)
        return record


class _MaskedEnd:
    """The hook that prints an exception that nobody has caught, without secrets."""

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show = show

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if masked := describe_masked(error):
            sys.stderr.write(masked)
        else:
            self._show(kind, error, trace)


class _MaskedThreadEnd:
    """The same hook for a thread."""

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show = show

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value and (masked := describe_masked(args.exc_value)):
            sys.stderr.write(masked)
        else:
            self._show(args)


def _format(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
