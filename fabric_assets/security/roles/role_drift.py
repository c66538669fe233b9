"""Entitlements and the state of a server's roles and databases -> every difference between the two."""

from collections.abc import Callable, Iterator

from fabric_assets.quoting import quote
from fabric_assets.security.roles.catalog import PUBLIC, RoleState, ServerState
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.steps import Step, build_bi, build_login, build_owner, build_revokes, build_setting, join, name_grantee

# Every server has these, and they hold nobody's data.
_MAINTENANCE = ("postgres", "template1")
_OWNER_RIGHTS, _READER_RIGHTS = frozenset({"CONNECT", "TEMPORARY"}), frozenset({"CONNECT"})
# Answers whether a role has the password that is sealed.
HasLogin = Callable[[ServerEntitlements, str, RoleState], bool]


def find_role_drift(entitlements: ServerEntitlements, state: ServerState, has_login: HasLogin) -> Iterator[Step]:
    """Compare a tenant's roles."""
    tenant = entitlements.tenant
    owner, reader = state.roles.get(entitlements.owner), state.roles.get(entitlements.reader)
    if owner is None:
        statements = build_owner(entitlements, limits_temp_files=state.may_limit_temp_files)
        yield Step(tenant, f"role {entitlements.owner} is missing", statements, login=entitlements.owner)
    else:
        yield from _find_owner_drift(entitlements, owner, state, has_login)
    if reader is None:
        yield Step(tenant, f"role {entitlements.reader} is missing", (f"create role {quote(entitlements.reader)} nologin inherit",))
    else:
        if reader.can_login:
            yield Step(tenant, f"role {entitlements.reader} has LOGIN", (f"alter role {quote(entitlements.reader)} nologin",), kind="surplus")
        yield from _find_powers(tenant, entitlements.reader, [power for power in reader.powers if power != "INHERIT"])
    yield from _find_bi_drift(entitlements, state, has_login)
    yield from _find_memberships(entitlements, state)
    yield from _find_database_rights(entitlements, state)


def _find_owner_drift(entitlements: ServerEntitlements, owner: RoleState, state: ServerState, has_login: HasLogin) -> Iterator[Step]:
    tenant, name, role = entitlements.tenant, entitlements.owner, quote(entitlements.owner)
    if not owner.can_login:
        yield Step(tenant, f"role {name} lacks LOGIN", (f"alter role {role} login",))
    if not has_login(entitlements, name, owner):
        yield Step(tenant, f"role {name} does not have the sealed password", build_login(entitlements.owner), login=entitlements.owner)
    if owner.expires:
        yield Step(tenant, f"the password of role {name} expires", (f"alter role {role} valid until 'infinity'",), kind="surplus")
    if owner.connections != entitlements.connections:
        finding = f"role {name} has a connection limit of {owner.connections}, not {entitlements.connections}"
        yield Step(tenant, finding, (f"alter role {role} connection limit {entitlements.connections}",))
    yield from _find_powers(tenant, name, owner.powers)
    for key, value in entitlements.settings.items():
        found = owner.settings.get(("", key))
        if found != value and (key != "temp_file_limit" or state.may_limit_temp_files):
            yield Step(tenant, f"role {name} has {key} {found or 'unset'}, not {value}", (build_setting(entitlements, key),))
    for database, key in sorted(owner.settings):
        if database or key not in entitlements.settings:
            where = f" in database {quote(database)}" if database else ""
            finding = f"role {name} has the setting {key}{f' in database {database}' if database else ''}"
            yield Step(tenant, finding, (f"alter role {role}{where} reset {quote(key)}",), kind="surplus")


