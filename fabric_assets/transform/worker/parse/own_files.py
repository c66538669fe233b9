"""A tenant's own folders of the dbt project -> what is wrong with them, before dbt reads it together with everybody else's.

To dbt, all files are one project. Any yml may configure and test any model, and a name that two files use is an error that stops everybody. So a tenant's files
may only name what begins with the tenant's own name. Their text alone shows whether they do.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbt.clients.checked_load import checked_load
from dbt_common.exceptions import DbtBaseException

from fabric_assets.transform.fingerprint import OWN_FOLDERS

# The keys that a tenant's yml may have, each with the field that names the model, seed or snapshot of an entry.
_SUBJECTS = {"models": "name", "unit_tests": "model", "seeds": "name", "snapshots": "name"}
_SNAPSHOT = re.compile(rb"\{%[-+]?\s*snapshot\s+(\w+)")
# Editors' own files: dbt reads no file whose name begins like this.
_UNREAD = (".", "#", "~")
_UNIQUE = "dbt wants names that are unique among all tenants; its table is then named"
# What dbt reads of these folders while it parses. It reads a seed while it builds, where only that seed fails.
_TEXTS = frozenset({".sql", ".yml", ".yaml", ".md"})
_MOST_MEGABYTES = 16
# dbt holds every value of a seed as an object of Python.
MOST_SEED_MEGABYTES = 1


def find_file_problems(project: Path, tenant: str) -> Iterator[str]:
    """Yield everything that is wrong in the tenant's folders, each with its file."""
    for folder in OWN_FOLDERS:
        for path in sorted((project / folder / tenant).rglob("*")):
            if not is_unread(path):
                yield from (f"{path.relative_to(project).as_posix()}: {problem}" for problem in _find_problems(path, tenant, kind=folder.split("/")[0]))


def is_unread(path: Path) -> bool:
    """Whether dbt does not read a file in a tenant's own folder. A link to a folder always counts as read."""
    return path.name.startswith(_UNREAD) and not path.is_dir()


def _find_problems(path: Path, tenant: str, *, kind: str) -> Iterator[str]:
    """Yield what is wrong with a file.

    Args:
        kind: `models`, `seeds` or `snapshots`, as the folder says.
    """
    suffix = path.suffix.lower()
    if path.is_symlink():
        yield "it is a link; put the file itself there"
    elif path.is_dir():
        return
    elif not path.is_file():
        yield "it is no regular file but a pipe, a socket or a device; remove it"
    elif (size := path.stat().st_size) > _MOST_MEGABYTES * 2**20:
        yield f"it has {size // 2**20} MB, more than {_MOST_MEGABYTES}: keep data out of the dbt project, e.g. in a source of type files"
    elif suffix in _TEXTS and (line := _find_bad_line(path.read_bytes())):
        yield f"line {line} is no UTF-8 text: save the file as UTF-8"
    elif kind == "seeds" and suffix == ".csv":
        yield from _find_seed_problems(path, tenant, size)
    elif suffix == ".py":
        yield "a tenant's own models are SQL: a Python model would run in the platform's process"
    elif kind == "snapshots" and suffix == ".sql":
        names = [name.decode() for name in _SNAPSHOT.findall(path.read_bytes())]
        yield from (f"name the snapshot {tenant}__{name}: {_UNIQUE} {name}" for name in names if not name.startswith(f"{tenant}__"))
    elif suffix == ".sql" and not path.stem.startswith(f"{tenant}__"):
        yield f"name the file {tenant}__{path.stem}.sql: {_UNIQUE} {path.stem}"
    elif suffix in {".yml", ".yaml"}:
        yield from _find_yaml_problems(path, tenant)
    elif suffix == ".md" and b"{%" in path.read_bytes():
        yield "a docs block belongs to the whole project; write the description into the yml"


def _find_bad_line(content: bytes) -> int:
    """Find the first line that is no UTF-8 text; 0 if there is none. dbt's own message names no file."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 0


def _find_seed_problems(path: Path, tenant: str, size: int) -> Iterator[str]:
    if size > MOST_SEED_MEGABYTES * 2**20:
        megabytes = f"{size / 2**20:.1f} MB, more than {MOST_SEED_MEGABYTES}"
        yield f"it has {megabytes}: a seed is a short list; load more rows as a source of type files or csv_import"
    if not path.stem.startswith(f"{tenant}__"):
        yield f"name the file {tenant}__{path.name}: {_UNIQUE} {path.stem}"


def _find_yaml_problems(path: Path, tenant: str) -> Iterator[str]:
    try:
        content = checked_load(path.read_text(encoding="utf-8").strip())[0] or {}
    except (DbtBaseException, ValueError) as error:
        yield str(error)
        return
    if not isinstance(content, dict):
        yield "it is no mapping; begin with models:, seeds: or snapshots:"
        return
    for key in content:
        if key not in {"version", *_SUBJECTS}:
            yield f"{key} would hold for the whole project: a tenant's own yml has {', '.join(_SUBJECTS)}; declare the rest outside of that tenant's folders"
    for key, field in _SUBJECTS.items():
        for entry in _list_mappings(content.get(key)):
            files = [version["defined_in"] for version in _list_mappings(entry.get("versions")) if "defined_in" in version]
            for name in (entry.get(field), *files):
                if not _is_own(name, tenant):
                    yield f"{key} names {name}; a tenant's own yml may describe and test what is that tenant's own: {tenant}__<name>"


def _is_own(name: Any, tenant: str) -> bool:
    """Whether a name is literally the tenant's: dbt renders Jinja in a yml's names, with a result that is unknown here."""
    return isinstance(name, str) and re.fullmatch(rf"{re.escape(tenant)}__\w+", name, re.ASCII) is not None


def _list_mappings(value: Any) -> list[dict[Any, Any]]:
    """List the mappings of a list. dbt refuses any other value, and names the file."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
