"""What a load of files takes of memory: under the promised 700 MB in a process of its own, whatever the file holds."""

import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.connectors.files.listing import SourceFile, fetch
from fabric_assets.connectors.files.parquet_pages import count_rows, find_memory
from fabric_assets.errors import DataError
from fabric_assets.settings import Settings
from tests.support.lengths import AT_FULL_LENGTH, choose

PROMISED_MB = 700
LOAD = """
import json, re, sys
from pathlib import Path
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import FabricError
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest
from fabric_assets.settings import Settings

data, stream = Path(sys.argv[1]), json.loads(sys.argv[2])
source = {"type": "files", "path": "exports", "limits": json.loads(sys.argv[3]), "streams": {"items": stream}}
tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"shop": source}})
settings = Settings(tenants_dir=data, dbt_project_dir=data, data_dir=data)
said, rows = "", None
try:
    rows = [report.rows_total for report in run_load(LoadRequest(tenant, "shop", (), settings, False), report=lambda message: None)][0]
except FabricError as error:
    said = error.message
# Not getrusage, whose peak is the parent's where that is higher.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps({"rows": rows, "said": said, "megabytes": peak / 1024}))
"""


def measure(settings: Settings, form: str, **limits: str) -> tuple[int | None, str]:
    """Load in a process of its own: its rows, and what it said instead."""
    # A file: DuckDB takes `python -c` for a person, and draws a bar into its output.
    script = settings.data_dir / "load.py"
    script.write_text(LOAD)
    command = [sys.executable, str(script), str(settings.data_dir), json.dumps({"glob": "*", "format": form}), json.dumps(limits)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert found["megabytes"] < PROMISED_MB
    return found["rows"], found["said"]


def write_wide_csv(path: Path, *, columns: int, rows: int) -> None:
    random.seed(1)
    lines = [",".join(f'"C{number}"' for number in range(columns))]
    lines += [",".join(str(random.randint(0, 5)) if number % 3 else random.choice(["Yes", "No", ""]) for number in range(columns)) for _ in range(rows)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(("columns", "rows"), choose([(1_093, 54), (300, 50), (2_000, 50), (300, 5_000)], 1))
def test_a_csv_of_many_columns(settings: Settings, inbox: Path, columns: int, rows: int) -> None:
    write_wide_csv(inbox / "a.csv", columns=columns, rows=rows)
    assert measure(settings, "csv") == (rows, "")


@AT_FULL_LENGTH
def test_json_lines_of_many_keys(settings: Settings, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text("".join(json.dumps({f"c{key}": row for key in range(1_000)}) + "\n" for row in range(300)))
    assert measure(settings, "jsonl") == (300, "")


@AT_FULL_LENGTH
def test_json_lines_of_many_kinds_of_events(settings: Settings, inbox: Path) -> None:
    """A table of 800 columns: DuckDB's file has small blocks, because an insert holds some of each column."""
    with (inbox / "a.jsonl").open("w") as file:
        for number in range(30_000):
            kind = number % 400
            file.write(json.dumps({"id": number, "kind": f"k{kind}", f"k{kind}_value": number / 7, f"k{kind}_note": f"text {number}"}) + "\n")
    assert measure(settings, "jsonl") == (30_000, "")


LONG: dict[str, Callable[[int], str]] = {
    "csv": lambda number: f"{number},{'x' * 3_000_000}\n",
    "jsonl": lambda number: json.dumps({"id": number, "note": "x" * 3_000_000}) + "\n",
}


@pytest.mark.parametrize("form", choose(list(LONG), 1))
def test_rows_of_megabytes_after_many_short_ones(settings: Settings, inbox: Path, form: str) -> None:
    short = "".join(f"{number},a\n" if form == "csv" else f'{{"id": {number}, "note": "a"}}\n' for number in range(100_000))
    (inbox / "a").write_text(("id,note\n" if form == "csv" else "") + short + "".join(map(LONG[form], range(20))))
    assert measure(settings, form) == (100_020, "")


def write_parquet_of_one_page(path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "note": ["y" * 60_000_000]}), path, compression="zstd")


def write_parquet_of_a_large_map(path: Path) -> None:
    keys = pa.array(["y" * 60_000_000])
    pq.write_table(pa.table({"m": pa.MapArray.from_arrays(pa.array([0, 1]), keys, pa.array([1]))}), path, compression="brotli")


@pytest.mark.parametrize("write", [write_parquet_of_one_page, write_parquet_of_a_large_map])
def test_a_small_parquet_file_of_a_large_page_is_refused_before_the_page_is_unpacked(settings: Settings, inbox: Path, write: Callable[[Path], None]) -> None:
    write(inbox / "a.parquet")
    assert (inbox / "a.parquet").stat().st_size < 100_000
    rows, said = measure(settings, "parquet", memory="50MB")
    assert rows is None
    assert "the file a.parquet takes" in said and "bytes of memory to read, more than 50,000,000" in said


def repeat(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count), pa.array([text]))


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_small_parquet_file_that_repeats_a_long_text_is_read_a_few_rows_at_a_time(inbox: Path, *, is_nested: bool) -> None:
    texts = repeat("x" * 5_000_000, 40)
    table = pa.table({"texts": pa.ListArray.from_arrays(pa.array(range(41)), texts) if is_nested else texts})
    pq.write_table(table, inbox / "a.parquet", compression="zstd")
    assert (inbox / "a.parquet").stat().st_size < 100_000
    with pq.ParquetFile(inbox / "a.parquet") as parquet:
        rows = count_rows(parquet, inbox / "a.parquet", 50_000)
        assert 1 <= rows <= 64 * 1024 * 1024 // 5_000_000
        assert next(parquet.iter_batches(batch_size=rows)).num_rows == rows


