"""A SecretRef -> its value, and the sealed store behind `{secret: NAME}`.

The tenant's and the secret's name are sealed in with the value: a Fernet token says nothing about where it belongs, so without
them a token copied into another tenant's file would open there. No message of this module holds a value, a key or a token.
"""

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.errors import ConfigurationError, SecretError
from fabric_assets.private_files import make_private_folder
from fabric_assets.settings import Settings

MAXIMUM_BYTES = 64 * 1024

# Folders of the data directory that hold other tenants' data.


def resolve_secret(ref: SecretRef, *, tenant: str, settings: Settings) -> str:
    """Read the value that a reference points at.

    Raises:
        SecretError: nothing is there, or it may not or cannot be read.
    """
    if ref.env is not None:
        return _read_variable(ref.env, tenant)
    if ref.file is not None:
        return _read_file(ref.file, tenant, settings)
    return _unseal(ref.secret or "", tenant, settings)


def write_secret(tenant: str, name: str, value: str, *, settings: Settings) -> None:
    """Seal a value under a name, over what was there.

    Raises:
        ConfigurationError: a bad name, an empty or too large value, no keys.
    """
    _check_names(tenant, name)
    if not value:
        raise SecretError(f"tenant {tenant}, secret {name}: the value is empty", remedy="give the value on standard input or at the prompt")
    if len(value.encode()) > MAXIMUM_BYTES:
        raise SecretError(f"tenant {tenant}, secret {name}: the value is longer than {MAXIMUM_BYTES} bytes")
    payload = json.dumps({"tenant": tenant, "name": name, "value": value})
    token = _get_fernet(settings, f"tenant {tenant}, secret {name}").encrypt(payload.encode()).decode()
    with _locked(tenant, settings):
        _write_tokens(tenant, {**_read_tokens(tenant, settings), name: token}, settings)


def list_secrets(tenant: str, *, settings: Settings) -> tuple[str, ...]:
    """Name the tenant's sealed secrets, sorted; needs no key."""
    _check_names(tenant)
    return tuple(sorted(_read_tokens(tenant, settings)))


def list_sealed_tenants(settings: Settings) -> tuple[str, ...]:
    """Name the tenants that have sealed secrets, sorted."""
    folder = naming.sealed_secrets_file(settings.data_dir, "any").parent
    return tuple(sorted(file.stem for file in folder.glob("*.json") if naming.get_tenant_name_error(file.stem) is None))


def remove_secret(tenant: str, name: str, *, settings: Settings) -> None:
    """Forget a sealed value.

    Raises:
        SecretError: there is none of that name.
    """
    _check_names(tenant, name)
    with _locked(tenant, settings):
        tokens = _read_tokens(tenant, settings)
        if name not in tokens:
            raise SecretError(f"tenant {tenant} has no sealed secret {name}; known: {', '.join(sorted(tokens)) or 'none'}")
        _write_tokens(tenant, {other: token for other, token in tokens.items() if other != name}, settings)


def _read_variable(name: str, tenant: str) -> str:
    place = f"tenant {tenant}: environment variable {name}"
    if name in naming.PLATFORM_VARIABLES:
        raise SecretError(f"{place} belongs to the platform and is never given to a source", remedy="name a variable of the tenant's own")
    if value := os.environ.get(name):
        return value
    state = "is empty" if name in os.environ else "is not set"
    raise SecretError(f"{place} {state}", remedy=f"set {name} where the load runs, or add it to .env for local work")


