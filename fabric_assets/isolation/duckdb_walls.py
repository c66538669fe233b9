"""A DuckDB tenant -> what its SQL can reach beyond its own file, and who else can read that file. Each try runs with the lock that the tenant's models hold.

The SQL runs in the tenant's own file and in a scratch file, each opened to write and to read. In the scratch file, macros replace some functions of DuckDB's,
as a tenant's model could do. A neighbour's database and a text file are put beside it, so that there is something to reach.
"""

import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers import duckdb_files
from fabric_assets.isolation.report import Attempt, Outcome
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.quoting import quote_text
from fabric_assets.settings import Settings

_MOST_FILES = 100

_TRIES: tuple[tuple[str, str, str], ...] = (
    ("attach", "another database", "attach '{folder}/neighbour.duckdb' as read_neighbour (read_only)"),
    ("write to", "another database", "attach '{folder}/neighbour.duckdb' as written_neighbour"),
    ("make", "a database elsewhere", "attach '{folder}/new.duckdb' as new"),
    ("read", "a file with read_csv", "select * from read_csv('{folder}/neighbour.csv') limit 0"),
    ("read", "a file by its name", "select * from '{folder}/neighbour.csv' limit 0"),
    ("read", "a file with read_text", "select * from read_text('{folder}/neighbour.csv') limit 0"),
    ("read", "a file with read_blob", "select * from read_blob('{folder}/neighbour.csv') limit 0"),
    ("read", "/etc/passwd with read_csv", "select * from read_csv('/etc/passwd', header = false, columns = {{'line': 'varchar'}}) limit 0"),
    ("read", "the environment with read_text", "select * from read_text('/proc/self/environ') limit 0"),
    ("read", "the environment with getenv", "select getenv('PATH')"),
    ("list", "a folder with glob", "select * from glob('{folder}/*') limit 0"),
    ("write", "a file with copy", "copy (select 1) to '{folder}/out.csv'"),
    ("write", "a folder with export", "export database '{folder}/out'"),
    ("reach", "another machine", "select * from read_csv('http://127.0.0.1:9/x.csv') limit 0"),
    ("install", "an extension", "install httpfs"),
    ("load", "an extension", "load httpfs"),
    ("switch on", "external access", "set enable_external_access = true"),
    ("switch on", "external access by reset", "reset enable_external_access"),
    ("unlock", "the configuration", "set lock_configuration = false"),
    ("name", "another folder to write to", "set temp_directory = '{folder}'"),
    ("lift", "the limit of memory", "set memory_limit = '1TB'"),
)
# Macros that a tenant may leave in its file. They give false answers to whether the configuration is locked, how large the file is, and what it holds.
_PLANTED = (
    *("current_setting(name) as true", "getvariable(name) as true", "count_star() as 1", "count(value) as 1", "current_database() as 'main'"),
    *("duckdb_settings() as table select 'lock_configuration' as name, 'true' as value", "duckdb_tables() as table select 1 as table_name"),
    '"="(one, other) as true',
)
_WORST: tuple[Outcome, ...] = ("denied", "untried", "succeeded")


def try_walls(tenant: TenantConfig, settings: Settings) -> tuple[list[Attempt], list[str]]:
    """Try everything, and give the attempts with notes on them."""
    file = naming.warehouse_file(settings.data_dir, tenant.tenant)
    others = sorted(other for other in file.parent.glob("*.duckdb") if other != file) if file.parent.is_dir() else []
    notes = [] if file.exists() else ["nothing has been loaded yet: the tenant has no file"]
    attempts = [*_look_at_modes(file)]
    if settings.publish_dir is not None:
        attempts += _look_at_published_modes(naming.published_file(settings.publish_dir, tenant.tenant))
        others += sorted(other for other in settings.publish_dir.glob("*/*.duckdb") if other.stem != tenant.tenant)
    # Of many files, a check tries a random sample: over time, each one.
    chosen = SystemRandom().sample(others, min(len(others), _MOST_FILES))
    with tempfile.TemporaryDirectory(prefix="fabric-isolation-") as folder:
        tries = [*_list_tries(Path(folder), chosen)]
        for found in zip(*_try_everywhere(tries, Path(folder), file, notes, settings), strict=True):
            attempts.append(max(found, key=lambda attempt: _WORST.index(attempt.outcome)))
    return attempts, notes


def _look_at_modes(file: Path) -> Iterator[Attempt]:
    for path in (file.parent, file):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            yield Attempt("let other users of this machine read", f"{path.name} (mode {mode:04o})", "succeeded" if mode & 0o077 else "denied")


def _look_at_published_modes(file: Path) -> Iterator[Attempt]:
    """Look at the modes of the published file. A group may read it where the operator has given the folder to that group."""
    for path in (file.parent, file):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            name = f"the published {'folder' if path == file.parent else 'file'} {path.name} (mode {mode:04o})"
            yield Attempt("let other users of this machine read", name, "succeeded" if mode & 0o007 else "denied")


def _list_tries(folder: Path, others: list[Path]) -> Iterator[tuple[str, str, str]]:
    """List the action, target and statement of each try."""
    for action, target, statement in _TRIES:
        yield action, target, statement.format(folder=folder)
    for number, other in enumerate(others):
        shown = f"the published {other.name}" if other.parent.name == other.stem else other.name
        yield "attach", shown, f"attach {quote_text(str(other))} as other_{number} (read_only)"


def _try_everywhere(tries: list[tuple[str, str, str]], folder: Path, file: Path, notes: list[str], settings: Settings) -> Iterator[list[Attempt]]:
    """Run all tries in each file that can be opened, opened to write and to read."""
    import duckdb

    duckdb_files.make_file(folder / "neighbour.duckdb")
    (folder / "neighbour.csv").write_text("number\n1\n")
    scratch = folder / "own.duckdb"
    with duckdb_files.open_file(scratch) as connection:
        for macro in _PLANTED:
            connection.execute(f"create macro own.main.{macro}")
    for read_only in (False, True):
        yield _try_in(scratch, tries, folder, read_only=read_only)
    if not file.exists():
        return
    lock_file = naming.lock_file(settings.data_dir, file.stem)
    make_private_folder(lock_file.parent)
    try:
        with FileLock(lock_file, wait=False):
            for read_only in (False, True):
                yield _try_in(file, tries, folder, read_only=read_only)
    except BlockingIOError:
        notes.append(f"a run had {file.name} open: all was tried in a scratch file alone")
    except duckdb.Error as error:
        reason = duckdb_files.build_open_error(error, file.name).message
        notes.append(f"all was tried in a scratch file alone, since {reason}")


def _try_in(file: Path, tries: list[tuple[str, str, str]], folder: Path, *, read_only: bool) -> list[Attempt]:
    spill = make_private_folder(folder / "spill")
    with duckdb_files.open_file(file, read_only=read_only, spill=spill) as connection:
        return [_try(connection.execute, *each) for each in tries]


def _try(execute: Callable[[str], object], action: str, target: str, statement: str) -> Attempt:
    import duckdb

    try:
        execute(statement)
    except (duckdb.PermissionException, duckdb.CatalogException):  # the second: there is no such function
        return Attempt(action, target, "denied")
    except duckdb.InvalidInputException as error:
        if "configuration has been locked" in str(error):
            return Attempt(action, target, "denied")
        return Attempt(action, target, "untried", _get_kind(error))
    except duckdb.Error as error:
        return Attempt(action, target, "untried", _get_kind(error))
    return Attempt(action, target, "succeeded")


def _get_kind(error: Exception) -> str:
    """Give an error's kind without its text, which may hold a path or a line of a file."""
    return str(error).split(":", 1)[0][:60]
