"""deploy/'s systemd units and env files -> what systemd would start, on folders of a test's own."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
FLEETS = ("fleet_a", "fleet_b")


@dataclass(frozen=True)
class Unit:
    """A unit, its specifiers filled in.

    Args:
        lines: section -> key -> values in the order of the file.
    """

    name: str
    lines: Mapping[str, Mapping[str, list[str]]]

    def get(self, key: str) -> str:
        (value,) = self.lines["Service"][key]
        return value

    def get_environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.lines["Service"]["Environment"] for pair in shlex.split(line))

    def get_commands(self) -> list[list[str]]:
        """List the commands of the unit, those that prepare it first."""
        service = self.lines["Service"]
        return [shlex.split(line) for line in [*service.get("ExecStartPre", []), *service["ExecStart"]]]


def read_unit(file: Path, instance: str = "") -> Unit:
    lines: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in file.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            lines.setdefault(section, {}).setdefault(key, []).append(value.replace("%i", instance))
    return Unit(file.stem, lines)


def read_env_file(file: Path) -> dict[str, str]:
    """Read an EnvironmentFile without quotes, as systemd does."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)
