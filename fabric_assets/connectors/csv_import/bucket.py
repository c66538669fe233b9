"""An inbox in a bucket: lists its files, reads them, and moves them away."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fabric_assets.connectors.csv_import.inbox import DONE_SUFFIX, UNPRINTABLE, Inbox, InboxFile, Listing, is_hidden, spell_glob
from fabric_assets.errors import SourceError, SourceUnavailable
from fabric_assets.rows.imported_file import REASON_SUFFIX


class BucketInbox(Inbox):
    """An inbox in a bucket, where a file appears only when it is complete.

    Args:
        bucket: fsspec's file system.
        base: bucket and prefix.
        where: tenant and source, for messages.
    """

    def __init__(self, bucket: Any, base: str, where: str) -> None:
        self._bucket, self._base, self._where = bucket, base, where

    def find_all(self, glob: str) -> Listing:
        with self._reached():
            patterns = [f"{self._base}/{pattern}" for pattern in spell_glob(glob)]
            found = {path: info for pattern in patterns for path, info in self._bucket.glob(pattern, detail=True).items()}
            marks = [path for pattern in patterns for path in self._bucket.glob(f"{pattern}{DONE_SUFFIX}")]
        files, refused = list[InboxFile](), dict[str, str]()
        for path, info in found.items():
            name = path.removeprefix(self._base).lstrip("/")
            if info["type"] != "file" or is_hidden(name):
                continue
            if ".." in PurePosixPath(name).parts or "//" in name or UNPRINTABLE.search(name):
                refused[ascii(name)] = "its name is not a path below the source's path"
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

    def move(self, name: str, version: str, target: str, *, reason: str | None = None) -> None:
        with self._reached():
            if reason is not None:
                self._bucket.pipe_file(f"{self._base}/{target}{REASON_SUFFIX}", reason.encode())
            # Copied before it is removed. If the load is killed in between, the file lies at both paths, and the next load removes it here.
            if self.holds(name, version):
                self._bucket.cp_file(f"{self._base}/{name}", f"{self._base}/{target}")
        if self.holds(name, version):
            self.remove(name)
            self.remove(f"{name}{DONE_SUFFIX}")

    def put_back(self, stored: str, name: str, *, mark: bool) -> None:
        there, held = self.find(name), self.find(stored)
        if there and held and there.version != held.version:
            raise FileExistsError(name)
        with self._reached():
            self._bucket.cp_file(f"{self._base}/{stored}", f"{self._base}/{name}")
            if mark:
                self._bucket.pipe_file(f"{self._base}/{name}{DONE_SUFFIX}", b"")
        self.remove(stored)

    def remove(self, name: str) -> None:
        with self._reached():
            if self._bucket.exists(f"{self._base}/{name}"):
                self._bucket.rm_file(f"{self._base}/{name}")

    def fetch(self, file: InboxFile, path: Path) -> str:
        # A bucket that does not answer is not an error of the file.
        with self._reached():
            return super().fetch(file, path)

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
            raise SourceError(f"{self._where}: the bucket refuses: {error}", remedy="its login must be allowed to list, read, write and delete") from None
        except (BotoCoreError, ClientError, OSError) as error:
            raise SourceUnavailable(f"{self._where}: the bucket cannot be reached: {error}", remedy="check the network, and the credentials") from None


def _describe(name: str, info: dict[str, Any]) -> InboxFile:
    modified = info.get("LastModified") or info.get("last_modified") or info.get("mtime") or info.get("updated")
    moment = modified if isinstance(modified, datetime) else datetime.fromtimestamp(0, UTC)
    return InboxFile(name, f"{info['size']}-{info.get('ETag') or info.get('etag') or moment.timestamp()}", info["size"], moment)
