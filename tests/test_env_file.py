"""`.env` in the first process of a tree, and read again in a run as it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fabric_assets.env_file import load_env_file
from fabric_assets.errors import ConfigurationError
from tests.conftest import ROOT


def write(folder: Path, text: str) -> None:
    (folder / ".env").write_text(text)


def test_a_variable_that_is_really_set_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "SHOP_URL=file\nCRM_TOKEN=file\n")
    environ = {"SHOP_URL": "real"}
    load_env_file(tmp_path, environ)
    assert (environ["SHOP_URL"], environ["CRM_TOKEN"]) == ("real", "file")
    write(tmp_path, "SHOP_URL=edited\nCRM_TOKEN=edited\nNEW_ONE=new\n")
    run = dict(environ)  # a run is a child of its code server
    load_env_file(None, run)
    assert (run["SHOP_URL"], run["CRM_TOKEN"], run["NEW_ONE"]) == ("real", "edited", "new")
    write(tmp_path, "NEW_ONE=new\n")
    load_env_file(None, run)
    assert "CRM_TOKEN" not in run
    assert run["SHOP_URL"] == "real"


def test_a_run_reads_the_file_of_its_code_servers_folder_wherever_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "elsewhere").mkdir()
    environ: dict[str, str] = {}
    monkeypatch.chdir(tmp_path / "server")
    load_env_file(None, environ)  # there is no file yet
    monkeypatch.chdir(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere", "SHOP_URL=wrong\n")
    write(tmp_path / "server", "SHOP_URL=right\n")
    load_env_file(None, environ)
    assert environ["SHOP_URL"] == "right"


def test_variables_of_the_platform_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, "FABRIC_STRICT=1\nSHOP_URL=one\n")
    environ: dict[str, str] = {}
    load_env_file(tmp_path, environ)
    write(tmp_path, "FABRIC_STRICT=0\nFABRIC_TENANTS=acme\nDAGSTER_HOME=/tmp\nSHOP_URL=two\n")
    load_env_file(None, environ)
    assert (environ["FABRIC_STRICT"], environ["SHOP_URL"]) == ("1", "two")
    assert not {"FABRIC_TENANTS", "DAGSTER_HOME"} & environ.keys()
    write(tmp_path, "")
    load_env_file(None, environ)
    assert environ["FABRIC_STRICT"] == "1"


def test_a_wrong_line_is_named_without_its_text_and_the_others_are_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, '\ufeffONE=1\nhunter2 hunter2\n\n# a comment\nexport TWO = 2 # two\nURL="hunter2\nTHREE=${ONE}3\n\nALONE\n')
    environ: dict[str, str] = {}
    load_env_file(tmp_path, environ)
    assert {name: value for name, value in environ.items() if not name.startswith("_")} == {"ONE": "1", "TWO": "2", "THREE": "13"}
    told = capfd.readouterr().err
    assert told.splitlines() == [f"warning: {tmp_path}/.env:{line}: the line is left out; write NAME=value, and close each quote" for line in (2, 6, 9)]


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("ONE=1\nTWO=Größe\n".encode("latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        load_env_file(tmp_path, {})
    assert str(caught.value) == f"{tmp_path}/.env:2: the line is not UTF-8\n  remedy: save the file as UTF-8"


def test_the_command_line_says_so_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("TWO=Größe\n".encode("latin-1"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("_FABRIC")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fabric")), "list", "tenants"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/.env:1: the line is not UTF-8\n  remedy: save the file as UTF-8\n")


SHOW = """
import os
from fabric_assets.env_file import load_env_file

for number in range(2):
    load_env_file()
    print([os.environ.get(name) for name in ("SHOP_URL", "CRM_TOKEN", "FABRIC_STRICT")])
    with open(os.environ["_FABRIC_ENV_FILE"], "w") as file:
        file.write("SHOP_URL=edited\\nCRM_TOKEN=edited\\nFABRIC_STRICT=0\\n")
"""


def test_variables_that_dagster_overrides_keep_their_real_values(tmp_path: Path) -> None:
    """As `dagster code-server start` does: the command has the file in its environment before our code runs."""
    write(tmp_path, "SHOP_URL=file\nCRM_TOKEN=file\nFABRIC_STRICT=1\n")
    (tmp_path / "dagster").mkdir()
    injected = "import os; os.environ |= {'SHOP_URL': 'file', 'CRM_TOKEN': 'file', 'FABRIC_STRICT': '1'}"
    (tmp_path / "dagster" / "__init__.py").write_text("")
    (tmp_path / "dagster" / "__main__.py").write_text(injected + SHOW)
    environ = {"PATH": os.environ["PATH"], "SHOP_URL": "real", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-m", "dagster"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['real', 'file', '1']", "['real', 'edited', '1']"], done.stderr
