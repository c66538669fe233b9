"""`fabric rejects replay` and `fabric migrate-values` killed at every step and at random moments: each row stands once, before and after the next call."""

import csv
import signal
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabric_assets.settings import Settings
from tests.faults.processes import Case, Process
from tests.loading.older_forms.test_value_forms import forget_versions
from tests.support.lengths import AT_FULL_LENGTH, choose, choose_seeds
from tests.support.shop import SourceDatabase, Tenant, build_sqlite_url

Start = Callable[..., Process]
Write = Callable[..., Path]
# One call takes about so long, once all is imported.
SECONDS = 0.8
STEPS = ("write.before:1", "write.after:1", "finish.after:1", "commit.before:1", "commit.after:1")


def run(start: Start, tenant: Tenant, *command: str, **how: Any) -> Process:
    settings = tenant.settings
    environ = {"FABRIC_TENANTS_DIR": str(settings.tenants_dir), "FABRIC_DATA_DIR": str(settings.data_dir)}
    process = start(Case(command=command, **how), environ=environ | {"FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir)})
    process.wait()
    return process


def kill(start: Start, tenant: Tenant, *command: str, how: str | int) -> None:
    """Args:
    how: a point of the runner; or the seed of a random moment.
    """
    if isinstance(how, str):
        process = run(start, tenant, *command, kill=how)
        assert process.wait() == -signal.SIGKILL, process.log
    else:
        process = run(start, tenant, *command, within=SECONDS, seed=how)
        assert process.wait() in {0, -signal.SIGKILL}, process.log


def write_yaml(write_tenant: Write, tenant: Tenant) -> None:
    body = tenant.config.model_dump(mode="json", exclude_unset=True)
    write_tenant("acme", {key: value for key, value in body.items() if key not in {"version", "tenant"}})


# --- rows of a table


ROWS = 40
BAD = range(5, ROWS, 4)


@pytest.fixture
def rejected(destination: str | None, settings: Settings, tmp_path: Path, write_tenant: Write) -> Tenant:
    """A stream without a key, which nothing but the replay itself keeps from doubling; its contract takes the bad values from now on."""
    shop = SourceDatabase(build_sqlite_url(tmp_path), settings)
    shop.run("create table items (id integer, total integer)")
    stream: dict[str, Any] = {"write_disposition": "append", "cursor": {"field": "id"}, "schema_contract": {"data_type": "discard"}, "rejects": {"max": "50%"}}
    tenant = Tenant(settings, shop.build_source(items=stream), warehouse=destination)
    shop.fill("items", [(number, number) for number in range(5)])
    tenant.load()
    shop.fill("items", [(number, "many" if number in BAD else number) for number in range(5, ROWS)])
    assert tenant.load()["items"].record.rows_rejected == len(BAD)
    tenant.source["streams"]["items"] = {key: value for key, value in stream.items() if key != "schema_contract"}
    write_yaml(write_tenant, tenant)
    return tenant


def count_items(tenant: Tenant) -> tuple[Counter[int], int]:
    """How often each row stands in the table; and the rows that are rejected."""
    ((rejects,),) = tenant.ask("select count(*) from acme_fabric.rejected_rows")
    return Counter(number for (number,) in tenant.ask("select id from acme_raw_shop.items")), rejects


@pytest.mark.parametrize("how", [*choose(STEPS, 2), *choose_seeds(1)])
def test_a_killed_replay_leaves_each_row_in_one_table_and_the_next_one_finishes(rejected: Tenant, start: Start, how: str | int) -> None:
    kill(start, rejected, "rejects", "replay", "acme", how=how)
    rows, rejects = count_items(rejected)
    assert (rows.total() + rejects, set(rows.values())) == (ROWS, {1}), how
    again = run(start, rejected, "rejects", "replay", "acme")
    assert again.wait() == 0, again.log
    assert count_items(rejected) == (Counter(range(ROWS)), 0), how
    assert rejected.load()["items"].rows_total == ROWS


@AT_FULL_LENGTH
def test_a_replay_whose_rows_are_committed_by_themselves_is_caught(rejected: Tenant, start: Start) -> None:
    broken = run(start, rejected, "rejects", "replay", "acme", kill="commit.before:1", broken="autocommit")
    assert broken.wait() == -signal.SIGKILL, broken.log
    rows, rejects = count_items(rejected)
    assert rows.total() + rejects > ROWS


# --- rows of a dropped file


@pytest.fixture
def corrected(destination: str | None, settings: Settings, write_tenant: Write, start: Start) -> Tenant:
    """A file of which some rows were rejected, and the file with those rows corrected, which somebody has dropped into the inbox."""
    inbox = settings.data_dir / "inbox" / "acme"
    inbox.mkdir(parents=True)
    stream = {"glob": "*.csv", "columns": {"id": {"type": "bigint"}, "total": {"type": "bigint"}}, "rejects": {"max": "50%"}}
    tenant = Tenant(settings, {"type": "csv_import", "path": "inbox/acme", "ready": "done_file", "streams": {"items": stream}}, warehouse=destination)
    write_yaml(write_tenant, tenant)
    (inbox / "a.csv").write_text("id,total\n" + "".join(f"{number},{'many' if number in BAD else number}\n" for number in range(ROWS)))
    (inbox / "a.csv.done").touch()
    assert tenant.load()["items"].record.rows_rejected == len(BAD)
    exported = settings.data_dir.parent / "exported.csv"
    assert run(start, tenant, "rejects", "export", "acme", "--out", str(exported)).wait() == 0
    with exported.open(newline="", encoding="utf-8-sig") as file, (inbox / "corrected.csv").open("w", newline="") as out:
        rows = list(csv.DictReader(file))
        assert len(rows) == len(BAD)
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "total": row["id"]} for row in rows)
    (inbox / "corrected.csv.done").touch()
    tenant.load()
    return tenant


