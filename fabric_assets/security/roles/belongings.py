"""What a tenant has on a server -> listed, and dropped.

Each part is dropped in a transaction of its own, and each call reads again what is there. So the next call finishes what a killed call began.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fabric_assets import naming
from fabric_assets.errors import DestinationError, DestinationUnavailable
from fabric_assets.quoting import quote, quote_text
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.provisioning import act_as
from fabric_assets.security.roles.server import Report, Server

# Tables that are dropped in one transaction: each takes locks, of which a server has room for a few thousand.
_BATCH = 200
# Longest wait for one of the tenant's sessions to end.
_SESSIONS_MILLISECONDS = 10_000

# A schema with a matching name does not count if its owner is another tenant's role: such a role has a reader beside it.
_SCHEMAS = """
    select n.nspname::text from pg_catalog.pg_namespace as n join pg_catalog.pg_roles as o on o.oid = n.nspowner
    where (o.rolname = %(owner)s and n.nspname not like 'pg\\_%%') or (
        n.nspname = any(%(named)s) and (
            o.rolname = %(tenant)s or o.rolname not like 'fabric\\_%%' or not exists (select from pg_catalog.pg_roles where rolname = o.rolname || '_ro')
        )
    ) order by 1
"""
_RELATIONS = """
    select c.relname::text, c.relkind::text from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f') order by 1
"""
_ROLES = "select rolname::text from pg_catalog.pg_roles where rolname = any(%s) order by 1"
_DATABASES = """
    select distinct d.datname::text from pg_catalog.pg_shdepend as s join pg_catalog.pg_database as d on d.oid = s.dbid
        join pg_catalog.pg_roles as r on r.oid = s.refobjid
    where s.refclassid = 'pg_catalog.pg_authid'::regclass and d.datallowconn and r.rolname = any(%s)
"""
# What somebody else has in a database: a schema, or a table in the schema that everybody may use (public).
_STRANGERS = """
    select n.nspname::text from pg_catalog.pg_namespace as n join pg_catalog.pg_roles as o on o.oid = n.nspowner
    left join pg_catalog.pg_class as c on c.relnamespace = n.oid left join pg_catalog.pg_roles as r on r.oid = c.relowner
    where n.nspname not like 'pg\\_%%' and n.nspname <> 'information_schema' and ((o.rolname <> %(owner)s and n.nspname <> 'public') or r.rolname <> %(owner)s)
    limit 1
