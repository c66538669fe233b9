"""A line of JSON -> its value, without a digit lost: the fast parser where it loses none, else the careful one."""

import json
import re
from typing import Any

import orjson

from fabric_assets.rows.json_numbers import read_number

# A number of this many digits may not fit a double, or 64 bits. A text with a long run of digits takes the careful way too, which costs only time.
_LONG = re.compile(rb"[0-9.]{17}|[0-9][eE]-[0-9]{3}")


def read_line(line: bytes) -> Any:
    """Read a line of JSON.

    Raises:
        ValueError: it is not JSON.
    """
    if _LONG.search(line):
        return json.loads(line, parse_float=read_number)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # NaN and lone surrogates, which Python's own module writes.
        return json.loads(line, parse_float=read_number)


def write_line(value: Any) -> bytes:
    """Write a value as a line of JSON, with its line end."""
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, orjson.JSONEncodeError):
        # Whole numbers beyond 64 bits, and lone surrogates.
        return json.dumps(value).encode() + b"\n"
