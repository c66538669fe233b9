"""dbt's message about a file of the shared project -> the wrong model, the line, and what to write instead.

A model, or a snapshot in SQL, that dbt cannot parse is replaced by a stand-in while the rest is parsed. So only the models built on it cannot be built, by the
tenants that have it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fabric_assets.suggestions import build_hint
from fabric_assets.transform.graph import Mistake, ModelNode
from fabric_assets.transform.renames import Relation
from fabric_assets.transform.worker.manifest import get_owner

_FILE = re.compile(r"\((?P<file>(?:models|macros|tests|seeds|snapshots)/[^()\n]+\.(?:sql|ya?ml|md))\)")
_READING = re.compile(r"Error reading \w+: (?P<file>\S+\.ya?ml)")  # below the folder of models, seeds or snapshots
# dbt's words about a value of a yml.
_FIELD = re.compile(r"Field \"(?P<field>\w+)\" .*? has invalid value (?P<value>\S+)|at path \[[^\n]*?'(?P<last>\w+)'\](?:\[\d+\])*: (?P<given>\S+) is not")
_LINE = re.compile(r"\bline (?P<line>\d+)")
_MISSING = re.compile(r"depends on (?:a node|a source) named '(?P<name>[^']+)'.*? which was not found", re.DOTALL)
_IS_SOURCE = re.compile(r"depends on a source named")
_CONFIG = re.compile(r"\{\{-?\s*config\s*\(.*?\)\s*-?\}\}", re.DOTALL)
_HEADING = re.compile(r"^\s*(?:Compilation|Parsing|Runtime|Dependency) Error.*$")
_BODY = "select 1 as not_built\n"
_SNAPSHOT = re.compile(r"\{%[-+]?\s*snapshot\s+(\w+)")
# Without a strategy dbt parses no snapshot.
_SNAPSHOT_CONFIG = "{{ config(strategy='check', unique_key='not_built', check_cols='all') }}"


@dataclass(frozen=True)
class Found:
    """A mistake whose nearest right name is not known yet.

    Args:
        missing: a name in a ref() or source() that does not exist.
        keeps_config: whether the stand-in has the model's config block, by which it may be selected, e.g. by a tag.
    """

    mistake: Mistake
    missing: str = ""
    keeps_config: bool = True


def locate(message: str, project: Path) -> Found | None:
    """Find the file and line that dbt's message is about; None where it names no file of the project."""
    if match := _FILE.search(message):
        files = [match["file"]]
    else:
        files = [f"{folder}/{match['file']}" for folder in ("models", "seeds", "snapshots")] if (match := _READING.search(message)) else []
    file = next((file for file in files if (project / file).is_file()), None)
    if file is None:
        return None
    text = (project / file).read_text(encoding="utf-8", errors="replace")
    if missing := _MISSING.search(message):
        name = missing["name"]
        call = "source({})".format(", ".join(f"'{part}'" for part in name.split("."))) if _IS_SOURCE.search(message) else f"ref('{name}')"
        return Found(Mistake(file, _find_line(text, name), f"{call} does not exist"), name)
    line = _LINE.search(message)
    field = _FIELD.search(message)
    number = int(line["line"]) if line else _find_field(text, field) if field else 1
    words = " ".join(part.strip() for part in message.splitlines() if part.strip() and not _HEADING.match(part))
    return Found(Mistake(file, number, words or " ".join(message.split())))


def is_replaceable(found: Found) -> bool:
    """Whether the file is a shared model's, or that of shared snapshots in SQL."""
    file = found.mistake.file
    return file.startswith(("models/", "snapshots/")) and get_owner(file) is None and file.endswith(".sql")


def build_stand_in(found: Found, text: str) -> str:
    config = _CONFIG.search(text) if found.keeps_config else None
    if found.mistake.file.startswith("snapshots/"):
        body = f"{config[0] if config else _SNAPSHOT_CONFIG}\n{_BODY}{{% endsnapshot %}}\n"
        return "".join(f"{{% snapshot {name} %}}\n{body}" for name in _SNAPSHOT.findall(text))
    return f"{config[0]}\n{_BODY}" if config else _BODY


def suggest_name(found: Found, known: Iterable[str]) -> Mistake:
    """Add the nearest existing name."""
    hint = build_hint(found.missing, known) if found.missing else ""
    return replace(found.mistake, message=found.mistake.message + hint)


def name_new_model(message: str, renamed: Mapping[Relation, ModelNode]) -> str:
    """Add the new name to dbt's message about a ref() that finds nothing, if a model had that name before."""
    missing = _MISSING.search(message)
    new = next((model for (_, name), model in renamed.items() if missing is not None and name == missing["name"]), None)
    return f"{message}\n{missing['name']} was renamed: use ref('{new.name}')" if missing is not None and new is not None else message


def _find_line(text: str, name: str) -> int:
    """Find the line of the call. If Jinja builds the name, it is not found, and this gives the file's first line."""
    pattern = re.compile(r"(?:ref|source)\s*\([^)]*['\"]" + re.escape(name.rsplit(".", 1)[-1]) + r"['\"]")
    match = pattern.search(text)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _find_field(text: str, found: re.Match[str]) -> int:
    """Find the line of a field with the value that dbt refuses, or else its first line with any value."""
    field, value = found["field"] or found["last"], (found["value"] or found["given"]).strip("'\"")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if re.search(rf"\b{re.escape(field)}['\"]?\s*:", line)]
    return next((number for number, line in lines if value in line), lines[0][0] if lines else 1)
