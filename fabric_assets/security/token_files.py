"""The sealed store on the disk: per tenant a JSON file {"version": 1, "secrets": {name: token}} that only its owner may read.

`secrets.py` opens the tokens; nothing here knows a key.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fabric_assets import naming
from fabric_assets.errors import SecretError
from fabric_assets.offboarded import refuse_offboarded
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.settings import Settings

_DRAFT = ".draft"


def read_tokens(tenant: str, settings: Settings) -> dict[str, str]:
    """Read a tenant's tokens by the secrets' names; empty where it has no file.

    Raises:
        SecretError: the file cannot be read, or was not written by the platform.
    """
    file = naming.sealed_secrets_file(settings.data_dir, tenant)
    try:
        content = json.loads(file.read_bytes())
        tokens = content["secrets"] if content["version"] == 1 else None
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SecretError(f"tenant {tenant}: the sealed store {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        tokens = None
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise SecretError(f"tenant {tenant}: the sealed store {file} is damaged", remedy="restore it from a backup, or remove it and seal its secrets again")
    return tokens


def write_tokens(tenant: str, tokens: dict[str, str], settings: Settings) -> None:
    """Replace the file atomically: a reader sees the old or the new one, also after a crash. The caller holds the tenant's lock."""
    file = naming.sealed_secrets_file(settings.data_dir, tenant)
    for left in file.parent.glob(f".{tenant}.*{_DRAFT}"):  # by a writer that was killed; its tokens may be of a key that is to go
        left.unlink()
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{tenant}.", suffix=_DRAFT)  # 0600
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
def locked(tenant: str, settings: Settings, *, offboarding: bool = False) -> Iterator[None]:
    """Lock the tenant's file, so that nobody else writes it.

    Args:
        offboarding: True for the offboarding itself; all others are refused once it has begun.

    Raises:
        ConfigurationError: the tenant was offboarded, or its offboarding has begun.
    """
    if not offboarding:  # asked before, too: a lock file would be the first thing of it that is there again
        refuse_offboarded(tenant, settings.data_dir)
    folder = naming.sealed_secrets_file(settings.data_dir, tenant).parent
    make_private_folder(folder)
    folder.chmod(0o700)
    with FileLock(folder / f".{tenant}.lock"):
        # Asked with the lock in hand: who offboards takes it too, once the mark stands.
        if not offboarding:
            refuse_offboarded(tenant, settings.data_dir)
        yield
