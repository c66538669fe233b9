"""A server's catalog -> the state of the chosen tenants' roles, databases and schemas, in a few queries for all of them."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.server import Server
from fabric_assets.security.roles.steps import GRANT_OPTION

PUBLIC = "PUBLIC"
# Who may do what; what he may pass on is there a second time, behind GRANT_OPTION.
Grants = dict[str, frozenset[str]]
# Of the rows of aclexplode `as a`.
PRIVILEGES = f"array_agg(distinct a.privilege_type) || array_agg(distinct '{GRANT_OPTION}' || a.privilege_type) filter (where a.is_grantable)"

_ROLES = """
    select rolname::text, rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolconnlimit,
        rolvaliduntil is not null and rolvaliduntil <> 'infinity', coalesce(shobj_description(oid, 'pg_authid'), '')
    from pg_catalog.pg_roles where rolname = any(%s)
"""
_VERIFIERS = "select rolname::text, coalesce(left(encode(sha256(rolpassword::bytea), 'hex'), 16), '') from pg_catalog.pg_authid where rolname = any(%s)"
_SETTINGS = """
    select r.rolname::text, coalesce(d.datname::text, ''), s.setconfig
    from pg_catalog.pg_db_role_setting as s join pg_catalog.pg_roles as r on r.oid = s.setrole
        left join pg_catalog.pg_database as d on d.oid = s.setdatabase where r.rolname = any(%s)
"""
# What a login that made a role got with it does not let it act as the role: it is no member in our sense.
_MEMBERS = """
    select g.rolname::text, m.rolname::text, m.rolcreaterole and m.rolcanlogin and a.admin_option and not {acts}
    from pg_catalog.pg_auth_members as a join pg_catalog.pg_roles as g on g.oid = a.roleid join pg_catalog.pg_roles as m on m.oid = a.member
    where g.rolname = any(%(names)s) or m.rolname = any(%(names)s)
"""
_DATABASES = f"""
    select d.datname::text, d.datdba::regrole::text, coalesce(r.rolname::text, 'PUBLIC'), {PRIVILEGES}
    from pg_catalog.pg_database as d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where d.datallowconn and a.grantee <> d.datdba and (a.grantee = 0 or r.rolname like 'fabric\\_%%' or d.datname = any(%(own)s)) group by 1, 2, 3
    union all select datname::text, datdba::regrole::text, '', null from pg_catalog.pg_database where datallowconn
"""
# Roles that have something in a database. They keep their rights there when PUBLIC loses its own.
_INHABITANTS = """
    select distinct d.datname::text, r.rolname::text from pg_catalog.pg_shdepend as s join pg_catalog.pg_database as d on d.oid = s.dbid
        join pg_catalog.pg_roles as r on r.oid = s.refobjid
    where s.refclassid = 'pg_catalog.pg_authid'::regclass and s.deptype in ('o', 'a') and not r.rolsuper
        and r.rolname not like 'fabric\\_%%' and r.rolname not like 'pg\\_%%' and d.datname = any(%s) and r.oid <> d.datdba
"""
_ELSEWHERE = """
    select distinct r.rolname::text, coalesce(d.datname::text, '') from pg_catalog.pg_shdepend as s join pg_catalog.pg_roles as r on r.oid = s.refobjid
        left join pg_catalog.pg_database as d on d.oid = s.dbid
    where s.refclassid = 'pg_catalog.pg_authid'::regclass and s.deptype in ('o', 'a') and s.classid <> 'pg_catalog.pg_database'::regclass
        and r.rolname = any(%s)
"""


@dataclass(frozen=True)
class RoleState:
    """A role as the server has it.

    Args:
        powers: those of its attributes that no tenant's role should have, as ALTER ROLE writes them.
        mark: the comment, which says for which password the role was made.
        verifier: the digest of what the server keeps of its password; None where this login may not read it.
        settings: database (empty for all) and name -> value.
    """

    can_login: bool
    powers: tuple[str, ...]
    connections: int
    expires: bool
    mark: str
    verifier: str | None
    settings: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerState:
    """The roles and databases of a server, and who may use them.

    Args:
        members: role -> those that may act as it.
        databases: name -> its owner and the rights in it. Databases that are not tenants' list only the rights of PUBLIC and of tenants' roles.
        inhabitants: database -> other roles that have something in it, for tenants' databases and those that let PUBLIC connect.
        elsewhere: role -> databases in which it owns something or has a right; an empty name stands for what belongs to no database.
    """

    roles: dict[str, RoleState]
    members: dict[str, list[str]]
    databases: dict[str, tuple[str, Grants]]
    inhabitants: dict[str, list[str]]
    elsewhere: dict[str, set[str]]
    may_limit_temp_files: bool


def read_server(server: Server, all_entitlements: Iterable[ServerEntitlements]) -> ServerState:
    """Read everything except the contents of databases."""
    all_entitlements = list(all_entitlements)
    names = [name for entitlements in all_entitlements for name in entitlements.roles]
    databases = _read_databases(server, {entitlements.database for entitlements in all_entitlements if entitlements.has_own_database})
    open_ones = {name for name, (_, grants) in databases.items() if "CONNECT" in grants.get(PUBLIC, ())} | {
        entitlements.database for entitlements in all_entitlements
    }
    inhabitants: dict[str, list[str]] = defaultdict(list)
    for database, role in server.ask(_INHABITANTS, (list(open_ones),)):
        inhabitants[database].append(role)
    elsewhere: dict[str, set[str]] = defaultdict(set)
    for role, database in server.ask(_ELSEWHERE, (names,)):
        elsewhere[role].add(database)
    return ServerState(
        _read_roles(server, names),
        _read_members(server, names),
        databases,
        dict(inhabitants),
        dict(elsewhere),
        _may_limit_temp_files(server),
    )


def _read_roles(server: Server, names: list[str]) -> dict[str, RoleState]:
    verifiers = dict(server.ask(_VERIFIERS, (names,))) if server.is_superuser else {}
    settings: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for role, database, configured in server.ask(_SETTINGS, (names,)):
        for entry in configured:
            key, _, value = entry.partition("=")
            settings[role][database, key] = value
    states = {}
    for name, can_login, inherits, *powers, connections, expires, mark in server.ask(_ROLES, (names,)):
        words = ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")
        held = tuple(word for word, has in zip(("INHERIT", *words), (inherits, *powers), strict=True) if has)
        states[name] = RoleState(can_login, held, connections, expires, mark, verifiers.get(name), settings.get(name, {}))
    return states


def _read_members(server: Server, names: list[str]) -> dict[str, list[str]]:
    acts = "(a.inherit_option or a.set_option)" if server.version >= 160000 else "true"
    members: dict[str, list[str]] = defaultdict(list)
    for role, member, is_maker in server.ask(_MEMBERS.format(acts=acts), {"names": names}):
        if not is_maker and member not in members[role]:
            members[role].append(member)
    return dict(members)


def _read_databases(server: Server, own: Collection[str]) -> dict[str, tuple[str, Grants]]:
    found: dict[str, tuple[str, Grants]] = {}
    for database, owner, grantee, privileges in server.ask(_DATABASES, {"own": list(own)}):
        _, grants = found.setdefault(database, (owner.strip('"'), {}))
        if grantee:
            grants[grantee] = frozenset(privileges)
    return found


def _may_limit_temp_files(server: Server) -> bool:
    if server.is_superuser:
        return True
    return server.version >= 150000 and server.ask("select has_parameter_privilege('temp_file_limit', 'SET')")[0][0]
