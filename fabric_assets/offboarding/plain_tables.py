"""A table of a tenant's -> locked, and checked that reading it with another login calls none of the tenant's functions.

Even to plan a query, Postgres calls functions of expression indexes, statistics and constraints. The lock keeps everybody from adding one of these, a rule, a
policy, a column or a child table. Rows can still be written.
"""

from collections.abc import Callable
from typing import Any

from fabric_assets.drivers.asking import Ask
from fabric_assets.quoting import quote, quote_text

# Even to plan a query, Postgres calls functions of expression indexes, statistics and constraints. The lock keeps others from adding any of these.
_LOCK = "lock table only {table} in share update exclusive mode"
_PLAIN = """
    select exists (
        select from pg_catalog.pg_class as c
        where c.oid = pg_catalog.to_regclass({name}) and c.relkind = 'r' and c.relpersistence in ('p', 'u') and not c.relispartition
            and not c.relhasrules and not c.relrowsecurity and not c.relforcerowsecurity
            and c.relam = (select oid from pg_catalog.pg_am where amname = 'heap')
            and exists (
                select from pg_catalog.pg_locks as l
                where l.pid = {pid} and l.locktype = 'relation' and l.relation = c.oid and l.granted
                    and l.mode = 'ShareUpdateExclusiveLock'
            )
            and not exists (select from pg_catalog.pg_inherits as i where i.inhrelid = c.oid or i.inhparent = c.oid)
            and not exists (
                select from pg_catalog.pg_attribute as a join pg_catalog.pg_type as t on t.oid = a.atttypid
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                    and (a.attgenerated <> '' or t.oid >= 16384 or t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace or t.typtype not in ('b', 'r', 'm'))
            )
            and not exists (select from pg_catalog.pg_index as x where x.indrelid = c.oid and (x.indexprs is not null or x.indpred is not null))
            and not exists (select from pg_catalog.pg_statistic_ext as s where s.stxrelid = c.oid)
            and not exists (select from pg_catalog.pg_constraint as k where k.conrelid = c.oid and k.contype = 'c')
    )
"""
# A login that is not a superuser reads a role's tables as a member of the role, until the transaction is rolled back.
_OWNER = """
    select o.rolname::text, pg_catalog.current_setting('server_version_num')::int
    from pg_catalog.pg_class as c join pg_catalog.pg_roles as o on o.oid = c.relowner
    where c.oid = pg_catalog.to_regclass({name}) and not (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
        and not pg_catalog.pg_has_role(o.oid, 'USAGE')
"""
_IS_TABLE = "select c.relkind = 'r' from pg_catalog.pg_class as c where c.oid = pg_catalog.to_regclass({name})"


def lock_plain(table: str, *, run: Callable[[str], Any], ask: Ask, pid: int) -> bool:
    """Lock a table in the caller's transaction; False if it is not plain.

    Args:
        table: schema and name, quoted.
        run: runs a statement in the transaction that holds the lock.
        ask: queries on another connection, in autocommit: the transaction may see the catalog as it was before the lock.
        pid: the transaction's process.
    """
    name = quote_text(table)
    if ask(_IS_TABLE.format(name=name)) != [(True,)]:
        return False
    for owner, version in ask(_OWNER.format(name=name)):
        run(f"grant {quote(owner)} to current_user{' with inherit true, set true' if version >= 160000 else ''}")
    run(_LOCK.format(table=table))
    return ask(_PLAIN.format(name=name, pid=pid)) == [(True,)]
