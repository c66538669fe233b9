"""The operators' list -> locked packages and one read-only environment for each set of them.

uv resolves and installs. An environment is built under another name and renamed when it is complete: a killed installation leaves nothing that a load would
use. Installations wait for each other.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.bound_commands import bind
from fabric_assets.config.connectors_file import ConnectorEntry
from fabric_assets.connectors.bridge.installing.environments import get_folder, get_link
from fabric_assets.connectors.bridge.installing.lock_file import Locked, digest_entry, read_lock, write_lock
from fabric_assets.connectors.bridge.installing.programs import copy_own_files, digest_own_files, get_program, list_requirements
from fabric_assets.connectors.bridge.installing.removal import remove_unused
from fabric_assets.connectors.bridge.installing.specs import read_spec
from fabric_assets.errors import ConfigurationError
from fabric_assets.masking import mask
from fabric_assets.private_files import FileLock, write_atomically
from fabric_assets.settings import Settings

_TIMEOUT_SECONDS = 1800
_MOST_LINES = 15
BUILDING = ".building-"
# uv trusts whom the machine trusts, a company's proxy included.
_TRUST = {"UV_SYSTEM_CERTS": "1"}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Installed:
    """What became of a connector.

    Args:
        was: installed, or unchanged.
        changes: differences of its settings to those that it had before, in words.
    """

    name: str
    was: str
    packages: int
    changes: tuple[str, ...] = ()


def get_lock_file(settings: Settings) -> Path:
    """Get connectors.lock, which lies beside connectors.yaml."""
    return settings.connectors.with_suffix(".lock")


def install(settings: Settings, connectors: Mapping[str, ConnectorEntry], *, names: Sequence[str], frozen: bool = False, report: Report) -> Iterator[Installed]:
    """Lock and install connectors, and remove environments that no connector needs and no run holds.

    Args:
        names: of the connectors to install.
        frozen: refuse connectors that the lock file does not hold as connectors.yaml says.

    Raises:
        ConfigurationError: a connector cannot be locked or installed; those before it are installed.
    """
    folder, uv = get_folder(settings), find_uv()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name("install.lock"), on_held=lambda note: report("another installation runs; waiting for it")):
        for left in folder.glob(f"{BUILDING}*"):
            shutil.rmtree(left)
        locked = read_lock(get_lock_file(settings))
        for name in names:
            entry = connectors[name]
            files = digest_own_files(settings, name, entry)
            if (found := locked.get(name)) is None or (found.entry, found.files) != (digest_entry(entry), files):
                if frozen:
                    raise ConfigurationError(
                        f"connectors.lock does not hold the connector {name} as connectors.yaml says",
                        remedy="run `fabric connectors install` without --frozen, and commit connectors.lock",
                    )
                locked[name] = found = _lock(uv, name, entry, files)
                write_lock(get_lock_file(settings), locked)
            yield _install(settings, uv, name, entry, found)
        if gone := locked.keys() - connectors.keys():
            write_lock(get_lock_file(settings), {name: each for name, each in locked.items() if name not in gone})
            for name in gone:
                get_link(settings, name).unlink(missing_ok=True)
        remove_unused(settings, connectors)


def find_uv() -> str:
    """Find uv: that of the extra `connectors`, else one on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigurationError("connectors are installed with uv, which is not there", remedy="install the extra: pip install 'etl-fabric[connectors]'")
    return found


