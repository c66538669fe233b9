"""The statements by which each destination lists its tables and views, and what depends on each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LeftoversSql:
    """Two queries of one kind of destination.

    Args:
        relations: lists schema, name and kind: the word after `drop`.
        readers: lists schema and name of a relation, and those of what depends on it. None if the destination does not record that.
        definitions: lists schema, name and definition of each view; where dependencies are not recorded.
    """

    relations: str
    readers: str | None = None
    definitions: str = ""


_KINDS = "case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end"
POSTGRES = LeftoversSql(
    relations=f"""
    select n.nspname::text, c.relname::text, {_KINDS} from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm')""",
    readers="""
    select n.nspname::text, c.relname::text, vn.nspname::text, v.relname::text from pg_catalog.pg_depend as d
    join pg_catalog.pg_class as c on c.oid = d.refobjid join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_rewrite as r on r.oid = d.objid join pg_catalog.pg_class as v on v.oid = r.ev_class
    join pg_catalog.pg_namespace as vn on vn.oid = v.relnamespace
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and v.oid <> c.oid
    union select n.nspname::text, c.relname::text, pn.nspname::text, p.proname::text from pg_catalog.pg_depend as d
    join pg_catalog.pg_class as c on c.oid = d.refobjid join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_proc as p on p.oid = d.objid join pg_catalog.pg_namespace as pn on pn.oid = p.pronamespace
    where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_class'::regclass""",
)
DUCKDB = LeftoversSql(
    relations="""
    select schema_name, table_name, 'table' from duckdb_tables() where database_name = current_database() and not internal
    union all select schema_name, view_name, 'view' from duckdb_views() where database_name = current_database() and not internal""",
    definitions="select schema_name, view_name, sql from duckdb_views() where database_name = current_database() and not internal",
)
