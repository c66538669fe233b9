"""A tenant's own seeds -> copies in the run's folder, which dbt reads instead of the files themselves.

dbt reads a seed's file while it builds, so after the check of the tenant's folder. A file that a link has replaced meanwhile could be any file of this machine.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from dbt.contracts.graph.manifest import Manifest

from fabric_assets.errors import ConfigurationError
from fabric_assets.private_files import make_private_folder
from fabric_assets.transform.worker.dbt_call import SEED_COPIES
from fabric_assets.transform.worker.manifest import get_owner
from fabric_assets.transform.worker.parse.own_files import MOST_SEED_MEGABYTES

# The folder of one tenant's seeds: seeds, tenants, its name. Links in the rest of a path are refused.
_OWN_PARTS = 3


def copy_own_seeds(manifest: Manifest, selected: Collection[str], *, project: Path, folder: Path) -> None:
    """Copy the own seeds among the selected nodes, and let their nodes name the copies.

    Args:
        folder: the run's own.

    Raises:
        ConfigurationError: a file is not what it was when the project was parsed.
    """
    for unique_id in selected:
        node = manifest.nodes.get(unique_id)
        if node is None or node.resource_type != "seed" or get_owner(node.original_file_path) is None:
            continue
        copy = folder / SEED_COPIES / node.original_file_path
        make_private_folder(copy.parent)
        copy.write_bytes(_read(project, node.original_file_path))
        node.original_file_path = str(copy)


def _read(project: Path, file: str) -> bytes:
    parts = PurePosixPath(file).parts
    handles = list[int]()
    most = MOST_SEED_MEGABYTES * 2**20
    try:
        handles.append(os.open(project.joinpath(*parts[:_OWN_PARTS]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts[_OWN_PARTS:-1]:
            handles.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=handles[-1]))
        # Without O_NONBLOCK, opening a pipe that has replaced the file would wait.
        handles.append(os.open(parts[-1], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handles[-1]))
        is_file = stat.S_ISREG(os.fstat(handles[-1]).st_mode)
        content = _read_at_most(handles[-1], most + 1) if is_file else b""
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}", remedy=f"put the file itself there, of at most {MOST_SEED_MEGABYTES} MB") from None
    finally:
        for handle in handles:
            os.close(handle)
    if not is_file or len(content) > most:
        raise ConfigurationError(f"{file} is not a regular file of at most {MOST_SEED_MEGABYTES} MB", remedy="put such a file there")
    return content


def _read_at_most(handle: int, size: int) -> bytes:
    with os.fdopen(os.dup(handle), "rb") as stream:
        return stream.read(size)