def _lock(uv: str, name: str, entry: ConnectorEntry, files: str) -> Locked:
    """Resolve a connector's packages."""
    python = entry.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        wanted.write_text("".join(f"{each}\n" for each in list_requirements(entry)))
        command = [uv, "pip", "compile", str(wanted), "--output-file", str(found), "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
        _run([*command, "--python-version", python, *([] if entry.build else ["--only-binary", ":all:"])], name, "cannot be resolved")
        lines = found.read_text().replace("\\\n", " ").splitlines()
    return Locked(digest_entry(entry), python, tuple(" ".join(line.split()) for line in lines if line.strip()), files)


def _install(settings: Settings, uv: str, name: str, entry: ConnectorEntry, locked: Locked) -> Installed:
    folder = get_folder(settings) / locked.id
    record_file = folder.with_name(f"{folder.name}.json")
    record: dict[str, Any] = json.loads(record_file.read_text()) if record_file.is_file() else {"connectors": {}}
    link = get_link(settings, name)
    before = _read_spec_before(link, name)
    if is_new := not folder.is_dir() or not record_file.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        record = {"connectors": {}, "base_prefix": _build(settings, uv, folder, name, entry, locked)}
    if not get_program(folder, entry).is_file():
        raise ConfigurationError(
            f"the packages of the connector {name} install no program {entry.executable}", remedy="correct `executable`, or `requirements`"
        )
    # The same packages may serve several entries, such as two sources of one package.
    described = record["connectors"].get(name)
    program = entry.source or entry.executable
    if described is None or described.get("program") != program:
        described = {**read_spec(folder, Path(record["base_prefix"]), name, entry), "program": program}
    record["connectors"][name] = described
    spec = described["spec"]
    folder.with_name(f"{folder.name}.lock").touch(0o644)
    write_atomically(record_file, lambda stream: stream.write(json.dumps(record, indent=2).encode()))
    # The platform may run as another user than the one who installs.
    record_file.chmod(0o644)
    _switch(link, folder)
    return Installed(name, "installed" if is_new else "unchanged", len(locked.requirements), tuple(_compare(before, spec)))


def _build(settings: Settings, uv: str, folder: Path, name: str, entry: ConnectorEntry, locked: Locked) -> str:
    """Build an environment; return the prefix of its Python."""
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=BUILDING))
    try:
        environment, requirements = building / "environment", building / "requirements.txt"
        requirements.write_text("".join(f"{line}\n" for line in locked.requirements))
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        python = sys.executable if locked.python == own else locked.python
        _run([uv, "venv", "--quiet", "--relocatable", "--no-project", "--python", python, str(environment)], name, "cannot be installed")
        command = [
            uv,
            "pip",
            "sync",
            "--quiet",
            "--python",
            str(environment / "bin" / "python"),
            "--require-hashes",
            "--link-mode",
            "copy",
            "--compile-bytecode",
        ]
        _run([*command, *([] if entry.build else ["--only-binary", ":all:"]), str(requirements)], name, "cannot be installed")
        prefix = _run([str(environment / "bin" / "python"), "-I", "-c", "import sys; print(sys.base_prefix)"], name, "has no Python that runs").strip()
        copy_own_files(settings, entry, environment)
        _make_read_only(environment)
        environment.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return prefix


def _run(command: Sequence[str], name: str, problem: str) -> str:
    try:
        environ = {**_TRUST, **os.environ}
        done = subprocess.run(bind(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS, env=environ)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the connector {name} {problem}: uv took more than {_TIMEOUT_SECONDS} s", remedy="see whether the index answers") from None
    if done.returncode:
        said = "\n".join([line for line in mask(done.stderr or done.stdout).splitlines() if line.strip()][-_MOST_LINES:])
        raise ConfigurationError(
            f"the connector {name} {problem}. uv says:\n{said}", remedy="correct its requirements; `build: true` also allows packages that must be built"
        )
    return done.stdout


def _make_read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def _switch(link: Path, folder: Path) -> None:
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(folder, link.parent))
    new.replace(link)


def _read_spec_before(link: Path, name: str) -> Any:
    try:
        folder = link.resolve(strict=True)
        return json.loads(folder.with_name(f"{folder.name}.json").read_text())["connectors"][name]["spec"]
    except (OSError, ValueError, KeyError):
        return None


def _compare(before: Any, now: Any) -> Iterator[str]:
    """Describe what has changed in a connector's settings."""
    old, new = ((spec or {}).get("properties", {}) for spec in (before, now))
    if before is None:
        return
    yield from (f"the setting {name} is new" for name in new if name not in old)
    yield from (f"the setting {name} is gone" for name in old if name not in new)
    yield from (f"the setting {name} has another type" for name in new if name in old and old[name].get("type") != new[name].get("type"))
    yield from (f"the setting {name} is required now" for name in sorted(set((now or {}).get("required", ())) - set(before.get("required", ()))))
