"""Declarations that are allowed but may lose rows without an error -> warnings of `fabric validate`, each with its line and its remedy.

No database is asked. Only the scheme of a source's url is read, where the secret is available: it says which kind of database it is.
"""

from collections.abc import Iterator

from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import Problem
from fabric_assets.config.sources.models import RestApiSource, SqlDatabaseSource
from fabric_assets.errors import FabricError
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings

_POSTGRES = ("postgres", "postgresql")
# Messages name these only. No letter of another value is shown, since the secret may not be a url at all.
_KNOWN = ("mysql", "mariadb", "sqlite", "duckdb", "mssql", "oracle")


def find_warnings(loaded: LoadedTenant, settings: Settings) -> Iterator[Problem]:
    """Warn of appends that cannot recognise rows, and of cursors behind which rows may commit late."""
    for name, source in loaded.config.sources.items():
        if not isinstance(source, SqlDatabaseSource | RestApiSource):
            continue
        for stream, config in source.streams.items():
            if config.disposition == "append" and not config.primary_key:
                yield loaded.make_problem(
                    ("sources", name, "streams", stream, "write_disposition"),
                    "warning: append without a primary_key misses late rows, and loads the newest row again if it has changed; "
                    "declare a primary_key, or use merge",
                )
        if isinstance(source, SqlDatabaseSource):
            yield from _find_late_commits(loaded, name, source, settings)


def _find_late_commits(loaded: LoadedTenant, name: str, source: SqlDatabaseSource, settings: Settings) -> Iterator[Problem]:
    streams = {
        stream: config.cursor.field
        for stream, config in source.streams.items()
        if config.cursor and config.cursor.lag is None and (config.disposition != "append" or config.primary_key)
    }
    if not streams or source.late_rows is None:
        return
    try:
        url = resolve_secret(source.url, tenant=loaded.config.tenant, settings=settings).strip()
    except FabricError:
        # A missing secret is not a mistake in the YAML: it may be on another machine.
        return
    scheme, separator, _ = url.partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind in _POSTGRES:
        return
    subject = f"a {kind} database" if kind in _KNOWN else "this kind of database"
    for stream, field in streams.items():
        yield loaded.make_problem(
            ("sources", name, "streams", stream, "cursor"),
            f"warning: rows that are committed late, with an older {field}, are missed: {subject} does not report new rows; set "
            "cursor.lag to the longest transaction's time",
        )
