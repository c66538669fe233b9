"""Dropped files whose loads are killed: every row is loaded exactly once, and every file is in one folder, without anybody's help.

A load commits all its files at once and moves them afterwards. So a kill between the two (scenario 23) leaves loaded files in the inbox.
"""

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.support import lengths
from tests.support.shop import Tenant

FILES, DUPLICATE, QUARANTINED = 200, 77, 133
BAD_ROWS = range(0, FILES, 10)
# The points are drawn from one seed; `make test-faults` has more of them.
SEED = lengths.SEED or 0
KILLS = {"duckdb": max(8, lengths.SEEDS or 0), "postgres": max(4, lengths.SEEDS or 0)}
STREAM = {"glob": "*.csv", "columns": {"id": {"type": "bigint", "required": True}, "note": {"type": "text"}}}

Start = Callable[[Case], Process]


class DroppedFiles:
    """A tenant's inbox, what was dropped into it, and what is wrong with what became of it."""

    def __init__(self, settings: Settings, warehouse: str | None) -> None:
        source = {"type": "csv_import", "path": "inbox/acme", "ready": "done_file", "archive": True, "retries": {"max": 0}, "streams": {"ads": STREAM}}
        self.tenant = Tenant(settings, source, warehouse=warehouse)
        self.inbox = settings.data_dir / "inbox" / "acme"
        self.inbox.mkdir(parents=True)
        self.dropped = 0

    def drop(self, number: int) -> None:
        for _ in range(min(number, FILES - self.dropped)):
            name = f"f{self.dropped:03}.csv"
            (self.inbox / name).write_text(build_file(self.dropped))
            (self.inbox / f"{name}.done").touch()
            self.dropped += 1

    def build_case(self, **how: Any) -> Case:
        config = self.tenant.config.model_dump(mode="json", exclude_unset=True)
        settings = {name: str(getattr(self.tenant.settings, name)) for name in ("tenants_dir", "dbt_project_dir", "data_dir")}
        return Case(settings=settings, loads=({"tenant": config, "source": "shop", "streams": ["ads"]},), **how)

    def read_rows(self) -> Counter[tuple[Any, ...]]:
        if not self.tenant.ask("select 1 from information_schema.tables where table_schema = 'acme_raw_shop' and table_name = 'ads'"):
            return Counter()
        return Counter(self.tenant.ask("select _fabric_file, _fabric_row, id, note from acme_raw_shop.ads"))

    def read_fates(self) -> list[tuple[Any, ...]]:
        return self.tenant.ask("select name, status, rows_read, rows_loaded, rows_rejected from acme_fabric.imported_files")

    def find_halves(self) -> list[str]:
        """What a load that was killed has left that the warehouse should not show: rows without their files, and files without their rows."""
        rows = Counter[str]()
        for (file, *_), count in self.read_rows().items():
            rows[file] += count
        recorded = Counter({name: loaded for name, status, _, loaded, _ in self.read_fates() if status == "loaded"})
        return [] if rows == recorded else [f"rows of {sorted(set(rows) ^ set(recorded))} or their numbers differ from imported_files"]

    def find_faults(self) -> list[str]:
        """What is not as it should be once all is loaded."""
        faults = self.find_halves()
        expected = Counter(row for number in range(self.dropped) for row in build_rows(number))
        if (found := self.read_rows()) != expected:
            faults.append(f"{(expected - found).total()} rows are lost, {(found - expected).total()} are there too often")
        rejects = sorted(self.tenant.ask("select origin, row_number, column_name from acme_fabric.rejected_rows"))
        if rejects != sorted((f"f{number:03}.csv", 4, "id") for number in BAD_ROWS if number < self.dropped):
            faults.append(f"other rows are rejected than the bad ones: {rejects}")
        fates = self.read_fates()
        if Counter(status for _, status, *_ in fates) != Counter(get_status(number) for number in range(self.dropped)):
            faults.append(f"fates: {Counter(status for _, status, *_ in fates)}")
        faults += [f"{name}: {read} rows read are not {loaded} + {rejected}" for name, _, read, loaded, rejected in fates if read != loaded + rejected]
        folders = Counter(get_folder(path.relative_to(self.inbox)) for path in self.inbox.rglob("*.csv"))
        expected_folders = Counter(("quarantine" if number == QUARANTINED else "archive", f"f{number:03}.csv") for number in range(self.dropped))
        if folders != expected_folders:
            faults.append(f"files lie elsewhere: {folders - expected_folders}, and not here: {expected_folders - folders}")
        return faults


