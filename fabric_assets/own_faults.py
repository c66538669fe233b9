"""An exception that a mistake in our own code has raised -> an `InternalError`, and a file below FABRIC_DATA_DIR/errors with its masked traceback (ADR 0038).

Drivers raise `TypeError` and the like too. An exception is ours if the last line of its traceback, outside of Python's own library, is in this package.
"""

import logging
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fabric_assets import naming
from fabric_assets.errors import FabricError, InternalError
from fabric_assets.masking import mask
from fabric_assets.private_files import make_private_folder, write_atomically

# What Python raises for a mistake in a program.
_MISTAKES = (TypeError, AttributeError, LookupError, NameError, AssertionError)
# A missing key or index is often expected, and then has nothing to do with a later exception.
_NEVER_EXPECTED = (TypeError, AttributeError, NameError, AssertionError)
_PACKAGE = Path(__file__).resolve().parent
_LONGEST_REASON = 600
KEPT_DAYS, KEPT_FILES = 30, 200
ReportFault = Callable[[Exception, str], InternalError | None]
_log = logging.getLogger(__name__)


def report_own_fault(error: BaseException, where: str, *, data_dir: Path | None, tenant: str = "") -> InternalError | None:
    """Turn a mistake of our own code into an error of ours and keep its traceback; None for any other exception.

    Args:
        where: what the message begins with.
        data_dir: None if it is not known; the traceback is then logged as an error.
        tenant: the tenant whose work failed; empty for work of no single tenant.
    """
    fault = find_own_fault(error, where)
    if fault is not None:
        keep_traceback(fault, data_dir=data_dir, tenant=tenant)
    return fault


def find_own_fault(error: BaseException, where: str) -> InternalError | None:
    """Turn a mistake of our own code into an error of ours; None for any other exception.

    Args:
        where: what the message begins with.
    """
    for part in _list_parts(error):
        if (code_line := _find_own_line(part)) is not None:
            # Masked before it is cut, which could leave half of a secret.
            reason = mask(" ".join(str(part).split()))[:_LONGEST_REASON] or type(part).__name__
            return InternalError(f"{where}: a fault of ETL Fabric ({type(part).__name__} at {code_line}): {reason}", traceback=_format(error))
    return None


def is_own_fault(error: BaseException) -> bool:
    """Whether the exception itself, regardless of its causes, is a mistake of our own code."""
    return _find_own_line(error) is not None


def keep_traceback(error: FabricError, *, data_dir: Path | None, tenant: str = "") -> None:
    """Write the traceback of a fault of ours to the debug log and to a file, and name the file in the message. A second call does nothing.

    If the file cannot be written, the message says why, and the traceback is logged as an error.
    """
    if isinstance(error, InternalError) and not error.traceback:
        error.set_traceback(_format(error))
    if not error.traceback or error.is_kept:
        return
    error.is_kept = True
    if data_dir is None:
        _log.error("%s\n%s", error.message, error.traceback)
        return
    _log.debug("%s\n%s", error.message, error.traceback)
    try:
        file = _write(error, data_dir, tenant)
    except OSError as second:
        _log.error("%s\n%s", error.message, error.traceback)
        error.add_to_message(f" (its traceback is in the log: FABRIC_DATA_DIR/errors cannot be written: {second.strerror or second})")
        return
    error.traceback_file = shown = show_file(file, data_dir)
    error.add_to_message(f" (traceback: {shown})")
    prune_tracebacks(data_dir)


def prune_tracebacks(data_dir: Path) -> None:
    """Delete files that are older than 30 days; then, while more than 200 are left, the oldest file of the tenant with the most."""
    try:
        _prune(data_dir)
    except OSError as error:
        _log.warning("old files of FABRIC_DATA_DIR/errors cannot be deleted: %s", error.strerror or error)


def _prune(data_dir: Path) -> None:
    folders: dict[Path, list[tuple[float, Path]]] = {}
    for file in naming.errors_dir(data_dir).glob("*/*"):
        with suppress(FileNotFoundError):  # another process deletes at the same time
            folders.setdefault(file.parent, []).append((file.lstat().st_mtime, file))
    for files in folders.values():
        files.sort()
        while files and files[0][0] < time.time() - KEPT_DAYS * 86_400:
            files.pop(0)[1].unlink(missing_ok=True)
    while sum(map(len, folders.values())) > KEPT_FILES:
        largest = max(folders.values(), key=lambda files: (len(files), -files[0][0] if files else 0))
        largest.pop(0)[1].unlink(missing_ok=True)


def show_file(file: Path, data_dir: Path) -> str:
    """Write a path for a message: relative to the current folder, or else to FABRIC_DATA_DIR, so that a ledger does not show an operator's folders."""
    with suppress(ValueError, OSError):
        return str(file.relative_to(Path.cwd()))
    return f"FABRIC_DATA_DIR/{file.relative_to(data_dir)}"


def _write(error: FabricError, data_dir: Path, tenant: str) -> Path:
    folder = make_private_folder(naming.errors_dir(data_dir, tenant))
    now = datetime.now(UTC)
    # Two processes may fail in the same second.
    file = folder / f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.txt"
    lines = [
        f"time: {now:%Y-%m-%dT%H:%M:%SZ}",
        f"tenant: {tenant or '(no single one)'}",
        f"version: {_get_version()}",
        f"process: {os.getpid()}",
        f"error: {error.message}",
        "",
        error.traceback,
    ]
    write_atomically(file, lambda stream: stream.write("\n".join(lines).encode(errors="backslashreplace")))
    return file


def _get_version() -> str:
    try:
        return version("etl-fabric")
    except PackageNotFoundError:
        return "unknown"


def _list_parts(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then its causes: a driver's error may hide a mistake of ours, for example if a rollback fails after it."""
    yield error
    seen, current = {id(error)}, error
    while True:
        cause = current.__cause__
        following = cause or (None if current.__suppress_context__ else current.__context__)
        if following is None or id(following) in seen:
            return
        seen.add(id(following))
        if cause is not None or isinstance(following, _NEVER_EXPECTED):
            yield following
        current = following


def _find_own_line(error: BaseException) -> str | None:
    """Find the file and line of a mistake of ours; None for any other exception."""
    if not isinstance(error, _MISTAKES):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    # If Python's own library raises it for a wrong argument, the caller made the mistake.
    while frames and _is_in_library(frames[-1].filename):
        frames.pop()
    if not frames or _PACKAGE not in (file := Path(frames[-1].filename).resolve()).parents:
        return None
    return f"{file.relative_to(_PACKAGE.parent)}:{frames[-1].lineno}"


def _format(error: BaseException) -> str:
    """Format the traceback without local variables, which hold rows and secrets."""
    return "".join(traceback.format_exception(error))


def _is_in_library(name: str) -> bool:
    file = Path(name)
    if not file.is_absolute():
        return name.startswith("<frozen ")
    import sysconfig  # imported only for a fault: it would cost each start some milliseconds

    library, *installed = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
    parents = file.resolve().parents
    return library in parents and not any(folder in parents for folder in installed)
