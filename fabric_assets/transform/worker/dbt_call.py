"""A dbt command -> run in this process with the platform's arguments, and its messages in plain text."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest

from fabric_assets.transform.worker.parse.packages import allow_missing_secrets
from fabric_assets.transform.worker.profiles import PROFILE
from fabric_assets.transform.worker.sandbox import close_sandbox

# The folder, below the run's own, with copies of a tenant's own seeds.
SEED_COPIES = "own_seeds"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NOISE = re.compile(r"^\s*(compiled code at .*|\[[^\]]*\])?\s*$")


def call_dbt(
    command: str, *arguments: str, project_dir: str, folder: Path, manifest: Manifest | None = None, on_event: Callable[[Any], None] | None = None
) -> dbtRunnerResult:
    """Run a dbt command in this process. Its files go below `folder`, which holds the profile.

    With a manifest dbt parses nothing. It writes no artifacts and no log file: nobody reads them, and a log holds the tenant's SQL. Its logger to the terminal
    is off too, since it formats even the debug lines that it drops: messages worth reading are printed here. The sandbox is closed before any template is
    rendered.
    """

    def receive(event: Any) -> None:
        if event.info.level != "debug":
            print(event.info.msg, file=sys.stderr)
        if on_event:
            on_event(event)

    allow_missing_secrets(project_dir)
    close_sandbox()
    return dbtRunner(manifest=manifest, callbacks=[receive]).invoke(
        [
            command,
            *arguments,
            *(
                "--project-dir",
                project_dir,
                "--profiles-dir",
                str(folder),
                "--profile",
                PROFILE,
                "--target-path",
                str(folder / "target"),
                "--log-path",
                str(folder),
            ),
            *("--no-partial-parse", "--no-write-json", "--no-use-colors", "--log-level", "none", "--log-level-file", "none", "--no-send-anonymous-usage-stats"),
        ]
    )


def clean_message(text: str | None, *, hidden: Path | None = None) -> str:
    """Remove colours, empty lines and lines with the path of the run's own folder. A copied seed is named as in the project.

    Args:
        hidden: the run's folder.
    """
    text = _ANSI.sub("", text or "")
    lines = (text.replace(f"{hidden / SEED_COPIES}/", "") if hidden else text).splitlines()
    return "\n".join(_keep(lines, str(hidden) if hidden else None))


def _keep(lines: list[str], hidden: str | None) -> Iterator[str]:
    for line in lines:
        if not _NOISE.match(line) and not (hidden and hidden in line):
            yield line.rstrip()
