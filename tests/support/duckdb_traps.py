"""What a tenant can leave in its own DuckDB file for whatever opens it next: objects that replace DuckDB's own."""

from typing import Any

_ARGUMENTS = ("()", "(a)", "(a, b)", "(a, b, c)")
_OPERATORS = ("+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "->>", "=", "<", ">", "<=", ">=", "<>")


def plant_traps(connection: Any) -> int:
    """Plant macros named like each function and operator of DuckDB, views like its own views, and a type, in each schema. Give their number."""
    functions = {name for (name,) in connection.execute("select distinct function_name from system.main.duckdb_functions() where internal").fetchall()}
    views = {name for (name,) in connection.execute("select view_name from system.main.duckdb_views() where internal").fetchall()}
    schemas = [name for (name,) in connection.execute("select schema_name from system.main.duckdb_schemas() where not internal").fetchall()]
    statements = ["create schema if not exists main_of_traps", 'create schema "temp"', 'create schema "system"', 'create type main."JSON" as integer']
    for schema in ("main", *schemas, "main_of_traps"):
        for name in sorted(functions | set(_OPERATORS)):
            macros = ", ".join(f"{arguments} as 'trap'" for arguments in _ARGUMENTS)
            statements.append(f'create or replace macro {{database}}."{schema}"."{name}" {macros}')
        tables = ", ".join(f"{arguments} as table (select 'trap' as trap)" for arguments in _ARGUMENTS)
        for name in ("duckdb_tables", "duckdb_columns", "duckdb_views", "duckdb_settings", "duckdb_schemas", "range", "unnest"):
            statements.append(f'create or replace macro {{database}}."{schema}"."{name}" {tables}')
        for name in sorted(views | {"fabric_rows", "rows"}):
            statements.append(f'create view {{database}}."{schema}"."{name}" as select \'trap\' as trap')
    (database,) = connection.execute("select system.main.current_database()").fetchone()
    connection.execute("begin transaction")
    planted = 0
    for statement in statements:
        connection.execute(statement.format(database=f'"{database}"'))
        planted += 1
    connection.execute("commit")
    return planted