@pytest.mark.parametrize("kind", choose([pa.int64(), pa.timestamp("us"), pa.string()], 2))
def test_a_small_parquet_file_of_long_lists_is_read_a_few_rows_at_a_time(inbox: Path, kind: pa.DataType) -> None:
    values, width = (pa.array(["x" * 50_000] * 1_000), 50_000) if kind == pa.string() else (pa.array([0] * 1_000_000).cast(kind), 8)
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"v": pa.concat_arrays([lists] * 10)}), inbox / "a.parquet", compression="zstd")
    assert (inbox / "a.parquet").stat().st_size < 20_000
    with pq.ParquetFile(inbox / "a.parquet") as parquet:
        rows = count_rows(parquet, inbox / "a.parquet", 50_000)
    assert 1 <= rows <= max(1, 64 * 1024 * 1024 // (width * len(values)))


def test_short_lists_of_numbers_are_read_by_the_thousand(inbox: Path) -> None:
    pq.write_table(pa.table({"v": [[1, 2, 3]] * 1_000, "t": [["a", "b"]] * 1_000}), inbox / "a.parquet")
    with pq.ParquetFile(inbox / "a.parquet") as parquet:
        assert count_rows(parquet, inbox / "a.parquet", 50_000) == 50_000


def test_pages_of_a_usual_size_are_read_whatever_the_row_groups_hold(inbox: Path) -> None:
    texts = [f"{number:>2000}" for number in range(5_000)]
    pq.write_table(pa.table({f"c{number}": texts for number in range(5)}), inbox / "a.parquet", compression="zstd", use_dictionary=False)
    facts = pq.ParquetFile(inbox / "a.parquet").metadata
    assert facts.row_group(0).total_byte_size > 50_000_000
    assert 5_000_000 < find_memory(inbox / "a.parquet", facts, 50_000_000) < 20_000_000


def write_long_rows(path: Path, first: int, count: int) -> None:
    """Write a CSV of rows of 3 MB that no compression makes smaller."""
    path.write_text("id,note\n" + "".join(f"{number},{random.Random(number).randbytes(1_500_000).hex()}\n" for number in range(first, first + count)))


def test_long_rows_that_a_duckdb_file_has_no_room_for_are_refused_by_name(settings: Settings, inbox: Path) -> None:
    write_long_rows(inbox / "a.csv", 0, 60)
    rows, said = measure(settings, "csv")
    assert rows is None
    assert "rows of 3,000,0" in said and "It holds 2,048 rows in memory at a time" in said


@AT_FULL_LENGTH
def test_long_rows_of_many_loads_leave_a_file_that_the_next_load_can_write(settings: Settings, inbox: Path) -> None:
    """DuckDB writes the last rows anew with each load: with 192 MB it gave up for good at 70 of these."""
    for load in range(3):
        write_long_rows(inbox / f"{load}.csv", load * 22, 22)
        assert measure(settings, "csv") == ((load + 1) * 22, "")
    assert not list((settings.data_dir / "warehouse").glob("*.wal"))


@AT_FULL_LENGTH
def test_a_file_that_an_earlier_release_could_not_write_any_more_is_written(settings: Settings, inbox: Path) -> None:
    """Its last load has left its rows in the log beside the file."""
    write_long_rows(inbox / "0.csv", 0, 25)
    assert measure(settings, "csv") == (25, "")
    (file,) = (settings.data_dir / "warehouse").glob("*.duckdb")
    program = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(\"set wal_autocheckpoint = '10GB'\");"
        "[c.execute('insert into acme_raw_shop.items select * from acme_raw_shop.items limit 25') for _ in range(2)]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True, timeout=300)
    assert file.with_name(f"{file.name}.wal").stat().st_size > 100_000_000
    write_long_rows(inbox / "1.csv", 25, 1)
    source = json.dumps({"glob": "*", "format": "csv"})
    command = [sys.executable, str(settings.data_dir / "load.py"), str(settings.data_dir), source, "{}"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert (found["rows"], found["said"]) == (76, "")
    assert not list((settings.data_dir / "warehouse").glob("*.wal"))


@pytest.mark.parametrize(("count", "has_dictionary"), choose([(100, True), (25, True), (100, False), (40, False), (20, False), (15, True)], 1))
def test_parquet_of_long_rows(settings: Settings, inbox: Path, count: int, *, has_dictionary: bool) -> None:
    """Arrow writes 1,024 rows into one page, whatever their size, and reads a page as a whole."""
    texts = [random.Random(number).randbytes(1_500_000).hex() for number in range(count)]
    pq.write_table(pa.table({"note": texts}), inbox / "a.parquet", use_dictionary=has_dictionary)
    rows, said = measure(settings, "parquet")
    assert rows == count or (rows is None and "bytes of memory to read, more than 400,000,000" in said)
    assert (rows is None) == (count * (2 if has_dictionary else 1) > 35)


def test_the_footer_of_a_parquet_file_says_its_size_unpacked(settings: Settings, inbox: Path) -> None:
    write_parquet_of_one_page(inbox / "a.parquet")
    rows, said = measure(settings, "parquet", bytes="50MB")
    assert (rows, "the file a.parquet has more than 50,000,000 bytes" in said) == (None, True)


@pytest.mark.parametrize("listed", [11, 5])
def test_a_file_of_a_bucket_that_is_too_large_is_not_copied(tmp_path: Path, listed: int) -> None:
    """By the size that the bucket lists, and where it has grown since by what comes."""
    opened: list[int] = []

    def open_object() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(b"x" * 11)

    with pytest.raises(DataError, match="the file a has more than 10 bytes"):
        fetch(SourceFile("a", "1", listed, 0.0, open_object), tmp_path, 1, most=10, where="here")
    assert len(opened) == (0 if listed > 10 else 1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10
