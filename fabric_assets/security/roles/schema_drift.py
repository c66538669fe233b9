"""Entitlements and the contents of a database -> every difference in the tenants' schemas."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from fabric_assets.quoting import quote
from fabric_assets.security.roles.catalog import PUBLIC
from fabric_assets.security.roles.contents import DatabaseState, Outsider, SchemaState, find_holders, get_rival
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.steps import Step, build_revokes, join, name_grantee, name_who

_KINDS = {"r": "tables", "S": "sequences", "f": "routines", "T": "types", "n": "schemas", "L": "large objects"}
# Postgres writes down what everyone may by default, once anything about it is changed.
_PUBLIC_DEFAULTS = {"f": frozenset({"EXECUTE"}), "T": frozenset({"USAGE"})}
_RELATIONS = {"table", "view", "materialized view", "foreign table", "sequence"}
_ROUTINES = {"function", "procedure", "aggregate", "routine"}
_GRANTED = {"database", "schema", "type", "domain", "language", "tablespace", "large object"}
_SPECIAL = {"foreign-data wrapper": "foreign data wrapper", "server": "foreign server", "parameter ACL": "parameter"}


def find_schema_drift(all_entitlements: Iterable[ServerEntitlements], database: str, state: DatabaseState, *, keepers: Collection[str] = ()) -> Iterator[Step]:
    """Compare the schemas of tenants in a database, and what their roles have in it beside them.

    Args:
        all_entitlements: all chosen ones.
        keepers: other roles that have something in the database: what PUBLIC loses in the schema public they keep under their own names.
    """
    all_entitlements = list(all_entitlements)
    here = [entitlements for entitlements in all_entitlements if entitlements.database == database]
    holders = find_holders(here, state.schemas)
    for entitlements in here:
        yield from _find_missing(entitlements, holders, state)
    for name, entitlements in holders.items():
        if schema := state.schemas.get(name):
            yield from _find_rights(entitlements, name, schema, database)
    if here and (rights := state.schemas.get("public", SchemaState("", {})).grants.get(PUBLIC)):
        kept = (f"grant {join(rights).lower()} on schema public to {', '.join(quote(role) for role in sorted(keepers))}",) if keepers else ()
        finding = f"the schema public of database {database} lets {PUBLIC} {join(rights)}"
        yield Step("", finding, (*kept, "revoke all on schema public from public"), database)
    for name, rights in state.open_schemas.items() if here else ():
        finding = f"the schema {name} of database {database} lets {PUBLIC} {join(rights)}: every tenant's role may use it"
        remedy = f"it is no tenant's, so decide: revoke {join(rights).lower()} on schema {quote(name)} from public"
        yield Step("", f"{finding}; {remedy}", (), database, kind="unmendable")
    yield from _find_defaults(all_entitlements, database, state)
    yield from _find_contents(holders, database, state)
    roles = {role: entitlements.tenant for entitlements in all_entitlements for role in entitlements.roles}
    for outsider in state.outsiders:
        yield _describe_outsider(outsider, roles[outsider.role], database)


def _find_missing(entitlements: ServerEntitlements, holders: Mapping[str, ServerEntitlements], state: DatabaseState) -> Iterator[Step]:
    for name in entitlements.schemas:
        holder = holders.get(name)
        if holder != entitlements:
            rival = holder.tenant if holder else get_rival(entitlements, name, state.schemas[name])
            finding = f"schema {name} is tenant {rival}'s: rename one of the two, or the model's schema; or give one isolation: database"
            yield Step(entitlements.tenant, finding, (), entitlements.database)
        elif name not in state.schemas:
            yield Step(
                entitlements.tenant,
                f"schema {name} is missing in database {entitlements.database}",
                (f"create schema {quote(name)} authorization {quote(entitlements.owner)}", *_open(entitlements, name)),
                entitlements.database,
            )


def _open(entitlements: ServerEntitlements, schema: str) -> tuple[str, ...]:
    return () if entitlements.hides(schema) else (f"grant usage on schema {quote(schema)} to {quote(entitlements.reader)}",)


def _find_rights(entitlements: ServerEntitlements, name: str, schema: SchemaState, database: str) -> Iterator[Step]:
    tenant = entitlements.tenant
    if schema.owner != entitlements.owner:
        yield Step(
            tenant, f"schema {name} is owned by {schema.owner}", (f"alter schema {quote(name)} owner to {quote(entitlements.owner)}",), database, kind="surplus"
        )
    allowed = frozenset() if entitlements.hides(name) else frozenset({"USAGE"})
    if allowed - schema.grants.get(entitlements.reader, frozenset()):
        yield Step(
            tenant,
            f"role {entitlements.reader} lacks USAGE on schema {name}",
            (f"grant usage on schema {quote(name)} to {quote(entitlements.reader)}",),
            database,
        )
    for grantee, rights in schema.grants.items():
        surplus = rights - (allowed if grantee == entitlements.reader else frozenset())
        if surplus and grantee != entitlements.owner:
            statements = build_revokes(surplus, f"schema {quote(name)}", grantee)
            yield Step(tenant, f"{name_who(grantee)} has {join(surplus)} on schema {name}", statements, database, kind="surplus")


def _find_defaults(all_entitlements: Iterable[ServerEntitlements], database: str, state: DatabaseState) -> Iterator[Step]:
    by_role = {role: entitlements for entitlements in all_entitlements for role in entitlements.roles}
    for entitlements in all_entitlements:
        if entitlements.database == database and "SELECT" not in state.defaults.get((entitlements.owner, "", "r"), {}).get(entitlements.reader, ()):
            statement = f"alter default privileges for role {quote(entitlements.owner)} grant select on tables to {quote(entitlements.reader)}"
            yield Step(
                entitlements.tenant, f"role {entitlements.reader} will not read what {entitlements.owner} makes in database {database}", (statement,), database
            )
    for (role, schema, kind), grants in state.defaults.items():
        for grantee, rights in grants.items():
            entitlements = by_role[role if role in by_role else grantee]
            is_wanted = (role, schema, kind, grantee) == (entitlements.owner, "", "r", entitlements.reader)
            allowed = frozenset({"SELECT"}) if is_wanted else _PUBLIC_DEFAULTS.get(kind, frozenset()) if grantee == PUBLIC else frozenset()
            if surplus := rights - allowed:
                where = f" in schema {quote(schema)}" if schema else ""
                revokes = build_revokes(surplus, _KINDS[kind], grantee)
                statements = tuple(f"alter default privileges for role {quote(role)}{where} {revoke}" for revoke in revokes)
                finding = f"{name_who(grantee)} will have {join(surplus)} on the {_KINDS[kind]} that {role} makes{where}"
                yield Step(entitlements.tenant, finding, statements, database, kind="surplus")


def _find_contents(holders: Mapping[str, ServerEntitlements], database: str, state: DatabaseState) -> Iterator[Step]:
    for schema, kind, name, owner in state.strangers:
        entitlements = holders[schema]
        yield Step(
            entitlements.tenant, f"{kind} {name} is owned by {owner}", (f"alter {kind} {name} owner to {quote(entitlements.owner)}",), database, kind="surplus"
        )
    for schema, kind, name, grantee, rights in state.extras:
        statement = f"revoke {join(rights).lower()} on {kind} {name} from {name_grantee(grantee)} cascade"
        if kind == "table":  # takes the rights on its columns with it
            statement = f"revoke all on {kind} {name} from {name_grantee(grantee)} cascade"
        again = (f"grant select on table {name} to {quote(grantee)}",) if kind == "table" and grantee == holders[schema].reader else ()
        finding = f"{name_who(grantee)} has {join(rights)} on {kind} {name}"
        yield Step(holders[schema].tenant, finding, (statement, *again), database, kind="surplus")
    for schema in state.unreadable:
        entitlements = holders[schema]
        statement = f"grant select on all tables in schema {quote(schema)} to {quote(entitlements.reader)}"
        yield Step(entitlements.tenant, f"role {entitlements.reader} cannot read every table of schema {schema}", (statement,), database)


def _describe_outsider(outsider: Outsider, tenant: str, database: str) -> Step:
    """Give an object to the owner of its schema; an object without a schema is left for a person to decide."""
    kind, name, role = outsider.kind, outsider.identity, outsider.role
    if outsider.owns:
        finding = f"role {role} owns {kind} {name} in database {database}, outside of its schemas"
        word = "routine" if kind in _ROUTINES else kind
        if outsider.rightful is None or outsider.rightful == role or kind not in {*_RELATIONS, *_ROUTINES, "type"}:
            return Step(tenant, finding, (), database, kind="unmendable")
        return Step(tenant, finding, (f"alter {word} {name} owner to {quote(outsider.rightful)}",), database, kind="surplus")
    word = "table" if kind in _RELATIONS - {"sequence"} else "routine" if kind in _ROUTINES else _SPECIAL.get(kind, kind)
    finding = f"role {role} has rights on {kind} {name} in database {database}"
    if kind in _RELATIONS | _ROUTINES | _GRANTED | set(_SPECIAL):
        return Step(tenant, finding, (f"revoke all on {word} {name} from {quote(role)} cascade",), database, kind="surplus")
    return Step(tenant, finding, (), database, kind="unmendable")
