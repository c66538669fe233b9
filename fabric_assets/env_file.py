"""`.env` -> environment variables, for local work; a variable that is really set wins over the file.

The first process of a tree (`fabric`, `make dev`, a code server) reads the file in its folder and passes its path to its children. A run reads the same
file again as it starts, so an edit needs no restart. Only the first process reads the platform's own variables: a run under other settings than those of
its code server would work on another fleet.
"""

import io
import os
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from fabric_assets.errors import ConfigurationError
from fabric_assets.naming import PLATFORM_VARIABLES

# Variables for child processes: the file, and the names of the variables that came from it.
_FILE, _NAMES = "_FABRIC_ENV_FILE", "_FABRIC_ENV_NAMES"
# The command line of a Dagster process, as the system has it: a script of that name, or a module.
_COMMAND = re.compile(rb"^[^\0]*\0?(?:[^\0]*/(?:dagster|dg)|-m\0dagster)\0|^(?:[^\0]*/)?(?:dagster|dg)\0")


def load_env_file(folder: Path | None = None, environ: MutableMapping[str, str] | None = None) -> None:
    """Set the file's variables that the environment does not have; in a child process, update those that came from the file.

    Args:
        folder: the file's folder, for the first process of a tree; default: the current folder.
        environ: default: `os.environ`.

    Raises:
        ConfigurationError: the file cannot be read, or is not UTF-8.
    """
    env = os.environ if environ is None else environ
    is_first = _FILE not in env
    if is_first:
        env[_FILE] = str((folder or Path.cwd()) / ".env")
    known = set(filter(None, env.get(_NAMES, "").split(",")))
    values = _read_values(Path(env[_FILE])) if Path(env[_FILE]).is_file() else {}
    if values and environ is None and (real := _find_real_environment()) is not None:
        for name in values.keys() - known:
            if name in real:
                env[name] = real[name]
            else:
                env.pop(name, None)
    for name in known - values.keys():
        if not name.startswith(PLATFORM_VARIABLES):
            env.pop(name, None)
    for name, value in values.items():
        is_own = name.startswith(PLATFORM_VARIABLES)
        if (name not in env and (is_first or not is_own)) or (name in known and not is_own):
            env[name] = value
            known.add(name)
    env[_NAMES] = ",".join(sorted(known))


def _find_real_environment() -> dict[str, str] | None:
    """Find the variables with which the outermost Dagster command above this process started.

    Returns None outside of such a command, and where the system does not tell.

    `dagster code-server start`, `dagster dev` and `dg dev` override variables that are really set by the `.env` of their folder, before our code runs.
    """
    found, process = None, Path("/proc/self")
    with suppress(OSError, ValueError):
        while _COMMAND.search((process / "cmdline").read_bytes()):
            entries = os.fsdecode((process / "environ").read_bytes()).split("\0")
            found = dict(entry.split("=", 1) for entry in entries if "=" in entry)
            # The second field, the program's name, may contain anything, but is in brackets.
            process = Path("/proc", (process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _read_values(file: Path) -> dict[str, str]:
    """Read a file's variables. A wrong line is left out, and its number is printed on standard error, without its text, which may hold a secret."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{file}:{line}: the line is not UTF-8", remedy="save the file as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}", remedy="let the user of this process read it, or remove it") from None
    good = []
    for found in parse_stream(io.StringIO(text)):
        if found.error or (found.key and found.value is None):
            written = found.original.string
            line = found.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            print(f"warning: {file}:{line}: the line is left out; write NAME=value, and close each quote", file=sys.stderr)
        else:
            good.append(found.original.string)
    return {name: value for name, value in dotenv_values(stream=io.StringIO("".join(good))).items() if value is not None}
