"""A `files` source's path and a glob -> the matching files, each with a version that shows whether it has changed.

A local file is read without a copy, and refused if it changes meanwhile. An object of a bucket is first copied into the load's private
folder, so that its hash and its rows come from the same bytes.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.sources.files import FileStream
from fabric_assets.config.sources.models import FolderSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.local_paths import LocalPaths
from fabric_assets.connectors.parent_folder import open_parent
from fabric_assets.connectors.unfinished_files import is_unfinished
from fabric_assets.errors import ConfigurationError, DataError, RetriableError, SourceError, SourceUnavailable
from fabric_assets.visible import show_name

_EXTRAS = {"gs": "gcsfs", "az": "adlfs"}
# For a bucket elsewhere, S3 answers from here with the bucket's region.
_DEFAULT_REGION = "us-east-1"
_CHUNK = 4 * 1024 * 1024
_DESCRIPTORS = Path("/proc/self/fd")
_YOUNG_SECONDS = 2.0  # The resolution of times on some file systems.


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        name: its path below the source's path.
        version: differs if the content may have changed.
        modified: seconds since the epoch.
        open: opens its bytes.
        local: its path with links followed, for a file of this machine.
        former: its version in the form of an earlier release.
        is_young: it changed so recently that another change might have the same time.
    """

    name: str
    version: str
    size: int
    modified: float
    open: Callable[[], Any]
    local: Path | None = None
    former: str | None = None
    is_young: bool = False

    @property
    def shown(self) -> str:
        """The name, for a message."""
        return show_name(self.name)

    @property
    def kept_version(self) -> str:
        """The version to remember; empty if the next load must check the content."""
        return "" if self.is_young else self.version


class _ReplacedError(OSError):
    """The listed file has been replaced by another one."""


@dataclass(frozen=True)
class FetchedFile:
    """A file whose bytes are on this machine.

    Args:
        path: a name without special characters, in the load's private folder.
    """

    source: SourceFile
    path: Path
    sha256: str

    @contextlib.contextmanager
    def hold(self, where: str) -> Iterator[None]:
        """Make the path lead to the listed file, even if its name or a folder on its path is replaced meanwhile.

        Raises:
            RetriableError: the file is not the one that was hashed.
            SourceError: it cannot be opened any more.
        """
        if self.source.local is None or not _DESCRIPTORS.is_dir():
            yield
            return
        with _explain(self.source, where):
            opened = self.source.open()
        with opened:
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(_DESCRIPTORS / str(opened.fileno()))
            self.refuse_change(where)
            yield

    def refuse_change(self, where: str) -> None:
        """Raise a RetriableError where the file is not the one that was hashed."""
        local = self.source.local
        if local is not None and (not local.is_file() or _get_version(local.stat()) != self.source.version):
            raise _build_change_error(self.source, where)


def list_files(context: SourceContext[FolderSource], stream: FileStream, *, where: str) -> tuple[list[SourceFile], bool]:
    """Find the stream's files, sorted by name, and whether the source's path holds any file.

    Raises:
        ConfigurationError: this tenant must not read a file.
        SourceError: the path does not exist or may not be read.
        SourceUnavailable: the bucket cannot be reached.
    """
    config = context.config
    scheme, separator, rest = config.path.partition("://")
    if not separator or scheme == "file":
        folder, path = get_folder(context, config), rest if separator else config.path
        if not folder.is_dir():
            raise SourceError(
                f"{where}: the folder {path} does not exist", remedy="create it, or correct the source's path; relative paths count from FABRIC_DATA_DIR"
            )
        return _list_folder(folder, stream, where, context)
    return _list_bucket(open_bucket(context, config, where), rest.rstrip("/"), stream, where, context)


def fetch(file: SourceFile, folder: Path, number: int, *, most: int, where: str) -> FetchedFile:
    """Hash a file and give it a safe name; a file in a bucket is copied to it.

    Args:
        most: bytes that a file may have.

    Raises:
        DataError: it is larger, by its listing or while it is read.
        SourceError: it cannot be read.
    """
    digest, path, size = hashlib.sha256(), folder / f"{number}.data", file.size
    with _explain(file, where):
        refuse_size(size, most, f"{where}: the file {file.shown}")
        with file.open() as reader, contextlib.ExitStack() as writing:
            writer, size = None if file.local else writing.enter_context(path.open("wb")), 0
            while chunk := reader.read(_CHUNK):
                size += len(chunk)
                refuse_size(size, most, f"{where}: the file {file.shown}")
                digest.update(chunk)
                if writer:
                    writer.write(chunk)
    if file.local:
        path.symlink_to(file.local)
    return FetchedFile(file, path, digest.hexdigest())


@contextlib.contextmanager
def _explain(file: SourceFile, where: str) -> Iterator[None]:
    try:
        yield
    except _ReplacedError:
        raise _build_change_error(file, where) from None
    except OSError as error:
        raise SourceError(f"{where}: the file {file.shown} cannot be read: {error.strerror or error}", remedy="check the file's permissions") from None


def _build_change_error(file: SourceFile, where: str) -> RetriableError:
    return RetriableError(f"{where}: the file {file.shown} changed while it was read", remedy="try again when the program that writes it has finished")


def refuse_size(size: int, most: int, name: str) -> None:
    """Raise a DataError for a file of more than `most` bytes."""
    if size > most:
        raise DataError(f"{name} has more than {most:,} bytes", remedy="split it, or raise the source's limits.bytes")


