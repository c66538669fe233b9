"""Singer taps of PyPI: installed by their lock, confined, and loaded twice."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.connectors.bridge.installing.environments import get_environment
from fabric_assets.settings import Settings
from tests.support.dlt_rows import install_from_index
from tests.support.shop import Tenant

CONNECTORS = """
connectors:
  dbf: {type: singer, requirements: ["tap-dbf==0.1.25"], executable: tap-dbf}
  jsonl: {type: singer, requirements: ["tap-jsonl==0.3.1"], executable: tap-jsonl}
"""
ROWS = [(1, "Ann", 12.5), (2, "Bob", 0.25), (3, "Zoë", 99.0)]


def write_dbf(file: Path, rows: list[tuple[int, str, float]]) -> None:
    """Write a table of dBase III."""
    fields = (("ID", b"N", 6, 0), ("NAME", b"C", 10, 0), ("AMOUNT", b"N", 10, 2))
    size = 1 + sum(length for *_, length, _ in fields)
    # The 3 before the end says that texts are in Windows-1252.
    head = struct.pack("<4BIHH17xB2x", 3, 124, 1, 1, len(rows), 32 + 32 * len(fields) + 1, size, 3)
    described = b"".join(struct.pack("<11sc4xBB14x", name.encode(), kind, length, digits) for name, kind, length, digits in fields)
    lines = b"".join(b" " + f"{number:>6}".encode() + name.encode("cp1252").ljust(10) + f"{amount:>10.2f}".encode() for number, name, amount in rows)
    file.write_bytes(head + described + b"\r" + lines + b"\x1a")


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "connectors.yaml").write_text(CONNECTORS)
    own = replace(settings, connectors=tmp_path / "connectors.yaml", connectors_dir=tmp_path / "connectors")
    install_from_index(own, "dbf", "jsonl")
    (own.data_dir / "exports").mkdir()
    return own


def test_taps_of_pypi_are_loaded(own: Settings) -> None:
    assert {"path", "stream_name"} <= (get_environment(own, "jsonl").spec or {})["properties"].keys()
    write_dbf(own.data_dir / "exports" / "people.dbf", ROWS)
    (own.data_dir / "exports" / "people.jsonl").write_text("".join(json.dumps({"id": row[0], "name": row[1], "amount": row[2]}) + "\n" for row in ROWS))
    blocks: dict[str, dict[str, Any]] = {
        "dbf": {"arguments": {"path": "{exports}/people.dbf"}, "streams": {"people": {"stream": "people", "primary_key": "ID"}}},
        "jsonl": {"arguments": {"path": "{exports}/*.jsonl", "stream_name": "people", "primary_keys": ["id"]}, "streams": {"people": {}}},
    }
    for name, block in blocks.items():
        source = {"type": "singer", "connector": name, "folders": {"exports": "exports"}, "retries": {"max": 0}, **block}
        tenant = Tenant(own, source, source_name=name)
        for _ in range(2):
            tenant.load()
            assert tenant.read("people", "id", "name", "amount") == ROWS, name
