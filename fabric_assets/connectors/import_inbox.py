"""The folder or bucket that people drop files into: what lies there, its bytes, and moving a file out of the way.

Whoever drops files is not trusted with what a name stands for: only regular files below the path count, reached by no symlink.
"""

import contextlib
import hashlib
import os
import re
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fabric_assets.config.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.file_listing import get_folder, open_bucket
from fabric_assets.connectors.imported_file import ARCHIVE, QUARANTINE, REASON_SUFFIX
from fabric_assets.errors import SourceError, SourceUnavailable
from fabric_assets.private_files import make_private_folder, write_atomically

DONE_SUFFIX = ".done"
# A file that somebody still writes to changes its size or its time within so many seconds.
STABLE_SECONDS = 2.0
_CHUNK = 4 * 1024 * 1024
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class InboxFile:
    """Args:
    name: its path below the source's path.
    version: changes when its content may have.
    modified_at: by its own time, which a copy may keep.
    touched: when anything about it last changed, in seconds since the epoch; 0 where files appear whole, in a bucket.
    """

    name: str
    version: str
    size: int
    modified_at: datetime
    touched: float = 0.0


@dataclass
class Listing:
    """Args:
    refused: what matches but is no file that may be read, with the reason.
    done: files that somebody has marked as complete.
    """

    files: list[InboxFile] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    done: frozenset[str] = frozenset()


class Inbox(ABC):
    """Names are paths below the source's path, with slashes."""

    @abstractmethod
    def find_all(self, glob: str) -> Listing:
        """Find what matches, oldest first; nothing is opened."""

    @abstractmethod
    def find(self, name: str) -> InboxFile | None: ...

    @abstractmethod
    def move(self, name: str, version: str, place: str, *, reason: str | None = None) -> None:
        """Move a file, if it is still of this version, over what may lie there: a place is told apart by content.

        Args:
            reason: is laid beside it.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def _open(self, name: str) -> BinaryIO: ...

    def holds(self, name: str, version: str) -> bool:
        """Whether a file lies there unchanged."""
        found = self.find(name)
        return found is not None and found.version == version

    def fetch(self, file: InboxFile, path: Path) -> str:
        """Copy a file's bytes to a private path, that its hash and its rows may be of the same ones; gives the SHA-256.

        Raises:
            OSError: it cannot be read.
        """
        digest = hashlib.sha256()
        with self._open(file.name) as reader, path.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
        return digest.hexdigest()

    def list_ready(self, glob: str, ready: str) -> tuple[Listing, list[InboxFile]]:
        """What is complete, and what somebody may still be writing."""
        listing = self.find_all(glob)
        if ready == "done_file":
            return _split(listing, lambda file: file.name in listing.done)
        youngest = max((file.touched for file in listing.files), default=0.0)
        wait = STABLE_SECONDS - (time.time() - youngest)
        if wait <= 0:
            return listing, []
        # A time in the future, of another machine's clock, is not waited for.
        time.sleep(min(wait, STABLE_SECONDS))
        again = {file.name: file.version for file in self.find_all(glob).files}
        return _split(listing, lambda file: again.get(file.name) == file.version)


def _split(listing: Listing, is_ready: Callable[[InboxFile], bool]) -> tuple[Listing, list[InboxFile]]:
    ready = [file for file in listing.files if is_ready(file)]
    return Listing(ready, listing.refused, listing.done), [file for file in listing.files if not is_ready(file)]


def open_inbox(context: SourceContext) -> Inbox:
    """Open the source's inbox; a folder of ours that is missing is made.

    Raises:
        SourceError: the folder does not exist.
    """
    config, place = context.config, context.describe()
    assert isinstance(config, CsvImportSource)
    if "://" in config.path and not config.path.startswith("file://"):
        return BucketInbox(open_bucket(context, config, place), config.path.partition("://")[2].rstrip("/"), place)
    folder = get_folder(context, config, place)
    if not folder.is_dir():
        if Path(config.path.removeprefix("file://")).is_absolute():
            raise SourceError(f"{place}: the folder {config.path} does not exist", remedy="create or mount it, or correct the source's path")
        make_private_folder(folder)
    return FolderInbox(folder)


class FolderInbox(Inbox):
    """On this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_all(self, glob: str) -> Listing:
        files, refused = list[InboxFile](), dict[str, str]()
        for path in self._folder.glob(glob):
            name = path.relative_to(self._folder).as_posix()
            if _is_hidden(name):
                continue
            if reason := self._find_fault(path, name):
                refused[ascii(name)] = reason
            elif file := self.find(name):
                files.append(file)
        files.sort(key=lambda file: (file.modified_at, file.name))
        return Listing(files, refused, frozenset(file.name for file in files if (self._folder / f"{file.name}{DONE_SUFFIX}").is_file()))

    def find(self, name: str) -> InboxFile | None:
        try:
            facts = (self._folder / name).lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(facts.st_mode):
            return None
        modified = datetime.fromtimestamp(facts.st_mtime, UTC)
        return InboxFile(name, f"{facts.st_size}-{facts.st_mtime_ns}", facts.st_size, modified, max(facts.st_mtime, facts.st_ctime))

    def move(self, name: str, version: str, place: str, *, reason: str | None = None) -> None:
        source, target = self._folder / name, self._folder / place
        if not self.holds(name, version):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if reason is not None:
            write_atomically(self._folder / f"{place}{REASON_SUFFIX}", lambda file: file.write(reason.encode()))
        source.replace(target)
        if not self.holds(place, version):
            # Another file was dropped under the name in this very moment: it goes back, unless a third one has come.
            with contextlib.suppress(FileExistsError):
                os.link(target, source)
            return
        self.remove(f"{name}{DONE_SUFFIX}")

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _find_fault(self, path: Path, name: str) -> str:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a folder"
        if not stat.S_ISREG(mode) or path.parent.resolve() != path.parent:
            return "it is no regular file below the source's path, or a link leads there"
        return "its name holds characters that no name should" if _UNPRINTABLE.search(name) else ""

    def _open(self, name: str) -> BinaryIO:
        # Without O_NONBLOCK the opening of a pipe that has taken the file's place waits for a writer.
        descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is no regular file any more")
        return os.fdopen(descriptor, "rb")


