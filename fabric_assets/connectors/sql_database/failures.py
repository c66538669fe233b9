"""The message of a source's database -> our error: what is wrong, and how to fix it."""

import re

from fabric_assets.drivers.tls import get_tls_remedy
from fabric_assets.errors import FabricError, SourceError, SourceUnavailable

FILES = {"sqlite": "SQLite", "duckdb": "DuckDB"}
_LOCKED = re.compile(r"database (table )?is locked|could not set lock")
_LOCK_REMEDIES = {
    "sqlite": "and keep its transactions short; in WAL mode (PRAGMA journal_mode=WAL) SQLite reads beside a writer. The load tries again as its retries say",
    "duckdb": "since DuckDB lets no program read a file beside a writer; or read a copy. The load tries again as its retries say",
}
_LOGIN_WORDS = ("authentication failed", "access denied", "no password supplied", "no pg_hba.conf entry", "login failed")
# MySQL names the database that a login may not open; without a database its "access denied" is about the password.
_DENIED = re.compile(r"permission denied|command denied|access denied for user \S+ to database|access denied; you need")
_MISSING_WORDS = (
    "does not exist",
    "unknown database",
    "unable to open database",
    "unknown column",
    "no such",
    "syntax",
    "not exist",
    "doesn't exist",
    "not found in",
)


def explain_reason(reason: str, *, is_outage: bool, dialect: str, file: str | None, label: str) -> FabricError:
    """Build the error, permanent or retriable, of a database's message.

    Args:
        is_outage: whether the same call may well succeed later.
        file: of a database in a file.
    """
    low = reason.lower()
    if remedy := get_tls_remedy(reason):
        return SourceError(f"{label}: no trusted TLS connection to the database: {reason}", remedy=remedy)
    if known := _explain_own(reason, dialect=dialect, file=file, label=label):
        return known
    if _DENIED.search(low):
        return SourceError(
            f"{label}: the database denies access: {reason}", remedy="grant the login of the source's url the right to read: database, schema, table"
        )
    if any(word in low for word in _LOGIN_WORDS):
        return SourceError(f"{label}: the database refuses the login: {reason}", remedy="check the user and password in the source's url")
    if any(word in low for word in _MISSING_WORDS):
        return SourceError(f"{label}: the database refuses: {reason}", remedy="check the source's url and schema, and the stream's where")
    if is_outage:
        return SourceUnavailable(
            f"{label}: the database cannot be reached: {reason}", remedy="check that it runs, and host, port and network of the source's url"
        )
    return SourceError(f"{label}: the database answers with an error: {reason}", remedy="run the stream's query in the database to see more")


def _explain_own(reason: str, *, dialect: str, file: str | None, label: str) -> FabricError | None:
    """Explain the messages with one specific cause, such as a file's lock or damage, or a text that does not convert to UTF-8."""
    low = reason.lower()
    if "has no equivalent in encoding" in low or "invalid byte sequence for encoding" in low:
        return SourceError(
            f"{label}: the database holds a text that does not convert to UTF-8: {reason}",
            remedy="correct it at the source, or leave its row out by the stream's where; a text that the database cannot convert is never loaded",
        )
    if "unsupported startup parameter" in low:
        remedy = "add to pgbouncer.ini: ignore_startup_parameters = options; or name the database itself in the source's url"
        return SourceError(f"{label}: the pooler in front of the database refuses the session's settings: {reason}", remedy=remedy)
    if dialect not in FILES:
        return None
    name = FILES[dialect]
    if _LOCKED.search(low):
        return SourceUnavailable(
            f"{label}: another program has locked the {name} file {file}: {reason}",
            remedy=f"let that program commit or end, {_LOCK_REMEDIES[dialect]}",
        )
    if "file is not a database" in low or "not a valid duckdb database" in low:
        return SourceError(f"{label}: {file} is not a {name} file, or it is encrypted: {reason}", remedy="correct the path in the source's url")
    if "malformed" in low or "corrupt" in low:
        return SourceError(f"{label}: the {name} file {file} is damaged: {reason}", remedy=f"restore it from a backup, or recover it with {name}'s own tools")
    return None
