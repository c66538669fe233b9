"""A running connector, as the load that started it sees it: its output in blocks of lines, and how it ended."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from fabric_assets.connectors.bridge.process.supervisor import Ending, Request
from fabric_assets.errors import FabricError, InternalError, SourceError, SourceUnavailable
from fabric_assets.masking import mask
from fabric_assets.private_files import widen_pipe

_ROOT = Path(__file__).resolve().parents[4]
_BLOCK = 1024 * 1024
# The last lines of a connector's log that an error shows, and the longest of them.
_LOG_LINES, _LOG_CHARS = 8, 400
_MB = 1024 * 1024


class Limits(NamedTuple):
    """What a connector may use.

    Args:
        memory: resident bytes of all its processes.
        cpu: seconds of processor time.
        seconds: the longest time of a run.
        line: bytes of the longest line of its output.
        processes: at a time.
    """

    memory: int = 2048 * _MB
    cpu: float = 3600.0
    seconds: float = 3600.0
    line: int = 50 * _MB
    processes: int = 256


@dataclass(frozen=True)
class Command:
    """How a connector is started.

    Args:
        program: absolute path of an executable.
        arguments: texts; bytes stand for a file with that content, which is passed as an open descriptor and lies on no disk.
        environ: the connector's whole environment, besides HOME, TMPDIR and the proxy.
        readable: files and folders that it needs beside those of the system.
    """

    program: str
    arguments: Sequence[str | bytes] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    readable: Sequence[Path] = ()
    is_confined: bool = True
    allow_private_network: bool = False
    limits: Limits = field(default_factory=Limits)


# What programs need of a system to run at all: libraries, certificates, names of users and zones, and harmless devices.
_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/hosts", "/etc/resolv.conf"),
    *("/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime"),
    *("/etc/timezone", "/etc/mime.types", "/etc/os-release", "/dev/urandom", "/dev/random", "/dev/zero"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/kernel/random", "/sys/devices/system/cpu"),
)
_DEVICES = ("/dev/null",)
# Variables of the platform's own environment that a connector may see.
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
# Paths that it may also read.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_REMEDIES = {
    "memory": "raise limits.memory of the connector in connectors.yaml, or load fewer streams at a time",
    "cpu": "raise limits.cpu of the connector in connectors.yaml",
    "seconds": "raise the source's timeout",
    "processes": "report it to the connector's maintainers: a connector needs no more than a few processes",
}


class Connector:
    """A connector that runs, confined and watched. Read its output, `finish` it, and close it in any case.

    Args:
        where: tenant and source, for messages.
        folder: a private, empty folder: the connector's HOME; TMPDIR lies below it.
    """

    def __init__(self, command: Command, *, name: str, where: str, folder: Path) -> None:
        self._command, self._name, self._where = command, name, where
        self._log, self._rest, self._is_over = deque[str](maxlen=_LOG_LINES), b"", False
        temporary = folder / "tmp"
        temporary.mkdir(mode=0o700)
        arguments, files = list[str](), list[int]()
        requests, self._lifeline = os.pipe()
        self._answer, answers = os.pipe()
        try:
            for argument in command.arguments:
                if isinstance(argument, bytes):
                    files.append(_make_file(argument))
                arguments.append(f"/dev/fd/{files[-1]}" if isinstance(argument, bytes) else argument)
            request = Request(
                command=(command.program, *arguments),
                environ=_build_environ(command.environ, folder, temporary),
                folder=str(folder),
                readable=[*_SYSTEM, *map(str, command.readable), *(os.environ[name] for name in _CERTIFICATES if os.environ.get(name))],
                writable=[*_DEVICES, str(folder)],
                descriptors=files,
                token=secrets.token_urlsafe(24),
                is_confined=command.is_confined,
                allow_private_network=command.allow_private_network,
                memory=command.limits.memory,
                cpu=command.limits.cpu,
                seconds=command.limits.seconds,
                processes=command.limits.processes,
            )
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, str(_ROOT), str(requests), str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                pass_fds=(requests, answers, *files),
                start_new_session=True,
            )
            assert self._process.stdout is not None
            widen_pipe(self._process.stdout.fileno(), _BLOCK)
            os.write(self._lifeline, json.dumps(asdict(request)).encode() + b"\n")
        except BaseException:
            os.close(self._lifeline)
            os.close(self._answer)
            raise
        finally:
            for number in (requests, answers, *files):
                os.close(number)
        self._reader = threading.Thread(target=self._read_log, daemon=True, name=f"{where}: log of {name}")
        self._reader.start()

    def read_lines(self) -> Iterator[list[bytes]]:
        """Read the connector's output up to its end: blocks of whole lines, without their line ends.

        Raises:
            FabricError: a line is longer than the limit.
        """
        for block in self.read_blocks():
            yield block.removesuffix(b"\n").split(b"\n")

    def read_blocks(self) -> Iterator[bytes]:
        """Read the connector's output up to its end: blocks of whole lines.

        Raises:
            FabricError: a line is longer than the limit.
        """
        assert self._process.stdout is not None
        parts, size = list[bytes](), 0
        while block := os.read(self._process.stdout.fileno(), _BLOCK):
            whole, end, rest = block.rpartition(b"\n")
            if end:
                yield b"".join([*parts, whole, end])
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > self._command.limits.line:
                self.close()
                raise SourceError(
                    f"{self._where}: the connector {self._name} wrote a line of over {self._command.limits.line // _MB} MB{self._show_log()}",
                    remedy="raise limits.line of the connector in connectors.yaml, or leave out the field that holds so much",
                )
        self._rest = b"".join(parts)

    def finish(self) -> bytes:
        """Wait for the end of the connector, whose output has been read.

        Returns:
            what follows the last line end; empty after whole lines.

        Raises:
            FabricError: it failed, or exceeded a limit.
        """
        ending = self._read_ending()
        if error := self._find_error(ending):
            raise error
        return self._rest

    def _find_error(self, ending: Ending) -> FabricError | None:
        subject = f"{self._where}: the connector {self._name}"
        if ending.problem:
            return SourceError(f"{subject} could not be started: {ending.problem}", remedy=f"see what is missing with: fabric connectors check {self._name}")
        if ending.limit:
            return SourceError(f"{subject} was ended: it used {_describe_use(ending)}{self._show_log()}", remedy=_REMEDIES[ending.limit])
        if ending.code:
            how = f"was ended by signal {-ending.code}" if ending.code < 0 else f"ended with exit code {ending.code}"
            refused = f"; the load did not connect to {ending.refused[0]}" if ending.refused else ""
            remedy = "see the connector's own message; the next run reads on from the last commit"
            if refused:
                remedy = "if that address is in your own network, add allow_private_network: true to the source"
            return SourceUnavailable(f"{subject} {how}{refused}{self._show_log()}", remedy=remedy)
        return None

    def _read_ending(self) -> Ending:
        with os.fdopen(os.dup(self._answer)) as answer:
            text = answer.read()
        self.close()
        if not text:
            raise InternalError(f"{self._where}: a fault of ETL Fabric: the supervisor of the connector {self._name} ended without an answer{self._show_log()}")
        return Ending(**json.loads(text))

    def _show_log(self) -> str:
        """Show the last lines of the connector's log, masked."""
        lines = [mask(line[:_LOG_CHARS]) for line in self._log if line.strip()]
        return "".join(f"\n  {self._name}: {line}" for line in lines)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        while block := os.read(self._process.stderr.fileno(), 65536):
            *lines, rest = (rest + block).split(b"\n")
            self._log.extend(line.decode(errors="replace") for line in lines[-_LOG_LINES:])
            rest = rest[: _LOG_CHARS * 8]
        if rest:
            self._log.append(rest.decode(errors="replace"))

    def close(self) -> None:
        """End the connector with all its descendants, if they still run. A second call does nothing."""
        if self._is_over:
            return
        self._is_over = True
        # Its end tells the supervisor to end everything.
        os.close(self._lifeline)
        os.close(self._answer)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "Connector":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _describe_use(ending: Ending) -> str:
    match ending.limit:
        case "memory":
            return f"{ending.memory // _MB:,} MB of memory, more than it may"
        case "cpu":
            return f"{ending.cpu:,.0f} s of processor time, more than it may"
        case "processes":
            return "more processes than it may"
    return "more time than it may"


# The supervisor imports this package, and no other folder of the environment's path.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from fabric_assets.connectors.bridge.process.supervisor import main; main()"


def _make_file(content: bytes) -> int:
    """Make a file in memory; return its descriptor."""
    descriptor = os.memfd_create("connector")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def _build_environ(own: Mapping[str, str], folder: Path, temporary: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_KEPT, *_CERTIFICATES) if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", **kept, **own}
