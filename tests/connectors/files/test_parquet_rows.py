"""Parquet files whose metadata names another number of rows than their pages hold: refused, because a reader would leave rows out."""

import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.support.shop import Tenant

ROWS = 1_000


@pytest.fixture
def tenant(settings: Settings) -> Tenant:
    (settings.data_dir / "in").mkdir()
    return Tenant(settings, {"type": "files", "path": "in", "streams": {"items": {"glob": "*.parquet", "format": "parquet"}}})


def get_file(tenant: Tenant) -> Path:
    return tenant.settings.data_dir / "in" / "a.parquet"


def encode(number: int) -> bytes:
    """A number as Thrift's compact form has it."""
    left, encoded = number << 1, bytearray()
    while left > 127:
        encoded.append(left & 127 | 128)
        left >>= 7
    return bytes([*encoded, left])


def change_footer(file: Path, number: int, other: int, *, times: int = -1) -> None:
    content = file.read_bytes()
    size = struct.unpack("<I", content[-8:-4])[0]
    footer = content[-8 - size : -8]
    assert encode(number) in footer
    footer = footer.replace(encode(number), encode(other), times)
    file.write_bytes(content[: -8 - size] + footer + struct.pack("<I", len(footer)) + b"PAR1")


@pytest.mark.parametrize("times", [1, -1])
@pytest.mark.parametrize("other", [ROWS - 300, ROWS + 500])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_file_whose_metadata_names_other_rows_than_its_pages_hold_is_refused(tenant: Tenant, other: int, times: int, version: str) -> None:
    rows = {"id": list(range(ROWS)), "v": [None if number % 3 else f"value {number % 7}" for number in range(ROWS)]}
    pq.write_table(pa.table(rows), get_file(tenant), data_page_version=version)
    change_footer(get_file(tenant), ROWS, other, times=times)
    with pytest.raises(DataError, match=rf"a\.parquet is damaged: its metadata says {other:,} rows where there are {ROWS:,}"):
        tenant.load()


@pytest.mark.parametrize("options", [{"row_group_size": 300}, {"data_page_version": "2.0", "data_page_size": 64}, {"compression": "zstd"}])
def test_files_with_many_pages_nested_columns_and_nulls_are_read_whole(tenant: Tenant, options: dict) -> None:
    rows = {"tags": [["a", "b"][: number % 3] for number in range(ROWS)], "id": list(range(ROWS)), "note": [None] * ROWS}
    pq.write_table(pa.table(rows, schema=pa.schema({"tags": pa.list_(pa.string()), "id": pa.int64(), "note": pa.string()})), get_file(tenant), **options)
    assert tenant.load()["items"].rows_total == ROWS


def test_files_of_lists_alone_and_without_rows_are_read(tenant: Tenant) -> None:
    pq.write_table(pa.table({"tags": [["a", "b"], [], ["c"]]}), get_file(tenant))
    pq.write_table(pa.table({"tags": pa.array([], pa.list_(pa.string()))}), get_file(tenant).with_name("empty.parquet"))
    assert tenant.load()["items"].rows_total == 3


def test_a_file_of_texts_without_rows_is_read(tenant: Tenant) -> None:
    pq.write_table(pa.table({"id": pa.array([], pa.int64()), "v": pa.array([], pa.string())}), get_file(tenant))
    pq.write_table(pa.table({"id": [1], "v": ["a"]}), get_file(tenant).with_name("b.parquet"))
    assert tenant.load()["items"].rows_total == 1
