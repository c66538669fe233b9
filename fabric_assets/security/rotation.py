"""A tenant's sealed store under older keys -> the same store under the newest one.

A tenant's file is replaced atomically, so a killed rotation leaves each file either unchanged or wholly rotated. With both keys set, either file opens, and
the next call does the rest. A token is done if the newest key opens it.
"""

from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from fabric_assets.errors import ConfigurationError, SecretError
from fabric_assets.security.secrets import check_names, get_fernets, open_token
from fabric_assets.security.token_files import locked, read_tokens, write_tokens
from fabric_assets.settings import Settings


@dataclass(frozen=True)
class Rotation:
    """The result for one tenant's store.

    Args:
        rotated: secrets that are now sealed with the newest key.
        current: secrets that already were.
        failed: secrets that are unchanged -> the reason; an empty name stands for the whole file.
    """

    tenant: str
    rotated: tuple[str, ...] = ()
    current: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


def rotate_secrets(tenant: str, *, settings: Settings) -> Rotation:
    """Seal with the newest key what older keys have sealed. A value that cannot be opened, or that was sealed for another secret, is reported and stays.

    Raises:
        ConfigurationError: the tenant's name is not valid.
        SecretError: there are no keys.
    """
    check_names(tenant)
    newest, *_ = fernets = get_fernets(settings, f"tenant {tenant}")
    every = MultiFernet(fernets)
    rotated, current, failed = dict[str, str](), list[str](), dict[str, str]()
    try:
        if not read_tokens(tenant, settings):
            return Rotation(tenant)
        with locked(tenant, settings):
            tokens = read_tokens(tenant, settings)
            for name, token in sorted(tokens.items()):
                try:
                    # Opened first: otherwise the token of another secret would be sealed as this one.
                    open_token(every, token, tenant, name)
                except SecretError as error:
                    failed[name] = str(error)
                    continue
                if _opens(newest, token):
                    current.append(name)
                else:
                    rotated[name] = every.rotate(token).decode()
            if rotated:
                write_tokens(tenant, tokens | rotated, settings)
    except ConfigurationError as error:  # the store's, or the tenant's that is being offboarded
        failed[""] = str(error)
    return Rotation(tenant, tuple(rotated), tuple(current), failed)


def needs_older_keys(tenant: str, *, settings: Settings) -> bool:
    """Whether the newest key alone would not open all of a tenant's store."""
    newest = get_fernets(settings, f"tenant {tenant}")[0]
    try:
        return not all(_opens(newest, token) for token in read_tokens(tenant, settings).values())
    except SecretError:
        return True


def _opens(fernet: Fernet, token: str) -> bool:
    try:
        fernet.decrypt(token)
    except InvalidToken:
        return False
    return True
