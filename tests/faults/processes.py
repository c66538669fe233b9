"""A case -> a process that runs it (`tests.faults.runner`), and what it said."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.forks import get_server

SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    """Args:
    settings: tenants_dir, dbt_project_dir and data_dir.
    keys: of the sealed store.
    loads: keywords `tenant` (the YAML as a mapping), `source` and `streams`; several are loaded at once, by threads on a barrier.
    command: instead of loads: the arguments of `fabric`.
    kill: a point of the engine, see `runner._kill_at`.
    within: instead of a point: die at a random moment in so many seconds, drawn from `seed`.
    broken: name of a broken engine, see `breakages`.
    limits: resource limits by name.
    hold: seconds that each commit waits before it is made, so that two of them overlap.
    wait: begin only when released (`Process.go`), for processes on a barrier.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    loads: tuple[Mapping[str, Any], ...] = ()
    command: tuple[str, ...] = ()
    kill: str = ""
    seed: int = 0
    within: float | None = None
    broken: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    hold: float = 0.0
    wait: bool = False


class Process:
    """A case that runs, forked by `forks`; leads a session of its own, as a worker of Dagster's does."""

    def __init__(self, case: Case, *, environ: Mapping[str, str] | None = None, heed_modes: bool = False) -> None:
        """Args:
        heed_modes: let the process obey the modes of files, which root otherwise need not.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="fabric-case-", ignore_cleanup_errors=True)
        file, self._log = Path(self._folder.name) / "case.json", Path(self._folder.name) / "log"
        file.write_text(json.dumps(asdict(case)))
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        without_override = ("setpriv", "--bounding-set", "-dac_override") if heed_modes and os.geteuid() == 0 else ()
        (stdin, written), (said, stdout) = os.pipe(), os.pipe()
        self._input, self._output = os.fdopen(written, "wb", buffering=0), os.fdopen(said)
        with self._log.open("w") as log:
            try:
                self._process = get_server(*without_override).start(file, {**os.environ, **(environ or {})}, (stdin, stdout, log.fileno()))
            finally:
                os.close(stdin)
                os.close(stdout)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.outcomes: list[dict[str, Any]] = []
        self.output: list[str] = []
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.wait(0) is None

    @property
    def is_committing(self) -> bool:
        """Whether a commit that is held (`Case.hold`) waits by now."""
        self._read_all()
        return any(line.startswith('{"committing"') for line in self.output)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def go(self) -> None:
        self._input.write(b"\n")

    def send(self, number: signal.Signals) -> None:
        """To the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code: negative for the signal that ended it."""
        code = self._process.wait(seconds)
        if code is None:
            threads = describe_threads(self.pid)
            self.send(signal.SIGABRT)
            self._process.wait()
            raise AssertionError(f"still running after {seconds:g} s; its threads:\n{threads}\nit wrote:\n{self.log}")
        self._reader.join()
        self._read_all()
        return code

    def close(self) -> None:
        if self.is_alive:
            self.send(signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._input.close()
        self._folder.cleanup()

    def get_outcome(self) -> dict[str, Any]:
        """What its one load said."""
        (outcome,) = self.outcomes
        return outcome

    def _read(self) -> None:
        with self._output:
            for line in self._output:
                self._lines.put(line)

    def _wait_until_ready(self) -> None:
        try:
            assert "ready" in json.loads(self._lines.get(timeout=SECONDS))
        except queue.Empty:
            raise AssertionError(f"the runner did not start:\n{self.log}") from None

    def _read_all(self) -> None:
        while not self._lines.empty():
            line = self._lines.get()
            self.output.append(line)
            if line.startswith('{"outcome"'):
                self.outcomes.append(json.loads(line)["outcome"])


def describe_threads(pid: int) -> str:
    """A line per thread: its state, what it waits for in the kernel, and the signals that are pending, blocked, ignored and caught."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines() if ":" in line)
            names = ("Name", "State", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
            lines.append(f"{task.name} {(task / 'wchan').read_text()} " + " ".join(f"{name}={status[name].strip()}" for name in names))
    return "\n".join(lines)


def wait_until(happened: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Poll for something another process does."""
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Let processes that start meanwhile heed SIGINT: in a shell's background pytest ignores it, and its children would too."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def stop_group(process: "subprocess.Popen[Any]") -> None:
    """Interrupt a process with its group, wait until it ends, and kill what is left of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
