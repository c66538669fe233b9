"""docs/imports.md is played as it stands: its YAML, its commands, and what each of them prints; and its table of reasons is whole."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fabric_assets.connectors.csv import records

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "imports.md"
CONNECTORS = ROOT / "fabric_assets" / "connectors"

# Each of the page's loads is a run of its own.
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Step:
    """A command of the page, and what the page says that it prints."""

    command: str
    output: list[str]


def read_steps(text: str) -> list[Step]:
    """The commands of the page's console blocks, each with its continued lines, which begin with `> `."""
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], []))
            elif line.startswith("> ") and not steps[-1].output:
                steps[-1] = Step(f"{steps[-1].command}\n{line[2:]}", [])
            else:
                steps[-1].output.append(line)
    return steps


def blur(lines: list[str]) -> list[str]:
    """Replace what differs from run to run: times, seconds, the width of tables' columns, and the number of checks."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "MOMENT", "\n".join(lines))
    text = re.sub(r"\d+/\d+ +\d+\.\d *$", "CHECKS SECONDS", text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_page_does_what_it_says(tmp_path: Path, prepared_data: Path) -> None:
    text = PAGE.read_text()
    tenants = tmp_path / "tenants"
    tenants.mkdir()
    example = re.search(r"^```yaml\n# (tenants/lumen\.yaml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert example
    (tmp_path / example[1]).write_text(example[2])
    shutil.copytree(prepared_data, tmp_path / ".fabric" / "dbt" / "prepared")
    (tmp_path / ".fabric").chmod(0o700)
    environ = os.environ | {
        "FABRIC_TENANTS_DIR": str(tenants),
        "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project"),
        "FABRIC_DATA_DIR": str(tmp_path / ".fabric"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    steps = read_steps(text)
    assert len(steps) > 10
    for step in steps:
        done = subprocess.run([shutil.which("bash") or "bash", "-c", step.command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert blur(done.stdout.splitlines()) == blur(step.output), f"$ {step.command}\n{done.stdout}\n{done.stderr}"


def read_codes() -> set[str]:
    """List every reason that the import gives a file or a row, from the calls in its code."""
    indexes = {"QuarantinedFile": 0, "BadCell": 0, "BadRow": 2, "_build_bad": 1, "add_row": 2, "add": 2}
    # What the grammar of CSV gives.
    codes = {records.BAD_QUOTES, records.UNCLOSED_QUOTE, records.BAD_ENCODING, records.STRAY_LINE_END}
    for file in (CONNECTORS / "csv_import").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            index = indexes.get(name)
            if index is not None and len(node.args) > index and isinstance(argument := node.args[index], ast.Constant) and isinstance(argument.value, str):
                codes.add(argument.value)
    return codes


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.MULTILINE))))
    codes = read_codes()
    assert {"bad_number", "ragged_row", "unclosed_quote", "required", "too_many_rejects", "nul_byte", "no_sheet"} <= codes
    assert codes - explained == set()
