"""A SecretRef -> its value, and the sealed store behind `{secret: NAME}`.

The tenant's and the secret's name are sealed with the value. A Fernet token does not say to whom it belongs, so without them a token that was copied into
another tenant's file would open there. No message of this module holds a value, a key or a token.
"""

import json
import os
import stat

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.errors import ConfigurationError, SecretError
from fabric_assets.security.redaction import hide
from fabric_assets.security.token_files import locked, read_tokens, write_tokens
from fabric_assets.settings import Settings
from fabric_assets.suggestions import suggest

MAXIMUM_BYTES = 64 * 1024


def resolve_secret(ref: SecretRef, *, tenant: str, settings: Settings, hidden: bool = True) -> str:
    """Read the value that a reference points at, and mask it in all that this process shows from then on.

    Args:
        hidden: False for an address without credentials, which messages should show.

    Raises:
        SecretError: the value does not exist, or may not or cannot be read.
    """
    try:
        if ref.env is not None:
            value = _read_variable(ref.env, tenant)
        elif ref.file is not None:
            value = _read_file(ref.file, tenant, settings)
        else:
            value = _unseal(ref.secret or "", tenant, settings)
    except SecretError as error:
        error.reference = next((key, name) for key, name in ref if name is not None)
        raise
    if hidden:
        hide(value)
    return value


def write_secret(tenant: str, name: str, value: str, *, settings: Settings) -> None:
    """Seal a value under a name, replacing an existing one.

    Raises:
        ConfigurationError: the name is not valid, the value is empty or too long, there are no keys, or the tenant was offboarded.
    """
    check_names(tenant, name)
    if not value:
        raise SecretError(f"tenant {tenant}, secret {name}: the value is empty", remedy="give the value on standard input or at the prompt")
    if len(value.encode()) > MAXIMUM_BYTES:
        raise SecretError(f"tenant {tenant}, secret {name}: the value is longer than {MAXIMUM_BYTES} bytes")
    hide(value)
    payload = json.dumps({"tenant": tenant, "name": name, "value": value})
    token = _get_fernet(settings, f"tenant {tenant}, secret {name}").encrypt(payload.encode()).decode()
    with locked(tenant, settings):
        write_tokens(tenant, {**read_tokens(tenant, settings), name: token}, settings)


def list_secrets(tenant: str, *, settings: Settings) -> tuple[str, ...]:
    """List the names of the tenant's sealed secrets, sorted. This needs no key."""
    check_names(tenant)
    return tuple(sorted(read_tokens(tenant, settings)))


def list_sealed_tenants(settings: Settings) -> tuple[str, ...]:
    """List the tenants that have sealed secrets, sorted."""
    folder = naming.sealed_secrets_file(settings.data_dir, "any").parent
    return tuple(sorted(file.stem for file in folder.glob("*.json") if naming.get_tenant_name_error(file.stem) is None))


def remove_secret(tenant: str, name: str, *, settings: Settings) -> None:
    """Remove a sealed value.

    Raises:
        SecretError: no secret has that name.
    """
    check_names(tenant, name)
    with locked(tenant, settings):
        tokens = read_tokens(tenant, settings)
        if name not in tokens:
            raise SecretError(f"tenant {tenant} has no sealed secret {name}{suggest(name, tokens)}")
        write_tokens(tenant, {other: token for other, token in tokens.items() if other != name}, settings)


def _read_variable(name: str, tenant: str) -> str:
    where = f"tenant {tenant}: environment variable {name}"
    if name.startswith(naming.PLATFORM_VARIABLES):
        raise SecretError(f"{where} belongs to the platform and is never given to a source", remedy="name a variable of the tenant's own")
    if value := os.environ.get(name):
        return value
    if name in os.environ:
        raise SecretError(
            f"{where} is empty", remedy=f"give {name} a value where the load runs, or unset it there: a variable that is set, even empty, wins over .env"
        )
    raise SecretError(f"{where} is not set", remedy=f"set {name} where the load runs, or add it to .env for local work")


