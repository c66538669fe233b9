"""Rows that wait: in memory, in the file, and where there is no room for them."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from fabric_assets.connectors.bridge import spill
from fabric_assets.connectors.bridge.spill import SpillFile
from fabric_assets.errors import SourceError


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Refuse what makes a file larger, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_rows_of_many_streams_come_back_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_IN_MEMORY", 2_000)
    file = SpillFile(tmp_path, 10**9, where="x", connector="own")
    spills = [file.open_spill() for _ in range(3)]
    for number in range(300):
        spills[number % 3].add({"n": number, "text": "é"})
    spills[0].add_table(pa.table({"n": [1000]}), is_json=True)
    spills[0].add({"n": 1001})
    for first, each in enumerate(spills):
        found = [row["n"] for rows, _ in each.read() for row in (rows if isinstance(rows, list) else rows.to_pylist())]
        assert found == [*range(first, 300, 3), *([1000, 1001] if first == 0 else [])]
        assert each.rows == len(found)
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_the_remedy(tmp_path: Path) -> None:
    file = SpillFile(tmp_path, 10**9, where="tenant acme", connector="own")
    rows = pa.table({"text": ["x" * 100_000] * 50})
    with files_no_larger_than(1_000_000), pytest.raises(SourceError, match="the rows of own cannot be kept until they are complete: File too large") as caught:
        file.open_spill().add_table(rows, is_json=True)
    assert "FABRIC_DATA_DIR" in caught.value.remedy
    file.close()
