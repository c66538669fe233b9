"""A part of parsing -> its answer from a child process, which ends if a tenant's own files use too much processor time or memory.

All tenants' files are one project to dbt, so a loop in one tenant's Jinja would hold up everybody. So the functions of dbt that work on one file are measured.
The kernel ends the child whatever the file does, also within one long call of C.
"""

import ctypes
import json
import mmap
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from fabric_assets.errors import InternalError
from fabric_assets.own_faults import find_own_fault
from fabric_assets.transform.worker.manifest import get_owner

T = TypeVar("T")
_OUT_OF_MEMORY, _OWN_FAULT = 77, 78
_PAGE = mmap.PAGESIZE
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Limits:
    """The limits for parsing one tenant's own files.

    Args:
        seconds: processor time.
        megabytes: memory at once, beyond what the process uses already.
    """

    seconds: float
    megabytes: int

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class Stopped(Exception):
    """The error of a child that ended without an answer.

    Args:
        file: the tenant's file that it was working on; None if it was working on no tenant's file.
    """

    def __init__(self, file: str | None, reason: str) -> None:
        super().__init__(f"{file or 'the dbt project'}: {reason}")
        self.file = file


class Meter:
    """A meter of the child's work on tenants' own files, which also notes the current file, and the one at which dbt fails.

    Args:
        page: memory that is shared with the parent.
    """

    def __init__(self, limits: Limits, page: mmap.mmap) -> None:
        self._limits, self._page = limits, page
        self._left: dict[str, float] = {}
        self._is_inside = False
        self._failed: tuple[str, Exception] | None = None

    def note_failure(self, file: str, error: Exception) -> None:
        """Note the file at which an error came up. Some of dbt's messages name none."""
        if self._failed is None or self._failed[1] is not error:
            self._failed = file, error

    def find_file(self, error: BaseException | None) -> str:
        """Give the file at which an error came up; empty if that is not known."""
        return self._failed[0] if self._failed is not None and self._failed[1] is error else ""

    @contextmanager
    def measure(self, file: str) -> Iterator[None]:
        """Measure the block's work on a file. Shared files are not measured."""
        owner = get_owner(file)
        if owner is None or self._is_inside:
            yield
            return
        self._is_inside = True
        self._note(file)
        old = _limit_memory(self._limits.megabytes)
        signal.setitimer(signal.ITIMER_PROF, self._left.get(owner, self._limits.seconds))
        try:
            yield
        except Exception as error:
            if _is_out_of_memory(error):
                os._exit(_OUT_OF_MEMORY)
            raise
        finally:
            # Zero would switch the timer off.
            self._left[owner] = max(signal.setitimer(signal.ITIMER_PROF, 0)[0], 0.001)
            resource.setrlimit(resource.RLIMIT_AS, old)
            self._note("")
            self._is_inside = False

    def _note(self, file: str) -> None:
        self._page[:] = file.encode()[: _PAGE - 1].ljust(_PAGE, b"\0")


def run_limited(work: Callable[[Meter], T], limits: Limits, folder: Path) -> T:
    """Do the work in a child of this process. Its answer must be picklable.

    Args:
        folder: holds the answer.

    Raises:
        InternalError: the platform's own code failed, outside of tenants' files.
        Stopped: a tenant's file used too much, or ended the child in another way.
    """
    page, answer = mmap.mmap(-1, _PAGE), folder / "answer"
    answer.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(work, Meter(limits, page), answer)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        with answer.open("rb") as stream:
            return pickle.load(stream)  # noqa: S301 - this process's own child wrote it
    file = page[:].rstrip(b"\0").decode(errors="replace") or None
    if code == _OWN_FAULT and file is None:
        raise InternalError(**json.loads(answer.read_text()))
    raise Stopped(file, _describe(code, limits))


def _answer(work: Callable[[Meter], Any], meter: Meter, file: Path) -> None:
    """Do the work in the child, and exit. It never returns, because the rest of the stack is the parent's."""
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        found = work(meter)
        with file.open("wb") as stream:
            pickle.dump(found, stream, protocol=pickle.HIGHEST_PROTOCOL)
        code = 0
    except BaseException as error:  # noqa: BLE001 - this process ends here, and the parent says why
        traceback.print_exc()
        if fault := find_own_fault(error, "the parsing of the dbt project"):
            file.write_text(json.dumps({"message": fault.message, "remedy": fault.remedy, "traceback": fault.traceback}))
            code = _OWN_FAULT
    finally:
        sys.stderr.flush()
        os._exit(code)


def measure_dbt(meter: Meter) -> None:
    """Measure dbt's work on each file from now on in this process."""
    from dbt.parser import manifest, read_files
    from dbt.parser.base import BaseParser

    read_files.load_source_file = _measured(read_files.load_source_file, meter, lambda path, *_: path.original_file_path)
    manifest._process_docs_for_node = _measured(manifest._process_docs_for_node, meter, lambda _, node, *__: node.original_file_path)
    for kind in _list_classes(BaseParser):
        if "parse_file" in vars(kind):
            kind.parse_file = _measured(kind.parse_file, meter, lambda _, block, *__: block.path.original_file_path)


def _measured(function: Callable[..., Any], meter: Meter, get_file: Callable[..., str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        file = get_file(*arguments, *named.values())
        with meter.measure(file):
            try:
                return function(*arguments, **named)
            except Exception as error:
                meter.note_failure(file, error)
                raise

    return call


def _list_classes(base: type) -> list[Any]:
    return [base, *chain.from_iterable(map(_list_classes, base.__subclasses__()))]


def _limit_memory(megabytes: int) -> tuple[int, int]:
    """Limit the process's memory, and give the old limit. Nothing is limited on a machine that does not report the process's memory."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return old
    wanted = pages * _PAGE + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (wanted if old[0] == resource.RLIM_INFINITY else min(wanted, old[0]), old[1]))
    return old


def _is_out_of_memory(error: BaseException | None) -> bool:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _describe(code: int, limits: Limits) -> str:
    if code == -signal.SIGPROF:
        return f"takes more than {limits.seconds:g} s of processor time to parse"
    if code == _OUT_OF_MEMORY:
        return f"takes more than {limits.megabytes} MB of memory to parse"
    return f"ends dbt as it is parsed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
