"""The folder or bucket that people drop files into: lists its files, reads them, and moves them away.

People who drop files are not trusted. Only regular files below the path count, and only if no symlink leads to them.
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fabric_assets.config.sources.imports import CsvImportSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.files.listing import get_folder, open_bucket
from fabric_assets.connectors.local_paths import LocalPaths
from fabric_assets.connectors.parent_folder import open_parent, write_whole
from fabric_assets.connectors.unfinished_files import is_unfinished
from fabric_assets.errors import SourceError
from fabric_assets.private_files import make_private_folder
from fabric_assets.rows.imported_file import ARCHIVE, QUARANTINE, REASON_SUFFIX

DONE_SUFFIX = ".done"
# A file that somebody is still writing changes its size or its time within this many seconds.
STABLE_SECONDS = 2.0
# A file that changed more recently than this is looked at twice. The clock may be another machine's.
_YOUNG_SECONDS = 60.0
_CHUNK = 4 * 1024 * 1024
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class InboxFile:
    """A file in an inbox.

    Args:
        name: its path below the source's path.
        version: differs if the content may have changed.
        modified_at: its modification time, which a copy may keep.
        touched: when anything about it last changed, in seconds since the epoch; 0 in a bucket, where files appear only when complete.
    """

    name: str
    version: str
    size: int
    modified_at: datetime
    touched: float = 0.0


@dataclass
class Listing:
    """The files of an inbox that match a glob.

    Args:
        refused: name -> why it may not be read, although it matches.
        done: files that somebody has marked as complete.
    """

    files: list[InboxFile] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    done: frozenset[str] = frozenset()


class Inbox(ABC):
    """A folder or bucket of dropped files. Names are paths below the source's path, with slashes."""

    @abstractmethod
    def find_all(self, glob: str) -> Listing:
        """Find the files that match, oldest first, without opening any."""

    @abstractmethod
    def find(self, name: str) -> InboxFile | None: ...

    @abstractmethod
    def move(self, name: str, version: str, target: str, *, reason: str | None = None) -> None:
        """Move a file, if it is still of this version. A file that lies at the target is overwritten.

        Args:
            target: names a folder and, by a part of its hash, the content.
            reason: text that is written into a file beside it.
        """

    @abstractmethod
    def put_back(self, stored: str, name: str, *, mark: bool) -> None:
        """Move a file that was put away back to where it was dropped. After an interruption it can be called again.

        Args:
            stored: its path in the archive or in quarantine.
            mark: create the marker of a complete file beside it.

        Raises:
            FileExistsError: another file has the name.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def _open(self, name: str) -> BinaryIO: ...

    def holds(self, name: str, version: str) -> bool:
        """Whether a file is still there, unchanged."""
        found = self.find(name)
        return found is not None and found.version == version

    def fetch(self, file: InboxFile, path: Path) -> str:
        """Copy a file's bytes to a private path, so that its hash and its rows come from the same bytes. Return the SHA-256.

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
        """List the files that are complete, and those that somebody may still be writing."""
        listing = self.find_all(glob)
        if ready == "done_file":
            return _split(listing, lambda file: file.name in listing.done)
        if max((file.touched for file in listing.files), default=0.0) < time.time() - _YOUNG_SECONDS:
            return listing, []
        time.sleep(STABLE_SECONDS)
        again = {file.name: file.version for file in self.find_all(glob).files}
        return _split(listing, lambda file: again.get(file.name) == file.version)


def _split(listing: Listing, is_ready: Callable[[InboxFile], bool]) -> tuple[Listing, list[InboxFile]]:
    ready = [file for file in listing.files if is_ready(file)]
    return Listing(ready, listing.refused, listing.done), [file for file in listing.files if not is_ready(file)]


def open_inbox(context: SourceContext[CsvImportSource]) -> Inbox:
    """Open the source's inbox. Create its folder if it is missing and lies in the data folder.

    Raises:
        ConfigurationError: no load of this tenant may read there.
        SourceError: the folder does not exist.
    """
    config, where = context.config, context.describe()
    if "://" in config.path and not config.path.startswith("file://"):
        from fabric_assets.connectors.csv_import.bucket import BucketInbox

        return BucketInbox(open_bucket(context, config, where), config.path.partition("://")[2].rstrip("/"), where)
    folder = get_folder(context, config)
    if not folder.is_dir():
        if Path(config.path.removeprefix("file://")).is_absolute():
            raise SourceError(f"{where}: the folder {config.path} does not exist", remedy="create or mount it, or correct the source's path")
        make_private_folder(folder)
    return FolderInbox(folder, LocalPaths(context))