def get_folder(context: SourceContext, config: FolderSource) -> Path:
    """The source's folder on this machine, which may not exist.

    Raises:
        ConfigurationError: this tenant must not read it.
    """
    paths, path = LocalPaths(context), config.path.removeprefix("file://")
    folder = (paths.data_dir / path).resolve()
    if folder == paths.data_dir:
        raise ConfigurationError(f"{context.describe()}: the path {path} holds the platform's own data", remedy="name a folder below FABRIC_DATA_DIR")
    paths.check(folder, path)
    return folder


def _list_folder(folder: Path, stream: FileStream, where: str, context: SourceContext) -> tuple[list[SourceFile], bool]:
    files, unfinished, paths = [], [], LocalPaths(context)
    for path in sorted(folder.glob(stream.glob)):
        if path.name.startswith(".") or path.is_dir():
            continue
        if is_unfinished(path.relative_to(folder).as_posix()):
            unfinished.append(path.name)
            continue
        real = Path(os.path.realpath(path))  # unlike `resolve`, also for a link to itself
        if not real.is_relative_to(folder) or not real.is_file():
            context.report(f"{where}: {path.name} is skipped: it is not a regular file below the source's path")
            continue
        paths.check(real.parent)
        files.append(_build_local(path.relative_to(folder).as_posix(), real, real.stat()))
    _report_unfinished(unfinished, context, where)
    return files, bool(files) or any(path.is_file() and not is_unfinished(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))


def _report_unfinished(names: Sequence[str], context: SourceContext, where: str) -> None:
    if names:
        context.report(f"{where}: {len(names)} files are skipped, because their names show that they are not complete: {names[0]}")


def _build_local(name: str, path: Path, facts: os.stat_result) -> SourceFile:
    def open_file() -> Any:
        with open_parent(path.parent, path.name) as (folder, own):
            # Without O_NONBLOCK, opening waits for a writer if a pipe has replaced the file.
            opened = os.fdopen(os.open(own, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb")
        if not os.path.samestat(os.fstat(opened.fileno()), facts):
            opened.close()
            raise _ReplacedError
        return opened

    former, is_young = f"{facts.st_size}-{facts.st_mtime_ns}", max(facts.st_mtime, facts.st_ctime) > time.time() - _YOUNG_SECONDS
    return SourceFile(name, _get_version(facts), facts.st_size, facts.st_mtime, open_file, path, former, is_young)


def _get_version(facts: os.stat_result) -> str:
    """Size and times. Copying programs set the modification time, but nobody can set the time of the last change of any kind."""
    return f"{facts.st_size}-{facts.st_mtime_ns}-{facts.st_ctime_ns}"


def open_bucket(context: SourceContext, config: FolderSource, where: str) -> Any:
    """The bucket's file system, which connects at its first use.

    Raises:
        ConfigurationError: its library is not installed.
    """
    import fsspec

    scheme = config.path.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if login := config.credentials:
        endpoint = login.endpoint_url if isinstance(login.endpoint_url, str | None) else context.resolve(login.endpoint_url, hidden=False).strip()
        # All options are given: fsspec reads missing ones from its own variables and files, and botocore from AWS_* and ~/.aws.
        options |= {
            "anon": False,
            "key": context.resolve(login.access_key_id).strip(),
            "secret": context.resolve(login.secret_access_key).strip(),
            **dict.fromkeys(("token", "username", "password", "profile", "session")),
            "endpoint_url": endpoint,
            "client_kwargs": {"region_name": login.region or _DEFAULT_REGION},
            "config_kwargs": {"ignore_configured_endpoint_urls": True},
        }
    try:
        return fsspec.filesystem({"az": "abfs"}.get(scheme, scheme), **options)
    except ImportError:
        raise ConfigurationError(f"{where}: {scheme}:// needs a library that is not installed", remedy=f"pip install {_EXTRAS.get(scheme, 's3fs')}") from None


def _list_bucket(bucket: Any, base: str, stream: FileStream, where: str, context: SourceContext) -> tuple[list[SourceFile], bool]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = bucket.glob(f"{base}/{stream.glob}", detail=True)
        infos = {name: info for name, info in found.items() if info["type"] == "file" and not name.rsplit("/", 1)[-1].startswith(".")}
        any_file = bool(infos) or bool(bucket.ls(base.split("/", 1)[0]))
        unfinished = [name for name in sorted(infos) if is_unfinished(name.removeprefix(base))]
    except (PermissionError, FileNotFoundError) as error:
        raise SourceError(
            f"{where}: the bucket {base.split('/', 1)[0]} refuses: {error}",
            remedy="check the source's path and credentials, and that they may list and read it",
        ) from None
    except (BotoCoreError, ClientError, OSError) as error:
        raise SourceUnavailable(f"{where}: the bucket cannot be reached: {error}", remedy="check the network, and the credentials' endpoint_url") from None
    _report_unfinished([name.rsplit("/", 1)[-1] for name in unfinished], context, where)
    files, any_file = [], any_file and len(unfinished) < max(len(infos), 1)
    for name, info in sorted(infos.items()):
        if name in unfinished:
            continue
        modified = info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("updated")
        version = f"{info['size']}-{info.get('ETag') or info.get('etag') or modified}"
        seconds = modified.timestamp() if hasattr(modified, "timestamp") else 0.0
        files.append(SourceFile(name.removeprefix(base).lstrip("/"), version, info["size"], seconds, _build_bucket_opener(bucket, name)))
    return files, any_file


def _build_bucket_opener(bucket: Any, name: str) -> Callable[[], Any]:
    return lambda: bucket.open(name, "rb")


def make_empty_folder(folder: Path) -> Path:
    """Make an empty folder that only its owner reads."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder
