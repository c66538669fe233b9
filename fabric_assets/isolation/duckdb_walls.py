"""A DuckDB tenant -> what its SQL can reach beyond its own file, tried under the lock that its models run under; and who else can read that file.

The SQL runs in a scratch database beside a neighbour's and a text file: so there certainly is something to reach, and the tenant's own file, which takes one
process at a time, is left alone.
"""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

from fabric_assets import naming
from fabric_assets.connectors import duckdb_lock
from fabric_assets.isolation.report import Attempt
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


def try_duckdb(tenant: str, settings: Settings) -> tuple[list[Attempt], list[str]]:
    """Try everything; give the attempts, and what is to be known of them."""
    file = naming.warehouse_file(settings.data_dir, tenant)
    others = sorted(other for other in file.parent.glob("*.duckdb") if other != file) if file.parent.is_dir() else []
    notes = [] if file.exists() else ["nothing has been loaded yet: the tenant has no file"]
    attempts = [*_look_at_modes(file)]
    # Where there are more files than are tried, each has its turn.
    chosen = SystemRandom().sample(others, min(len(others), _MOST_FILES))
    with tempfile.TemporaryDirectory(prefix="fabric-isolation-") as folder:
        attempts += _try_sql(Path(folder), chosen)
    return attempts, notes


def _look_at_modes(file: Path) -> Iterator[Attempt]:
    for path in (file.parent, file):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            yield Attempt("let other users of this machine read", f"{path.name} (mode {mode:04o})", "succeeded" if mode & 0o077 else "denied")


def _try_sql(folder: Path, others: list[Path]) -> Iterator[Attempt]:
    import duckdb

    duckdb.connect(str(folder / "neighbour.duckdb")).close()
    (folder / "neighbour.csv").write_text("number\n1\n")
    spill = folder / "spill"
    spill.mkdir()
    with duckdb.connect(str(folder / "own.duckdb")) as connection:
        duckdb_lock.lock(connection, spill=spill)
        for action, target, statement in _TRIES:
            yield _try(connection, action, target, statement.format(folder=folder))
        for number, other in enumerate(others):
            path = str(other).replace("'", "''")
            yield _try(connection, "attach", other.name, f"attach '{path}' as other_{number} (read_only)")


def _try(connection: Any, action: str, target: str, statement: str) -> Attempt:
    import duckdb

    try:
        connection.execute(statement)
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
    """The error without its text, which may hold a path or a line of a file."""
    return str(error).split(":", 1)[0][:60]