def _read_file(name: str, tenant: str, settings: Settings) -> str:
    place = f"tenant {tenant}: secret file {name}"
    remedy = f"write the value into {name} below FABRIC_DATA_DIR ({settings.data_dir})"
    try:
        root = settings.data_dir.resolve()
        real = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise SecretError(f"{place} cannot be read: {_describe(error)}", remedy=remedy) from None
    # Else a tenant's YAML could read any file of the machine, or another tenant's rows; a mounted secret belongs below the data directory.
    if not real.is_relative_to(root) or real == root or real.relative_to(root).parts[0] in naming.SECRETLESS_FOLDERS:
        raise SecretError(
            f"{place} must lie below FABRIC_DATA_DIR, links followed, and outside of {', '.join(sorted(naming.SECRETLESS_FOLDERS))}", remedy=remedy
        )
    try:
        # Without O_NONBLOCK opening a pipe would wait for a writer for ever.
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SecretError(f"{place} is no regular file", remedy=remedy)
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{place} cannot be read: {_describe(error)}", remedy=remedy) from None
    if len(content) > MAXIMUM_BYTES:
        raise SecretError(f"{place} is larger than {MAXIMUM_BYTES} bytes", remedy=remedy)
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{place} is no UTF-8 text", remedy=remedy) from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SecretError(f"{place} is empty", remedy=remedy)
    return value


def _describe(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "no path, or links in a circle"


# --- the sealed store: one JSON file per tenant, {"version": 1, "secrets": {name: token}}


def _unseal(name: str, tenant: str, settings: Settings) -> str:
    _check_names(tenant, name)
    place = f"tenant {tenant}, secret {name}"
    again = f"seal it again: fabric secrets set {tenant} {name}"
    tokens = _read_tokens(tenant, settings)
    if name not in tokens:
        raise SecretError(f"{place} is not in the sealed store; known: {', '.join(sorted(tokens)) or 'none'}", remedy=f"fabric secrets set {tenant} {name}")
    try:
        payload = json.loads(_get_fernet(settings, place).decrypt(tokens[name]))
    except InvalidToken:
        raise SecretError(
            f"{place} cannot be opened with any of the FABRIC_SECRET_KEYS: the key is another one, or the sealed value was changed",
            remedy=f"add the key that sealed it to FABRIC_SECRET_KEYS, or {again}",
        ) from None
    if (payload["tenant"], payload["name"]) != (tenant, name):
        raise SecretError(f"{place} holds a value that was sealed for another place: the store was tampered with", remedy=again)
    return payload["value"]


def _get_fernet(settings: Settings, place: str) -> MultiFernet:
    remedy = 'make a key with: python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
    if not settings.secret_keys:
        raise SecretError(f"{place}: the sealed store needs FABRIC_SECRET_KEYS, which is not set", remedy=f"set it to the store's key; to begin, {remedy}")
    fernets = []
    for position, key in enumerate(settings.secret_keys, start=1):
        try:
            fernets.append(Fernet(key))
        except ValueError:
            raise SecretError(f"{place}: key {position} of FABRIC_SECRET_KEYS is no Fernet key (32 bytes, base64url)", remedy=remedy) from None
    return MultiFernet(fernets)


def _check_names(tenant: str, name: str | None = None) -> None:
    if error := naming.get_tenant_name_error(tenant):
        raise ConfigurationError(f"tenant name {tenant!r} {error}")
    if name is not None and (error := naming.get_name_error(name)):
        raise ConfigurationError(f"tenant {tenant}: secret name {name!r} {error}")


def _read_tokens(tenant: str, settings: Settings) -> dict[str, str]:
    file = naming.sealed_secrets_file(settings.data_dir, tenant)
    try:
        content = json.loads(file.read_bytes())
        tokens = content["secrets"] if content["version"] == 1 else None
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SecretError(f"tenant {tenant}: the sealed store {file} cannot be read: {_describe(error)}") from None
    except (ValueError, KeyError, TypeError):
        tokens = None
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise SecretError(f"tenant {tenant}: the sealed store {file} is damaged", remedy="restore it from a backup, or remove it and seal its secrets again")
    return tokens


def _write_tokens(tenant: str, tokens: dict[str, str], settings: Settings) -> None:
    """Replace the file at one stroke: a reader sees the old or the new one, and so does a crash."""
    file = naming.sealed_secrets_file(settings.data_dir, tenant)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({"version": 1, "secrets": dict(sorted(tokens.items()))}, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(tenant: str, settings: Settings) -> Iterator[None]:
    folder = naming.sealed_secrets_file(settings.data_dir, tenant).parent
    make_private_folder(folder)
    folder.chmod(0o700)
    with os.fdopen(os.open(folder / f".{tenant}.lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
