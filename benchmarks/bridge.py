"""Foreign connectors into DuckDB: `fabric run` against what their users have today.

    uv run python -m benchmarks.bridge [--part singer|dlt] [--rows 1000000] [--rounds 3]

singer: a recorded file of messages, which the tap only writes to its output; its own time is printed beside. Peer: target-duckdb of PyPI. Both merge by the key
into an empty file. The rows of `fabric run` must be those of the messages; target-duckdb 0.8 loses the first row of each batch, so its rows are printed.

dlt: a source of dict rows, in pages of 1,000, from the first process to the commit. Peer: dlt's own extract step of the same source alone, in the same
environment; it has neither normalised nor loaded a row then.

Seconds on the clock and of all processors, medians of the rounds, by turns. Exit code 1 if a peer is not so many times as slow as `_LIMITS` says.
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
SOURCE = """
import dlt


@dlt.resource(name="events", primary_key="id", write_disposition="merge")
def events(rows: int, seen=dlt.sources.incremental("id", initial_value=0)):
    for first in range(1, rows + 1, 1000):
        yield [
            {"id": n, "name": f"name {n % 1000}", "city": f"city {n % 97}", "amount": n % 10_000 / 4, "quantity": n % 13, "is_new": n % 2 == 0}
            for n in range(first, min(first + 1000, rows + 1))
        ]
"""
EXTRACT = """
import sys
sys.path.insert(0, sys.argv[1])
import dlt
from recorded_source import events
dlt.pipeline("peer", pipelines_dir=sys.argv[2], destination="dummy").extract(events(int(sys.argv[3])))
"""
# How many times as slow the peer must be.
_LIMITS = {"singer": 5.0, "dlt": 1 / 1.3}
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

    def __init__(self, folder: Path, rows: int, entry: str, source: str) -> None:
        self.folder, self.rows = folder, rows
        (folder / "connectors.yaml").write_text(f"connectors:\n  recorded: {entry}\n")
        (folder / "tenants").mkdir()
        (folder / "tenants" / "acme.yaml").write_text(f"version: 1\ntenant: acme\nsources:\n  recorded: {source}\n")
        self.fabric = str(Path(sys.executable).with_name("fabric"))
        self.environ = {
            "FABRIC_TENANTS_DIR": f"{folder}/tenants",
            "FABRIC_CONNECTORS": f"{folder}/connectors.yaml",
            "FABRIC_CONNECTORS_DIR": f"{folder}/connectors",
        }

    def run_fabric(self) -> tuple[Cost, int]:
        data = Path(tempfile.mkdtemp(dir=self.folder))
        cost = run([self.fabric, "run", "acme"], FABRIC_DATA_DIR=str(data), FABRIC_PUBLISH_DIR=f"{data}-published", **self.environ)
        found = sum_up(data / "warehouse" / "acme.duckdb", "acme_raw_recorded.events")
        if found != (self.rows, self.rows * (self.rows + 1) // 2):
            raise SystemExit(f"the rows are not those of the source, so the comparison is void: {found}")
        return cost, found[0]


def race_singer(folder: Path, rows: int) -> dict[str, Callable[[], tuple[Cost, int]]]:
    """Prepare the contestants of the part singer."""
    write_messages(folder / "messages.jsonl", rows)
    build_tap(folder)
    entry = "{type: singer, requirements: [tap-recorded==1.0], executable: tap-recorded, limits: {memory: 2GB}}"
    source = f"{{type: singer, connector: recorded, folders: {{here: {folder}}}, arguments: {{file: '{{here}}/messages.jsonl'}},"
    arena = Arena(folder, rows, entry, f"{source} streams: {{events: {{replication: incremental}}}}}}")
    run([arena.fabric, "connectors", "install"], UV_FIND_LINKS=str(folder), UV_OFFLINE="1", **arena.environ)
    run([sys.executable, "-m", "venv", f"{folder}/peer"])
    run([f"{folder}/peer/bin/pip", "install", "--quiet", "target-duckdb", f"duckdb=={duckdb.__version__}"])
    (folder / "tap.json").write_text(json.dumps({"file": str(folder / "messages.jsonl")}))
    program = f"{folder}/connectors/recorded/bin/tap-recorded"
    tap = [f"{folder}/connectors/recorded/bin/python", program, "--config", f"{folder}/tap.json", "--catalog", "none"]

    def run_peer() -> tuple[Cost, int]:
        data = Path(tempfile.mkdtemp(dir=folder))
        (data / "target.json").write_text(json.dumps({"path": str(data / "peer.duckdb"), "default_target_schema": "raw", "add_metadata_columns": False}))
        cost = run(tap, [f"{folder}/peer/bin/target-duckdb", "--config", str(data / "target.json")])
        return cost, sum_up(data / "peer.duckdb", "raw.events")[0]

    return {"fabric run": arena.run_fabric, "target-duckdb": run_peer, "the tap alone": lambda: (run(tap), rows)}


def race_dlt(folder: Path, rows: int) -> dict[str, Callable[[], tuple[Cost, int]]]:
    """Prepare the contestants of the part dlt."""
    (folder / "own").mkdir()
    (folder / "own" / "recorded_source.py").write_text(SOURCE)
    source = f"{{type: dlt, connector: recorded, arguments: {{rows: {rows}}}, streams: {{events: {{}}}}}}"
    arena = Arena(folder, rows, '{type: dlt, source: "recorded_source:events", path: own, limits: {memory: 2GB}}', source)
    run([arena.fabric, "connectors", "install"], **arena.environ)
    (folder / "extract.py").write_text(EXTRACT)

    def run_peer() -> tuple[Cost, int]:
        command = [f"{folder}/connectors/recorded/bin/python", f"{folder}/extract.py", f"{folder}/own", tempfile.mkdtemp(dir=folder), str(rows)]
        return run(command, RUNTIME__DLTHUB_TELEMETRY="false"), rows

    return {"fabric run": arena.run_fabric, "dlt's extract step alone": run_peer}


def main() -> int:
    """Print a line per contestant, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(_LIMITS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return max([judge(part, options.rows, options.rounds) for part in ([options.part] if options.part else _LIMITS)])


def judge(part: str, rows: int, rounds: int) -> int:
    """Run the contestants of a part by turns, and compare the first two."""
    costs, found = dict[str, list[Cost]](), dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder:
        contestants = {"singer": race_singer, "dlt": race_dlt}[part](Path(folder), rows)
        for _ in range(rounds):
            for name, contestant in contestants.items():
                cost, found[name] = contestant()
                costs.setdefault(name, []).append(cost)
    print(f"| {part} | rows | wall s | processor s |\n| --- | --- | --- | --- |")
    medians = {name: Cost(*(statistics.median(values) for values in zip(*each, strict=True))) for name, each in costs.items()}
    for name, median in medians.items():
        print(f"| {name} | {found[name]:,} | {median.wall:.1f} | {median.cpu:.1f} |")
    own, peer = list(medians)[:2]
    ratio = medians[peer].wall / medians[own].wall
    print(f"\n{peer} takes {ratio:.2f} times as long\n", flush=True)
    return int(ratio < _LIMITS[part])


if __name__ == "__main__":
    sys.exit(main())