@pytest.mark.parametrize("how", [*choose((*STEPS, "corrected.before:1", "corrected.after:1"), 2), *choose_seeds(1)])
def test_a_corrected_file_whose_replay_was_killed_is_loaded_once_and_put_away(corrected: Tenant, start: Start, how: str | int) -> None:
    inbox = corrected.settings.data_dir / "inbox" / "acme"
    (file,) = (inbox / "quarantine").rglob("*.csv")
    command = ("rejects", "replay", "acme", "--file", str(file.relative_to(inbox)))
    kill(start, corrected, *command, how=how)
    rows, rejects = count_items(corrected)
    assert (rows.total() + rejects, set(rows.values())) == (ROWS, {1}), how
    if file.exists():
        again = run(start, corrected, *command)
        assert again.wait() == 0, again.log
    assert not file.exists()
    assert (inbox / "archive" / file.name).exists()
    assert count_items(corrected) == (Counter(range(ROWS)), 0), how
    assert corrected.ask("select rows_read, rows_loaded, rows_rejected from acme_fabric.imported_files where name = 'a.csv'") == [(ROWS, ROWS, 0)]


# --- columns of an earlier release


KEYS = [uuid.UUID(int=number) for number in range(1, 6)]
STREAMS = ("orders", "items")


@pytest.fixture
def older(destination: str | None, settings: Settings, write_tenant: Write) -> Tenant:
    """Two streams whose columns have the names and forms of an earlier release."""
    folder = settings.data_dir / "exports"
    folder.mkdir()
    keys = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes for key in KEYS], pa.binary(16)))
    table = pa.table({"id": range(len(KEYS)), "город": [f"Oslo {number}" for number in range(len(KEYS))], "key": keys})
    streams = {name: {"glob": f"{name}*.parquet", "format": "parquet", "primary_key": "id"} for name in STREAMS}
    tenant = Tenant(settings, {"type": "files", "path": "exports", "streams": streams}, warehouse=destination)
    write_yaml(write_tenant, tenant)
    for name in STREAMS:
        pq.write_table(table.select(["id"]), folder / f"{name}1.parquet")
    tenant.load()
    forget_versions(tenant)
    for name in STREAMS:
        for column, kind in (("x", "text"), ("key", "bytea" if destination else "blob")):
            tenant.change(f"alter table acme_raw_shop.{name} add column {column} {kind}")
        pq.write_table(table, folder / f"{name}2.parquet")
    tenant.load()
    return tenant


def read_form(tenant: Tenant, stream: str) -> tuple[int, list[tuple[Any, ...]]]:
    """The version that a stream's state names; and its rows, whose keys and columns are all of that version."""
    ((version,),) = tenant.ask(f"select value_forms from acme_fabric.stream_state where stream = '{stream}'")
    names = {name for (name,) in tenant.ask(f"select column_name from information_schema.columns where table_name = '{stream}'")}
    column = "gorod" if "gorod" in names else "x"
    rows = tenant.ask(f"select id, {column}, key from acme_raw_shop.{stream} order by id")
    assert {"gorod", "x"} & names == {column}
    assert {isinstance(key, str) for *_, key in rows} == {column == "gorod"}
    return version, [(number, origin, str(key if isinstance(key, str) else uuid.UUID(bytes=bytes(key)))) for number, origin, key in rows]


