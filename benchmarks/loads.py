"""What loading costs: `fabric run` as a whole process against the COPY pipe, dlt and Singer, on TPC-H's lineitem.

    uv run python -m benchmarks.loads [--rows 200000 1200000 6000000] [--part rows increments streams] [--slow-rows 200000] [--rounds 3] [--postgres URL]

It installs the peers into an environment of its own. It fills a Postgres of its own, or that of --postgres, whose login may create databases. From there it
loads into DuckDB and into Postgres. Each contestant begins with an empty destination and must end with the same rows. They run by turns, and medians are
printed, a line for each figure of docs/performance.md. Exit code 1 over a limit.

"Nothing new" is compared with the process start that every run needs. A Python process imports Dagster, the factories and the engine, and opens Dagster's
instance. The drivers of source and destination count as the run's own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loads_contestants import PEERS, ROOT, TENANT, Arena, Cost, Platform, measure_by_turns
from benchmarks.loads_database import STREAM_ROWS, STREAMS, Databases, add_changes, add_slices, change_one_percent, fill_lineitem, open_server, sum_up

DESTINATIONS = ("duckdb", "postgres")
# Here the figures against the slow peers are promised. Beyond it they take minutes, and most of an hour at 6,000,000 rows.
SLOW_ROWS = 200_000
MEGABYTES = 700.0
INCREMENTAL = {"primary_key": ["l_orderkey", "l_linenumber"], "cursor": {"field": "l_changed"}}


class Figure(NamedTuple):
    """Args:
    limit: None where nothing is promised.
    at_least: the limit is a lowest value, not a highest.
    """

    name: str
    against: str
    value: float
    limit: float | None = None
    at_least: bool = False

    @property
    def is_kept(self) -> bool:
        return self.limit is None or (self.value >= self.limit if self.at_least else self.value <= self.limit)


def measure_rows(arena: Arena, rows: int, rounds: int, *, slow_rows: int = SLOW_ROWS) -> Iterator[Figure]:
    """A first load of the whole table, by everyone who can."""
    expected = sum_up(arena.source, "lineitem")
    runs: dict[str, Callable[[], tuple[Cost, tuple[object, ...]]]] = {"COPY pipe": arena.run_copy}
    if rows <= slow_rows:
        runs["Singer into postgres"] = arena.run_singer
    for destination in DESTINATIONS:
        if rows <= slow_rows:
            runs[f"dlt default into {destination}"] = lambda destination=destination: arena.run_dlt("default", destination)
        runs[f"dlt batches into {destination}"] = lambda destination=destination: arena.run_dlt("batches", destination)
        runs[f"fabric run into {destination}"] = lambda destination=destination: arena.run_fabric(destination)
    costs = measure_by_turns({name: lambda name=name, run=run: _check(name, run(), expected) for name, run in runs.items()}, rounds)
    _print_costs(f"{rows:,} rows", costs)
    middle = {name: _middle(found) for name, found in costs.items()}
    for destination in DESTINATIONS:
        ours = middle[f"fabric run into {destination}"]
        what = f"{rows:,} rows into {destination}"
        yield Figure(f"{what}: times the seconds", "a pipe of binary COPY", ours.seconds / middle["COPY pipe"].seconds, 3.0 if rows >= 6_000_000 else None)
        yield Figure(f"{what}: times faster", "dlt fed with Arrow batches", middle[f"dlt batches into {destination}"].seconds / ours.seconds)
        if rows <= slow_rows:
            limit = 10.0 if rows == SLOW_ROWS else None
            yield Figure(f"{what}: times faster", "dlt's default", middle[f"dlt default into {destination}"].seconds / ours.seconds, limit, at_least=True)
            yield Figure(f"{what}: times faster", "Singer with COPY", middle["Singer into postgres"].seconds / ours.seconds, limit, at_least=True)
        yield Figure(f"{what}: peak MB", "", ours.megabytes, MEGABYTES)


def measure_increments(arena: Arena, rows: int, rounds: int) -> Iterator[Figure]:
    """A run that finds nothing new, and one that merges a hundredth of the rows."""
    add_changes(arena.source)
    for destination in DESTINATIONS:
        platform, full = _load_anew(arena, destination, rounds)
        idle = measure_by_turns({"process start": platform.start_process, "nothing new": platform.run}, rounds)
        costs = {"full load": full, **idle, "merge of 1%": [_merge(arena, platform) for _ in range(rounds)]}
        if arena.sum_up(platform.warehouse, f"{TENANT}_raw_tpch.lineitem") != sum_up(arena.source, "changing.lineitem"):
            raise SystemExit(f"{destination}: after the merges the rows differ, so the comparison is void")
        _print_costs(f"{rows:,} rows, incremental, {destination}", costs)
        middle = {name: _middle(found).seconds for name, found in costs.items()}
        what = f"{rows:,} rows in {destination}"
        yield Figure(f"{what}: nothing new, seconds", "a process that only starts", middle["nothing new"] - middle["process start"], 1.5)
        limit = 0.15 if rows >= 6_000_000 else None
        yield Figure(f"{what}: 1% changed, times the seconds", "its full load", middle["merge of 1%"] / middle["full load"], limit)


def measure_streams(arena: Arena, rounds: int) -> Iterator[Figure]:
    """Many small streams of one source against one stream of as many rows."""
    add_slices(arena.source)
    sets: dict[str, Any] = {"one stream": {"whole": {}}, f"{STREAMS} streams": {f"s{number}": {} for number in range(STREAMS)}}
    for destination in DESTINATIONS:
        runs = {
            name: lambda streams=streams, destination=destination: arena.build_platform(streams, destination, schema="slices").run()
            for name, streams in sets.items()
        }
        costs = measure_by_turns(runs, rounds)
        _print_costs(f"{STREAMS * STREAM_ROWS:,} rows into {destination}", costs)
        one, many = (_middle(found).seconds for found in costs.values())
        yield Figure(f"{STREAMS} streams of {STREAM_ROWS:,} rows into {destination}: times the seconds", "one stream of as many rows", many / one, 2.0)


def _load_anew(arena: Arena, destination: str, rounds: int) -> tuple[Platform, list[Cost]]:
    """Load the whole table several times, each into an empty destination; gives the last one as well."""
    costs = list[Cost]()
    while True:
        platform = arena.build_platform({"lineitem": INCREMENTAL}, destination, schema="changing")
        costs.append(platform.run())
        if len(costs) == rounds:
            return platform, costs


def _merge(arena: Arena, platform: Platform) -> Cost:
    change_one_percent(arena.source)
    return platform.run()


def _check(name: str, outcome: tuple[Cost, tuple[object, ...]], expected: tuple[object, ...]) -> Cost:
    cost, found = outcome
    if found != expected:
        raise SystemExit(f"{name}: the rows differ, so the comparison is void: {found} instead of {expected}")
    return cost


def _middle(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def _print_costs(title: str, costs: dict[str, list[Cost]]) -> None:
    print(f"\n{title}\n\n| | seconds | MB |\n| --- | --- | --- |")
    for name, found in costs.items():
        print(f"| {name} | {_middle(found).seconds:.2f} | {_middle(found).megabytes:.0f} |", flush=True)


def install_peers(folder: Path) -> Path:
    """Install the peers' programs into an environment that goes with the folder; gives the folder of the programs."""
    uv = str(ROOT / "scripts" / "uv")
    subprocess.run([uv, "venv", "--quiet", str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin" / "python"), *PEERS], check=True)
    return folder / "bin"


def _measure(databases: Databases, folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    tools = install_peers(folder / "tools")
    for number, rows in enumerate(options.rows):
        arena = Arena(databases, databases.make("bench_source"), folder, tools)
        fill_lineitem(arena.source, rows, generator=tools / "tpchgen-cli", folder=folder)
        if "rows" in options.part:
            yield from measure_rows(arena, rows, options.rounds, slow_rows=options.slow_rows)
        last = number == len(options.rows) - 1
        if last and "streams" in options.part and rows >= STREAMS * STREAM_ROWS:
            yield from measure_streams(arena, options.rounds)
        if last and "increments" in options.part:
            yield from measure_increments(arena, rows, options.rounds)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_200_000, 6_000_000])
    parser.add_argument("--part", nargs="+", choices=["rows", "increments", "streams"], default=["rows", "increments", "streams"])
    parser.add_argument("--slow-rows", type=int, default=SLOW_ROWS, help="The largest table that dlt's default and Singer load too; default: %(default)s.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", help="URL of a server's maintenance database; default: one that is started for this.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder, open_server(options.postgres) as databases:
        figures = list(_measure(databases, Path(folder), options))
        for name in ("bench_source", "bench_target"):
            databases.drop(name)
    print("\n| figure | script | against | result | limit |\n| --- | --- | --- | --- | --- |")
    for figure in figures:
        limit = "" if figure.limit is None else f"{'at least ' if figure.at_least else ''}{figure.limit:g}"
        print(f"| {figure.name} | `benchmarks/loads.py` | {figure.against} | {figure.value:.2f}{'' if figure.is_kept else ' (over)'} | {limit} |")
    return int(not all(figure.is_kept for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
