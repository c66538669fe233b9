"""Estates and a server -> every difference between what is and what should be, read and compared for all tenants at once."""

from collections.abc import Iterator, Sequence

from fabric_assets.security.roles.catalog import PUBLIC, ServerState, read_server
from fabric_assets.security.roles.contents import DatabaseState, SchemaState, read_database
from fabric_assets.security.roles.estate import Estate
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.role_drift import find_open_databases, find_role_drift
from fabric_assets.security.roles.schema_drift import find_schema_drift
from fabric_assets.security.roles.server import Server
from fabric_assets.security.roles.steps import Step, quote

# What a database holds, and what everyone may do in it, when it has just been made.
_FRESH = DatabaseState({"public": SchemaState("pg_database_owner", {PUBLIC: frozenset({"USAGE"})})}, {}, [], [], [], [])
_FRESH_RIGHTS = frozenset({"CONNECT", "TEMPORARY"})


def survey(server: Server, estates: Sequence[Estate], logins: Logins) -> list[Step]:
    """Find what differs, in the order in which it is to be done.

    Raises:
        SecretError: the sealed store cannot be read.
    """
    steps = list(_find_misplaced(server, estates))
    misplaced = {step.tenant for step in steps}
    estates = [estate for estate in estates if estate.tenant not in misplaced]
    state = read_server(server, estates)
    own = {estate.database for estate in estates}
    missing = list(_find_missing_databases(estates, state))
    steps += missing
    state.databases.update({step.database: ("", {PUBLIC: _FRESH_RIGHTS}) for step in missing})
    steps += find_open_databases(state, own)
    for estate in estates:
        steps += find_role_drift(estate, state, logins.has)
    elsewhere = {name or server.login.database for names in state.elsewhere.values() for name in names}
    for database in sorted(own | (elsewhere & set(state.databases))):
        contents = _FRESH if any(step.database == database for step in missing) else read_database(server, database, estates)
        steps += find_schema_drift(estates, database, contents, keepers=state.inhabitants.get(database, ()))
    return steps


def describe_limits(server: Server, estates: Sequence[Estate]) -> list[str]:
    """Say what this login cannot do at all, whatever is asked of it."""
    state = read_server(server, estates[:1])
    if state.may_limit_temp_files or not estates:
        return []
    remedy = f"let a superuser run: grant set on parameter temp_file_limit to {quote(server.user)}" if server.version >= 150000 else "only a superuser may"
    return [f"temp_file_limit is not set: {server.user} may not set it; {remedy}"]


def _find_misplaced(server: Server, estates: Sequence[Estate]) -> Iterator[Step]:
    """Name the tenants for whom nothing can be made: only a secret tells which database their urls name. They hold up no other."""
    known = {name for (name,) in server.ask("select datname::text from pg_catalog.pg_database where datallowconn")}
    own = {estate.database: estate.tenant for estate in estates if estate.has_own_database}
    for estate in estates:
        if estate.has_own_database:
            continue
        if other := own.get(estate.database):
            yield Step(estate.tenant, f"the database {estate.database} of its destination's url is tenant {other}'s own: name another one")
        elif estate.database not in known:
            yield Step(estate.tenant, f"there is no database {estate.database}: create it, or correct the destination's url")


def _find_missing_databases(estates: Sequence[Estate], state: ServerState) -> Iterator[Step]:
    for estate in estates:
        if estate.database not in state.databases:
            statement = f"create database {quote(estate.database)} template template0"
            yield Step(estate.tenant, f"the database {estate.database} is missing", (statement,), estate.database, makes_database=True)