def _find_bi_drift(entitlements: ServerEntitlements, state: ServerState, has_login: HasLogin) -> Iterator[Step]:
    """Compare the login that reads. It has the rights of the readers' role, and its transactions are read-only by default."""
    tenant, name, role = entitlements.tenant, entitlements.bi, quote(entitlements.bi)
    bi = state.roles.get(name)
    if bi is None:
        yield Step(tenant, f"role {name} is missing", build_bi(entitlements), login=name)
    else:
        if not bi.can_login:
            yield Step(tenant, f"role {name} lacks LOGIN", (f"alter role {role} login",))
        if "INHERIT" not in bi.powers:
            yield Step(tenant, f"role {name} lacks INHERIT", (f"alter role {role} inherit",))
        if not has_login(entitlements, name, bi):
            yield Step(tenant, f"role {name} does not have the sealed password", build_login(name), login=name)
        if bi.settings.get(("", "default_transaction_read_only")) != "on":
            yield Step(tenant, f"role {name} is not read-only by default", (f"alter role {role} set default_transaction_read_only = 'on'",))
        yield from _find_powers(tenant, name, [power for power in bi.powers if power != "INHERIT"])
    if name not in state.members.get(entitlements.reader, ()):
        yield Step(tenant, f"role {name} is not a member of {entitlements.reader}", (f"grant {quote(entitlements.reader)} to {role}",))


def _find_powers(tenant: str, role: str, powers: tuple[str, ...] | list[str]) -> Iterator[Step]:
    for power in powers:
        yield Step(tenant, f"role {role} has {power}", (f"alter role {quote(role)} no{power.lower()}",), kind="surplus")


def _find_memberships(entitlements: ServerEntitlements, state: ServerState) -> Iterator[Step]:
    """No role acts as the owner or as the login that reads. A member that an operator has given the reader stays one, unless it is another tenant."""
    own = {*entitlements.roles}
    for role, members in state.members.items():
        for member in members:
            if role in own:
                is_surplus = role != entitlements.reader or (member.startswith("fabric_") and member not in own)
            else:  # in another chosen tenant's it is that one's finding
                is_surplus = member in own and role not in state.roles
            if is_surplus:
                yield Step(entitlements.tenant, f"role {member} is a member of {role}", (f"revoke {quote(role)} from {quote(member)} cascade",), kind="surplus")


def _find_database_rights(entitlements: ServerEntitlements, state: ServerState) -> Iterator[Step]:
    tenant = entitlements.tenant
    wanted = {entitlements.owner: _OWNER_RIGHTS, entitlements.reader: _READER_RIGHTS, entitlements.bi: frozenset[str]()}
    for database, (owner, grants) in state.databases.items():
        is_own = database == entitlements.database
        if owner in wanted:
            yield Step(tenant, f"role {owner} owns the database {database}", (f"alter database {quote(database)} owner to current_user",), kind="surplus")
        for role, rights in wanted.items():
            lacking = rights - grants.get(role, frozenset()) if is_own and owner != role else frozenset()
            if lacking:
                statement = f"grant {join(lacking).lower()} on database {quote(database)} to {quote(role)}"
                yield Step(tenant, f"role {role} lacks {join(lacking)} on database {database}", (statement,))
            if surplus := grants.get(role, frozenset()) - (rights if is_own else frozenset()):
                yield _revoke_database(tenant, database, role, surplus)
        if is_own and entitlements.has_own_database:
            for grantee, rights in grants.items():
                if grantee not in wanted and grantee != PUBLIC:
                    yield _revoke_database(tenant, database, grantee, rights)


def _revoke_database(tenant: str, database: str, grantee: str, rights: frozenset[str]) -> Step:
    statements = build_revokes(rights, f"database {quote(database)}", grantee)
    return Step(tenant, f"role {grantee} has {join(rights)} on database {database}", statements, kind="surplus")


def find_open_databases(state: ServerState, own: set[str]) -> Iterator[Step]:
    """What lets PUBLIC connect lets every tenant's role connect. A role that has something there keeps the right under its own name.

    Args:
        own: the tenants' databases.
    """
    for database, (_, grants) in state.databases.items():
        rights = grants.get(PUBLIC, frozenset())
        if not rights or (database not in own and "CONNECT" not in rights):
            continue
        keepers = ", ".join(quote(role) for role in sorted(state.inhabitants.get(database, ())))
        kept = (f"grant connect, temporary on database {quote(database)} to {keepers}",) if keepers else ()
        finding = f"the database {database} lets {PUBLIC} {join(rights)}" + ("" if database in own else ": every tenant's role may connect to it")
        kind = "missing" if database in own or database in _MAINTENANCE else "surplus"
        yield Step("", finding, (*kept, f"revoke all on database {quote(database)} from {name_grantee(PUBLIC)}"), kind=kind)
