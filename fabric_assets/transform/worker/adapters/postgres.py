"""dbt-postgres: the tenant's database, with a login in complete parts."""

from pathlib import Path
from typing import Any

from fabric_assets.errors import ConfigurationError
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.security.postgres_session import open_session
from fabric_assets.transform.worker.adapters.adapter import PASSWORD_VARIABLE, Adapter, Login
from fabric_assets.transform.worker.manifest import DATABASE_PLACEHOLDER

# Parameters of a Postgres URL that dbt can pass on.
_PARAMETERS = ("application_name", "connect_timeout", "keepalives_idle", "sslcert", "sslkey", "sslmode", "sslrootcert")
_THREADS = 4


class Postgres(Adapter):
    credentials = "dbt.adapters.postgres.connections:PostgresCredentials"
    # A name is folded to lower case unless it is quoted, so quoted names that differ in case are different.
    folds_names = False
    columns_query = """
        select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
        from pg_catalog.pg_attribute as a
        inner join pg_catalog.pg_class as c on c.oid = a.attrelid
        inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'v', 'm', 'p', 'f') and a.attnum > 0 and not a.attisdropped and n.nspname in ({})
        order by n.nspname, c.relname, a.attnum
    """

    def get_database(self, login: Login) -> str:
        return login["dbname"]

    def build_placeholder(self, folder: Path) -> dict[str, Any]:
        return {"type": self.name, "host": "localhost", "port": 5432, "user": "none", "password": "none", "dbname": DATABASE_PLACEHOLDER, "query": {}}

    def build_output(self, login: Login, *, spill: Path) -> dict[str, Any]:
        if unknown := sorted(set(login["query"]) - set(_PARAMETERS)):
            known = ", ".join(_PARAMETERS)
            raise ConfigurationError(f"the destination's url has the parameter {unknown[0]}, which dbt cannot use", remedy=f"known: {known}")
        return {
            "type": self.name,
            "host": login["host"],
            "port": login["port"],
            "user": login["user"],
            "password": f"{{{{ env_var('{PASSWORD_VARIABLE}') }}}}",
            "dbname": login["dbname"],
            "schema": "public",
            "threads": _THREADS,
            **{name: int(value) if value.isdecimal() else value for name, value in login["query"].items()},
        }

    def get_password(self, login: Login) -> str | None:
        return login["password"]

    def connect(self, login: Login, *, spill: Path, read_only: bool) -> Any:
        parts = {key: login[key] for key in ("host", "port", "dbname", "user", "password")}
        connection = open_session(complete_login({**parts, **login["query"]}), {}, where="the destination (postgres)")
        connection.autocommit = True
        return connection

    def release(self) -> None:
        pass  # a server takes others beside it


ADAPTER = Postgres
