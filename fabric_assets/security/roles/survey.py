"""Entitlements and a server -> every difference between what is and what should be, read and compared for all tenants at once."""

from collections.abc import Iterator, Sequence

from fabric_assets.quoting import quote
from fabric_assets.security.roles.catalog import PUBLIC, ServerState, read_server
from fabric_assets.security.roles.contents import DatabaseState, SchemaState, read_database
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.role_drift import find_open_databases, find_role_drift
from fabric_assets.security.roles.schema_drift import find_schema_drift
from fabric_assets.security.roles.server import Server
from fabric_assets.security.roles.steps import Step

# The contents of a database that was just created, and the rights that everyone has in it.
_FRESH = DatabaseState({"public": SchemaState("pg_database_owner", {PUBLIC: frozenset({"USAGE"})})}, {}, [], [], [], [])
# Roles that read one of the chosen tenants, with all the tenants that they read. Only before version 16 can a role that created another act as it.
_READERS = """
    select m.rolname::text, g.rolname::text
    from pg_catalog.pg_roles as m join pg_catalog.pg_roles as g on g.rolname like 'fabric\\_%%\\_ro' and {reads_g}
    where not m.rolsuper and m.rolname not like 'fabric\\_%%'
        and exists (select from pg_catalog.pg_roles as c where c.rolname = any(%s) and {reads_c})
    order by 1, 2
"""
_FRESH_RIGHTS = frozenset({"CONNECT", "TEMPORARY"})


def survey(server: Server, all_entitlements: Sequence[ServerEntitlements], logins: Logins) -> list[Step]:
    """Find all differences, in the order in which they are to be fixed.

    Raises:
        SecretError: the sealed store cannot be read.
    """
    steps = list(_find_misplaced(server, all_entitlements))
    misplaced = {step.tenant for step in steps}
    steps += _find_other_encodings(server, all_entitlements)
    all_entitlements = [entitlements for entitlements in all_entitlements if entitlements.tenant not in misplaced]
    state = read_server(server, all_entitlements)
    own = {entitlements.database for entitlements in all_entitlements}
    missing = list(_find_missing_databases(all_entitlements, state))
    steps += missing
    state.databases.update({step.database: ("", {PUBLIC: _FRESH_RIGHTS}) for step in missing})
    steps += find_open_databases(state, own)
    for entitlements in all_entitlements:
        steps += find_role_drift(entitlements, state, logins.has)
    elsewhere = {name or server.login.database for names in state.elsewhere.values() for name in names}
    for database in sorted(own | (elsewhere & set(state.databases))):
        contents = _FRESH if any(step.database == database for step in missing) else read_database(server, database, all_entitlements)
        steps += find_schema_drift(all_entitlements, database, contents, keepers=state.inhabitants.get(database, ()))
    return steps


def describe_limits(server: Server, all_entitlements: Sequence[ServerEntitlements]) -> list[str]:
    """Describe what this login can never do."""
    state = read_server(server, all_entitlements[:1])
    if state.may_limit_temp_files or not all_entitlements:
        return []
    remedy = f"let a superuser run: grant set on parameter temp_file_limit to {quote(server.user)}" if server.version >= 150000 else "only a superuser may"
    return [f"temp_file_limit is not set: {server.user} may not set it; {remedy}"]


def describe_readers(server: Server, all_entitlements: Sequence[ServerEntitlements]) -> list[str]:
    """Describe who else reads the tenants. Such a role is kept, but one that reads several tenants lets one tenant's code reach another's rows."""
    how = "pg_has_role(m.oid, {0}.oid, 'MEMBER')"
    if server.version >= 160000:
        how = "(pg_has_role(m.oid, {0}.oid, 'USAGE') or pg_has_role(m.oid, {0}.oid, 'SET'))"
    chosen = [entitlements.reader for entitlements in all_entitlements]
    found: dict[str, list[str]] = {}
    for member, reader in server.ask(_READERS.format(reads_g=how.format("g"), reads_c=how.format("c")), (chosen,)):
        found.setdefault(member, []).append(reader)
    return [_describe_reader(member, readers) for member, readers in found.items()]


def _describe_reader(member: str, readers: Sequence[str]) -> str:
    said = f"role {member} is a member of {', '.join(readers)}, and stays one"
    if len(readers) == 1:
        return f"{said}; {readers[0].removesuffix('_ro')}_bi is the login that is made for reading"
    return f"{said}; a view of one of these tenants can call functions with its rights, which reach the others. Give each tenant's readers a login of their own"


def _find_misplaced(server: Server, all_entitlements: Sequence[ServerEntitlements]) -> Iterator[Step]:
    """Find the tenants whose database is another tenant's or does not exist. Only a secret says which database their urls name. The others go on."""
    known = {name for (name,) in server.ask("select datname::text from pg_catalog.pg_database where datallowconn")}
    own = {entitlements.database: entitlements.tenant for entitlements in all_entitlements if entitlements.has_own_database}
    for entitlements in all_entitlements:
        if entitlements.has_own_database:
            continue
        if other := own.get(entitlements.database):
            yield Step(entitlements.tenant, f"the database {entitlements.database} of its destination's url is tenant {other}'s own: name another one")
        elif entitlements.database not in known:
            yield Step(entitlements.tenant, f"there is no database {entitlements.database}: create it, or correct the destination's url")


def _find_other_encodings(server: Server, all_entitlements: Sequence[ServerEntitlements]) -> Iterator[Step]:
    found = dict(server.ask("select datname::text, pg_encoding_to_char(encoding) from pg_catalog.pg_database"))
    for entitlements in all_entitlements:
        if (encoding := found.get(entitlements.database, "UTF8")) != "UTF8":
            finding = f"the database {entitlements.database} has the encoding {encoding}, and no load writes into it: make another one with encoding 'UTF8'"
            yield Step(entitlements.tenant, finding, (), entitlements.database, kind="unmendable")


def _find_missing_databases(all_entitlements: Sequence[ServerEntitlements], state: ServerState) -> Iterator[Step]:
    for entitlements in all_entitlements:
        if entitlements.database not in state.databases:
            statement = f"create database {quote(entitlements.database)} template template0 encoding 'UTF8'"
            yield Step(entitlements.tenant, f"the database {entitlements.database} is missing", (statement,), entitlements.database, makes_database=True)
