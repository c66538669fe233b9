"""What waits for a file's verdict comes back as it was, from memory or from disk."""

from pathlib import Path

import pyarrow as pa
import pytest

from fabric_assets.connectors.csv_import.spool import Spool
from fabric_assets.rows.batches import Reject

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.string())])


def build_reject(number: int) -> Reject:
    return Reject("f", number, "a" if number % 2 else None, "bad", "m", "ü\n")


@pytest.mark.parametrize("in_memory", [0, 100, 1_000_000])
def test_rows_and_rejects_come_back_in_order_as_often_as_asked(tmp_path: Path, in_memory: int) -> None:
    spool = Spool(tmp_path, SCHEMA, in_memory=in_memory)
    pieces = [([1, 2], 0), ([], 2), ([], 0), ([3], 1), ([4], 0)]
    for rows, bad in pieces:
        spool.write(pa.table({"a": rows, "b": [str(row) for row in rows]}, schema=SCHEMA), [build_reject(number) for number in range(bad)])
    wanted = [(rows, tuple(build_reject(number) for number in range(bad))) for rows, bad in pieces if rows or bad]
    for _ in range(2):
        assert [(table["a"].to_pylist(), rejects) for table, rejects in spool.read()] == wanted
    assert len(list(tmp_path.iterdir())) == (2 if in_memory < 1_000 else 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_without_rows_there_is_one_empty_table(tmp_path: Path) -> None:
    assert [(table.schema, table.num_rows, rejects) for table, rejects in Spool(tmp_path, SCHEMA).read()] == [(SCHEMA, 0, ())]
