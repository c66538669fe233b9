"""A DuckDB message -> whether the file is damaged, and the error. Does not import DuckDB: a load into Postgres must not either."""

from fabric_assets.errors import DestinationError

_DAMAGED = (
    *("not a valid duckdb database file", "could not read enough bytes", "corrupt database file", "corrupt wal file", "failure while replaying wal"),
    *("stored checksum", "is a directory", "failed to deserialize", "sqlite_scanner"),
)


def is_damage(text: str) -> bool:
    """Whether DuckDB's message says that the file is damaged."""
    return any(words in text.lower() for words in _DAMAGED)


def build_damage_error(text: str, where: str) -> DestinationError:
    """Build the error of a damaged file.

    Args:
        where: the tenant and the file.
    """
    return DestinationError(
        f"{where} is damaged: {text}",
        remedy="restore the file from a backup; without one, move it and its .wal away: the next run loads everything that the sources still have",
    )
