"""A Postgres tenant -> what its login can reach beyond its own schemas: the server is asked, and statements are tried.

Other tenants are found in the server's catalog, because this process may serve only some of them. Each try is a transaction that is rolled back, and reads no
row. Only the server's answer that a privilege is missing counts as denied; after any other error the try counts as untried.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.postgres_destination import get_block, get_postgres_error, open_destination
from fabric_assets.isolation import postgres_questions as questions
from fabric_assets.isolation.own_schemas import is_any_tenants, is_own_schema
from fabric_assets.isolation.postgres_tries import Try, build_fixed_tries, build_relation_tries, build_role_tries, build_schema_tries, get_outcome
from fabric_assets.isolation.report import Attempt
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.settings import Settings

_MOST = 200
_LOCK_TIMEOUT = "500ms"
_SHARED = (
    "in this database's catalog the tenant sees names, columns, view texts, row counts and sizes of {count:,} schemas of other tenants."
    " With isolation: database it sees none of it (docs/security.md)"
)


def try_walls(tenant: TenantConfig, settings: Settings) -> tuple[list[Attempt], list[str]]:
    """Try everything, and give the attempts with notes on them.

    Raises:
        FabricError: the tenant's own database cannot be reached.
    """
    import psycopg2

    destination = open_destination(tenant, settings)
    with closing(destination.connect()) as connection:
        try:
            walls = _Walls(connection, tenant)
            attempts = [*walls.ask(), *walls.reset(), *walls.try_all()]
            databases = walls.query(questions.DATABASES, most=_MOST)
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise get_postgres_error(tenant, str(error)) from None
    attempts += [attempt for name, may_connect in databases for attempt in _try_database(destination.login, name, may_connect=may_connect)]
    return attempts, walls.notes


class _Walls:
    def __init__(self, connection: Any, tenant: TenantConfig) -> None:
        destination = get_block(tenant)
        self._connection = connection
        self._tenant = tenant.tenant
        self._owns_database = destination.managed and destination.isolation == "database"
        self._mine: list[str] = []
        tenants = {str(name) for (name,) in self.query(questions.TENANTS)} | {tenant.tenant}
        declared = {dataset for source in tenant.sources for dataset in (naming.raw_dataset(tenant.tenant, source),)}
        schemas = [str(name) for (name,) in self.query("select nspname from pg_catalog.pg_namespace")]
        self._mine = [name for name in schemas if name in declared or is_own_schema(name, tenant.tenant, tenants)]
        self._schemas = [str(name) for (name,) in self.query(questions.SCHEMAS, most=_MOST)]
        others = [name for name in schemas if name not in self._mine and is_any_tenants(name, tenants - {tenant.tenant})]
        self.notes = [] if [name for name in self._schemas if name != "public"] else ["no other tenant's schema is in this database"]
        if others:
            self.notes = [_SHARED.format(count=len(others))]

    def query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Ask the catalog."""
        _, *readers = naming.list_roles(self._tenant)
        with self._connection.cursor() as cursor:
            cursor.execute(sql, {"mine": self._mine, "readers": readers, "owns_database": self._owns_database, **values})
            rows = cursor.fetchall()
        self._connection.rollback()
        return rows

    def ask(self) -> Iterator[Attempt]:
        """Ask the server what the login may do."""
        asked = [*questions.QUESTIONS, *([("settings of the server", questions.PARAMETERS)] if self._connection.server_version >= 150000 else [])]
        for topic, question in asked:
            found = self.query(question)
            yield from (Attempt(action, target, "succeeded") for action, target in found)
            if not found:
                yield Attempt("hold", topic, "denied")
        several = self.query(questions.READERS_OF_SEVERAL)
        yield from (Attempt(action, target, "exposed") for action, target in several)
        if not several:
            yield Attempt("be read by", "roles that read several tenants", "denied")

    def reset(self) -> Iterator[Attempt]:
        """Try to go back to the role that logged in: another one, if a shared login has switched to the tenant's role."""
        who = "select current_user, session_user"
        before = self.query(who)
        with self._connection.cursor() as cursor:
            for statement in ("reset role", "set role none", "reset session authorization"):
                cursor.execute(statement)
                cursor.execute(who)
                after = cursor.fetchall()
                yield Attempt(f"become by {statement}", str(after[0][0]), "denied" if after == before else "succeeded")
        self._connection.rollback()

    def try_all(self) -> Iterator[Attempt]:
        """Run the tries that can be rolled back."""
        relations = self.query(questions.RELATIONS, most=_MOST)
        roles = [str(name) for (name,) in self.query(questions.ROLES, most=_MOST)]
        extensions = [str(name) for (name,) in self.query(questions.EXTENSIONS)]
        tries = [
            *build_fixed_tries(extensions, owns_database=self._owns_database),
            *build_schema_tries(self._schemas),
            *build_relation_tries(relations),
            *build_role_tries(roles),
        ]
        for number, each in enumerate(tries):
            if self._connection.closed:
                yield Attempt("try", f"{len(tries) - number} more ways", "untried", "the connection was lost")
                return
            if attempt := self._try(each):
                yield attempt

    def _try(self, each: Try) -> Attempt | None:
        import psycopg2

        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                cursor.execute(each.statement)
            found = ("succeeded", "")
        except psycopg2.Error as error:
            found = get_outcome(each, error.pgcode)
        finally:
            if not self._connection.closed:
                self._connection.rollback()
        return Attempt(each.action, each.target, *found) if found else None


def _try_database(login: dict[str, Any], name: str, *, may_connect: bool) -> Iterator[Attempt]:
    """Try to connect to another database of the server. An empty one that lets the login in, as Postgres creates them, is no finding."""
    import psycopg2

    extra = {key: value for key, value in login["query"].items() if key not in {"options", "connect_timeout"}}
    parts = {key: login[key] for key in ("host", "port", "user", "password")}
    try:
        connection = psycopg2.connect(**complete_login({**parts, "dbname": name, "connect_timeout": 15, **extra}))
    except psycopg2.OperationalError:
        # libpq gives no code for a failed connection; the catalog says whether the privilege is missing.
        yield Attempt("connect to", f"database {name}", "untried" if may_connect else "denied", "it may, but could not" if may_connect else "")
        return
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(questions.CONTENTS)
        found = cursor.fetchone()
        yield Attempt(
            "connect to",
            f"database {name}, which holds {found[0]:,} tables and views" if found[0] else f"database {name}",
            "succeeded" if found[0] else "denied",
        )
        cursor.execute("select has_database_privilege(current_database(), 'CREATE')")
        yield Attempt("create schemas in", f"database {name}", "succeeded" if cursor.fetchone()[0] else "denied")
