"""The statements by which each destination lists objects that no load makes: schema, table, how, what, and the statement that drops it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlantedSql:
    """Two queries of one kind of destination.

    Args:
        acting: lists objects that have a table's name, and those that act on rows.
        refusing: lists objects that refuse rows.
    """

    acting: str
    refusing: str


_IN = "select c.oid, n.nspname, c.relname, c.relkind, format('%I.%I', n.nspname, c.relname) as named"
_FROM = "from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace where n.nspname in ({schemas})"
# The name that Postgres itself gives an index begins with its table's, as those of nested tables do. Loads make some on nested tables.
_OWN_INDEX = "'_(idx|key|pkey|excl)[0-9]*$'"
_POSTGRES_KINDS = (
    "case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table'"
    " when 'c' then 'type' else 'index' end"
)
POSTGRES = PlantedSql(
    acting=f"""
    select c.nspname::text as schema, c.relname::text as "table", 'name' as how,
        case when c.relkind in ('i', 'I') then 'an ' else 'a ' end || {_POSTGRES_KINDS} as what, 'drop ' || {_POSTGRES_KINDS} || ' ' || c.named as drop
    from ({_IN} {_FROM}) as c where c.relkind not in ('r', 'p', 't') and not (c.relkind in ('i', 'I') and c.relname ~ {_OWN_INDEX})
    union all select c.nspname::text, c.relname::text, 'acts', 'the trigger ' || t.tgname, format('drop trigger %I on %s', t.tgname, c.named)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_trigger as t on t.tgrelid = c.oid where not t.tgisinternal and t.tgenabled in ('O', 'A')
    union all select c.nspname::text, c.relname::text, 'acts', 'the rule ' || r.rulename, format('drop rule %I on %s', r.rulename, c.named)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_rewrite as r on r.ev_class = c.oid
    where c.relkind in ('r', 'p') and r.ev_type <> '1' and r.ev_enabled in ('O', 'A')
    union all select c.nspname::text, c.relname::text, 'acts', 'the child table ' || i.inhrelid::regclass,
        format('alter table %s no inherit %s', i.inhrelid::regclass, c.named)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_inherits as i on i.inhparent = c.oid where c.relkind = 'r'
    union all select n.nspname::text, c.relname::text, 'acts', 'forced row security',
        format('alter table %I.%I no force row level security', n.nspname, c.relname) {_FROM} and c.relforcerowsecurity
    """,
    refusing=f"""
    select c.nspname::text, c.relname::text, 'refuses', 'the constraint ' || o.conname || ' (' || pg_get_constraintdef(o.oid) || ')',
        format('alter table %s drop constraint %I', c.named, o.conname)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_constraint as o on o.conrelid = c.oid where o.contype in ('c', 'f', 'p', 'u', 'x')
    union all select c.nspname::text, c.relname::text, 'refuses', 'a foreign key of ' || o.conrelid::regclass || ' to it',
        format('alter table %s drop constraint %I', o.conrelid::regclass, o.conname)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_constraint as o on o.confrelid = c.oid where o.contype = 'f'
    union all select c.nspname::text, c.relname::text, 'refuses', 'the index ' || x.relname, format('drop index %I.%I', c.nspname, x.relname)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_index as i on i.indrelid = c.oid join pg_catalog.pg_class as x on x.oid = i.indexrelid
    where (i.indisunique or i.indexprs is not null or i.indpred is not null) and x.relname <> '_fabric_key_' || c.relname
        and not exists (select from pg_catalog.pg_constraint as o where o.conindid = i.indexrelid)
    union all select c.nspname::text, c.relname::text, 'refuses', 'the ' || case when a.attgenerated <> '' then 'generated column ' when a.attidentity = 'a'
            then 'identity column ' when a.attnotnull then 'not null column ' else 'column of a type of its own, ' end || a.attname,
        format(case when a.attnotnull and a.attidentity <> 'a' and a.attgenerated = '' then 'alter table %s alter column %I drop not null'
            else 'alter table %s drop column %I' end, c.named, a.attname)
    from ({_IN} {_FROM}) as c join pg_catalog.pg_attribute as a on a.attrelid = c.oid join pg_catalog.pg_type as t on t.oid = a.atttypid
    where c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and (a.attgenerated <> '' or a.attidentity = 'a' or t.typtype in ('d', 'e')
        or (a.attnotnull and not exists (select from pg_catalog.pg_constraint as o where o.conrelid = c.oid and o.contype = 'p' and a.attnum = any(o.conkey))))
    """,
)
_DUCK_NAME = "'\"' || replace({0}.schema_name, '\"', '\"\"') || '\".\"' || replace({0}.table_name, '\"', '\"\"') || '\"'"
_DUCK_ANEW = f"'drop table ' || {_DUCK_NAME.format('c')} || ' cascade, and load the stream with --full-refresh'"
DUCKDB = PlantedSql(
    acting="""
    select v.schema_name as schema, v.view_name as "table", 'name' as how, 'a view' as what,
        'drop view "' || replace(v.schema_name, '"', '""') || '"."' || replace(v.view_name, '"', '""') || '"' as drop
    from duckdb_views() as v where v.schema_name in ({schemas}) and v.database_name = current_database()
    """,
    refusing=f"""
    select c.schema_name, c.table_name, 'refuses', 'the constraint ' || c.constraint_text, {_DUCK_ANEW}
    from duckdb_constraints() as c where c.schema_name in ({{schemas}}) and c.database_name = current_database()
    union all select c.schema_name, c.referenced_table, 'refuses', 'a foreign key of ' || c.table_name || ' to it',
        'drop table ' || {_DUCK_NAME.format("c")}
    from duckdb_constraints() as c where c.schema_name in ({{schemas}}) and c.database_name = current_database() and c.referenced_table is not null
    union all select i.schema_name, i.table_name, 'refuses', 'the index ' || i.index_name,
        'drop index "' || replace(i.schema_name, '"', '""') || '"."' || replace(i.index_name, '"', '""') || '"'
    from duckdb_indexes() as i where i.schema_name in ({{schemas}}) and i.database_name = current_database()
    union all select c.schema_name, c.table_name, 'refuses', 'a generated column', {_DUCK_ANEW}
    from duckdb_tables() as c where c.schema_name in ({{schemas}}) and c.database_name = current_database() and c.sql ilike '%generated always as%'
    union all select c.schema_name, c.table_name, 'refuses', 'the column ' || c.column_name || ' of the type ' || c.data_type, {_DUCK_ANEW}
    from duckdb_columns() as c join duckdb_tables() as t using (table_oid, database_oid)
    where c.schema_name in ({{schemas}}) and c.database_name = current_database() and (c.data_type like 'ENUM%'
        or c.data_type in ('UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT', 'UHUGEINT'))
    """,
)
