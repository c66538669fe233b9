"""The catalog of one database -> the state of the chosen tenants' schemas, and which of their contents are not as they should be."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fabric_assets.security.roles.catalog import PRIVILEGES, Grants
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.server import Server

_SCHEMAS = f"""
    select n.nspname::text, o.rolname::text, coalesce(r.rolname::text, case when a.grantee = 0 then 'PUBLIC' end), a.privileges
    from pg_catalog.pg_namespace as n join pg_catalog.pg_roles as o on o.oid = n.nspowner
        left join lateral (
            select grantee, {PRIVILEGES} as privileges from aclexplode(n.nspacl) as a where grantee <> n.nspowner group by grantee
        ) as a on true
        left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where n.nspname = 'public' or n.nspname = any(%(schemas)s) or o.rolname = any(%(roles)s)
"""
_DEFAULTS = f"""
    select o.rolname::text, coalesce(n.nspname::text, ''), d.defaclobjtype::text, coalesce(r.rolname::text, 'PUBLIC'), {PRIVILEGES}
    from pg_catalog.pg_default_acl as d join pg_catalog.pg_roles as o on o.oid = d.defaclrole
        left join pg_catalog.pg_namespace as n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) as a
        left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where a.grantee <> d.defaclrole and (o.rolname = any(%(roles)s) or r.rolname = any(%(roles)s)) group by 1, 2, 3, 4
"""
# Neither tenants' nor such as hold an extension and nothing that somebody could put a row in: what came with it is made for everyone.
_OPEN_SCHEMAS = r"""
    select n.nspname::text, array_agg(distinct a.privilege_type) from pg_catalog.pg_namespace as n
        join pg_catalog.pg_roles as o on o.oid = n.nspowner, aclexplode(n.nspacl) as a
    where a.grantee = 0 and o.rolname not like 'fabric\_%%' and n.nspname <> all(%(schemas)s)
        and n.nspname not like 'pg\_%%' and n.nspname not in ('public', 'information_schema')
        and (a.privilege_type = 'CREATE' or not exists (select from pg_catalog.pg_extension where extnamespace = n.oid) or exists (
            select from pg_catalog.pg_class as c where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
                and not exists (select from pg_catalog.pg_depend where classid = 'pg_catalog.pg_class'::regclass and objid = c.oid and deptype = 'e')
        ))
    group by 1
"""
# The schemas that are or should be a tenant's, with its roles; the reader's is null where the reader sees nothing.
_HELD = """
    with held as materialized (
        select n.oid, n.nspname, w.owner, o.oid as owner_id, w.reader, e.oid as reader_id, w.shown
        from unnest(%(schemas)s::text[], %(owners)s::text[], %(readers)s::text[], %(shown)s::bool[]) as w(name, owner, reader, shown)
            join pg_catalog.pg_namespace as n on n.nspname = w.name left join pg_catalog.pg_roles as o on o.rolname = w.owner
                left join pg_catalog.pg_roles as e on e.rolname = w.reader
    )
"""
# Sequences of a column go with their table.
_STRANGERS = f"""{_HELD}
    select h.nspname::text, 'table', format('%%I.%%I', h.nspname, c.relname), c.relowner::regrole::text
    from held as h join pg_catalog.pg_class as c on c.relnamespace = h.oid
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relowner is distinct from h.owner_id
        and not (c.relkind = 'S' and exists (select from pg_catalog.pg_depend
            where classid = 'pg_catalog.pg_class'::regclass and objid = c.oid and deptype in ('a', 'i')))
    union all select h.nspname::text, 'routine', (pg_identify_object('pg_catalog.pg_proc'::regclass, p.oid, 0)).identity, p.proowner::regrole::text
    from held as h join pg_catalog.pg_proc as p on p.pronamespace = h.oid where p.proowner is distinct from h.owner_id
    union all select h.nspname::text, 'type', format('%%I.%%I', h.nspname, t.typname), t.typowner::regrole::text
    from held as h join pg_catalog.pg_type as t on t.typnamespace = h.oid left join pg_catalog.pg_class as c on c.oid = t.typrelid
    where t.typowner is distinct from h.owner_id and t.typelem = 0 and (t.typrelid = 0 or c.relkind = 'c')