@pytest.mark.parametrize("how", [*choose(("apply.before:1", "apply.after:1", "run.after:1", "apply.after:2", "run.after:2"), 2), *choose_seeds(1)])
def test_a_migration_that_was_killed_has_changed_each_stream_whole_or_not_at_all(older: Tenant, start: Start, how: str | int) -> None:
    expected = [(number, f"Oslo {number}", str(key)) for number, key in enumerate(KEYS)]
    first, _ = read_form(older, "orders")
    kill(start, older, "migrate-values", "acme", how=how)
    for stream in STREAMS:
        version, rows = read_form(older, stream)
        assert rows == expected, how
        names = {name for (name,) in older.ask(f"select column_name from information_schema.columns where table_name = '{stream}'")}
        assert (version > first) == ("gorod" in names), how
    assert {report.rows_total for report in older.load().values()} == {len(KEYS)}
    again = run(start, older, "migrate-values", "acme")
    assert again.wait() == 0, again.log
    for stream in STREAMS:
        version, rows = read_form(older, stream)
        assert (version > first, rows) == (True, expected), how
    assert {report.warnings for report in older.load().values()} == {()}


# --- a column that the YAML renames


@pytest.fixture
def to_rename(destination: str | None, settings: Settings, tmp_path: Path) -> Tenant:
    """Two streams that exchange the names of two columns with their next load, which also brings changed and new rows."""
    shop = SourceDatabase(build_sqlite_url(tmp_path), settings)
    stream: dict[str, Any] = {"primary_key": "id", "cursor": {"field": "seq"}}
    for name in STREAMS:
        shop.run(f"create table {name} (id integer, seq integer, here integer, there integer)")
        shop.fill(name, [(number, number, number, -number) for number in range(1, ROWS)])
    tenant = Tenant(settings, shop.build_source(**dict.fromkeys(STREAMS, stream)), warehouse=destination)
    tenant.load()
    for name in STREAMS:
        shop.run(f"update {name} set seq = {ROWS} where id < 3")
        shop.fill(name, [(ROWS, ROWS + 1, ROWS, -ROWS)])
    tenant.source["streams"] = {name: {**stream, "rename": {"here": "there", "there": "here"}} for name in STREAMS}
    return tenant


def load_and_die(start: Start, tenant: Tenant, how: str | int, *, broken: str | None = None) -> None:
    settings = tenant.settings
    paths = {name: str(getattr(settings, name)) for name in ("tenants_dir", "dbt_project_dir", "data_dir")}
    load = {"tenant": tenant.config.model_dump(mode="json", exclude_unset=True), "source": "shop", "streams": ()}
    fault: dict[str, Any] = {"kill": how} if isinstance(how, str) else {"within": SECONDS, "seed": how}
    fault |= {"broken": broken} if broken else {}
    process = start(Case(settings=paths, loads=(load,), keys=settings.secret_keys, **fault))
    assert process.wait() in ({-signal.SIGKILL} if isinstance(how, str) else {0, -signal.SIGKILL}), process.log


@pytest.mark.parametrize("how", [*choose(("renamed.after:1", "renamed.after:2", "commit.before:1", "commit.after:1"), 2), *choose_seeds(1)])
def test_a_load_that_was_killed_as_it_renames_columns_has_renamed_them_with_its_rows_or_not_at_all(to_rename: Tenant, start: Start, how: str | int) -> None:
    load_and_die(start, to_rename, how)
    for stream in STREAMS:
        found = to_rename.read(stream, "id", "here", "there")
        numbers = range(1, ROWS + (len(found) == ROWS))
        assert found == [(number, -number, number) if len(found) == ROWS else (number, number, -number) for number in numbers], how
    assert {report.rows_total for report in to_rename.load().values()} == {ROWS}
    for stream in STREAMS:
        assert to_rename.read(stream, "id", "here", "there") == [(number, -number, number) for number in range(1, ROWS + 1)], how
    assert {report.warnings for report in to_rename.load().values()} == {()}


@AT_FULL_LENGTH
def test_a_load_that_commits_its_renaming_by_itself_is_caught(to_rename: Tenant, start: Start) -> None:
    load_and_die(start, to_rename, "commit.before:1", broken="autocommit")
    to_rename.load()
    right = [(number, -number, number) for number in range(1, ROWS + 1)]
    assert [to_rename.read(stream, "id", "here", "there") for stream in STREAMS] != [right, right]