def build_file(number: int) -> str:
    if number == DUPLICATE:
        return build_file(number - 1)
    bad = f"x{number},bad\n" if number in BAD_ROWS else ""
    return f"id,note\n{number * 10},a\n{number * 10 + 1},b\n{bad}" + (f'{number},"unclosed\n' if number == QUARANTINED else "")


def build_rows(number: int) -> list[tuple[Any, ...]]:
    if get_status(number) != "loaded":
        return []
    return [(f"f{number:03}.csv", line, number * 10 + line - 2, "ab"[line - 2]) for line in (2, 3)]


def get_status(number: int) -> str:
    return {DUPLICATE: "duplicate", QUARANTINED: "quarantined"}.get(number, "loaded")


def get_folder(path: Path) -> tuple[str, str]:
    """Its folder, and its name without the mark that tells its contents apart."""
    folder = path.parent.as_posix()
    return (folder, path.name) if folder == "." else (folder, f"{path.name.partition('.')[0]}.csv")


def draw_case(draw: random.Random) -> dict[str, Any]:
    """How a load dies: at a call of the engine or of a move, or at a random moment."""
    point = draw.choice(["commit.before", "commit.after", "move.before", "move.after", "shape", "write", "finish", "moment"])
    if point == "moment":
        return {"seed": draw.randrange(10_000), "within": 1.5}
    if point.startswith("move"):
        return {"kill": f"{point}:{draw.randint(1, 6)}"}
    if point in ("shape", "write"):
        return {"kill": f"{point}.{draw.choice(['before', 'after'])}:{draw.randint(1, 4)}"}
    return {"kill": f"{point}:1" if "." in point else f"{point}.after:1"}


@pytest.mark.timeout(600)
def test_killed_again_and_again_each_row_is_loaded_once_and_each_file_put_away(settings: Settings, destination: str | None, start: Start) -> None:
    files, draw = DroppedFiles(settings, destination), random.Random(SEED)
    number = KILLS["postgres" if destination else "duckdb"]
    # The two sides of the commit are always among them.
    cases = [{"kill": "commit.before:1"}, {"kill": "commit.after:1"}, *(draw_case(draw) for _ in range(number - 2))]
    files.drop(FILES // 2)
    killed = 0
    for case in cases:
        process = start(files.build_case(**case))
        killed += process.wait() == -signal.SIGKILL
        assert files.find_halves() == [], f"after {case} (FABRIC_TEST_SEED={SEED})"
        files.drop(FILES // 2 // number + 1)
    assert killed >= number // 2, "the loads ended before they could be killed"
    files.drop(FILES)
    files.tenant.load()
    assert files.find_faults() == [], f"play it again with FABRIC_TEST_SEED={SEED}"
    # Nothing is left to do.
    assert files.tenant.load()["ads"].files == ()


def test_killed_between_the_commit_and_the_move_files_are_moved_by_the_next_load(settings: Settings, destination: str | None, start: Start) -> None:
    files = DroppedFiles(settings, destination)
    files.drop(FILES)
    for case in ({"kill": "commit.after:1"}, {"kill": "move.after:60"}, {"kill": "move.before:60"}):
        process = start(files.build_case(**case))
        assert process.wait() == -signal.SIGKILL, process.log
        assert files.read_rows().total() == 2 * (FILES - 2)
    assert any("files lie elsewhere" in fault for fault in files.find_faults()), "the control: some are still in the inbox"
    report = files.tenant.load()["ads"]
    assert report.rows_loaded == 0
    assert files.find_faults() == []


def test_an_engine_that_commits_rows_by_themselves_is_caught(settings: Settings, destination: str | None, start: Start) -> None:
    files = DroppedFiles(settings, destination)
    files.drop(40)
    process = start(files.build_case(kill="finish.after:1", broken="autocommit"))
    assert process.wait() == -signal.SIGKILL, process.log
    assert files.find_halves() != [], "rows whose files nobody knows of"
    # Rows are known by file and number, so even these are not doubled; were they, it would show.
    files.tenant.load()
    assert files.find_faults() == []
    files.tenant.change("insert into acme_raw_shop.ads select * from acme_raw_shop.ads where _fabric_file = 'f003.csv'")
    assert any("2 are there too often" in fault for fault in files.find_faults())
