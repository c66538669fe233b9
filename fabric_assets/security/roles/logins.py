"""A tenant -> the passwords of its two logins, the owner's and the reader's. They are random and are sealed before the role gets one. The server knows only
their verifiers.

The role's comment holds a digest of the password for which it was made. A digest reveals nothing: 256 random bits cannot be guessed from it. So a killed call,
a restored store and a changed password are all noticed without trying to log in.
"""

import hashlib
import secrets
from typing import Any

from psycopg2.extensions import encrypt_password

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.offboarded import find_offboarding
from fabric_assets.quoting import quote_text
from fabric_assets.security.roles.catalog import RoleState
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.steps import MARK, VERIFIER
from fabric_assets.security.secrets import list_secrets, resolve_secret, write_secret
from fabric_assets.settings import Settings

_BYTES = 32


class Logins:
    """The sealed logins of tenants."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def find_offboarding(self, tenant: str) -> str:
        """Describe the tenant's offboarding, in progress or done; empty for a tenant that stays. An offboarded tenant gets no login."""
        found = find_offboarding(tenant, self._settings.data_dir)
        return f"tenant {tenant} {found[0]}" if found else ""

    def has(self, entitlements: ServerEntitlements, name: str, role: RoleState) -> bool:
        """Whether a role was made with the sealed password, and still has it.

        Raises:
            SecretError: the sealed store cannot be read.
        """
        password = self._find(entitlements.tenant, _get_secret(entitlements, name))
        if password is None:
            return False
        head, _, verifier = role.mark.rpartition(" ")
        return head == _begin_mark(password) and role.verifier in (None, verifier)

    def fill(self, statements: list[str], entitlements: ServerEntitlements, name: str, connection: Any) -> list[str]:
        """Put a role's password into the statements; a new password is sealed first.

        Args:
            name: the role's.
            connection: to the server, whose rules the verifier follows.
        """
        secret = _get_secret(entitlements, name)
        password = self._find(entitlements.tenant, secret)
        if password is None:
            password = secrets.token_urlsafe(_BYTES)
            write_secret(entitlements.tenant, secret, password, settings=self._settings)
        verifier = encrypt_password(password, name, scope=connection, algorithm="scram-sha-256")
        mark = f"{_begin_mark(password)} {_digest(verifier)}"
        return [statement.replace(VERIFIER, quote_text(verifier)).replace(MARK, quote_text(mark)) for statement in statements]

    def _find(self, tenant: str, secret: str) -> str | None:
        if secret not in list_secrets(tenant, settings=self._settings):
            return None
        return resolve_secret(SecretRef(secret=secret), tenant=tenant, settings=self._settings)


def _get_secret(entitlements: ServerEntitlements, role: str) -> str:
    return naming.WAREHOUSE_READER if role == entitlements.bi else naming.WAREHOUSE_LOGIN


def _begin_mark(password: str) -> str:
    return f"ETL Fabric: the tenant's login {_digest(password)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
