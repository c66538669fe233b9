"""What a tenant should have on its Postgres server: roles, schemas or a database, limits. Nothing here asks the server."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fabric_assets import naming


@dataclass(frozen=True)
class ServerEntitlements:
    """What one tenant should have on its server.

    Args:
        database: the one that holds its schemas.
        has_own_database: whether that database is the tenant's alone.
        schemas: all that it needs, including those in which loads stage their rows.
        hidden: those of the schemas that its reader may not read.
    """

    tenant: str
    database: str
    schemas: tuple[str, ...]
    hidden: frozenset[str] = frozenset()
    has_own_database: bool = False
    statement_timeout: timedelta = timedelta(hours=1)
    connections: int = 40
    temp_file_bytes: int = 10 * 1000**3

    @property
    def owner(self) -> str:
        return naming.owner_role(self.tenant)

    @property
    def reader(self) -> str:
        return naming.reader_role(self.tenant)

    @property
    def bi(self) -> str:
        return naming.bi_role(self.tenant)

    @property
    def roles(self) -> tuple[str, str, str]:
        return naming.list_roles(self.tenant)

    @property
    def own_database(self) -> str:
        """The database that is the tenant's alone, where it has one."""
        return naming.tenant_database(self.tenant)

    def hides(self, schema: str) -> bool:
        """Whether the reader may not read a schema of the tenant's, even if that schema is no longer needed."""
        return schema in self.hidden or (schema not in self.schemas and schema.startswith("stg_"))

    @property
    def settings(self) -> dict[str, str]:
        """Settings of the owner's role, as Postgres writes them down."""
        return {"statement_timeout": f"{int(self.statement_timeout.total_seconds())}s", "temp_file_limit": f"{self.temp_file_bytes // 1024}kB"}


@dataclass(frozen=True)
class ServerLogin:
    """A server, and a login that may create and drop what belongs to tenants.

    Args:
        origin: the setting or tenant that the login comes from, for messages.
        query: further parameters of libpq.
    """

    origin: str
    host: str
    port: int
    database: str
    user: str
    password: str
    query: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.user} at {self.host}:{self.port}/{self.database}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"
