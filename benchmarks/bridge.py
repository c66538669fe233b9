"""A recorded file of Singer messages into DuckDB: `fabric run` with `type: singer` against target-duckdb, through the same pipe.

    uv run python -m benchmarks.bridge [--rows 1000000] [--rounds 3] [--limit 5]

The tap only writes the file to its output, and its own time is printed beside. Peer: target-duckdb of PyPI. Both merge by the key into an empty file. The
rows of `fabric run` must be those of the messages; target-duckdb 0.8 loses the first row of each batch, so its rows are printed. Seconds on the clock and of
all processors, medians of the rounds, by turns. Exit code 1 if the peer takes less than the limit times as long.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

ROOT = Path(__file__).resolve().parent.parent
TAP = """
import json, shutil, sys

FIELDS = {FIELDS!r}

def main():
    arguments = sys.argv[1:]
    if "--about" in arguments:
        print(json.dumps({{"settings": {{"type": "object", "properties": {{"file": {{"type": "string"}}}}}}}}))
        return
    config = json.load(open(arguments[arguments.index("--config") + 1]))
    if "--discover" in arguments:
        entry = {{"tap_stream_id": "events", "stream": "events", "key_properties": ["id"], "schema": {{"properties": FIELDS}}, "metadata": []}}
        print(json.dumps({{"streams": [entry]}}))
        return
    with open(config["file"], "rb") as messages:
        shutil.copyfileobj(messages, sys.stdout.buffer, 1 << 20)
"""
FIELDS = {
    "id": {"type": "integer"},
    "at": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "name": {"type": ["null", "string"]},
    "city": {"type": "string"},
    "amount": {"type": "number"},
    "quantity": {"type": "integer"},
    "is_new": {"type": "boolean"},
}


class Cost(NamedTuple):
    """Seconds on the clock, and of all processors."""

    wall: float
    cpu: float


def write_messages(file: Path, rows: int) -> None:
    """Write the recorded messages: a schema, the rows, and a state."""
    began = datetime(2024, 1, 1, tzinfo=UTC)
    with file.open("w") as out:
        out.write(json.dumps({"type": "SCHEMA", "stream": "events", "schema": {"properties": FIELDS}, "key_properties": ["id"]}) + "\n")
        for number in range(1, rows + 1):
            at = began + timedelta(seconds=number)
            values = (
                number,
                at.isoformat(),
                at.date().isoformat(),
                f"name {number % 1000}",
                f"city {number % 97}",
                number % 10_000 / 4,
                number % 13,
                number % 2 == 0,
            )
            out.write(json.dumps({"type": "RECORD", "stream": "events", "record": dict(zip(FIELDS, values, strict=True))}) + "\n")
        out.write(json.dumps({"type": "STATE", "value": {"bookmarks": {"events": {"id": rows}}}}) + "\n")


def build_tap(folder: Path) -> None:
    """Write the tap's wheel into a folder."""
    info = "tap_recorded-1.0.dist-info"
    files = {
        "tap_recorded.py": TAP.format(FIELDS=FIELDS),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tap-recorded\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: benchmark\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntap-recorded = tap_recorded:main\n",
    }
    with zipfile.ZipFile(folder / "tap_recorded-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": "".join(f"{name},,\n" for name in files)}.items():
            wheel.writestr(name, text)