def _read_file(name: str, tenant: str, settings: Settings) -> str:
    where = f"tenant {tenant}: secret file {name}"
    remedy = f"write the value into {name} below FABRIC_DATA_DIR ({settings.data_dir})"
    try:
        root = settings.data_dir.resolve()
        real = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise SecretError(f"{where} cannot be read: {_describe(error)}", remedy=remedy) from None
    # Otherwise a tenant's YAML could read any file of the machine, or another tenant's rows. A mounted secret belongs below the data directory.
    if not real.is_relative_to(root) or real == root or real.relative_to(root).parts[0] in naming.SECRETLESS_FOLDERS:
        raise SecretError(
            f"{where} must lie below FABRIC_DATA_DIR, links followed, and outside of {', '.join(sorted(naming.SECRETLESS_FOLDERS))}", remedy=remedy
        )
    try:
        # Without O_NONBLOCK, opening a pipe would wait forever for a writer.
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SecretError(f"{where} is no regular file", remedy=remedy)
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{where} cannot be read: {_describe(error)}", remedy=remedy) from None
    if len(content) > MAXIMUM_BYTES:
        raise SecretError(f"{where} is larger than {MAXIMUM_BYTES} bytes", remedy=remedy)
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{where} is no UTF-8 text", remedy=remedy) from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SecretError(f"{where} is empty", remedy=remedy)
    return value


def _describe(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "no path, or links in a circle"


# --- the sealed store


def _unseal(name: str, tenant: str, settings: Settings) -> str:
    check_names(tenant, name)
    where = f"tenant {tenant}, secret {name}"
    tokens = read_tokens(tenant, settings)
    if name not in tokens:
        raise SecretError(f"{where} is not in the sealed store{suggest(name, tokens)}", remedy=f"fabric secrets set {tenant} {name}")
    return open_token(_get_fernet(settings, where), tokens[name], tenant, name)


def open_token(fernet: Fernet | MultiFernet, token: str, tenant: str, name: str) -> str:
    """Open the token of a secret.

    Raises:
        SecretError: no key opens it, or it was sealed for another tenant or secret.
    """
    where, again = f"tenant {tenant}, secret {name}", f"seal it again: fabric secrets set {tenant} {name}"
    try:
        payload = json.loads(fernet.decrypt(token))
    except (InvalidToken, ValueError):
        raise SecretError(
            f"{where} cannot be opened with any of the FABRIC_SECRET_KEYS: the key is another one, or the sealed value was changed or cut",
            remedy=f"add the key that sealed it to FABRIC_SECRET_KEYS, or {again}",
        ) from None
    if not isinstance(payload, dict) or (payload.get("tenant"), payload.get("name")) != (tenant, name):
        raise SecretError(f"{where} holds a value that was sealed for another tenant or secret: the store was tampered with", remedy=again)
    return payload["value"]


def _get_fernet(settings: Settings, where: str) -> MultiFernet:
    return MultiFernet(get_fernets(settings, where))


def get_fernets(settings: Settings, where: str) -> list[Fernet]:
    """Build the keys, the newest first.

    Raises:
        SecretError: no key is set, or one is not valid.
    """
    hide(*settings.secret_keys)
    # Needs no package of the project: `python3` on the path is seldom the project's own.
    remedy = 'make a key with: python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
    if not settings.secret_keys:
        raise SecretError(f"{where}: the sealed store needs FABRIC_SECRET_KEYS, which is not set", remedy=f"set it to the store's key; to begin, {remedy}")
    fernets = []
    for position, key in enumerate(settings.secret_keys, start=1):
        try:
            fernets.append(Fernet(key))
        except ValueError:
            raise SecretError(f"{where}: key {position} of FABRIC_SECRET_KEYS is not a Fernet key (32 bytes, base64url)", remedy=remedy) from None
    return fernets


def check_names(tenant: str, name: str | None = None) -> None:
    """Check the names of a tenant and of a secret.

    Raises:
        ConfigurationError: a name is not valid.
    """
    if error := naming.get_tenant_name_error(tenant):
        raise ConfigurationError(f"tenant name {tenant!r} {error}")
    if name is not None and (error := naming.get_name_error(name)):
        raise ConfigurationError(f"tenant {tenant}: secret name {name!r} {error}")
