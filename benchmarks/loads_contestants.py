"""What loads lineitem in the benchmarks, each as whole processes with an empty destination: ours, and its peers."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.loads_database import Databases, build_sum, sum_up

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("tpchgen-cli", "meltanolabs-tap-postgres", "meltanolabs-target-postgres")
TENANT = "bench"
# The process start that every run needs: Dagster, the factories, the engine and Dagster's instance. As the command, it ends without garbage collection.
# Imports of a source or destination count as the run's own.
START = """
import gc
try:
    from fabric_assets.importing import without_garbage_collection
except ImportError:  # an older checkout
    from fabric_assets.importing import collect_nothing as without_garbage_collection
with without_garbage_collection():
    import fabric_assets.cli.run, fabric_assets.factories.runs, fabric_assets.loading.load
    try:
        from fabric_assets.factories.instance.opening import get_instance
    except ImportError:  # an older checkout
        from fabric_assets.factories.instance import get_instance
    from fabric_assets.settings import load_settings
with get_instance(load_settings()): pass
gc.freeze()
"""


class Cost(NamedTuple):
    """Seconds on the clock, the largest process in MB, and the processor seconds of all."""

    seconds: float
    megabytes: float
    processor: float


def run_process(*commands: list[str], checkout: Path = ROOT, **environment: str) -> Cost:
    """Run processes, joined by pipes if there are several; their output is shown if one fails.

    Args:
        checkout: whose code they import.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_"))}
    quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(checkout)}
    started, processes, peak, processor = time.perf_counter(), list[subprocess.Popen](), 0, 0.0
    with tempfile.TemporaryFile("w+") as log:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=checkout,
                    env=kept | quiet | environment,
                    stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                    stdout=log if len(processes) == len(commands) - 1 else subprocess.PIPE,
                    stderr=log,
                )
            )
        for process in processes[:-1]:
            assert process.stdout
            process.stdout.close()  # so that a reader's end is seen by its writer
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = max(peak, usage.ru_maxrss)
            processor += usage.ru_utime + usage.ru_stime
        seconds = time.perf_counter() - started
        if any(process.returncode for process in processes):
            log.seek(0)
            raise SystemExit(f"{' | '.join(' '.join(command) for command in commands)} failed:\n{log.read()[-4000:]}")
    return Cost(seconds, peak / 1024, processor)


@dataclass
class Arena:
    """Args:
    source: URL of the Postgres that is read.
    tools: folder of the peers' programs.
    """

    databases: Databases
    source: str
    folder: Path
    tools: Path

    # --- peers: each gets an empty destination and gives its cost and what is then there

    def run_copy(self) -> tuple[Cost, tuple[object, ...]]:
        """Binary COPY from Postgres into Postgres: the limit, for either destination."""
        target = self.databases.make("bench_target")
        cost = run_process([sys.executable, str(ROOT / "benchmarks" / "loads_peer_copy.py"), self.source, target, "lineitem"])
        return cost, sum_up(target, "lineitem")

    def run_dlt(self, way: str, destination: str) -> tuple[Cost, tuple[object, ...]]:
        folder = self._make_folder("dlt")
        target = self.databases.make("bench_target") if destination == "postgres" else str(folder / "target.duckdb")
        cost = run_process([sys.executable, str(ROOT / "benchmarks" / "loads_peer_dlt.py"), way, self.source, target, str(folder)], DLT_DATA_DIR=str(folder))
        return cost, self.sum_up(target, "raw.lineitem")

    def run_singer(self) -> tuple[Cost, tuple[object, ...]]:
        """meltanolabs-tap-postgres into meltanolabs-target-postgres, with COPY."""
        folder, target = self._make_folder("singer"), self.databases.make("bench_target")
        tap = {"sqlalchemy_url": self.source, "filter_schemas": ["public"]}
        loader = {"sqlalchemy_url": target.replace("postgresql:", "postgresql+psycopg:"), "default_target_schema": "raw", "use_copy": True}
        tap_file, loader_file, catalog_file = (folder / f"{name}.json" for name in ("tap", "target", "catalog"))
        tap_file.write_text(json.dumps(tap))
        loader_file.write_text(json.dumps(loader))
        command = [str(self.tools / "tap-postgres"), "--config", str(tap_file)]
        catalog = json.loads(subprocess.run([*command, "--discover"], check=True, capture_output=True, text=True).stdout)
        for stream in catalog["streams"]:
            stream["replication_method"] = "FULL_TABLE"
            for part in stream["metadata"]:
                part["metadata"]["selected"] = True
        catalog_file.write_text(json.dumps(catalog))
        commands = [[*command, "--catalog", str(catalog_file)], [str(self.tools / "target-postgres"), "--config", str(loader_file)]]
        cost = run_process(*commands)
        return cost, sum_up(target, 'raw."lineitem"')

    # --- ours

    def build_platform(self, streams: Mapping[str, Any], destination: str, *, schema: str = "public", checkout: Path = ROOT) -> "Platform":
        return Platform(self, self._make_folder("fabric"), streams, destination, schema, checkout)

    def run_fabric(self, destination: str, *, checkout: Path = ROOT) -> tuple[Cost, tuple[object, ...]]:
        platform = self.build_platform({"lineitem": {}}, destination, checkout=checkout)
        return platform.run(), self.sum_up(platform.warehouse, f"{TENANT}_raw_tpch.lineitem")

    def _make_folder(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder

    def sum_up(self, target: str, table: str) -> tuple[object, ...]:
        if target.startswith("postgresql:"):
            return sum_up(target, table)
        import duckdb

        with duckdb.connect(target, read_only=True) as connection:
            return connection.sql(build_sum(table)).fetchone() or ()


class Platform:
    """A deployment with one tenant: its DAGSTER_HOME is made, its warehouse is empty.

    Args:
        checkout: whose `fabric` runs, in the environment that `make setup` made there.
    """

    def __init__(self, arena: Arena, folder: Path, streams: Mapping[str, Any], destination: str, schema: str, checkout: Path = ROOT) -> None:
        self._checkout, self._programs = checkout, Path(sys.executable).parent if checkout == ROOT else checkout / ".venv" / "bin"
        tenants, self._data = folder / "tenants", folder / "data"
        tenants.mkdir()
        self._data.mkdir(mode=0o700)
        to_postgres = destination == "postgres"
        self.warehouse = arena.databases.make("bench_target") if to_postgres else str(self._data / "warehouse" / f"{TENANT}.duckdb")
        source = {"type": "sql_database", "url": {"env": "TPCH_URL"}, "schema": schema, "streams": streams}
        target = {"type": "postgres", "url": {"env": "TARGET_URL"}} if to_postgres else {"type": "duckdb"}
        (tenants / f"{TENANT}.yaml").write_text(yaml.safe_dump({"version": 1, "tenant": TENANT, "destination": target, "sources": {"tpch": source}}))
        self._environ = {"FABRIC_TENANTS_DIR": str(tenants), "FABRIC_DATA_DIR": str(self._data), "TPCH_URL": arena.source, "TARGET_URL": self.warehouse}
        self._make_home()

    def run(self, *arguments: str) -> Cost:
        return run_process([str(self._programs / "fabric"), "run", TENANT, *arguments], checkout=self._checkout, **self._environ)

    def start_process(self) -> Cost:
        """A process that imports what a run imports, opens Dagster's instance and does nothing."""
        return run_process([str(self._programs / "python"), "-c", START], checkout=self._checkout, **self._environ)

    def _make_home(self) -> None:
        self.start_process()


def measure_by_turns(contestants: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            costs[name].append(contestant())
    return costs
