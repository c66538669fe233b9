"""What YAML costs: our code location for 100, 300 and 1,000 tenants against the same graph as bare Dagster definitions.

    uv run python -m benchmarks.definitions [--tenants 100 300 1000] [--rounds 3] [--limit 1.3]

Each measurement is a process of its own, ours and the floor by turns; medians and ratios are printed. Exit code 1 where a ratio is over the limit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.definitions_floor import CHECKS_PER_MODEL, MODELS, STREAMS

HERE = Path(__file__).resolve().parent
PHASES = ("import", "build", "repository", "snapshot", "total", "cpu", "memory_mb")
Measurement = dict[str, float]


def write_fleet(folder: Path, tenants: int) -> dict[str, str]:
    """Write tenants and a dbt project that make the floor's graph; give the environment that serves them."""
    models = folder / "dbt_project" / "models" / "marts" / "shop"
    models.mkdir(parents=True)
    repository = HERE.parent / "dbt_project"
    (folder / "dbt_project" / "macros").symlink_to(repository / "macros", target_is_directory=True)
    (folder / "dbt_project" / "dbt_project.yml").write_text((repository / "dbt_project.yml").read_text())
    tables = "".join(f"      - name: stream_{index}\n" for index in range(STREAMS))
    (models / "sources.yml").write_text(f"version: 2\nsources:\n  - name: shop\n    schema: \"{{{{ var('fabric_tenant') }}}}_raw_shop\"\n    tables:\n{tables}")
    tests = "[not_null, unique]"
    described = "".join(f"  - name: model_{index}\n    columns:\n      - name: id\n        data_tests: {tests}\n" for index in range(MODELS))
    (models / "models.yml").write_text(f"version: 2\nmodels:\n{described}")
    for index in range(MODELS):
        (models / f"model_{index}.sql").write_text(f"select * from {{{{ source('shop', 'stream_{index % STREAMS}') }}}}\n")
    (folder / "tenants").mkdir()
    streams = "".join(f"      stream_{index}: {{primary_key: id}}\n" for index in range(STREAMS))
    for number in range(tenants):
        (folder / "tenants" / f"tenant_{number}.yaml").write_text(
            f"version: 1\ntenant: tenant_{number}\n"
            f"sources:\n  shop:\n    type: sql_database\n    url: {{env: SHOP_URL}}\n    streams:\n{streams}"
            "transform: {select: [marts.shop]}\n"
            'schedules:\n  nightly: {cron: "0 3 * * *"}\n'
        )
    return {
        "FABRIC_TENANTS_DIR": str(folder / "tenants"),
        "FABRIC_DBT_PROJECT_DIR": str(folder / "dbt_project"),
        "FABRIC_DATA_DIR": str(folder / "data"),
        "FABRIC_STRICT": "1",
    }


def prepare(environment: dict[str, str]) -> None:
    """Parse the dbt project and evaluate what the tenants select, as a deployment does once."""
    from fabric_assets.config.loader import load_fleet
    from fabric_assets.settings import load_settings
    from fabric_assets.transform.evaluation import prepare_graph

    settings = load_settings(environment)
    prepare_graph([loaded.config for loaded in load_fleet(settings).tenants.values()], settings)


def measure(module: str, tenants: int, environment: dict[str, str]) -> Measurement:
    """Load a code location in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_"))}
    child = subprocess.run(
        [sys.executable, str(HERE / "code_location.py"), module],
        env=inherited | environment | {"BENCHMARK_TENANTS": str(tenants), "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise SystemExit(f"{module} failed:\n{child.stderr}")
    measurement = json.loads(child.stdout.splitlines()[-1])
    # A check of each tenant's walls, and a job and a schedule of them for the whole fleet.
    checks, fleet = tenants * (MODELS * CHECKS_PER_MODEL + 1), 1
    expected = {"assets": tenants * (STREAMS + MODELS), "checks": checks, "jobs": tenants + fleet, "schedules": tenants + fleet}
    for name, number in expected.items():
        if measurement[name] != number:
            raise SystemExit(f"{module} has {measurement[name]} {name}, not {number}: the comparison would be void")
    return measurement


def compare(tenants: int, rounds: int) -> tuple[Measurement, Measurement]:
    """Measure the floor and ours by turns; the median of each figure."""
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder:
        environment = write_fleet(Path(folder), tenants)
        prepare(environment)
        floor, ours = [], []
        for _ in range(rounds):
            floor.append(measure("benchmarks.definitions_floor", tenants, {}))
            ours.append(measure("fabric_assets.definitions", tenants, environment))
    return _compute_medians(floor), _compute_medians(ours)


def _compute_medians(measurements: Iterable[Measurement]) -> Measurement:
    found = list(measurements)
    return {name: statistics.median(measurement[name] for measurement in found) for name in found[0]}


def main() -> int:
    """Print one Markdown table over all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.3)
    options = parser.parse_args()
    print("| tenants | | " + " | ".join(f"{phase} s" if phase != "memory_mb" else "memory MB" for phase in PHASES) + " |")
    print("| --- " * (len(PHASES) + 2) + "|")
    worst = 0.0
    for tenants in options.tenants:
        floor, ours = compare(tenants, options.rounds)
        ratios = {phase: ours[phase] / floor[phase] for phase in PHASES}
        worst = max(worst, ratios["total"], ratios["memory_mb"])
        for name, values in (("bare", floor), ("ours", ours), ("ratio", ratios)):
            print(f"| {tenants:,} | {name} | " + " | ".join(f"{values[phase]:.2f}" for phase in PHASES) + " |", flush=True)
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
