"""What importing dropped files costs: `fabric run` as a whole process against DuckDB's own `read_csv`, a large file, many small ones.

    uv run python -m benchmarks.imports [--part rows large many] [--rounds 3] [--rows 500000] [--gigabytes 2] [--files 5000]

A valid file of ten columns is imported into an empty DuckDB warehouse. By turns a Python script does the same with `read_csv` and the columns' types.
The start of each process is subtracted, and both must end with the same rows. It prints medians, a line for each figure of docs/performance.md. Exit code 1
over a limit.

The limits are in seconds on the clock. CPU seconds of all cores are printed beside them, because a busy machine does not distort these.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import yaml

from benchmarks.loads_contestants import ROOT, START

TENANT = "bench"
TABLE = f"{TENANT}_raw_drops.spend"
# Column: DuckDB's type, how its values are made, what the YAML says of it.
COLUMNS: dict[str, tuple[str, str, dict[str, object]]] = {
    "id": ("bigint", "i", {"type": "bigint", "required": True}),
    "day": ("date", "date '2024-01-01' + cast(i % 700 as integer)", {"type": "date"}),
    "channel": ("varchar", "['search', 'social', 'email', 'display'][1 + i % 4]", {"accepted": ["search", "social", "email", "display"]}),
    "campaign": ("varchar", "case when i % 10 = 0 then 'Sale, \"north\" ' || i % 977 else 'campaign ' || i % 977 end", {}),
    "spend": ("decimal(38, 9)", "cast(i % 100003 / 100.0 as decimal(18, 2))", {"type": "decimal", "min": 0}),
    "clicks": ("bigint", "i * 7919 % 100019", {"type": "bigint", "min": 0, "max": 1_000_000}),
    "rate": ("double", "i % 1009 / 1009.0", {"type": "double"}),
    "seen_at": ("timestamp", "timestamp '2024-01-01' + to_seconds(i * 37 % 60000000)", {"type": "timestamp"}),
    "active": ("boolean", "i % 3 = 0", {"type": "bool"}),
    "note": ("varchar", "case when i % 5 > 0 then md5(cast(i as varchar)) end", {}),
}
SUM = f"select count(*), {', '.join(f'sum(hash({name}))' for name in COLUMNS)}, count(note) from "
SMALL_ROWS = 20
MEGABYTES, TIMES, SECONDS = 700.0, 3.0, 60.0


class Cost(NamedTuple):
    """Seconds on the clock and of all cores together, and the most MB that the processes held at a time."""

    seconds: float
    cpu: float
    megabytes: float


class Figure(NamedTuple):
    """Args:
    cpu: the same of CPU seconds; None where it means nothing.
    limit: None where nothing is promised.
    """

    name: str
    against: str
    value: float
    cpu: float | None = None
    limit: float | None = None

    @property
    def is_kept(self) -> bool:
        return self.limit is None or self.value <= self.limit


class Platform:
    """A deployment with one tenant, whose DAGSTER_HOME is made and whose warehouse is empty; and a folder to drop files into."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        self.inbox = folder / "inbox"
        shutil.rmtree(folder, ignore_errors=True)
        for each in (self.inbox, folder / "tenants"):
            each.mkdir(parents=True)
        self._data.mkdir(mode=0o700)
        self.warehouse = self._data / "warehouse" / f"{TENANT}.duckdb"
        stream = {"glob": "*.csv", "columns": {name: rules for name, (_, _, rules) in COLUMNS.items()}}
        source = {"type": "csv_import", "path": str(self.inbox), "limits": {"bytes": "900GB", "rows": 1_000_000_000}, "streams": {"spend": stream}}
        tenant = {"version": 1, "tenant": TENANT, "destination": {"type": "duckdb"}, "sources": {"drops": source}}
        (folder / "tenants" / f"{TENANT}.yaml").write_text(yaml.safe_dump(tenant))
        self.start_process()

    def run(self) -> Cost:
        return run_process([str(Path(sys.executable).with_name("fabric")), "run", TENANT], **self._environ)

    def start_process(self) -> Cost:
        """A process that imports what a run imports, opens Dagster's instance and does nothing."""
        return run_process([sys.executable, "-c", START], **self._environ)

    def forget(self) -> None:
        """Empty the warehouse; the files lie there as if never read."""
        shutil.rmtree(self._data / "warehouse", ignore_errors=True)

    @property
    def _environ(self) -> dict[str, str]:
        return {"FABRIC_TENANTS_DIR": str(self._folder / "tenants"), "FABRIC_DATA_DIR": str(self._data)}