class BucketInbox(Inbox):
    """In a bucket, where a file appears when it is whole.

    Args:
        bucket: fsspec's file system.
        base: bucket and prefix.
    """

    def __init__(self, bucket: Any, base: str, place: str) -> None:
        self._bucket, self._base, self._place = bucket, base, place

    def find_all(self, glob: str) -> Listing:
        with self._reached():
            found = self._bucket.glob(f"{self._base}/{glob}", detail=True)
            marks = self._bucket.glob(f"{self._base}/{glob}{DONE_SUFFIX}")
        files, refused = list[InboxFile](), dict[str, str]()
        for path, info in found.items():
            name = path.removeprefix(self._base).lstrip("/")
            if info["type"] != "file" or _is_hidden(name):
                continue
            if ".." in PurePosixPath(name).parts or "//" in name or _UNPRINTABLE.search(name):
                refused[ascii(name)] = "its name is no path below the source's path"
            else:
                files.append(_describe(name, info))
        files.sort(key=lambda file: (file.modified_at, file.name))
        return Listing(files, refused, frozenset(path.removeprefix(self._base).lstrip("/").removesuffix(DONE_SUFFIX) for path in marks))

    def find(self, name: str) -> InboxFile | None:
        try:
            with self._reached():
                return _describe(name, self._bucket.info(f"{self._base}/{name}"))
        except FileNotFoundError:
            return None

    def move(self, name: str, version: str, place: str, *, reason: str | None = None) -> None:
        with self._reached():
            if reason is not None:
                self._bucket.pipe_file(f"{self._base}/{place}{REASON_SUFFIX}", reason.encode())
            # Copied before it is removed: killed between the two, it lies in both places, and the next load removes it here.
            if self.holds(name, version):
                self._bucket.cp_file(f"{self._base}/{name}", f"{self._base}/{place}")
        if self.holds(name, version):
            self.remove(name)
            self.remove(f"{name}{DONE_SUFFIX}")

    def remove(self, name: str) -> None:
        with self._reached():
            if self._bucket.exists(f"{self._base}/{name}"):
                self._bucket.rm_file(f"{self._base}/{name}")

    def _open(self, name: str) -> BinaryIO:
        return self._bucket.open(f"{self._base}/{name}", "rb")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise SourceError(f"{self._place}: the bucket refuses: {error}", remedy="its login must be allowed to list, read, write and delete") from None
        except (BotoCoreError, ClientError, OSError) as error:
            raise SourceUnavailable(f"{self._place}: the bucket cannot be reached: {error}", remedy="check the network, and the credentials") from None


def _describe(name: str, info: dict[str, Any]) -> InboxFile:
    modified = info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("updated")
    moment = modified if isinstance(modified, datetime) else datetime.fromtimestamp(0, UTC)
    return InboxFile(name, f"{info['size']}-{info.get('ETag') or info.get('etag') or moment.timestamp()}", info["size"], moment)


def _is_hidden(name: str) -> bool:
    """Whether a name is not for us: hidden, a mark, or something that we have put away."""
    parts = PurePosixPath(name).parts
    return parts[0] in (ARCHIVE, QUARANTINE) or any(part.startswith(".") for part in parts) or name.endswith(DONE_SUFFIX)
