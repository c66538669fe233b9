"""What is allowed in a tenant's YAML and may still lose rows unseen -> warnings of `fabric validate`, each with its place and its remedy.

No database is asked. Of a source's url its first word is read, where the secret is at hand: it says which database it is.
"""

from collections.abc import Iterator

from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import Problem
from fabric_assets.config.sources.models import RestApiSource, SqlDatabaseSource
from fabric_assets.errors import FabricError
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings

_POSTGRES = ("postgres", "postgresql")
# Named in messages; of anything else not a letter is shown, since a secret need not be a url.
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
                    "warning: without a primary_key an append cannot recognise rows that arrive late or that change at the source: late ones are missed, and "
                    "the newest row is loaded again where it has changed; declare a primary_key, or use merge",
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
        # Whether it is at hand is no question of the YAML: it may be another machine's.
        return
    scheme, separator, _ = url.partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind in _POSTGRES:
        return
    subject = f"a {kind} database" if kind in _KNOWN else "this kind of database"
    for stream, field in streams.items():
        yield loaded.make_problem(
            ("sources", name, "streams", stream, "cursor"),
            f"warning: a row that is committed late, with an older {field}, is missed: {subject} does not say which rows are new; set "
            "cursor.lag to the longest time that a transaction takes",
        )
