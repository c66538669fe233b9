"""A tenant -> the password of its role: random, sealed before the role gets it, and known to the server as a SCRAM verifier alone.

The role's comment says for which password it was made, by digests that tell nothing: 256 random bits cannot be guessed from them. So a killed call, a
store that was restored and a password that somebody changed are all seen, without a login to try.
"""

import hashlib
import secrets
from typing import Any

from psycopg2.extensions import encrypt_password

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.offboarded import find_offboarding
from fabric_assets.security.roles.catalog import RoleState
from fabric_assets.security.roles.estate import Estate
from fabric_assets.security.roles.steps import MARK, VERIFIER, quote_text
from fabric_assets.security.secrets import list_secrets, resolve_secret, write_secret
from fabric_assets.settings import Settings

_BYTES = 32


class Logins:
    """The sealed logins of tenants."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def find_offboarding(self, tenant: str) -> str:
        """Say in words that the tenant has gone, or goes; empty where it does not: one who has gone gets no login."""
        found = find_offboarding(tenant, self._settings.data_dir)
        return f"tenant {tenant} {found[0]}" if found else ""

    def has(self, estate: Estate, role: RoleState) -> bool:
        """Whether the role was made for the password that is sealed, and has had no other since.

        Raises:
            SecretError: the sealed store cannot be read.
        """
        password = self._find(estate.tenant)
        if password is None:
            return False
        head, _, verifier = role.mark.rpartition(" ")
        return head == _begin_mark(password) and role.verifier in (None, verifier)

    def fill(self, statements: list[str], estate: Estate, connection: Any) -> list[str]:
        """Put the tenant's password where it belongs in the statements; a new one is sealed first.

        Args:
            connection: of the server, whose rules the verifier follows.
        """
        password = self._find(estate.tenant)
        if password is None:
            password = secrets.token_urlsafe(_BYTES)
            write_secret(estate.tenant, naming.WAREHOUSE_LOGIN, password, settings=self._settings)
        verifier = encrypt_password(password, estate.owner, scope=connection, algorithm="scram-sha-256")
        mark = f"{_begin_mark(password)} {_digest(verifier)}"
        return [statement.replace(VERIFIER, quote_text(verifier)).replace(MARK, quote_text(mark)) for statement in statements]

    def _find(self, tenant: str) -> str | None:
        if naming.WAREHOUSE_LOGIN not in list_secrets(tenant, settings=self._settings):
            return None
        return resolve_secret(SecretRef(secret=naming.WAREHOUSE_LOGIN), tenant=tenant, settings=self._settings)


def _begin_mark(password: str) -> str:
    return f"ETL Fabric: the tenant's login {_digest(password)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
