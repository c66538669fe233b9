"""Errors of the database in which Dagster keeps its runs, told with a remedy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fabric_assets.errors import FabricError, RetriableError

_DRIVERS = frozenset({"sqlalchemy", "sqlite3", "psycopg2"})
# SQLite's words and the kernel's.
_FULL = ("disk is full", "disk i/o error", "no space left", "quota exceeded")


@contextmanager
def explaining_storage() -> Iterator[None]:
    """Tell a failure of Dagster's database in the block as one with a remedy.

    A database of a tenant never gets here: sources and destinations have errors of their own.

    Raises:
        RetriableError: Dagster's database does not answer, or has no room.
    """
    try:
        yield
    except FabricError:
        raise
    except Exception as error:
        cause = get_cause(error)
        if type(cause).__module__.partition(".")[0] not in _DRIVERS or (explained := explain(cause, os.environ.get("DAGSTER_HOME", ""))) is None:
            raise
        raise explained from error


def get_cause(error: BaseException) -> BaseException:
    """Give what the driver raised: Dagster and SQLAlchemy wrap it once or twice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def explain(cause: BaseException, home: str) -> RetriableError | None:
    """Word an error of a driver; None if it is not one of the database's state.

    Args:
        home: Dagster's folder, whose dagster.yaml names the database.
    """
    # By name, without importing a driver; psycopg2 has a class below these for each state of a server.
    if not any(base.__name__ in {"OperationalError", "InterfaceError"} for base in type(cause).__mro__):
        return None
    words = " ".join(str(cause).split())
    if any(full in words.lower() for full in _FULL):
        return RetriableError(
            f"Dagster's database cannot be written: {words}",
            remedy=f"make room where it is (on its server, or below {home}) and in the folder for temporary files of its process; then run again",
        )
    return RetriableError(f"Dagster's database does not answer: {words}", remedy=f"check that it runs, and the storage that {home}/dagster.yaml names")