"""
_EXTRAS = f"""{_HELD}
    select h.nspname::text, case when c.relkind = 'S' then 'sequence' else 'table' end, format('%%I.%%I', h.nspname, c.relname),
        coalesce(r.rolname::text, 'PUBLIC'), array_agg(distinct a.privilege_type)
    from held as h join pg_catalog.pg_class as c on c.relnamespace = h.oid, aclexplode(c.relacl) as a left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where a.grantee <> c.relowner and a.grantee is distinct from h.owner_id
        and not (a.grantee is not distinct from h.reader_id and a.privilege_type = 'SELECT' and not a.is_grantable) group by 1, 2, 3, 4
    union all select h.nspname::text, 'table', format('%%I.%%I', h.nspname, c.relname),
        coalesce(r.rolname::text, 'PUBLIC'), array_agg(distinct a.privilege_type)
    from held as h join pg_catalog.pg_class as c on c.relnamespace = h.oid join pg_catalog.pg_attribute as t on t.attrelid = c.oid, aclexplode(t.attacl) as a
        left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where t.attacl is not null and a.grantee <> c.relowner and a.grantee is distinct from h.owner_id group by 1, 2, 3, 4
    union all select h.nspname::text, 'routine', (pg_identify_object('pg_catalog.pg_proc'::regclass, p.oid, 0)).identity,
        r.rolname::text, array_agg(distinct a.privilege_type)
    from held as h join pg_catalog.pg_proc as p on p.pronamespace = h.oid, aclexplode(p.proacl) as a join pg_catalog.pg_roles as r on r.oid = a.grantee
    where a.grantee <> p.proowner and a.grantee not in (coalesce(h.owner_id, 0), coalesce(h.reader_id, 0)) group by 1, 2, 3, 4
"""
_UNREADABLE = f"""{_HELD}
    select distinct h.nspname::text from held as h join pg_catalog.pg_class as c on c.relnamespace = h.oid
    where h.shown and c.relkind in ('r', 'p', 'v', 'm', 'f')
        and not exists (select from aclexplode(c.relacl) as a where a.grantee = h.reader_id and a.privilege_type = 'SELECT')
"""
# What the roles own or may do in this database outside of all tenants' schemas, or with a type in them. What a session keeps for itself is gone with it.
_OUTSIDE = f"""{_HELD}, dependent as materialized (
        select r.rolname, r.oid as role_id, s.classid, s.objid, s.objsubid, s.deptype,
            case s.classid
                when 'pg_catalog.pg_class'::regclass then (select relnamespace from pg_catalog.pg_class where oid = s.objid)
                when 'pg_catalog.pg_proc'::regclass then (select pronamespace from pg_catalog.pg_proc where oid = s.objid)
                when 'pg_catalog.pg_type'::regclass then (select typnamespace from pg_catalog.pg_type where oid = s.objid)
                when 'pg_catalog.pg_namespace'::regclass then s.objid
            end as schema_id
        from pg_catalog.pg_shdepend as s join pg_catalog.pg_roles as r on r.oid = s.refobjid
        where (s.dbid = (select oid from pg_catalog.pg_database where datname = current_database())
                or (%(shared)s and s.dbid = 0 and s.classid <> 'pg_catalog.pg_database'::regclass))
            and s.refclassid = 'pg_catalog.pg_authid'::regclass
            and s.deptype in ('o', 'a') and s.classid <> 'pg_catalog.pg_default_acl'::regclass and r.rolname = any(%(roles)s)
    ), foreign_to as materialized (
        select d.*, o.rolname as rightful from dependent as d left join held as h on h.oid = d.schema_id
            left join pg_catalog.pg_namespace as n on n.oid = d.schema_id left join pg_catalog.pg_roles as o on o.oid = n.nspowner
        where (h.oid is null or (d.classid = 'pg_catalog.pg_type'::regclass and d.role_id not in (coalesce(h.owner_id, 0), coalesce(h.reader_id, 0))))
            and coalesce(n.nspname, '') not like 'pg\\_temp\\_%%' and coalesce(n.nspname, '') not like 'pg\\_toast%%'
    )
    select distinct f.rolname::text, f.deptype::text = 'o', i.type, i.identity, f.rightful::text
    from foreign_to as f, pg_identify_object(f.classid, f.objid, case when f.classid = 'pg_catalog.pg_class'::regclass then 0 else f.objsubid end) as i
