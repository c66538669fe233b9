"""Of rows with the same key the newest is kept; the load starts no thread for it."""

import subprocess
import sys

import pyarrow as pa

from fabric_assets.warehouse.duplicates import drop_duplicates
from tests.conftest import ROOT

# Where memory has run out, Arrow would wait forever for a thread that cannot start.
COUNT_THREADS = """
from pathlib import Path
import pyarrow as pa
from fabric_assets.warehouse.duplicates import drop_duplicates

def count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())

rows = pa.table({"id": [number % 150_000 for number in range(300_000)], "at": list(range(300_000))})
before = count()
assert drop_duplicates(rows, ("id",), "at").num_rows == 150_000
print(count() - before)
"""


def test_the_newest_row_of_each_key_is_kept_and_the_rest_stays_in_order() -> None:
    rows = pa.table({"id": [3, 1, 3, 2, 1], "at": [5, 9, 4, None, 9], "note": ["a", "b", "c", "d", "e"]})
    assert drop_duplicates(rows, ("id",), "at")["note"].to_pylist() == ["a", "d", "e"]
    assert drop_duplicates(rows, ("id",), None)["note"].to_pylist() == ["c", "d", "e"]
    assert drop_duplicates(rows, ("id", "note"), "at") is rows


def test_no_thread_is_started() -> None:
    counted = subprocess.run([sys.executable, "-c", COUNT_THREADS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert counted.stdout.strip() == "0"
