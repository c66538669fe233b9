"""Recognises an answer with status 200 whose body only reports that the request failed."""

import re
from typing import Any

# The fields of an error report; an object with any other field is data.
_FIELDS = frozenset(
    {"success", "issuccess", "ok", "status", "statuscode", "code", "type", "title", "instance", "path", "timestamp", "requestid", "traceid"}
    | {"message", "messages", "msg", "detail", "details", "description", "reason", "data", "result", "results", "help", "documentationurl"}
    | {"error", "errors", "errorcode", "errormessage", "errordescription"}
)
_FLAGS, _STATUSES, _ERRORS = {"success", "issuccess", "ok"}, {"status", "statuscode", "code"}, {"error", "errors"}
_FAILED = {"error", "fail", "failed", "failure"}


def reports_failure(body: Any) -> bool:
    """Whether a value is an object that reports a failure and has no other fields."""
    if not isinstance(body, dict):
        return False
    fields = {re.sub(r"[^a-z]", "", name.lower()): value for name, value in body.items()}
    return _FIELDS.issuperset(fields) and any(_is_failure(name, value) for name, value in fields.items())


def ends_in_failure(lines: list[Any]) -> bool:
    """Whether JSON Lines end in an error report, because the server failed after it had begun to answer. If the first line is a report too, all are data."""
    return bool(lines) and reports_failure(lines[-1]) and (len(lines) == 1 or not reports_failure(lines[0]))


def _is_failure(name: str, value: Any) -> bool:
    if name in _FLAGS:
        return value is False
    if name in _STATUSES:
        return value.lower() in _FAILED if isinstance(value, str) else type(value) is int and 400 <= value < 600
    return name in _ERRORS and bool(value)
