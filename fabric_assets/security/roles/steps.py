"""A difference between what is and what should be -> its description, and the SQL that removes it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from fabric_assets.quoting import quote, quote_text
from fabric_assets.security.roles.entitlements import ServerEntitlements

# Placeholders for a password's verifier and for the comment that says which password it is. They are filled when the statement is sent, and never shown.
VERIFIER, MARK = "'***'", "'ETL Fabric: the tenant''s login ***'"
# missing: what a tenant needs; without statements, only a person can create it.
# surplus: what somebody has added, perhaps for a reason; only --fix removes it.
# unmendable: a person must look at it.
Kind = Literal["missing", "surplus", "unmendable"]

# Marks a right that its holder may pass on. It is listed beside the right itself, as REVOKE names it.
GRANT_OPTION = "GRANT OPTION FOR "


@dataclass(frozen=True)
class Step:
    """One finding, with the statements that fix it.

    Args:
        tenant: empty for a finding about the whole server.
        database: the one in which the statements run; empty for statements of the whole server.
        login: the role whose password replaces VERIFIER; empty for statements without a password.
        makes_database: whether it creates the database, which cannot be done in a transaction.
    """

    tenant: str
    finding: str
    statements: tuple[str, ...] = ()
    database: str = ""
    kind: Kind = "missing"
    login: str = ""
    makes_database: bool = False


def name_grantee(grantee: str) -> str:
    return "public" if grantee == "PUBLIC" else quote(grantee)


def name_who(grantee: str) -> str:
    return grantee if grantee == "PUBLIC" else f"role {grantee}"


def build_revokes(rights: Collection[str], target: str, grantee: str) -> tuple[str, ...]:
    """Write the statements that revoke rights, also from those to whom the grantee passed them on.

    Args:
        target: the object of the rights, as REVOKE names it.
    """
    whole = [right for right in rights if not right.startswith(GRANT_OPTION)]
    options = [option for right in rights if right.startswith(GRANT_OPTION) and (option := right.removeprefix(GRANT_OPTION)) not in whole]
    return tuple(
        f"revoke {what}{join(names).lower()} on {target} from {name_grantee(grantee)} cascade"
        for what, names in (("", whole), (GRANT_OPTION.lower(), options))
        if names
    )


def join(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def build_owner(entitlements: ServerEntitlements, *, limits_temp_files: bool) -> tuple[str, ...]:
    """Write the statements that create the role that owns the tenant's schemas."""
    role = quote(entitlements.owner)
    return (
        f"create role {role} login noinherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit {entitlements.connections}",
        *build_login(entitlements.owner),
        *(build_setting(entitlements, key) for key in entitlements.settings if limits_temp_files or key != "temp_file_limit"),
    )


def build_bi(entitlements: ServerEntitlements) -> tuple[str, ...]:
    """Write the statements that create the login that reads the tenant's schemas."""
    role = quote(entitlements.bi)
    return (
        f"create role {role} login inherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls",
        *build_login(entitlements.bi),
        f"alter role {role} set default_transaction_read_only = 'on'",
    )


def build_login(role: str) -> tuple[str, ...]:
    return f"alter role {quote(role)} password {VERIFIER}", f"comment on role {quote(role)} is {MARK}"


def build_setting(entitlements: ServerEntitlements, key: str) -> str:
    return f"alter role {quote(entitlements.owner)} set {key} = {quote_text(entitlements.settings[key])}"
