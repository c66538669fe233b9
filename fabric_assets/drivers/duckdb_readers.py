"""A DuckDB file that another program has open -> a wait until it is closed there, and the name of that program."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import duckdb

# The longest wait for a program that reads a tenant's file.
READER_SECONDS = 60.0
_POLL_SECONDS = 0.1
_HOLDER = re.compile(r"\(PID (\d+)\)")
_SHOWN = 3
Opened = TypeVar("Opened")


def is_held(error: duckdb.Error) -> bool:
    """Whether a file could not be opened because another program has it open."""
    return "Could not set lock on file" in str(error)


def open_when_free(open_: Callable[[], Opened], file: Path, *, seconds: float = READER_SECONDS, report: Callable[[str], None] | None = None) -> Opened:
    """Open a file for writing, and wait for programs that read it: DuckDB lets nobody write meanwhile.

    Args:
        open_: opens it.
        report: called once if there is a wait.

    Raises:
        duckdb.Error: see `build_open_error`; also if the file was not closed elsewhere in time.
    """
    ends, is_reported = time.monotonic() + seconds, False
    while True:
        try:
            return open_()
        except duckdb.IOException as error:
            if not is_held(error) or time.monotonic() >= ends:
                raise
            if report and not is_reported:
                report(f"{file.name} is open in another program: {describe_holder(error)}; waiting for up to {seconds:g} s")
                is_reported = True
        time.sleep(_POLL_SECONDS)


def describe_holder(error: duckdb.Error) -> str:
    """Name the process that has the file open, by its id and command; without either, give DuckDB's own words."""
    text = str(error)
    if not (found := _HOLDER.search(text)):
        return text
    command = " ".join(_read_command(Path("/proc", found[1])))
    return f"process {found[1]}{f' ({command})' if command else ''}"


def _read_command(process: Path) -> Iterator[str]:
    """Give the names of a process's program and of the files among its arguments. Other arguments are left out: they may be passwords."""
    with suppress(OSError):
        program, *arguments = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        yield Path(os.fsdecode(program)).name
        names = [os.fsdecode(each) for each in arguments if each and not each.startswith(b"-")]
        with suppress(OSError, ValueError):
            yield from [Path(name).name for name in names if (process / "cwd" / name).is_file()][:_SHOWN]