def run(*commands: list[str], **environ: str) -> Cost:
    """Run processes that are joined by pipes; what the last one writes goes nowhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_"))}
    started, before = time.perf_counter(), os.times()
    processes = list[subprocess.Popen[bytes]]()
    with tempfile.TemporaryFile() as log:
        for number, command in enumerate(commands, 1):
            stdin = processes[-1].stdout if processes else subprocess.DEVNULL
            stdout = subprocess.PIPE if number < len(commands) else subprocess.DEVNULL
            processes.append(subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=log, env=kept | environ, cwd=ROOT))
        for process in processes[:-1]:
            assert process.stdout
            process.stdout.close()
        codes = [process.wait() for process in processes]
        if any(codes):
            log.seek(0)
            raise SystemExit(f"{' | '.join(' '.join(command) for command in commands)} failed:\n{log.read()[-4000:].decode()}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.perf_counter() - started, cpu)


def sum_up(file: Path, table: str) -> tuple[int, ...]:
    """Read the number of rows and the sum of their keys."""
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(f"select count(*), sum(id) from {table}").fetchone() or ()


class Arena:
    """The contestants, each with an empty file for each run."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.messages = folder, folder / "messages.jsonl"
        write_messages(self.messages, rows)
        build_tap(folder)
        (folder / "connectors.yaml").write_text(
            "connectors:\n  recorded: {type: singer, requirements: [tap-recorded==1.0], executable: tap-recorded, limits: {memory: 2GB}}\n"
        )
        (folder / "tenants").mkdir()
        source = f"{{type: singer, connector: recorded, folders: {{here: {folder}}}, arguments: {{file: '{{here}}/messages.jsonl'}},"
        source += " streams: {events: {replication: incremental}}}"
        (folder / "tenants" / "acme.yaml").write_text(f"version: 1\ntenant: acme\nsources:\n  recorded: {source}\n")
        self.fabric = str(Path(sys.executable).with_name("fabric"))
        self.environ = {
            "FABRIC_TENANTS_DIR": f"{folder}/tenants",
            "FABRIC_CONNECTORS": f"{folder}/connectors.yaml",
            "FABRIC_CONNECTORS_DIR": f"{folder}/connectors",
        }
        run([self.fabric, "connectors", "install"], UV_FIND_LINKS=str(folder), UV_OFFLINE="1", **self.environ)
        run([sys.executable, "-m", "venv", f"{folder}/peer"])
        run([f"{folder}/peer/bin/pip", "install", "--quiet", "target-duckdb", f"duckdb=={duckdb.__version__}"])
        (folder / "tap.json").write_text(json.dumps({"file": str(self.messages)}))
        self.tap = [
            f"{folder}/connectors/recorded/bin/python",
            f"{folder}/connectors/recorded/bin/tap-recorded",
            "--config",
            f"{folder}/tap.json",
            "--catalog",
            "none",
        ]

    def run_tap(self) -> Cost:
        return run(self.tap)

    def run_fabric(self) -> tuple[Cost, tuple[int, ...]]:
        data = Path(tempfile.mkdtemp(dir=self.folder))
        cost = run([self.fabric, "run", "acme"], FABRIC_DATA_DIR=str(data), FABRIC_PUBLISH_DIR=f"{data}-published", **self.environ)
        return cost, sum_up(data / "warehouse" / "acme.duckdb", "acme_raw_recorded.events")

    def run_peer(self) -> tuple[Cost, tuple[int, ...]]:
        data = Path(tempfile.mkdtemp(dir=self.folder))
        (data / "target.json").write_text(json.dumps({"path": str(data / "peer.duckdb"), "default_target_schema": "raw", "add_metadata_columns": False}))
        cost = run(self.tap, [f"{self.folder}/peer/bin/target-duckdb", "--config", str(data / "target.json")])
        return cost, sum_up(data / "peer.duckdb", "raw.events")


def main() -> int:
    """Print a line per contestant, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder:
        arena = Arena(Path(folder), options.rows)
        costs: dict[str, list[Cost]] = {"the tap alone": [], "fabric run": [], "target-duckdb": []}
        runs: dict[str, Callable[[], tuple[Cost, tuple[int, ...]]]] = {"fabric run": arena.run_fabric, "target-duckdb": arena.run_peer}
        rows = dict.fromkeys(costs, options.rows)
        for _ in range(options.rounds):
            costs["the tap alone"].append(arena.run_tap())
            for name, contestant in runs.items():
                cost, found = contestant()
                costs[name].append(cost)
                rows[name] = found[0]
                if name == "fabric run" and found != (options.rows, options.rows * (options.rows + 1) // 2):
                    raise SystemExit(f"the rows are not those of the messages, so the comparison is void: {found}")
    print("| | rows | wall s | processor s |\n| --- | --- | --- | --- |")
    medians = {name: Cost(*(statistics.median(values) for values in zip(*each, strict=True))) for name, each in costs.items()}
    for name, median in medians.items():
        print(f"| {name} | {rows[name]:,} | {median.wall:.1f} | {median.cpu:.1f} |")
    ratio = medians["target-duckdb"].wall / medians["fabric run"].wall
    print(f"\ntarget-duckdb takes {ratio:.1f} times as long")
    return int(ratio < options.limit)


if __name__ == "__main__":
    sys.exit(main())
