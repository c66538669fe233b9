"""The command line with closed, full or ASCII standard streams, or in a deleted folder: it shows a message, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FABRIC = Path(sys.executable).parent / "fabric"
TENANT = {
    "version": 1,
    "tenant": "acme",
    "display_name": "Ünïcode ✓",
    "sources": {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": {}}}},
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "acme.yaml").write_text(yaml.safe_dump(TENANT, allow_unicode=True), encoding="utf-8")
    return {**os.environ, "FABRIC_TENANTS_DIR": str(tmp_path / "tenants"), "FABRIC_DATA_DIR": str(tmp_path / "data")}


def run(command: str, environ: dict[str, str], **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], env={**environ, "FABRIC": str(FABRIC)} | options, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["list streams", "list streams --json", "schema", "validate"])
def test_a_full_disk_behind_the_output_is_one_message(environ: dict[str, str], command: str, unbuffered: str) -> None:
    result = run(f'"$FABRIC" {command} > /dev/full', environ, PYTHONUNBUFFERED=unbuffered)
    assert (result.returncode, result.stderr.strip()) == (1, "error: standard output cannot be written: No space left on device")


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0)])
def test_closed_streams_are_not_an_error(environ: dict[str, str], closed: str, code: int) -> None:
    result = run(f'"$FABRIC" list streams {closed}', environ)
    assert result.returncode == code
    assert "Traceback" not in result.stdout + result.stderr


def test_a_closed_pipe_ends_the_output_without_an_error(environ: dict[str, str]) -> None:
    result = run('"$FABRIC" schema | head -1', environ)
    assert (result.stdout, result.stderr) == ("{\n", "")


@pytest.mark.parametrize("options", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_letters_that_the_terminal_lacks_are_escaped(environ: dict[str, str], options: dict[str, str]) -> None:
    result = run('"$FABRIC" explain acme display_name', environ, **options)
    assert result.returncode == 0, result.stderr
    assert "\\xdcn\\xefcode \\u2713" in result.stdout


def test_a_deleted_current_folder_is_named_as_the_cause(environ: dict[str, str], tmp_path: Path) -> None:
    result = run(f'mkdir "{tmp_path}/gone" && cd "{tmp_path}/gone" && rmdir "{tmp_path}/gone" && "$FABRIC" list streams', environ)
    assert result.returncode == 2
    assert result.stderr == "error: the current folder does not exist any more\n  remedy: change to a folder that exists\n"


def test_a_data_folder_that_duckdb_cannot_open_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    result = run('"$FABRIC" list streams', environ, FABRIC_DATA_DIR=str(tmp_path / "a?b"))
    assert result.returncode == 2
    assert "has a '?' in its path" in result.stderr
