"""The ids of rows that come as JSON: texts of base64, the same for the same seed."""

import base64
import hashlib

import pyarrow as pa

_BYTES = 10
# Of this length without a remainder: an id of the same hash follows at once.
_LONG_BYTES, _LONG_CHARS = 12, 16


def build_id(text: str) -> str:
    return base64.b64encode(hashlib.shake_128(text.encode()).digest(_BYTES)).decode().rstrip("=")


def build_ids(seed: str, number: int) -> pa.Array:
    """Build as many ids as there are rows, all from one hash."""
    texts = base64.b64encode(hashlib.shake_128(seed.encode()).digest(_LONG_BYTES * number))
    offsets = pa.array(range(0, len(texts) + 1, _LONG_CHARS), pa.int32())
    return pa.StringArray.from_buffers(number, offsets.buffers()[1], pa.py_buffer(texts))