"""
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True)
class TableContent:
    """A table or view of a tenant's.

    Args:
        kind: table, view, materialized view or foreign table.
    """

    name: str
    kind: str

    @property
    def is_view(self) -> bool:
        """Whether it has no rows of its own on this server."""
        return self.kind in {"view", "foreign table"}


@dataclass(frozen=True)
class SchemaContent:
    database: str
    name: str
    tables: tuple[TableContent, ...] = ()


@dataclass(frozen=True)
class Belongings:
    """Everything of a tenant that is on a server.

    Args:
        databases: those that are the tenant's alone.
    """

    schemas: tuple[SchemaContent, ...] = ()
    roles: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.schemas or self.roles or self.databases)


def list_belongings(server: Server, entitlements: ServerEntitlements, *, is_managed: bool = True) -> Belongings:
    """Find what a tenant has on the server: the schemas that its entitlements name.

    A managed tenant also has its roles, its database and all schemas that its owner's role owns.

    Args:
        is_managed: False finds only the schemas, since an unmanaged tenant has no roles.

    Raises:
        DestinationError: the server refuses, or a role is not the tenant's alone.
        DestinationUnavailable: no connection.
    """
    if not is_managed:
        return Belongings(tuple(_list_schemas(server, entitlements, entitlements.database, owner="")))
    _refuse_shared_roles(server, entitlements)
    roles = tuple(name for (name,) in server.ask(_ROLES, (list(entitlements.roles),)))
    known = {name for (name,) in server.ask("select datname::text from pg_catalog.pg_database where datallowconn")}
    own = tuple({entitlements.own_database} & known) if entitlements.has_own_database or _is_alone(server, entitlements, known) else ()
    databases = {name for (name,) in server.ask(_DATABASES, (list(roles),))} | ({entitlements.database, *own} & known)
    _refuse_readers_schemas(server, entitlements, databases)
    schemas = [schema for database in sorted(databases) for schema in _list_schemas(server, entitlements, database, owner=entitlements.owner)]
    return Belongings(tuple(schemas), roles, own)


def drop_belongings(server: Server, entitlements: ServerEntitlements, *, is_managed: bool = True, report: Report | None = None) -> Belongings:
    """End the tenant's sessions, drop all that `list_belongings` finds, and give what is left afterwards: nothing.

    The schema of the ledger is dropped last: it names some of the others, which a call after a kill could not find without it.

    Args:
        report: called with each part that was dropped.

    Raises:
        DestinationError: the server refuses.
        DestinationUnavailable: no connection, or it was lost; the next call goes on.
    """
    report = report or (lambda _: None)
    found = list_belongings(server, entitlements, is_managed=is_managed)
    for role in (entitlements.owner, entitlements.bi):
        if role in found.roles:
            server.run([f"alter role {quote(role)} nologin"])
            _end_sessions(server, role)
    for database in found.databases:
        server.close_database(database)
        server.run([f"drop database if exists {quote(database)} with (force)"])
        report(f"database {database}")
    for schema in sorted(found.schemas, key=lambda schema: schema.name == naming.platform_dataset(entitlements.tenant)):
        if schema.database not in found.databases:
            _drop_schema(server, schema, found.roles)
            report(f"schema {schema.name}")
    if found.roles:
        _drop_roles(server, found.roles)
        for role in found.roles:
            report(f"role {role}")
    return list_belongings(server, entitlements, is_managed=is_managed)


def _refuse_shared_roles(server: Server, entitlements: ServerEntitlements) -> None:
    """Refuse a role that two tenants' names lead to.

    `fabric_acme_ro` is the reader of a tenant acme, and would be the owner of a tenant acme_ro. If a role exists that only the other tenant would have,
    the shared one may be that tenant's.
    """
    tenant = entitlements.tenant
    rivals = {naming.reader_role(f"{tenant}{suffix}"): f"{tenant}{suffix}" for suffix in ("_ro", "_bi")}
    for suffix in ("_ro", "_bi"):
        if tenant.endswith(suffix):
            rivals[naming.owner_role(tenant.removesuffix(suffix))] = tenant.removesuffix(suffix)
    for (role,) in server.ask(_ROLES, (list(rivals),)):
        raise DestinationError(
            f"tenant {tenant}: there is the role {role}, so one of the tenant's roles is tenant {rivals[role]}'s, too ({server.login.address})",
            remedy=f"nothing was dropped: drop by hand what is {tenant}'s there",
        )


def _refuse_readers_schemas(server: Server, entitlements: ServerEntitlements, databases: Iterable[str]) -> None:
    """Refuse to drop a reader that owns schemas: they would be dropped with it, and the platform gives a reader none."""
    for database in sorted(databases):
        for role in (entitlements.reader, entitlements.bi):
            if owned := [name for (name,) in server.ask(_SCHEMAS, {"owner": role, "named": [], "tenant": ""}, database=database)]:
                raise DestinationError(
                    f"tenant {entitlements.tenant}: the role {role}, which is to read alone, owns {', '.join(owned)} in database {database}"
                    f" ({server.login.address})",
                    remedy="give them to the right owner (alter schema ... owner to ...), or drop them by hand; then call this again",
                )


def _is_alone(server: Server, entitlements: ServerEntitlements, known: Container[str]) -> bool:
    """Whether only the tenant has something in the database of its name, although its destination no longer says `isolation: database`."""
    if entitlements.own_database not in known or not server.ask(_ROLES, ([entitlements.owner],)):
        return False
    return not server.ask(_STRANGERS, {"owner": entitlements.owner}, database=entitlements.own_database)


def _list_schemas(server: Server, entitlements: ServerEntitlements, database: str, *, owner: str) -> Iterator[SchemaContent]:
    """List the tenant's schemas in a database.

    Args:
        owner: the role whose schemas are all the tenant's, whatever their names.
    """
    named = list(entitlements.schemas) if database in (entitlements.database, entitlements.own_database) else []
    for (name,) in server.ask(_SCHEMAS, {"owner": owner, "named": named, "tenant": entitlements.owner}, database=database):
        tables = tuple(TableContent(table, _KINDS[kind]) for table, kind in server.ask(_RELATIONS, (name,), database=database))
        yield SchemaContent(database, name, tables)


def _end_sessions(server: Server, role: str) -> None:
    """End a role's sessions: one that goes on could create again what was dropped."""
    sessions = f"from pg_catalog.pg_stat_activity where usename = {quote_text(role)} and pid <> pg_backend_pid()"
    _run(server, [f"select pg_terminate_backend(pid, {_SESSIONS_MILLISECONDS}) {sessions}"], "", [role])
    if sessions := server.ask(f"select count(*) {sessions}")[0][0]:
        raise DestinationUnavailable(f"{sessions} sessions of {role} do not end", remedy="see pg_stat_activity, then run the command again")


def _drop_schema(server: Server, schema: SchemaContent, roles: Sequence[str]) -> None:
    name = quote(schema.name)
    tables = [f"drop {table.kind} if exists {name}.{quote(table.name)} cascade" for table in schema.tables]
    for start in range(0, len(tables), _BATCH):
        _run(server, tables[start : start + _BATCH], schema.database, roles)
    _run(server, [f"drop schema if exists {name} cascade"], schema.database, roles)


def _drop_roles(server: Server, roles: Sequence[str]) -> None:
    names = ", ".join(quote(role) for role in roles)
    databases = {name for (name,) in server.ask(_DATABASES, (list(roles),))} | {server.login.database}
    for database in sorted(databases):
        # One by one: both are in the owner's default privileges, and Postgres would report corruption if the second one were missing there.
        _run(server, [f"drop owned by {quote(role)} cascade" for role in roles], database, roles)
    server.run([f"drop role if exists {names}"])


def _run(server: Server, statements: list[str], database: str, roles: Sequence[str]) -> None:
    server.run(statements if server.is_superuser or not roles else act_as(server, roles, statements), database=database)
