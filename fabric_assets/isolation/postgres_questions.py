"""Queries that ask the server what the connected login may do beyond its own data: one query for each kind of right, over all objects.

They complete the tries: they reach what is too much to try each time, and what no transaction can undo (`alter system`).
Each query has a topic, and gives actions with their targets. `mine` are the login's own schemas, `me` its name, `readers` the roles that belong to it.
"""

# Relations that are not the tenant's own: those in other schemas, and others' in its own schemas, since a view reads what its owner may. What came with an
# extension is left out: it holds nobody's rows.
_STRANGE_RELATIONS = """
    select c.oid, c.relkind, n.nspname || '.' || c.relname as name, n.nspname, c.relname
    from pg_catalog.pg_class as c
    inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and not (n.nspname = any(%(mine)s) and pg_has_role(c.relowner, 'MEMBER'))
        and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        and not exists (select from pg_catalog.pg_depend as d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""
_STRANGE_SCHEMAS = """
    select n.oid, n.nspname as name, n.nspowner
    from pg_catalog.pg_namespace as n
    where not n.nspname = any(%(mine)s) and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""

QUESTIONS: tuple[tuple[str, str], ...] = (
    # The role itself, and the roles that it can become.
    (
        "attributes of a superuser",
        """
    select 'be', attribute
    from pg_catalog.pg_roles, lateral (values
        (rolsuper, 'a superuser'), (rolcreaterole, 'one who creates roles (CREATEROLE)'), (rolcreatedb, 'one who creates databases (CREATEDB)'),
        (rolreplication, 'one who replicates the server (REPLICATION)'), (rolbypassrls, 'one whom row security does not hold (BYPASSRLS)')
    ) as attributes (has, attribute)
    where rolname = current_user and has
    """,
    ),
    (
        "memberships",
        """
    select 'act as a member of', rolname
    from pg_catalog.pg_roles
    where not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) and pg_has_role(oid, 'MEMBER')
        and rolname <> current_user and not rolname = any(%(readers)s) and (rolname <> 'pg_database_owner' or not %(owns_database)s)
    """,
    ),
    # Schemas and what is in them.
    (
        "USAGE of other schemas",
        f"select 'look into (USAGE)', 'schema ' || name from ({_STRANGE_SCHEMAS}) as s where has_schema_privilege(oid, 'USAGE')",
    ),
    (
        "CREATE in other schemas",
        f"select 'create in (CREATE)', 'schema ' || name from ({_STRANGE_SCHEMAS}) as s where has_schema_privilege(oid, 'CREATE')",
    ),
    (
        "other schemas",
        f"select 'own', 'schema ' || name from ({_STRANGE_SCHEMAS}) as s where pg_has_role(nspowner, 'MEMBER')",
    ),
    (
        "rights on other tables",
        f"""
    select 'use (' || array_to_string(array_remove(array[
        case when has_table_privilege(oid, 'SELECT') or has_any_column_privilege(oid, 'SELECT') then 'SELECT' end,
        case when has_table_privilege(oid, 'INSERT') or has_any_column_privilege(oid, 'INSERT') then 'INSERT' end,
        case when has_table_privilege(oid, 'UPDATE') or has_any_column_privilege(oid, 'UPDATE') then 'UPDATE' end,
        case when has_table_privilege(oid, 'DELETE') then 'DELETE' end,
        case when has_table_privilege(oid, 'TRUNCATE') then 'TRUNCATE' end
    ], null), ', ') || ')', name
    from ({_STRANGE_RELATIONS}) as r
    where relkind <> 'S' and (
        has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') or has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE')
    )
    """,
    ),
    (
        "rights on other sequences",
        f"""
        select 'use', 'sequence ' || name
        from ({_STRANGE_RELATIONS}) as r
        where case relkind when 'S' then has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE') end
        """,
    ),
    # Rights on objects that do not exist yet.
    (
        "default privileges of others",
        """
    select distinct 'use what is to come (default privileges: ' || a.privilege_type || ')',
        'of role ' || d.defaclrole::regrole || coalesce(' in schema ' || n.nspname, '')
    from pg_catalog.pg_default_acl as d
    cross join lateral aclexplode(d.defaclacl) as a
    left join pg_catalog.pg_namespace as n on n.oid = d.defaclnamespace
    where d.defaclobjtype in ('r', 'S', 'n') and d.defaclrole <> current_user::regrole
        and (a.grantee = 0 or (pg_has_role(a.grantee, 'MEMBER') and not a.grantee = any(select oid from pg_catalog.pg_roles where rolname = any(%(readers)s))))
    """,
    ),
    # Rights that reach beyond SQL and beyond this database.
    (
        "functions that are not for everyone",
        """
    select 'execute', p.oid::regprocedure::text
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'pg_catalog'::regnamespace and has_function_privilege(p.oid, 'EXECUTE')
        and not has_function_privilege('public', p.oid, 'EXECUTE')
    """,
    ),
    (
        "catalogs that are not for everyone",
        """
    select 'read', 'pg_catalog.' || c.relname
    from pg_catalog.pg_class as c
    where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v') and has_table_privilege(c.oid, 'SELECT')
        and not has_table_privilege('public', c.oid, 'SELECT')
    """,
    ),
    (
        "extensions that leave the database",
        """
    select 'execute', p.oid::regprocedure || ' of extension ' || e.extname
    from pg_catalog.pg_proc as p
    inner join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    inner join pg_catalog.pg_extension as e on e.oid = d.refobjid
    where e.extname in ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'pageinspect', 'pg_walinspect')
        and has_function_privilege(p.oid, 'EXECUTE') and has_schema_privilege(p.pronamespace, 'USAGE')
    """,
    ),
    (
        "functions with others' rights",
        """
    select 'execute with the rights of ' || p.proowner::regrole, p.oid::regprocedure::text
    from pg_catalog.pg_proc as p
    inner join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where p.prosecdef and n.nspname !~ '^pg_' and p.proowner <> current_user::regrole
        and has_function_privilege(p.oid, 'EXECUTE') and has_schema_privilege(n.oid, 'USAGE')
    """,
    ),
    (
        "foreign data wrappers",
        "select 'use', 'foreign data wrapper ' || fdwname from pg_catalog.pg_foreign_data_wrapper where has_foreign_data_wrapper_privilege(oid, 'USAGE')",
    ),
    (
        "foreign servers",
        "select 'use', 'foreign server ' || srvname from pg_catalog.pg_foreign_server where has_server_privilege(oid, 'USAGE')",
    ),
    (
        "tablespaces",
        "select 'create in', 'tablespace ' || spcname from pg_catalog.pg_tablespace where has_tablespace_privilege(oid, 'CREATE')",
    ),
    (
        "other databases",
        """
        select 'own', 'database ' || datname
        from pg_catalog.pg_database
        where pg_has_role(datdba, 'MEMBER') and (datname <> current_database() or not %(owns_database)s)
        """,
    ),
    (
        "queries of other sessions",
        """
    select 'see the queries of', count(*) || ' other sessions'
    from pg_catalog.pg_stat_activity
    where backend_type = 'client backend' and usename is distinct from current_user and query is not null and query <> '<insufficient privilege>'
    having count(*) > 0
    """,
    ),
)