def run_process(command: list[str], **environment: str) -> Cost:
    """Run a process to its end; its output is shown if it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FABRIC_", "DAGSTER_"))}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        environ = kept | {"DAGSTER_DISABLE_TELEMETRY": "1"} | environment
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        peaks, ended = [0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read()[-4000:]}")
    # What is watched misses a short peak, and what the system counts is the largest process alone.
    return Cost(seconds, usage.ru_utime + usage.ru_stime, max(*peaks, usage.ru_maxrss * 1024) / 1e6)


def _watch(session: int, peaks: list[int], ended: threading.Event) -> None:
    """Note what a process and those that it has started hold."""
    while not ended.wait(0.1):
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            # A name in brackets, which may hold anything; then state, parent, group, session, ..., and in field 22 the pages in memory.
            with contextlib.suppress(OSError):
                facts = path.read_text().rpartition(")")[2].split()
                total += int(facts[21]) if int(facts[3]) == session else 0
        peaks.append(total * os.sysconf("SC_PAGE_SIZE"))


def measure_rows(folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    """One file against `read_csv`."""
    platform = Platform(folder / "rows")
    file, target = platform.inbox / "spend.csv", folder / "peer.duckdb"
    write_file(file, rows)
    types = {name: kind for name, (kind, _, _) in COLUMNS.items()}
    statement = f"create table spend as select * from read_csv('{file}', columns = {types})"
    peer = f"import duckdb\nwith duckdb.connect({str(target)!r}) as db: db.execute({statement!r})"

    def read_csv() -> Cost:
        target.unlink(missing_ok=True)
        return run_process([sys.executable, "-c", peer])

    def run() -> Cost:
        platform.forget()
        return platform.run()

    runs: dict[str, Callable[[], Cost]] = {
        "process start": platform.start_process,
        "fabric run": run,
        "process start of the peer": lambda: run_process([sys.executable, "-c", "import duckdb\nwith duckdb.connect(): pass"]),
        "DuckDB's read_csv": read_csv,
    }
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, measure in runs.items():
            costs[name].append(measure())
    found, expected = _sum_up(platform.warehouse, TABLE), _sum_up(target, "spend")
    if found != expected:
        raise SystemExit(f"the rows differ, so the comparison is void: {found} instead of {expected}")
    middle = _print_costs(f"{rows:,} rows of ten columns, {file.stat().st_size / 1e6:.0f} MB", costs)
    start, ours, peer_start, theirs = middle.values()
    what = f"a CSV file of {rows:,} rows: times the seconds"
    cpu = (ours.cpu - start.cpu) / (theirs.cpu - peer_start.cpu)
    yield Figure(what, "DuckDB's `read_csv`", (ours.seconds - start.seconds) / (theirs.seconds - peer_start.seconds), cpu, TIMES)
    yield Figure(f"a CSV file of {rows:,} rows: peak MB", "", ours.megabytes)


def measure_large(folder: Path, gigabytes: float) -> Iterator[Figure]:
    """The memory that a file takes which is larger than it."""
    platform = Platform(folder / "large")
    file = platform.inbox / "large.csv"
    write_file(file, int(gigabytes * 1e9 / 125))
    cost = platform.run()
    _print_costs(f"{file.stat().st_size / 1e9:.2f} GB in one file", {"fabric run": [cost]})
    yield Figure(f"a CSV file of {gigabytes:g} GB: peak MB", "", cost.megabytes, limit=MEGABYTES)
    shutil.rmtree(folder / "large")


def measure_many(folder: Path, files: int, rounds: int) -> Iterator[Figure]:
    """Many small files in one run, and a run that finds them all known."""
    costs: dict[str, list[Cost]] = {"process start": [], "fabric run": [], "nothing new": [], "as many again": []}
    for _ in range(rounds):
        platform = Platform(folder / "many")
        write_small_files(platform.inbox, 0, files)
        costs["process start"].append(platform.start_process())
        costs["fabric run"].append(platform.run())
        costs["nothing new"].append(platform.run())
        write_small_files(platform.inbox, files, files)
        costs["as many again"].append(platform.run())
        if (found := _sum_up(platform.warehouse, TABLE)[0]) != 2 * files * SMALL_ROWS:
            raise SystemExit(f"the table holds {found} rows instead of {2 * files * SMALL_ROWS}")
    middle = _print_costs(f"{files:,} files of {SMALL_ROWS} rows", costs)
    start = middle.pop("process start")
    for name, cost in middle.items():
        what = "imported" if name == "fabric run" else name
        yield Figure(f"{files:,} small files, {what}: seconds", "a process that only starts", cost.seconds - start.seconds, cost.cpu - start.cpu, SECONDS)


def write_file(file: Path, rows: int) -> None:
    values = ", ".join(f"{made} as {name}" for name, (_, made, _) in COLUMNS.items())
    with duckdb.connect() as db:
        db.execute(f"copy (select {values} from range({rows}) as t(i)) to '{file}' (header, delimiter ',')")
    _age(file)


def write_small_files(folder: Path, first: int, count: int) -> None:
    """Cut a large file into small ones of the same header."""
    whole = folder.parent / "whole.csv"
    write_file(whole, (first + count) * SMALL_ROWS)
    with whole.open() as lines:
        header = next(lines)
        for number in range(first + count):
            rows = [next(lines) for _ in range(SMALL_ROWS)]
            if number >= first:
                file = folder / f"day_{number}.csv"
                file.write_text(header + "".join(rows))
                _age(file)
    whole.unlink()


def _age(file: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(file, (hour_ago, hour_ago))


def _sum_up(database: Path, table: str) -> tuple[object, ...]:
    with duckdb.connect(database, read_only=True) as db:
        return db.sql(f"{SUM} {table}").fetchone() or ()


def _print_costs(title: str, costs: Mapping[str, list[Cost]]) -> dict[str, Cost]:
    """Print the medians; gives them."""
    middle = {name: Cost(*(statistics.median(column) for column in zip(*found, strict=True))) for name, found in costs.items()}
    print(f"\n{title}\n\n| | seconds | CPU seconds | MB |\n| --- | --- | --- | --- |")
    for name, cost in middle.items():
        print(f"| {name} | {cost.seconds:.2f} | {cost.cpu:.2f} | {cost.megabytes:.0f} |", flush=True)
    return middle


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    if "rows" in options.part:
        yield from measure_rows(folder, options.rows, options.rounds)
    if "many" in options.part:
        yield from measure_many(folder, options.files, options.rounds)
    if "large" in options.part:
        yield from measure_large(folder, options.gigabytes)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=["rows", "many", "large"], default=["rows", "many", "large"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--files", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder:
        figures = list(_measure(Path(folder), options))
    print("\n| figure | script | against | result | limit |\n| --- | --- | --- | --- | --- |")
    for figure in figures:
        limit, cpu = "" if figure.limit is None else f"{figure.limit:g}", "" if figure.cpu is None else f" (CPU {figure.cpu:.2f})"
        result = f"{figure.value:.2f}{cpu}{'' if figure.is_kept else ' (over)'}"
        print(f"| {figure.name} | `benchmarks/imports.py` | {figure.against} | {result} | {limit} |")
    return int(not all(figure.is_kept for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
