"""What a load of files takes of memory: under the promised 700 MB in a process of its own, whatever the file holds."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets.settings import Settings

PROMISED_MB = 700
LOAD = """
import json, resource, sys
from pathlib import Path
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import FabricError
from fabric_assets.loading.load import run_load
from fabric_assets.loading.reports import LoadRequest
from fabric_assets.settings import Settings

data, stream = Path(sys.argv[1]), json.loads(sys.argv[2])
source = {"type": "files", "path": "exports", "streams": {"items": stream}}
tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"shop": source}})
settings = Settings(tenants_dir=data, dbt_project_dir=data, data_dir=data)
said, rows = "", None
try:
    rows = [report.rows_total for report in run_load(LoadRequest(tenant, "shop", (), settings, False), report=lambda message: None)][0]
except FabricError as error:
    said = error.message
print(json.dumps({"rows": rows, "said": said, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


@pytest.fixture
def inbox(settings: Settings) -> Path:
    folder = settings.data_dir / "exports"
    folder.mkdir()
    return folder


def measure(settings: Settings, form: str) -> tuple[int | None, str]:
    """Load in a process of its own: its rows, and what it said instead."""
    # A file: DuckDB takes `python -c` for a person, and draws a bar into its output.
    script = settings.data_dir / "load.py"
    script.write_text(LOAD)
    command = [sys.executable, str(script), str(settings.data_dir), json.dumps({"glob": "*", "format": form})]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert found["megabytes"] < PROMISED_MB
    return found["rows"], found["said"]


def write_wide_csv(path: Path, *, columns: int, rows: int) -> None:
    random.seed(1)
    lines = [",".join(f'"C{number}"' for number in range(columns))]
    lines += [",".join(str(random.randint(0, 5)) if number % 3 else random.choice(["Yes", "No", ""]) for number in range(columns)) for _ in range(rows)]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(("columns", "rows"), [(300, 50), (1_093, 54), (2_000, 50), (300, 5_000)])
def test_a_csv_of_many_columns(settings: Settings, inbox: Path, columns: int, rows: int) -> None:
    write_wide_csv(inbox / "a.csv", columns=columns, rows=rows)
    assert measure(settings, "csv") == (rows, "")


def test_json_lines_of_many_keys(settings: Settings, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text("".join(json.dumps({f"c{key}": row for key in range(1_000)}) + "\n" for row in range(300)))
    assert measure(settings, "jsonl") == (300, "")


LONG: dict[str, Callable[[int], str]] = {
    "csv": lambda number: f"{number},{'x' * 3_000_000}\n",
    "jsonl": lambda number: json.dumps({"id": number, "note": "x" * 3_000_000}) + "\n",
}


@pytest.mark.parametrize("form", LONG)
def test_rows_of_megabytes_after_many_short_ones(settings: Settings, inbox: Path, form: str) -> None:
    short = "".join(f"{number},a\n" if form == "csv" else f'{{"id": {number}, "note": "a"}}\n' for number in range(100_000))
    (inbox / "a").write_text(("id,note\n" if form == "csv" else "") + short + "".join(map(LONG[form], range(20))))
    assert measure(settings, form) == (100_020, "")