# A view of the tenant's calls functions with the rights of the role that reads it, so that role should read no other tenant.
READERS_OF_SEVERAL = f"""
    with reader as materialized (
        select r.oid, r.rolname from pg_catalog.pg_roles as r
        where r.rolcanlogin and not r.rolsuper and r.rolname <> current_user and not r.rolname = any(%(readers)s)
            and exists (select from pg_catalog.pg_namespace as n where n.nspname = any(%(mine)s) and has_schema_privilege(r.oid, n.oid, 'USAGE'))
    ), reach as (
        select r.rolname, s.name from reader as r join ({_STRANGE_SCHEMAS}) as s on has_schema_privilege(r.oid, s.oid, 'USAGE')
        where exists (
            select from pg_catalog.pg_roles as o
            where o.oid = s.nspowner and o.oid <> (select oid from pg_catalog.pg_roles where rolname = current_user)
                and exists (select from pg_catalog.pg_roles as p where p.rolname = o.rolname || '_ro')
        )
        union
        select r.rolname, 'what ' || o.rolname || ' reads' from reader as r join pg_catalog.pg_roles as o on pg_has_role(r.oid, o.oid, 'MEMBER')
        where o.rolname ~ '^fabric_.*_ro$' and not o.rolname = any(%(readers)s) and o.oid <> r.oid
    )
    select 'run functions with the rights of', 'role ' || rolname || ', which also reads ' || string_agg(name, ' and ' order by name)
    from reach group by rolname order by rolname
"""

# Since Postgres 15.
PARAMETERS = """
    select 'set', 'the server parameter ' || parname
    from pg_catalog.pg_parameter_acl
    where has_parameter_privilege(parname, 'SET, ALTER SYSTEM')
"""

SCHEMAS = f"select name from ({_STRANGE_SCHEMAS}) as s order by not has_schema_privilege(oid, 'USAGE, CREATE'), random() limit %(most)s"
RELATIONS = f"""
    select nspname::text, relname::text, relkind::text
    from ({_STRANGE_RELATIONS}) as r
    where relkind <> 'S'
    order by not has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE'), random()
    limit %(most)s
"""
ROLES = """
    select rolname
    from pg_catalog.pg_roles
    where rolname <> current_user and not rolname = any(%(readers)s)
    order by not pg_has_role(oid, 'MEMBER'), not rolsuper, rolname !~ '^fabric_', random()
    limit %(most)s
"""
DATABASES = """
    select datname, has_database_privilege(oid, 'CONNECT')
    from pg_catalog.pg_database
    where datallowconn and datname <> current_database()
    order by not has_database_privilege(oid, 'CONNECT'), random()
    limit %(most)s
"""
# Whether a database that let the login in holds anything.
CONTENTS = """
    select count(*) from pg_catalog.pg_class as c
    inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        and not exists (select from pg_catalog.pg_depend as d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""
EXTENSIONS = """
    select name from pg_catalog.pg_available_extensions
    where installed_version is null and name in ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'plpython3u', 'plperlu')
"""
# Tenants on this server: by their roles, or by the schema that each load creates where the platform did not create the roles.
TENANTS = r"""
    select substr(o.rolname, 8) from pg_catalog.pg_roles as o
    where o.rolname ~ '^fabric_.' and o.rolcanlogin and exists (select from pg_catalog.pg_roles as r where r.rolname = o.rolname || '_ro')
    union
    select left(nspname, -7) from pg_catalog.pg_namespace where nspname ~ '._fabric$'
"""