"""


@dataclass(frozen=True)
class SchemaState:
    owner: str
    grants: Grants


@dataclass(frozen=True)
class Outsider:
    """An object that a tenant's role owns or has rights on, and that is not the tenant's.

    Args:
        rightful: the owner of the schema that it is in; None for an object without a schema.
    """

    role: str
    owns: bool
    kind: str
    identity: str
    rightful: str | None


@dataclass(frozen=True)
class DatabaseState:
    """The schemas of a database, and what is wrong in them.

    Args:
        defaults: role, schema (empty for all), kind of object -> who gets rights on what the role will create. For other roles than tenants', which tenants do.
        strangers: objects whose owner is not their schema's: schema, kind, name and owner.
        extras: rights on objects that their holder should not have: schema, kind and name of the object, holder and rights.
        unreadable: schemas with a table that the tenant's reader cannot read.
        open_schemas: schemas that are not tenants' -> what PUBLIC, and so every tenant, may do with them.
    """

    schemas: dict[str, SchemaState]
    defaults: dict[tuple[str, str, str], Grants]
    strangers: list[tuple[str, str, str, str]]
    extras: list[tuple[str, str, str, str, list[str]]]
    unreadable: list[str]
    outsiders: list[Outsider]
    open_schemas: dict[str, frozenset[str]] = field(default_factory=dict)


def read_database(server: Server, database: str, all_entitlements: Iterable[ServerEntitlements]) -> DatabaseState:
    """Read what is in a database.

    Args:
        all_entitlements: those of all chosen tenants, also of tenants in other databases: a role may have got something here too.
    """
    all_entitlements = list(all_entitlements)
    here = [entitlements for entitlements in all_entitlements if entitlements.database == database]
    roles = [name for entitlements in all_entitlements for name in entitlements.roles]
    owners = [entitlements.owner for entitlements in here]
    needed = [schema for entitlements in here for schema in entitlements.schemas]
    schemas: dict[str, SchemaState] = {}
    for name, owner, grantee, privileges in server.ask(_SCHEMAS, {"schemas": needed, "roles": owners}, database=database):
        state = schemas.setdefault(name, SchemaState(owner, {}))
        if grantee:
            state.grants[grantee] = frozenset(privileges)
    holders = find_holders(here, schemas)
    held = {
        "schemas": list(holders),
        "owners": [entitlements.owner for entitlements in holders.values()],
        "readers": [entitlements.reader for entitlements in holders.values()],
        "shown": [not entitlements.hides(schema) for schema, entitlements in holders.items()],
    }
    defaults: dict[tuple[str, str, str], Grants] = defaultdict(dict)
    for role, schema, kind, grantee, privileges in server.ask(_DEFAULTS, {"roles": roles}, database=database):
        defaults[role, schema, kind][grantee] = frozenset(privileges)
    return DatabaseState(
        schemas,
        dict(defaults),
        [(schema, kind, name, owner.strip('"')) for schema, kind, name, owner in server.ask(_STRANGERS, held, database=database)],
        [(schema, kind, name, grantee, list(rights)) for schema, kind, name, grantee, rights in server.ask(_EXTRAS, held, database=database)],
        [schema for (schema,) in server.ask(_UNREADABLE, held, database=database)],
        [Outsider(*row) for row in server.ask(_OUTSIDE, held | {"roles": roles, "shared": database == server.login.database}, database=database)],
        {schema: frozenset(rights) for schema, rights in server.ask(_OPEN_SCHEMAS, held, database=database)},
    )


def find_holders(all_entitlements: Iterable[ServerEntitlements], schemas: Mapping[str, SchemaState]) -> dict[str, ServerEntitlements]:
    """Find the one tenant that each schema of a database belongs to, or will belong to. Two tenants' models can lead to the same schema name.

    A schema that exists stays with the tenant that has it, whether that tenant is chosen or not. One that does not exist yet goes to the tenant with the longer
    name, since the schema's name begins with both.
    """
    all_entitlements = sorted(all_entitlements, key=lambda entitlements: len(entitlements.tenant))
    holders: dict[str, ServerEntitlements] = {}
    for entitlements in all_entitlements:
        holders |= {name: entitlements for name in entitlements.schemas if name not in schemas or get_rival(entitlements, name, schemas[name]) is None}
    by_owner = {entitlements.owner: entitlements for entitlements in all_entitlements}
    for name, schema in schemas.items():  # also those of sources that are no longer declared
        if name not in holders and name != "public" and schema.owner in by_owner:
            holders[name] = by_owner[schema.owner]
    return holders


def get_rival(entitlements: ServerEntitlements, name: str, schema: SchemaState) -> str | None:
    """Give the other tenant that owns a schema, by its owner and its name. Give None for the tenant's own schema, even where its owner was changed."""
    rival = schema.owner.removeprefix("fabric_")
    is_rivals = schema.owner.startswith("fabric_") and schema.owner != entitlements.owner and name.startswith((f"{rival}_", f"stg_{rival}_"))
    return rival if is_rivals else None
