"""What a change of the code costs: the present checkout against another one, both against a peer in the same rounds.

    uv run python -m benchmarks.versions OTHER_CHECKOUT [--rows 200000] [--rounds 7] [--part loads days] [--limit 1.05] [--postgres URL]

OTHER_CHECKOUT is a folder in which `make setup` has run, for example a `git worktree` of an older commit. Two parts run by turns. One is a first load of
TPC-H's lineitem from Postgres into DuckDB and into Postgres, beside dlt fed with Arrow batches. The other is the first and next day of a demo tenant, beside
a script of dlt and dbt. Each checkout builds its own models, and so does the script beside it. The seconds are processor time of whole processes, medians
of the rounds. Exit code 1 where the present ratio to the peer is above the limit times the other's.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import tenant_day
from benchmarks.loads import DESTINATIONS, install_peers
from benchmarks.loads_contestants import Arena, Cost, measure_by_turns
from benchmarks.loads_database import Databases, fill_lineitem, open_server, sum_up

PRESENT, OTHER, PEER = "present", "other", "peer"


class Comparison(NamedTuple):
    """Processor seconds of one task.

    Args:
        present: per round, as are the others.
        other_peer: the peer of the other checkout, where it does other work than the present one's.
    """

    task: str
    present: list[float]
    other: list[float]
    peer: list[float]
    other_peer: list[float]

    @property
    def ratio(self) -> float:
        """The present ratio to the peer over the other's; the peers run in each round."""
        pairs = (self.present, self.peer), (self.other, self.other_peer)
        present, other = (statistics.median(ours / peer for ours, peer in zip(found, peers, strict=True)) for found, peers in pairs)
        return present / other


def compare_loads(databases: Databases, folder: Path, checkout: Path, rows: int, rounds: int) -> Iterator[Comparison]:
    """Compare a first load of a whole table, per destination."""
    tools = install_peers(folder / "tools")
    arena = Arena(databases, databases.make("bench_source"), folder, tools)
    fill_lineitem(arena.source, rows, generator=tools / "tpchgen-cli", folder=folder)
    expected = sum_up(arena.source, "lineitem")

    def check(outcome: tuple[Cost, tuple[object, ...]]) -> Cost:
        cost, found = outcome
        if found != expected:
            raise SystemExit(f"the rows differ, so the comparison is void: {found} instead of {expected}")
        return cost

    for destination in DESTINATIONS:
        runs = {
            PRESENT: lambda destination=destination: check(arena.run_fabric(destination)),
            OTHER: lambda destination=destination: check(arena.run_fabric(destination, checkout=checkout)),
            PEER: lambda destination=destination: check(arena.run_dlt("batches", destination)),
        }
        measure_by_turns(runs, 1)  # fills the caches
        costs = measure_by_turns(runs, rounds)
        yield Comparison(f"{rows:,} rows into {destination}", *([cost.processor for cost in costs[name]] for name in (PRESENT, OTHER, PEER, PEER)))
    for name in ("bench_source", "bench_target"):
        databases.drop(name)


def compare_days(checkout: Path, rounds: int) -> Iterator[Comparison]:
    """Compare a demo tenant's first and next day."""
    for day, costs in tenant_day.measure(rounds, {OTHER: checkout}).items():
        yield Comparison(day, *([cost.cpu for cost in costs[name]] for name in ("fabric", OTHER, "script", f"{OTHER} script")))


def main() -> int:
    """Print a line per task, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--part", nargs="+", choices=["loads", "days"], default=["loads", "days"])
    parser.add_argument("--limit", type=float, default=1.05)
    parser.add_argument("--postgres", help="URL of a server's maintenance database; default: one that is started for this.")
    options = parser.parse_args()
    checkout, worst = options.checkout.resolve(), 0.0
    print("| task | present s | other s | peer s | other's peer s | ratio |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="fabric-benchmark-") as folder, open_server(options.postgres) as databases:
        comparisons = list[Iterator[Comparison]]()
        if "loads" in options.part:
            comparisons.append(compare_loads(databases, Path(folder), checkout, options.rows, options.rounds))
        if "days" in options.part:
            comparisons.append(compare_days(checkout, options.rounds))
        for found in comparisons:
            for comparison in found:
                medians = " | ".join(f"{statistics.median(seconds):.2f}" for seconds in comparison[1:])
                print(f"| {comparison.task} | {medians} | {comparison.ratio:.3f} |", flush=True)
                worst = max(worst, comparison.ratio)
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
