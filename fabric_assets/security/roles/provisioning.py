"""Steps -> roles, databases, schemas and rights on the server, in a few transactions of many tenants each.

The server is surveyed again afterwards, because Postgres only warns where a login may not grant or revoke a right. A killed call leaves whole transactions
behind it, and the next call finds the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2

from fabric_assets.quoting import quote
from fabric_assets.security.roles.entitlements import ServerEntitlements
from fabric_assets.security.roles.logins import Logins
from fabric_assets.security.roles.server import Server
from fabric_assets.security.roles.steps import Step
from fabric_assets.security.roles.survey import survey

# Tenants of one transaction. Each schema and role that it creates needs a lock until its end, and a server has room for a few thousand.
_BATCH = 50


@dataclass(frozen=True)
class Provisioned:
    """The result of a provisioning.

    Args:
        done: findings that were fixed.
        left: findings that remain, each with the server's reason where it gave one.
    """

    done: tuple[Step, ...]
    left: tuple[tuple[Step, str], ...]


def provision(server: Server, all_entitlements: Sequence[ServerEntitlements], logins: Logins, *, fix: bool = False) -> Provisioned:
    """Create what is missing.

    Args:
        fix: whether to remove surplus rights and objects as well.

    Raises:
        SecretError: the sealed store cannot be read or written.
    """
    found = survey(server, all_entitlements, logins)
    wanted = [step for step in found if step.statements and (fix or step.kind == "missing")]
    if not wanted:
        return Provisioned((), tuple((step, "") for step in found))
    reasons = _Applying(server, all_entitlements, logins).apply(wanted)
    left = {(step.tenant, step.finding): step for step in survey(server, all_entitlements, logins)}
    done = tuple(step for step in wanted if (step.tenant, step.finding) not in left)
    # Where a login may not grant or revoke a right that others granted, Postgres does nothing and warns.
    tried = dict.fromkeys(((step.tenant, step.finding) for step in wanted), f"{server.user} may not change it") | reasons
    return Provisioned(done, tuple((step, tried.get(key, "")) for key, step in left.items()))


class _Applying:
    """Runs steps, and keeps the reasons for which the server refused some."""

    def __init__(self, server: Server, all_entitlements: Sequence[ServerEntitlements], logins: Logins) -> None:
        self._server, self._logins = server, logins
        self._entitlements = {entitlements.tenant: entitlements for entitlements in all_entitlements}
        self._reasons: dict[tuple[str, str], str] = {}

    def apply(self, steps: Sequence[Step]) -> dict[tuple[str, str], str]:
        """Run the steps, and give the server's reason for each one that it refused."""
        for step in steps:
            if step.makes_database:
                self._attempt([step], "")
        unmade = {step.database: reason for step in steps if step.makes_database and (reason := self._reasons.get((step.tenant, step.finding)))}
        self._reasons |= {(step.tenant, step.finding): unmade[step.database] for step in steps if step.database in unmade}
        by_tenant: dict[str, list[Step]] = {}
        for step in steps:
            if not step.makes_database and step.database not in unmade:
                by_tenant.setdefault(step.tenant, []).append(step)
        tenants = [name for name in by_tenant if name]
        for batch in [[""], *(tenants[start : start + _BATCH] for start in range(0, len(tenants), _BATCH))]:
            by_database: dict[str, list[Step]] = {"": []}
            for tenant in batch:
                for step in by_tenant.get(tenant, ()):
                    by_database.setdefault(step.database, []).append(step)
            for database, together in by_database.items():
                self._attempt(together, database)
        return self._reasons

    def _attempt(self, steps: Sequence[Step], database: str) -> None:
        """Run steps together. If the server refuses one, run each by itself, so that the others are done."""
        # Checked while the server's lock is held: an offboarding acquires it too, after it has set its mark, and then finds what was created before.
        gone = {tenant: reason for tenant in {step.tenant for step in steps} if tenant and (reason := self._logins.find_offboarding(tenant))}
        self._reasons |= {(step.tenant, step.finding): gone[step.tenant] for step in steps if step.tenant in gone}
        steps = [step for step in steps if step.tenant not in gone]
        if not steps:
            return
        connection = self._server.get(database or self._server.login.database)
        try:
            self._server.run(self._build(steps, connection), database=database)
        except psycopg2.Error as error:
            if connection.closed:
                raise
            if len(steps) == 1:
                self._reasons[steps[0].tenant, steps[0].finding] = error.diag.message_primary or "the server refuses it"
                return
            for step in steps:
                self._attempt([step], database)

    def _build(self, steps: Sequence[Step], connection: Any) -> list[str]:
        statements: list[str] = []
        for step in steps:
            filled = self._logins.fill(list(step.statements), self._entitlements[step.tenant], step.login, connection) if step.login else step.statements
            statements += filled
        if self._server.is_superuser or not any(step.tenant and step.database and not step.makes_database for step in steps):
            return statements
        return act_as(self._server, [self._entitlements[tenant].owner for tenant in dict.fromkeys(step.tenant for step in steps)], statements)


def act_as(server: Server, owners: Sequence[str], statements: Sequence[str]) -> list[str]:
    """Let a login that is not a superuser act as tenants' roles, for the one transaction of these statements."""
    names, me = ", ".join(quote(owner) for owner in owners), quote(server.user)
    how = " with inherit true, set true" if server.version >= 160000 else ""
    return [f"grant {names} to {me}{how}", *statements, f"revoke {names} from {me}"]
