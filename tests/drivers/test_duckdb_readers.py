"""A file that another program reads: a writer waits, and names the program if it waits in vain."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from fabric_assets.drivers.duckdb_files import build_open_error, make_file, open_file
from fabric_assets.drivers.duckdb_readers import READER_SECONDS, open_when_free
from fabric_assets.errors import DestinationUnavailable

READ = "import duckdb, sys, time\nc = duckdb.connect(sys.argv[1], read_only=True)\nprint('held', flush=True)\ntime.sleep(float(sys.argv[2]))\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_file(tmp_path / "acme.duckdb")
    return tmp_path / "acme.duckdb"


@contextlib.contextmanager
def reading(file: Path, *arguments: str, seconds: float) -> Iterator[int]:
    """A program `report.py` that reads the file; gives its process id."""
    script = file.parent / "report.py"
    script.write_text(READ)
    with subprocess.Popen([sys.executable, str(script), str(file), str(seconds), *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


def test_a_writer_waits_until_a_reader_has_closed_the_file_and_says_so_once(file: Path) -> None:
    reports = list[str]()
    with reading(file, seconds=1) as pid:
        began = time.monotonic()
        with open_when_free(lambda: open_file(file), file, report=reports.append) as connection:
            connection.execute("create table acme.main.written as select 1 as x")
        assert time.monotonic() - began < 30
    assert len(reports) == 1
    assert reports[0].startswith(f"acme.duckdb is open in another program: process {pid} (python")
    assert reports[0].endswith(" report.py acme.duckdb); waiting for up to 60 s")
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("from written").fetchall() == [(1,)]


def test_a_reader_that_stays_is_named_by_its_process_and_files_but_by_no_other_argument(file: Path) -> None:
    with reading(file, "--password", "hunter2secret", seconds=60) as pid:
        began = time.monotonic()
        with pytest.raises(duckdb.IOException) as caught:
            open_when_free(lambda: open_file(file), file, seconds=0.5)
        assert 0.5 <= time.monotonic() - began < 30
        error = build_open_error(caught.value, "tenant acme: acme.duckdb")
    assert isinstance(error, DestinationUnavailable)
    assert error.message.startswith(f"tenant acme: acme.duckdb is open in another program: process {pid} (python")
    assert error.message.endswith(" report.py acme.duckdb)")
    assert "FABRIC_PUBLISH_DIR/<tenant>/<tenant>.duckdb" in error.remedy
    assert "hunter2secret" not in str(error)


def test_any_other_error_is_raised_at_once(tmp_path: Path) -> None:
    (tmp_path / "acme.duckdb").write_text("this is no database, and it is long enough to look at" * 100)
    began = time.monotonic()
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB database file"):
        open_when_free(lambda: open_file(tmp_path / "acme.duckdb"), tmp_path / "acme.duckdb")
    assert time.monotonic() - began < 5


def test_the_wait_is_as_long_as_the_docs_say() -> None:
    assert READER_SECONDS == 60
    assert f"for up to {READER_SECONDS:g} s" in (Path(__file__).parents[2] / "docs" / "readers.md").read_text()
