"""The objects on a server -> the statements that must be denied to a tenant's login.

None does harm if it is not denied: it reads and writes no row, and fails or is rolled back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fabric_assets.isolation.report import Outcome
from fabric_assets.quoting import quote

_PROBE = "fabric_isolation_probe"
_DENIED = "42501"
_LOCKED = "55P03"


@dataclass(frozen=True)
class Try:
    """A statement, and what it would do.

    Args:
        beyond: codes of errors that occur only if the login has the privilege.
    """

    action: str
    target: str
    statement: str
    beyond: tuple[str, ...] = ()


_NO_SCHEMA, _NO_TABLE, _NO_OBJECT = "3F000", "42P01", "42704"

_FIXED = (
    Try("read", "passwords (pg_authid)", "select rolpassword from pg_authid limit 0"),
    Try("read", "passwords (pg_shadow)", "select passwd from pg_shadow limit 0"),
    Try("read", "logins of foreign servers", "select umoptions from pg_user_mapping limit 0"),
    Try("read", "samples of all columns (pg_statistic)", "select 1 from pg_statistic limit 0"),
    Try("read", "the server's settings files", "select 1 from pg_file_settings limit 0"),
    Try("read", "a file with pg_read_file", "select pg_read_file('PG_VERSION', 0, 0)"),
    Try("read", "a file with pg_read_binary_file", "select pg_read_binary_file('PG_VERSION', 0, 0)"),
    Try("list", "a folder with pg_ls_dir", "select pg_ls_dir('.') limit 0"),
    Try("look at", "a file with pg_stat_file", "select pg_stat_file('PG_VERSION')"),
    Try("read", "a file with lo_import", "select lo_import('/dev/null')"),
    Try("write", "a file with lo_export", "select lo_export(0, '/dev/null')", (_NO_OBJECT,)),
    Try("read", "a file with copy", f"copy {_PROBE} from '/etc/passwd'", (_NO_TABLE,)),
    Try("write", "a file with copy", "copy (select 1) to '/dev/null'"),
    Try("run", "a program with copy from", f"copy {_PROBE} from program 'true'", (_NO_TABLE,)),
    Try("run", "a program with copy to", "copy (select 1) to program 'cat > /dev/null'", ("38000",)),
    Try("create", "a role", f"create role {_PROBE}"),
    Try("become", "a superuser by alter role", "alter role current_user superuser"),
    Try("give itself", "CREATEROLE", "alter role current_user createrole"),
    Try("switch off", "triggers and foreign keys", "set local session_replication_role = replica"),
    Try("lift", "the limit of temporary files", "set local temp_file_limit = -1"),
)
_OF_SHARED_DATABASES = (Try("create", "a schema in the database", f"create schema {_PROBE}"),)


def build_fixed_tries(extensions: Iterable[str], *, owns_database: bool) -> Iterator[Try]:
    """Build the tries of every server.

    Args:
        extensions: those that can be installed.
    """
    yield from _FIXED
    if not owns_database:
        yield from _OF_SHARED_DATABASES
    for name in extensions:
        yield Try("install", f"extension {name}", f'create extension "{name}"')


def build_schema_tries(schemas: Iterable[str]) -> Iterator[Try]:
    """Build the tries on others' schemas."""
    for schema in schemas:
        yield Try("list", f"schema {schema}", f"select 1 from {quote(schema)}.{_PROBE}", (_NO_TABLE,))
        yield Try("create in", f"schema {schema}", f"create table {quote(schema)}.{_PROBE} ()")


def build_relation_tries(relations: Iterable[tuple[str, str, str]]) -> Iterator[Try]:
    """Build the tries on others' tables and views.

    Args:
        relations: schema, name and Postgres's word for the kind.
    """
    for schema, name, kind in relations:
        table, words = f"{quote(schema)}.{quote(name)}", f"{schema}.{name}"
        yield Try("read", words, f"select 1 from {table} limit 0")
        if kind in {"r", "p"}:
            yield Try("write to", words, f"insert into {table} select where false")
            yield Try("delete from", words, f"delete from {table} where false")


def build_role_tries(roles: Iterable[str]) -> Iterator[Try]:
    """Build the tries on others' roles."""
    for role in roles:
        yield Try("become by set role", role, f"set local role {quote(role)}")
        yield Try("become by set session authorization", role, f"set local session authorization {quote(role)}")
        if not role.startswith("pg_"):  # the server's own, which nobody changes
            yield Try("change", f"role {role}", f"alter role {quote(role)} connection limit -1")


def get_outcome(each: Try, code: str | None) -> tuple[Outcome, str] | None:
    """Translate an error's code into an outcome and its reason. Give None where the target was dropped after it was listed."""
    if code == _DENIED:
        return "denied", ""
    if code in each.beyond:
        return "succeeded", ""
    if code in {_NO_SCHEMA, _NO_TABLE, _NO_OBJECT}:
        return None
    return "untried", "another session has it locked" if code == _LOCKED else f"SQLSTATE {code}" if code else "the connection was lost"
