"""What the platform costs a tenant: `fabric run demo_database` against the shortest script that does the same with dlt and dbt.

    uv run python -m benchmarks.tenant_day [--rounds 5] [--limit 1.3]

Both read the same SQLite shop into DuckDB files of their own and build the same models. A first day begins without a warehouse, but with the dbt
project parsed, as a deployment leaves it; a next day finds everything loaded. By turns; medians and the ratio are printed. Exit code 1 over the limit.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TENANT = "demo_database"
DAYS = ("first day", "next day")


class Cost(NamedTuple):
    """Seconds on the clock, and of all cores together: the second is what a busy machine does not blur."""

    wall: float
    cpu: float


class Platform:
    """`fabric run` with a data folder of its own.

    Args:
        checkout: whose code runs, in the environment that `make setup` made there.
    """

    def __init__(self, data: Path, checkout: Path = ROOT) -> None:
        self.data, self._checkout = data, checkout
        self._program = Path(sys.executable).with_name("fabric") if checkout == ROOT else checkout / ".venv" / "bin" / "fabric"
        self.warehouse = data / "warehouse" / f"{TENANT}.duckdb"

    def forget(self) -> None:
        for folder in ("warehouse", "dlt", "dagster"):
            shutil.rmtree(self.data / folder, ignore_errors=True)

    def run(self) -> None:
        _call([str(self._program), "run", TENANT], self._checkout, FABRIC_DATA_DIR=str(self.data))


class Script:
    """The script with a folder of its own.

    Args:
        checkout: whose script and models run, in the environment that `make setup` made there.
    """

    def __init__(self, folder: Path, database: Path, checkout: Path = ROOT) -> None:
        self.folder, self.database, self._checkout = folder, database, checkout
        self.warehouse = folder / f"{TENANT}.duckdb"
        folder.mkdir()

    def forget(self) -> None:
        shutil.rmtree(self.folder / "dlt", ignore_errors=True)
        self.warehouse.unlink(missing_ok=True)

    def run(self) -> None:
        python = sys.executable if self._checkout == ROOT else str(self._checkout / ".venv" / "bin" / "python")
        script = self._checkout / "benchmarks" / "tenant_day_peer.py"
        _call([python, str(script), str(self.database), str(self.folder), str(self._checkout / "dbt_project")], self._checkout)


def _call(command: list[str], checkout: Path = ROOT, **environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_"))}
    quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    child = subprocess.run(command, cwd=checkout, env=kept | quiet | environment, capture_output=True, text=True, check=False)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{child.stdout}\n{child.stderr}")


def _time(call: Callable[[], None]) -> Cost:
    started, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    return Cost(time.perf_counter() - started, after.children_user + after.children_system - before.children_user - before.children_system)


def _read_marts(warehouse: Path) -> list[tuple]:
    """What the two must agree on, or the comparison is void."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = connection.sql(f"select table_name from information_schema.tables where table_schema = '{TENANT}_marts' order by all").fetchall()
        return [(name, *(connection.sql(f"select count(*) from {TENANT}_marts.{name}").fetchone() or ())) for (name,) in tables]


def measure(rounds: int, others: Mapping[str, Path] | None = None) -> dict[str, dict[str, list[Cost]]]:
    """Measure each day's costs, by who ran it.

    Args:
        others: name -> another checkout that runs the same day; its own script, which builds its models, is `NAME script`.
    """
    from fabric_assets.demo.data import prepare_demo

    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder:
        platforms = {name: Platform(Path(folder) / name, checkout) for name, checkout in {"fabric": ROOT, **(others or {})}.items()}
        shop = prepare_demo(platforms["fabric"].data)
        for name in others or {}:  # the generator draws another year each time, and all must read the same
            shutil.copytree(shop.folder, platforms[name].data / shop.folder.name)
            prepare_demo(platforms[name].data)
        scripts = {f"{name} script": Script(Path(folder) / f"{name} script", shop.database, checkout) for name, checkout in (others or {}).items()}
        contestants: dict[str, Platform | Script] = {"script": Script(Path(folder) / "script", shop.database), **scripts, **platforms}
        costs: dict[str, dict[str, list[Cost]]] = {day: {name: [] for name in contestants} for day in DAYS}
        for contestant in contestants.values():  # parses the dbt project, fills the disk's cache
            contestant.run()
        for _ in range(rounds):
            for contestant in contestants.values():
                contestant.forget()
            for day in DAYS:
                for name, contestant in contestants.items():
                    costs[day][name].append(_time(contestant.run))
        found = {name: _read_marts(contestant.warehouse) for name, contestant in contestants.items()}
        if not found["fabric"] or any(marts != found["fabric"] for marts in found.values()):
            raise SystemExit(f"the marts differ, so the comparison is void: {found}")
    return costs


def main() -> int:
    """Print a line per day and clock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.3)
    options = parser.parse_args()
    worst = 0.0
    print("| | | script s | fabric run s | ratio |\n| --- | --- | --- | --- | --- |")
    for day, found in measure(options.rounds).items():
        for clock in Cost._fields:
            script, fabric = (statistics.median(getattr(cost, clock) for cost in found[name]) for name in ("script", "fabric"))
            print(f"| {day} | {clock} | {script:.2f} | {fabric:.2f} | {fabric / script:.2f} |")
            if clock == "wall":
                worst = max(worst, fabric / script)
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
