"""What the program writes: lines of JSON on a copy of its standard output."""

import json
import os
from typing import IO, Any


class Refused(Exception):
    """Something that the load cannot keep, or settings that the source does not take."""


class Output:
    """The messages, on a copy of the standard output."""

    def __init__(self) -> None:
        self._file: IO[bytes] = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
        # Whatever the source prints belongs to the log.
        os.dup2(2, 1)

    def send(self, kind: str, **message: Any) -> None:
        self._file.write(json.dumps({"type": kind, **message}).encode() + b"\n")

    def send_rows(self, stream: str, rows: list[bytes]) -> None:
        begin = b'{"type":"RECORD","stream":' + json.dumps(stream).encode() + b',"record":'
        self._file.write(begin + (b"}\n" + begin).join(rows) + b"}\n")

    def close(self) -> None:
        self._file.close()
