"""Dropped files that are too large in one way or another: refused in little time, memory and disk."""

import gzip
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.connectors.csv_import.imports import drop, get_quarantine

MEMORY, DISK = 700 * 1024 * 1024, 100 * 1024 * 1024


def get_quarantine_in_little_memory(path: Path, name: str, limits: str) -> str:
    """Import a file in a process whose data may grow by so much only -> the reason of its quarantine."""
    program = textwrap.dedent(f"""
        import resource, sys
        from pathlib import Path
        from tests.connectors.csv_import.imports import get_quarantine
        resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))
        resource.setrlimit(resource.RLIMIT_FSIZE, ({DISK}, {DISK}))
        print(get_quarantine(Path(sys.argv[1]), sys.argv[2], limits={limits})[0])
    """)
    done = subprocess.run([sys.executable, "-c", program, str(path), name], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_line_of_ten_gigabytes_is_refused_whatever_the_limit(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.write(b"a,b,c\n1,2,3\n")
        sparse.truncate(10 * 1000**3)
    assert get_quarantine(file)[0] == "too_large"
    assert get_quarantine_in_little_memory(file, "drop.csv", "{'bytes': '100GB'}") == "not_text"


def test_a_long_line_of_text_is_refused_as_soon_as_it_is_too_long(file: Path) -> None:
    with gzip.open(file, "wb", compresslevel=1) as packed:
        packed.write(b"a,b,c\n1,2,3\n")
        for _ in range(100):
            packed.write(b"x" * 4_000_000)
    assert get_quarantine_in_little_memory(file, "drop.csv.gz", "{'bytes': '100GB'}") == "line_too_long"


def test_a_gzip_bomb_is_refused_at_the_limit(file: Path) -> None:
    with gzip.open(file, "wb", compresslevel=1) as packed:
        packed.write(b"a,b,c\n")
        for _ in range(75):
            packed.write(b"1,2,3\n" * 700_000)
    assert file.stat().st_size < 3_000_000
    assert get_quarantine_in_little_memory(file, "drop.csv.gz", "{'bytes': '300MB'}") == "too_large"
    assert get_quarantine_in_little_memory(file, "drop.csv.gz", "{'bytes': '1GB', 'rows': 1000000}") == "too_many_rows"


@pytest.mark.parametrize("count", [1_001, 1_000_000])
def test_a_header_of_a_million_columns_is_refused(file: Path, count: int) -> None:
    file.write_bytes(b",".join(b"c%d" % number for number in range(count)) + b"\n1,2\n")
    assert get_quarantine_in_little_memory(file, "drop.csv", "{}") in ("too_many_columns", "line_too_long")


def test_a_row_of_a_million_fields_is_rejected_alone() -> None:
    for fields in (b"," * 1_000_000, b'"",' * 1_000_000):
        dropped = drop(b"a,b,c\n" + fields + b"\n1,2,3\n" + fields + b"x\n")
        assert dropped.cells == [("1", "2", "3")]
        assert dropped.reasons == [(2, None, "ragged_row"), (4, None, "ragged_row")]
        assert all(len(reject.raw) < 9_000 for reject in dropped.rejects)


def test_a_cell_of_ten_megabytes_rejects_its_row_alone() -> None:
    long = b"x" * 10_000_000
    for cell in (long, b'"' + long + b'"'):
        dropped = drop(b"a,b,c\n1," + cell + b",3\n4,5,6\n")
        assert (dropped.cells, dropped.reasons) == ([("4", "5", "6")], [(2, "b", "field_too_long")])
        assert len(dropped.rejects[0].raw) == 8_001


def test_each_limit_allows_what_is_just_within_it() -> None:
    content = b"a,b,c\n1,2,3\n4,55,6\n"
    limits = {"bytes": len(content), "columns": 3, "field_chars": 2, "rows": 2, "name_chars": 1}
    assert len(drop(content, limits=limits).rows) == 2
    for key, reason in {"bytes": "too_large", "columns": "too_many_columns", "rows": "too_many_rows"}.items():
        assert get_quarantine(content, limits={**limits, key: limits[key] - 1})[0] == reason
    assert drop(content, limits={**limits, "field_chars": 1}).reasons == [(3, "b", "field_too_long")]
    assert get_quarantine(b"a,bb\n1,2\n", limits={"name_chars": 1})[0] == "long_name"
    assert drop("a,b,c\nüü,2,3\n".encode(), limits=limits).cells == [("üü", "2", "3")]


def test_quotes_that_nest_nothing_take_time_in_proportion(file: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert get_quarantine(b'a,b,c\n1,"' + b'""\n' * 2_000_000)[0] == "unclosed_quote"
    drop(b"a,b,c\n" + b'1,"2"x,3\n' * 100_000)
    drop(b"a,b,c\n" + b'"1\n","2"\n' * 100_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 20


def test_anything_but_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.csv").mkdir()
    assert get_quarantine(tmp_path / "pipe")[0] == "unreadable"
    assert get_quarantine(tmp_path / "pipe", "drop.xlsx")[0] == "unreadable"
    assert get_quarantine(tmp_path / "folder.csv")[0] == "unreadable"
    assert get_quarantine(tmp_path / "gone.csv")[0] == "unreadable"