class FolderInbox(Inbox):
    """An inbox on this machine."""

    def __init__(self, folder: Path, paths: LocalPaths) -> None:
        self._folder, self._paths = folder, paths

    def find_all(self, glob: str) -> Listing:
        files, refused = list[InboxFile](), dict[str, str]()
        for path in chain.from_iterable(self._folder.glob(pattern) for pattern in spell_glob(glob)):
            name = path.relative_to(self._folder).as_posix()
            if is_hidden(name):
                continue
            try:
                reason = self._find_fault(path, name)
            except FileNotFoundError:  # moved or removed meanwhile
                continue
            if reason:
                refused[ascii(name)] = reason
            elif file := self.find(name):
                self._paths.check(path.parent)
                files.append(file)
        files.sort(key=lambda file: (file.modified_at, file.name))
        return Listing(files, refused, frozenset(file.name for file in files if self._is_marked(file)))

    def find(self, name: str) -> InboxFile | None:
        facts = self._stat(name)
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        modified = datetime.fromtimestamp(facts.st_mtime, UTC)
        return InboxFile(name, _get_version(facts), facts.st_size, modified, max(facts.st_mtime, facts.st_ctime))

    def move(self, name: str, version: str, target: str, *, reason: str | None = None) -> None:
        with contextlib.ExitStack() as opened:
            try:
                here, old = opened.enter_context(open_parent(self._folder, name))
            except FileNotFoundError:
                return
            if not _holds(here, old, version):
                return
            there, new = opened.enter_context(open_parent(self._folder, target, make=True))
            if reason is not None:
                write_whole(there, f"{new}{REASON_SUFFIX}", reason)
            os.replace(old, new, src_dir_fd=here, dst_dir_fd=there)
            if not _holds(there, new, version):
                # Another file was dropped under the name just now: move it back, unless there is a third one already.
                with contextlib.suppress(FileExistsError):
                    os.link(new, old, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
                return
        self.remove(f"{name}{DONE_SUFFIX}")

    def _is_marked(self, file: InboxFile) -> bool:
        """Whether a file has a marker. A marker older than the file belongs to an earlier file, whose load was killed while it was put away."""
        # Most files have no mark.
        if (mark := self._stat(f"{file.name}{DONE_SUFFIX}")) is None or (facts := self._stat(file.name)) is None:
            return False
        return max(mark.st_mtime_ns, mark.st_ctime_ns) >= facts.st_mtime_ns or facts.st_mtime_ns > time.time_ns()

    def put_back(self, stored: str, name: str, *, mark: bool) -> None:
        with open_parent(self._folder, stored) as (there, old), open_parent(self._folder, name, make=True) as (here, new):
            # A link and not a renaming, which would overwrite a file that is dropped at the same time.
            try:
                os.link(old, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            except FileExistsError:
                if not os.path.samestat(*(os.stat(each, dir_fd=folder, follow_symlinks=False) for folder, each in ((there, old), (here, new)))):
                    raise
            if mark:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(f"{new}{DONE_SUFFIX}", flags, 0o600, dir_fd=here))
                os.utime(f"{new}{DONE_SUFFIX}", dir_fd=here, follow_symlinks=False)
        self.remove(stored)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), open_parent(self._folder, name) as (folder, own):
            os.unlink(own, dir_fd=folder)

    def _stat(self, name: str) -> os.stat_result | None:
        """The facts of a file that no link leads to; None if there is no such file."""
        try:
            with open_parent(self._folder, name) as (folder, own):
                return os.stat(own, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return None

    def _find_fault(self, path: Path, name: str) -> str:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a folder"
        if not stat.S_ISREG(mode) or path.parent.resolve() != path.parent:
            return "it is not a regular file below the source's path, or a link leads to it"
        return "its name holds characters that no name should" if UNPRINTABLE.search(name) else ""

    def _open(self, name: str) -> BinaryIO:
        # Without O_NONBLOCK, opening waits for a writer if a pipe has replaced the file.
        with open_parent(self._folder, name) as (folder, own):
            descriptor = os.open(own, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("it is no longer a regular file")
        return os.fdopen(descriptor, "rb")


def _get_version(facts: os.stat_result) -> str:
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _holds(folder: int, name: str, version: str) -> bool:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(facts.st_mode) and _get_version(facts) == version


def spell_glob(glob: str) -> list[str]:
    """The patterns for a glob: in upper and lower case, and with accents as one letter or as a separate mark (macOS)."""
    return [ignore_case(form) for form in dict.fromkeys(unicodedata.normalize(form, glob) for form in ("NFC", "NFD"))]


def ignore_case(glob: str) -> str:
    """`*.csv` -> `*.[cC][sS][vV]`: some programs write SPEND.CSV. Text in brackets stays as it is."""
    pieces = re.split(r"(\[[^]]*\])", glob)
    return "".join(piece if piece.startswith("[") else re.sub(r"[^\W\d_]", lambda found: _spell(found[0]), piece) for piece in pieces)


def _spell(letter: str) -> str:
    both = {letter.lower(), letter.upper()}
    return f"[{''.join(sorted(both))}]" if len(both) == 2 and all(len(case) == 1 for case in both) else letter


def is_hidden(name: str) -> bool:
    """Whether a name is to be ignored: hidden, a marker, an upload in progress, or a file that was put away."""
    parts = PurePosixPath(name).parts
    return parts[0] in (ARCHIVE, QUARANTINE) or any(part.startswith(".") for part in parts) or name.endswith(DONE_SUFFIX) or is_unfinished(name)
