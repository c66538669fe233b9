"""A secret that is given out -> a process that shows it nowhere: neither in its logs nor in what it prints when it dies.

Called by code that hands out a secret, so a process is guarded from its first secret on and there is nothing to install. All loggers of a process make their
records by one factory, Dagster's, dlt's and SQLAlchemy's too. A filter on a logger would miss what the loggers below it pass up.
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
    """Mask these from now on in all that this process logs, raises, records and prints."""
    for secret in secrets:
        remember(secret)
    if not isinstance(make := logging.getLogRecordFactory(), _MaskedRecords):
        logging.setLogRecordFactory(_MaskedRecords(make))
    if not isinstance(show := sys.excepthook, _MaskedEnd):
        sys.excepthook = _MaskedEnd(show)
    if not isinstance(end := threading.excepthook, _MaskedThreadEnd):
        threading.excepthook = _MaskedThreadEnd(end)


def describe_masked(error: BaseException) -> str | None:
    """The traceback without secrets; None where it holds none, and may be shown as it is."""
    shown = _format(error)
    masked = mask(shown)
    return None if masked == shown else masked


class _MaskedRecords:
    """Makes log records whose text, traceback and stack are masked before any handler sees them."""

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
    """What Python prints of an exception that nobody has caught."""

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show = show

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if masked := describe_masked(error):
            sys.stderr.write(masked)
        else:
            self._show(kind, error, trace)


class _MaskedThreadEnd:
    """The same in a thread."""

    def __init__(self, show: Callable[..., Any]) -> None:
        self._show = show

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value and (masked := describe_masked(args.exc_value)):
            sys.stderr.write(masked)
        else:
            self._show(args)


def _format(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
